import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  // The pages stand below a path that is new in every session.
  base: './',
  plugins: [svelte()],
  build: {
    rolldownOptions: { checks: { pluginTimings: false } },
    target: 'es2022',
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 800,
  },
  test: { include: ['src/**/*.test.ts'] },
});
