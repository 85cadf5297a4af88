import { defineConfig } from "vitest/config";

// Each global setup installs and starts one peer, hands on its address, and stops it afterwards. One that does not start ends the run.
export default defineConfig({
  test: {
    include: ["test/peers/**/*.test.ts"],
    globalSetup: ["test/kit/program-setup.ts", "test/peers/up/aws.ts", "test/peers/up/kubernetes.ts"],
    testTimeout: 60_000,
    hookTimeout: 900_000,
    maxWorkers: 2,
  },
});
