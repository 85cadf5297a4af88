import { defineConfig } from "vitest/config";

/** Whole sessions on a terminal, most of their time spent waiting as a person does. */
export const JOURNEYS = ["test/shell/journeys/**/*.test.ts", "test/shell/leak-page.test.ts"];

export default defineConfig({
  test: {
    include: JOURNEYS,
    globalSetup: ["test/kit/program-setup.ts"],
    testTimeout: 180_000,
    hookTimeout: 300_000,
    maxWorkers: 2,
  },
});
