import { defineConfig } from 'vitest/config';

// The real pages in a real browser, against a real service with a real VM. One after the other: a VM takes what the machine has.
export default defineConfig({
  test: {
    include: ['tests/**/*.e2e.ts'],
    fileParallelism: false,
    sequence: { concurrent: false },
    // What comes after a failure would only fail for the same reason.
    bail: 1,
    testTimeout: 90_000,
    hookTimeout: 240_000,
    reporters: ['verbose'],
  },
});
