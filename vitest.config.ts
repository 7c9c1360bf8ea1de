import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.spec.ts'],
    testTimeout: 20_000,
    hookTimeout: 30_000,
    // Two cores: more files at a time only make the servers they start wait for each other.
    maxWorkers: 3,
  },
});
