import { execFile } from "node:child_process";
import { join } from "node:path";
import { describe, expect, test } from "vitest";

type Ran = { readonly code: number; readonly out: string };

/** Run by Node itself: the sources as they are, and several times as fast as through a test runner's transform. */
const run = (...args: readonly string[]): Promise<Ran> =>
  new Promise((resolve) => {
    const file = join(import.meta.dirname, "run.ts");
    execFile(process.execPath, [file, ...args], { maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === "number" ? error.code : 1;
      resolve({ code, out: stdout + stderr });
    });
  });

describe("the real loop in a seeded world", () => {
  test("no schedule breaks an invariant, and each comes to an end", { timeout: 120_000 }, async () => {
    const { code, out } = await run("--seeds", process.env["SIM_SEEDS"] ?? "2000");
    expect(out).toContain("schedules in");
    expect({ code, out: code === 0 ? "" : out }).toEqual({ code: 0, out: "" });
  });

  test("the same seed is the same story, to the last line", { timeout: 60_000 }, async () => {
    const [first, second, other] = await Promise.all([
      run("--hash", "--seeds", "20"),
      run("--hash", "--seeds", "20"),
      run("--hash", "--seeds", "20", "--from", "21"),
    ]);
    expect(first?.out).toMatch(/^[0-9a-f]{64}\n$/);
    expect(second).toEqual(first);
    expect(other?.out).not.toBe(first?.out);
  });

  test("the quick copy tells the story of the product as it is", { timeout: 60_000 }, async () => {
    const [quick, asIs] = await Promise.all([
      run("--hash", "--seeds", "40"),
      run("--hash", "--seeds", "40", "--as-is"),
    ]);
    expect(quick?.out).toMatch(/^[0-9a-f]{64}\n$/);
    expect(asIs).toEqual(quick);
  });
});
