import { execFile } from "node:child_process";
import { mkdir, mkdtemp, open, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { RotatorError } from "../../src/core/errors.ts";
import { verifyLedger } from "../../src/core/verify.ts";
import { readLedgerPath } from "../../src/io/ledger/export.ts";
import { fileLedger } from "../../src/io/ledger/file.ts";
import { chainOf, STORY } from "../kit/ledger-story.ts";

const lines = chainOf(STORY);
const whole = Buffer.concat(lines);
let root: string;
let dir: string;
let file: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "export-"));
  dir = join(root, "ledger");
  file = join(root, "ledger.jsonl");
  for (const [seq, bytes] of lines.entries()) await fileLedger(dir).create(seq, bytes);
  await writeFile(file, whole);
});
afterEach(() => rm(root, { recursive: true, force: true }));

const problems = async (path: string): Promise<string[]> => {
  const read = await readLedgerPath(path);
  return verifyLedger(read.lines, read).problems.map(({ code, seq }) => `${code}@${seq}`);
};
const refusal = async (path: string): Promise<string> => {
  const error = await readLedgerPath(path).then(
    () => null,
    (e: unknown) => e,
  );
  if (!(error instanceof RotatorError)) throw new Error("it was read, or failed in foreign words");
  expect([error.code, error.exit]).toEqual(["INPUT_MISSING", 2]);
  return error.why;
};
const entry = (seq: number): string => join(dir, `0000000${seq}.json`);

describe("a ledger for the verifier", () => {
  test("is read alike from a folder, a file and standard input", async () => {
    const expected = lines.map((bytes) => Buffer.from(bytes));
    expect(await readLedgerPath(dir)).toEqual({ folder: true, lines: expected, seqs: [0, 1, 2, 3, 4] });
    expect(await readLedgerPath(file)).toEqual({ folder: false, lines: expected });
    for (const size of [1, 7, 400, whole.length]) {
      const chunks = async function* () {
        for (let at = 0; at < whole.length; at += size) yield whole.subarray(at, at + size);
      };
      expect(await readLedgerPath("-", chunks())).toEqual({ folder: false, lines: expected });
    }
    expect(await problems(dir)).toEqual([]);
  });

  test("comes from the real standard input by default", async () => {
    const module = join(import.meta.dirname, "../../src/io/ledger/export.ts");
    const program = `import { readLedgerPath } from ${JSON.stringify(module)};
      console.log((await readLedgerPath("-")).lines.length);`;
    const node = `cat "$2" | "$0" --input-type=module -e "$1"`;
    const { stdout } = await promisify(execFile)("bash", ["-c", node, process.execPath, program, file]);
    expect(stdout).toBe("5\n");
  });

  test("holds no temporary files and nothing else that is no entry", async () => {
    await writeFile(join(dir, ".tmp-1"), "half");
    await writeFile(join(dir, "README"), "hello");
    await writeFile(join(dir, "00000005.json.bak"), "half");
    expect(await problems(dir)).toEqual([]);
  });
});

describe("a damaged entry in a folder is a finding, not a failure", () => {
  test.each<[string, () => Promise<unknown>, string[]]>([
    ["empty", () => writeFile(entry(2), ""), ["UNREADABLE@2"]],
    ["torn", () => truncate(entry(2), 100), ["UNREADABLE@2"]],
    ["without its line feed", () => truncate(entry(2), (lines[2]?.length ?? 0) - 1), ["UNREADABLE@2"]],
    ["only a line feed", () => writeFile(entry(2), "\n"), ["UNREADABLE@2"]],
    ["a directory", () => rm(entry(2)).then(() => mkdir(entry(2))), ["UNREADABLE@2"]],
    ["a link", () => rm(entry(2)).then(() => symlink(entry(1), entry(2))), ["UNREADABLE@2"]],
    ["a pipe", () => rm(entry(2)).then(() => promisify(execFile)("mkfifo", [entry(2)])), ["UNREADABLE@2"]],
    ["17 KiB", () => writeFile(entry(2), `${"x".repeat(17_000)}\n`), ["NOT_CANONICAL@2"]],
    ["missing", () => rm(entry(2)), ["BAD_SEQ@3", "NO_INTENT@3", "NO_INTENT@3", "NO_INTENT@4"]],
    ["the first, missing", () => rm(entry(0)), ["BAD_SEQ@1"]],
    ["another one's content", () => writeFile(entry(2), lines[1] ?? ""), ["BAD_SEQ@2"]],
  ])("%s", async (_, damage, expected) => {
    await damage();
    expect((await problems(dir)).slice(0, expected.length)).toEqual(expected);
  });
});

