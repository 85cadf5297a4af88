import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { makeFolder } from "../../src/io/make-folder.ts";

test("several that make the same new folders at once all succeed; each folder is said to be new by somebody", async () => {
  const place = await mkdtemp(join(tmpdir(), "imkit-rotator-folder-"));
  try {
    for (let round = 0; round < 50; round++) {
      const first = join(place, `${round}`);
      const dir = join(first, "b", "c");
      const made = await Promise.all(Array.from({ length: 16 }, () => makeFolder(dir)));
      expect((await stat(dir)).mode & 0o777).toBe(0o700);
      expect(made).toContain(first);
    }
  } finally {
    await rm(place, { recursive: true });
  }
});

test.skipIf(process.platform !== "linux")("a place that takes no folder is said at once", async () => {
  await expect(makeFolder("/proc/imkit-rotator/a")).rejects.toMatchObject({ code: "ENOENT" });
});
