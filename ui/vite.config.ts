import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  // The pages stand below a path that is new in every session.
  base: './',
  plugins: [svelte()],
  build: {
    rolldownOptions: { checks: { pluginTimings: false } },
    target: 'es2022',
    // Chunks are loaded by the browser's own import(), and the one style sheet has the rules of all.
    modulePreload: false,
    cssCodeSplit: false,
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 800,
  },
  test: { include: ['src/**/*.test.ts'] },
});
