import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { lastTick } from "../../src/io/last-tick.ts";

const dirs: string[] = [];
const folder = (): string => {
  const dir = mkdtempSync(join(tmpdir(), "imkit-rotator-tick-"));
  dirs.push(dir);
  return dir;
};
afterEach(() => dirs.splice(0).forEach((dir) => rmSync(dir, { recursive: true, force: true })));

test("what was written is read, and nothing else lies beside it", async () => {
  const dir = folder();
  const tick = lastTick(dir);
  expect(await tick.read()).toBeNull();
  await tick.write(1_780_000_000_123);
  await tick.write(1_780_000_000_456);
  expect(await tick.read()).toBe(1_780_000_000_456);
  expect(readdirSync(dir)).toEqual(["last-tick"]);
});

test.each(["", "soon", "2026-13-01T00:00:00.000Z\n", "2026-01-01\n"])(
  "%j is no tick that is known",
  async (text) => {
    const dir = folder();
    writeFileSync(join(dir, "last-tick"), text);
    expect(await lastTick(dir).read()).toBeNull();
  },
);

test("a folder that is not there stops nothing", async () => {
  const tick = lastTick(join(folder(), "gone"));
  await tick.write(1);
  expect(await tick.read()).toBeNull();
});