describe("a damaged export is a finding, not a failure", () => {
  test.each<[string, Buffer, string[]]>([
    ["torn at its end", whole.subarray(0, -20), ["UNREADABLE@4"]],
    [
      "CRLF",
      Buffer.from(whole.toString().replaceAll("\n", "\r\n")),
      [0, 1, 2, 3, 4].map((n) => `NOT_CANONICAL@${n}`),
    ],
    ["a BOM", Buffer.concat([Buffer.from("\uFEFF"), whole]), ["NOT_CANONICAL@0"]],
    ["an empty line", Buffer.concat([whole, Buffer.from("\n")]), ["UNREADABLE@5"]],
    ["a NUL tail", Buffer.concat([whole, Buffer.alloc(512)]), ["UNREADABLE@5"]],
    ["a NUL tail of 20 KiB", Buffer.concat([whole, Buffer.alloc(20_480)]), ["NOT_CANONICAL@5"]],
    ["noise", Buffer.from([0xff, 0xfe, 0x00, 0x0a, 0x80]), ["UNREADABLE@0", "UNREADABLE@1"]],
    ["some other text", Buffer.from("KEY=value\n"), ["UNREADABLE@0"]],
    ["some other JSON", Buffer.from('{"hello":"world"}\n'), ["NOT_CANONICAL@0"]],
  ])("%s", async (_, bytes, expected) => {
    await writeFile(file, bytes);
    expect(await problems(file)).toEqual(expected);
  });

  test("a line without end is cut, and the lines behind it are read", async () => {
    const long = Buffer.concat([Buffer.alloc(3_000_000, "x"), Buffer.from("\n")]);
    await writeFile(file, Buffer.concat([...lines.slice(0, 2), long, ...lines.slice(3)]));
    const read = await readLedgerPath(file);
    expect(read.lines.map((bytes) => bytes.length)[2]).toBe(16_385);
    expect(await problems(file)).toEqual(["NOT_CANONICAL@2"]);
  });
});

describe("what cannot be opened or holds no entry", () => {
  test.each<[string, () => Promise<string>, string]>([
    ["nothing at all", async () => join(root, "nowhere"), "cannot be opened (ENOENT)"],
    ["an empty file", () => writeFile(file, "").then(() => file), "holds no ledger entry"],
    ["empty lines", () => writeFile(file, "\n\n\n").then(() => file), "holds no ledger entry"],
    [
      "an empty folder",
      () => mkdir(join(root, "empty")).then(() => join(root, "empty")),
      "holds no ledger entry",
    ],
    ["a folder of other things", async () => root, "holds no ledger entry"],
    ["a device", async () => "/dev/zero", "neither a file nor a folder"],
    [
      "a pipe",
      () => promisify(execFile)("mkfifo", [join(root, "p")]).then(() => join(root, "p")),
      "neither a file",
    ],
  ])("%s", async (_, make, words) => {
    const path = await make();
    expect(await refusal(path)).toContain(words);
  });

  test("a file of 1 GB is refused by its size", async () => {
    const handle = await open(file, "r+");
    await handle.truncate(1_000_000_000);
    await handle.close();
    expect(await refusal(file)).toContain("over 256 MiB");
  });

  test("standard input without end is cut off", async () => {
    let given = 0;
    const endless = async function* () {
      const chunk = Buffer.alloc(1024 * 1024, "x");
      for (;;) {
        given += 1;
        yield chunk;
      }
    };
    await expect(readLedgerPath("-", endless())).rejects.toThrow("INPUT_MISSING");
    expect(given).toBeLessThan(300);
    const empty = async function* () {
      for (;;) yield Buffer.alloc(100_000, "\n");
    };
    await expect(readLedgerPath("-", empty())).rejects.toThrow("INPUT_MISSING");
  });

  test("an input that breaks off says so without foreign words", async () => {
    const broken = async function* () {
      yield await readFile(file);
      throw Object.assign(new Error("vendor words"), { code: "EIO" });
    };
    const error = await readLedgerPath("-", broken()).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: "INPUT_MISSING", why: "Standard input cannot be read (EIO)." });
  });
});
