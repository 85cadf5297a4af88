import { execFile } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { BUGS } from "./bugs.ts";

// Rare ones need thousands of worlds: node test/simulation/run.ts --bugs --seeds 25000
const soon = BUGS.filter((bug) => bug.isRare !== true);

test("every planted bug is found", { timeout: 180_000 }, async () => {
  const out = await new Promise<string>((resolve) => {
    const args = [join(import.meta.dirname, "run.ts"), "--bugs", "--soon", "--seeds", "600"];
    execFile(process.execPath, args, { maxBuffer: 64 << 20 }, (_, stdout, stderr) =>
      resolve(stdout + stderr),
    );
  });
  expect(out.split("\n").filter((line) => line.startsWith("NOT FOUND"))).toEqual([]);
  expect(out).toContain(`${soon.length} of ${soon.length} planted bugs found`);
  expect(soon.length).toBeGreaterThanOrEqual(30);
});
