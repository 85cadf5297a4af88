import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { seal } from "../../src/core/chain.ts";
import { verifyLedger } from "../../src/core/verify.ts";
import { readLedgerPath } from "../../src/io/ledger/export.ts";
import { entryName } from "../../src/io/ledger/file.ts";
import { bodyOf, chainOf, genesis, STORY } from "../kit/ledger-story.ts";
import { EXPECTED, VECTORS } from "../vectors/ledger/make.ts";

const vectorDir = join(import.meta.dirname, "../vectors/ledger");
const docs = join(import.meta.dirname, "../../docs/ledger-format.md");
const lines = chainOf(STORY);
const story = Buffer.concat(lines);
let root: string;
let recipe: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "format-"));
  const block = /```bash\n(.*?)```/s.exec(await readFile(docs, "utf8"))?.[1] ?? "exit 9\n";
  recipe = join(root, "check-ledger");
  await writeFile(recipe, block);
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** The head that the recipe prints, or null when it finds a fault (exit 5). */
const byHand = async (path: string): Promise<string | null> =>
  promisify(execFile)("bash", [recipe, path]).then(
    ({ stdout }) => stdout.trim(),
    (error: unknown) => {
      expect(error).toMatchObject({ code: 5, stdout: "" });
      return null;
    },
  );
const verdict = async (path: string) => {
  const read = await readLedgerPath(path);
  return verifyLedger(read.lines, read);
};
const folderOf = async (
  name: string,
  damage?: (entry: (seq: number) => string) => Promise<unknown>,
): Promise<string> => {
  const dir = join(root, name.replaceAll(" ", "-"));
  await mkdir(dir);
  for (const [seq, bytes] of lines.entries()) await writeFile(join(dir, entryName(seq)), bytes);
  await damage?.((seq) => join(dir, entryName(seq)));
  return dir;
};

describe("the test vectors", () => {
  test("are what their script writes, byte for byte, and nothing else", async () => {
    expect(await readFile(join(vectorDir, "expected.json"), "utf8")).toBe(EXPECTED);
    const found = (await readdir(vectorDir))
      .filter((name) => name.endsWith(".jsonl"))
      .map((name) => basename(name, ".jsonl"));
    expect(found.sort()).toEqual(Object.keys(VECTORS).sort());
    for (const name of found) {
      expect(await readFile(join(vectorDir, `${name}.jsonl`))).toEqual(VECTORS[name]?.bytes);
    }
  });

  test.each(Object.entries(VECTORS))("%s", async (name, { expected }) => {
    const path = join(vectorDir, `${name}.jsonl`);
    const { chain, ...rest } = expected;
    const { ok, entries, open, partial, problems, head } = await verdict(path);
    const named = problems.map(({ code, seq }) => `${code}@${seq}`);
    expect({ ok, entries, open, partial, problems: named }).toEqual(rest);
    const hand = await byHand(path);
    const quoted = `head ${head.seq}:${head.hash?.slice(0, 16)}`;
    expect(hand !== null).toBe(chain);
    expect(ok ? hand : quoted).toBe(quoted);
  });
});

describe("the shell recipe of docs/ledger-format.md agrees with the verifier", () => {
  test("and has twenty lines at most", async () => {
    expect((await readFile(recipe, "utf8")).trim().split("\n").length).toBeLessThanOrEqual(20);
  });

  test("on a sound folder", async () => {
    const dir = await folderOf("sound", (entry) =>
      writeFile(entry(0).replace("00000000.json", ".tmp-left"), "half"),
    );
    const { head } = await verdict(dir);
    expect(await byHand(dir)).toBe(`head 4:${head.hash?.slice(0, 16)}`);
  });

  test.each<[string, (entry: (seq: number) => string) => Promise<unknown>]>([
    ["torn", (entry) => truncate(entry(2), 100)],
    ["empty", (entry) => writeFile(entry(2), "")],
    ["no line feed", (entry) => truncate(entry(4), (lines[4]?.length ?? 0) - 1)],
    ["missing", (entry) => rm(entry(2))],
    ["no first", (entry) => rm(entry(0))],
    ["a link", (entry) => rm(entry(2)).then(() => symlink(entry(1), entry(2)))],
    ["a directory", (entry) => rm(entry(2)).then(() => mkdir(entry(2)))],
    ["two in a file", (entry) => writeFile(entry(2), Buffer.concat(lines.slice(2, 4)))],
    ["shifted names", (entry) => writeFile(entry(5), lines[4] ?? "").then(() => rm(entry(4)))],
    ["another ledger", (entry) => writeFile(entry(4), chainOf(STORY, { ledger: "ledger-b" })[4] ?? "")],
  ])("on a folder: %s", async (name, damage) => {
    const dir = await folderOf(name, damage);
    expect((await verdict(dir)).ok).toBe(false);
    expect(await byHand(dir)).toBeNull();
  });

  test("on the largest line there may be, and on one byte more", async () => {
    const spare = 16_384 - seal(bodyOf(0, null, [{ ...genesis, pad: "" }])).line.length;
    const { line } = seal(bodyOf(0, null, [{ ...genesis, pad: "x".repeat(spare) }]));
    await writeFile(join(root, "large.jsonl"), line);
    expect(await byHand(join(root, "large.jsonl"))).toMatch(/^head 0:/);
  });

  test("on single flipped bits all over an export", async () => {
    const bits = Array.from({ length: 24 }, (_, index) =>
      Math.floor(((index + 0.37) * story.length * 8) / 24),
    );
    for (const bit of bits) {
      const bytes = Buffer.from(story);
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const path = join(root, `flip-${bit}.jsonl`);
      await writeFile(path, bytes);
      expect((await verdict(path)).ok).toBe(false);
      expect(await byHand(path)).toBeNull();
    }
  });
});
