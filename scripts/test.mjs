// `npm test`: the suite that needs nothing but this clone. Ends with one plain line `N passed, N failed`.
// Other suites: `npm test -- journeys|crash|browser|peers`. Their configs are vitest.<suite>.config.ts.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const [major, minor, patch] = process.versions.node.split(".").map(Number);
if (
  !(
    (major === 22 && (minor > 22 || (minor === 22 && patch >= 2))) ||
    (major === 24 && minor >= 15) ||
    major > 24
  )
) {
  process.stderr.write(
    `Node ${process.versions.node} is too old for the tests; run them by "npm test" after "npm ci".\n`,
  );
  process.exit(1);
}

const suite = /^[a-z]+$/.test(process.argv[2] ?? "") ? process.argv[2] : null;
const config = suite === null ? "vitest.config.ts" : `vitest.${suite}.config.ts`;
const rest = process.argv.slice(suite === null ? 2 : 3);
const folder = mkdtempSync(join(tmpdir(), "imkit-rotator-test-"));
const report = join(folder, "report.json");

const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
const args = [
  vitest,
  "run",
  "--config",
  config,
  "--reporter=default",
  "--reporter=json",
  `--outputFile.json=${report}`,
];
const status = await new Promise((resolve) => {
  const child = spawn(process.execPath, [...args, ...rest], { cwd: root, stdio: "inherit" });
  child.on("exit", (code) => resolve(code ?? 1));
});

let passed = 0;
let failed = 0;
if (existsSync(report)) {
  const result = JSON.parse(readFileSync(report, "utf8"));
  passed = result.numPassedTests;
  failed = result.numFailedTests;
  // A file that could not be loaded has no tests to count, and is a failure all the same.
  failed += result.testResults.filter(
    (f) => f.status === "failed" && f.assertionResults.every((t) => t.status !== "failed"),
  ).length;
}
rmSync(folder, { recursive: true, force: true });
if (status !== 0 && failed === 0) failed = 1;
if (passed === 0 && failed === 0) failed = 1;
if (suite === null) {
  process.stdout.write(
    "\nLeft out here (they need strace, Debian's Chromium, Python packages, or minutes): " +
      "npm test -- journeys, npm test -- crash, npm test -- slow, npm test -- browser, npm test -- peers\n",
  );
}
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exit(failed === 0 ? 0 : 1);
