import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { RotatorError } from "../../src/core/errors.ts";
import { writeReport } from "../../src/io/report-file.ts";

let root = "";
let dir = "";
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "imkit-rotator-report-"));
  dir = join(root, "state", "chat-prod", "reports");
});
afterEach(() => {
  chmodSync(root, 0o700);
  rmSync(root, { recursive: true, force: true });
});

const report = (n: number) => ({ markdown: `# ${n}`, json: { n } });
const modeOf = (path: string): number => statSync(path).mode & 0o777;
const failure = async (work: Promise<unknown>): Promise<RotatorError> => {
  const thrown: unknown = await work.then(
    () => null,
    (error: unknown) => error,
  );
  if (thrown instanceof RotatorError) return thrown;
  throw new Error("it did not fail as it should");
};

describe("writeReport", () => {
  test("makes the folder and both files, for their owner alone", async () => {
    const files = await writeReport(dir, "r-1", report(1));
    expect(files).toEqual({ markdown: join(dir, "r-1.md"), json: join(dir, "r-1.json") });
    expect(readFileSync(files.markdown, "utf8")).toBe("# 1\n");
    expect(JSON.parse(readFileSync(files.json, "utf8"))).toEqual({ n: 1 });
    expect([modeOf(dir), modeOf(files.markdown), modeOf(files.json)]).toEqual([0o700, 0o600, 0o600]);
    expect(readdirSync(dir).sort()).toEqual(["r-1.json", "r-1.md"]);
  });

  test("a later run takes its place, another rotation's stays", async () => {
    await writeReport(dir, "r-1", report(1));
    await writeReport(dir, "r-2", report(2));
    await Promise.all([3, 4, 5].map((n) => writeReport(dir, "r-1", report(n))));
    expect(readdirSync(dir).sort()).toEqual(["r-1.json", "r-1.md", "r-2.json", "r-2.md"]);
    expect(readFileSync(join(dir, "r-1.md"), "utf8")).toMatch(/^# [345]\n$/);
    expect(readFileSync(join(dir, "r-2.md"), "utf8")).toBe("# 2\n");
  });

  test("what a link points to is not written", async () => {
    mkdirSync(dir, { recursive: true });
    const other = join(root, "other");
    writeFileSync(other, "mine");
    symlinkSync(other, join(dir, "r-1.md"));
    await writeReport(dir, "r-1", report(1));
    expect(readFileSync(other, "utf8")).toBe("mine");
    expect(readFileSync(join(dir, "r-1.md"), "utf8")).toBe("# 1\n");
  });

  test("a temporary file of a killed process goes after a day, a fresh one stays", async () => {
    mkdirSync(dir, { recursive: true });
    for (const name of [".tmp-old", ".tmp-new", "notes.txt"]) writeFileSync(join(dir, name), "");
    const longAgo = new Date(Date.now() - 2 * 86_400_000);
    for (const name of [".tmp-old", "notes.txt"]) utimesSync(join(dir, name), longAgo, longAgo);
    await writeReport(dir, "r-1", report(1));
    expect(readdirSync(dir).sort()).toEqual([".tmp-new", "notes.txt", "r-1.json", "r-1.md"]);
  });

  test("a place that cannot be used is said, and what was there stays", async () => {
    mkdirSync(join(root, "state", "chat-prod"), { recursive: true });
    writeFileSync(dir, "a file");
    const error = await failure(writeReport(dir, "r-1", report(1)));
    expect(error.code).toBe("STATE_UNUSABLE");
    expect(error.why).toBe(`${dir}: ENOTDIR.`);
    expect(readFileSync(dir, "utf8")).toBe("a file");
  });

  test("a file that cannot be put in place leaves nothing behind", async () => {
    mkdirSync(join(dir, "r-1.json"), { recursive: true });
    writeFileSync(join(dir, "r-1.json", "x"), "");
    await failure(writeReport(dir, "r-1", report(1)));
    expect(readdirSync(dir)).toEqual(["r-1.json"]);
  });

  test.each(["", "..", "../x", "a/b", ".hidden", "a\0b", "r 1", "x".repeat(200)])(
    "an id that is no file name is refused: %j",
    async (id) => {
      expect((await failure(writeReport(dir, id, report(1)))).code).toBe("STATE_UNUSABLE");
      expect(readdirSync(root)).toEqual([]);
    },
  );
});
