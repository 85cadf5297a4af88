import { defineConfig } from "vitest/config";
import { JOURNEYS } from "./vitest.journeys.config.ts";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/crash/**", "test/peers/**", "test/browser/**", "test/slow/**", ...JOURNEYS],
    globalSetup: ["test/kit/program-setup.ts"],
    restoreMocks: true,
    unstubEnvs: true,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    maxWorkers: 2,
  },
});
