import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { makeFolder } from "../../src/io/make-folder.ts";

const MODULE = join(import.meta.dirname, "../../src/io/make-folder.ts");
const ROUNDS = 200;
/** Makes one folder after the other and says which folder was new, round by round. */
const PROGRAM = `const { makeFolder } = await import(${JSON.stringify(MODULE)});
const place = process.argv[1];
console.log(JSON.stringify(Array.from({ length: ${ROUNDS} }, (_, n) => makeFolder(place + "/" + n + "/b/c") ?? null)));`;

const makeAll = async (place: string): Promise<readonly (string | null)[]> => {
  const child = spawn(process.execPath, ["--input-type=module", "-e", PROGRAM, place]);
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (said += text));
  await once(child, "close");
  return JSON.parse(said) as readonly (string | null)[];
};

test("several processes that make the same new folders at once all succeed; each folder is said to be new by somebody", async () => {
  const place = await mkdtemp(join(tmpdir(), "imkit-rotator-folder-"));
  try {
    const made = (await Promise.all(Array.from({ length: 4 }, () => makeAll(place)))).flat();
    for (let round = 0; round < ROUNDS; round++) {
      const first = join(place, `${round}`);
      expect((await stat(join(first, "b", "c"))).mode & 0o777).toBe(0o700);
      expect(made).toContain(first);
    }
  } finally {
    await rm(place, { recursive: true });
  }
});

test.skipIf(process.platform !== "linux")("a place that takes no folder is said at once", () => {
  expect(() => makeFolder("/proc/imkit-rotator/a")).toThrow(expect.objectContaining({ code: "ENOENT" }));
});
