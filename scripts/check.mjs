// `npm run check`: the developers' one gate: format, lint, types, docs in step, dead code, tests.
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const bin = (name) => join(root, "node_modules", ".bin", name);
/** @type {readonly (readonly [string, string, readonly string[]])[]} */
const all = [
  ["format", bin("biome"), ["format", "."]],
  ["lint", bin("oxlint"), []],
  ["types", bin("tsc"), ["--noEmit", "-p", "."]],
  ["docs", process.execPath, [join(root, "scripts", "docs.ts"), "--check"]],
  ["dead code", bin("knip"), []],
  ["build", process.execPath, [join(root, "scripts", "build.mjs")]],
  ["tests", process.execPath, [join(root, "scripts", "test.mjs")]],
];
const steps = all.filter(([name]) => !process.argv.includes("--no-tests") || name !== "tests");

let failed = 0;
for (const [name, command, args] of steps) {
  process.stdout.write(`== ${name}\n`);
  if (spawnSync(command, [...args], { cwd: root, stdio: "inherit" }).status !== 0) {
    process.stdout.write(`== ${name}: FAILED\n`);
    failed++;
  }
}
process.exit(failed === 0 ? 0 : 1);
