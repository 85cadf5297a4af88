import { constants, createReadStream } from "node:fs";
import { open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { MAX_LINE } from "../../core/chain.ts";
import { RotatorError } from "../../core/errors.ts";
import { codeOf, entryName, entryNumber, readEntryFile } from "./file.ts";

const LF = 10;
const MAX_BYTES = 256 * 1024 * 1024;
const MAX_LINES = 1_000_000;

/** What `verifyLedger` takes: raw lines, and for a folder the numbers that their file names state. */
export type LedgerLines = {
  readonly folder: boolean;
  readonly lines: readonly Uint8Array[];
  readonly seqs?: readonly number[];
};

/**
 * Reads a ledger for `audit verify`: a JSONL export, a folder of entries, or standard input (`-`). A torn, empty, unreadable or
 * non-regular entry of a folder is given as it is found, empty at worst; of a line over 16 KiB the first 16 KiB + 1 byte are given.
 * @param input standard input, for `-`
 * @throws RotatorError INPUT_MISSING: it cannot be opened, holds no entry, is neither file nor folder, or is over 256 MiB.
 */
export const readLedgerPath = async (
  path: string,
  input?: AsyncIterable<Uint8Array>,
): Promise<LedgerLines> => {
  if (path === "-")
    return readLines("Standard input", input ?? createReadStream("", { fd: 0, autoClose: false }));
  const info = await stat(path).catch((error: unknown) => {
    throw missing(path, `cannot be opened (${codeOf(error)})`);
  });
  if (info.isDirectory()) return readFolder(path);
  if (!info.isFile()) throw missing(path, "is neither a file nor a folder; give a pipe as -");
  if (info.size > MAX_BYTES) throw missing(path, "is over 256 MiB");
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: unknown) => {
    throw missing(path, `cannot be opened (${codeOf(error)})`);
  });
  return readLines(path, handle.createReadStream());
};

const missing = (what: string, why: string): RotatorError =>
  new RotatorError("INPUT_MISSING", {
    why: `${what} ${why}.`,
    do: ["Give a ledger folder or its JSONL export."],
  });

const readFolder = async (dir: string): Promise<LedgerLines> => {
  const names = await readdir(dir).catch((error: unknown) => {
    throw missing(dir, `cannot be opened (${codeOf(error)})`);
  });
  const seqs = names
    .map(entryNumber)
    .filter((seq) => seq !== null)
    .sort((a, b) => a - b);
  const lines: Uint8Array[] = [];
  let total = 0;
  for (const seq of seqs) {
    const file = readEntryFile(join(dir, entryName(seq)));
    const bytes = file.state === "read" ? file.bytes : new Uint8Array();
    total += bytes.length;
    if (total > MAX_BYTES) throw missing(dir, "is over 256 MiB");
    lines.push(bytes);
  }
  if (lines.length === 0) throw missing(dir, "holds no ledger entry");
  return { folder: true, lines, seqs };
};

const readLines = async (what: string, input: AsyncIterable<Uint8Array>): Promise<LedgerLines> => {
  const lines: Uint8Array[] = [];
  let held: Buffer[] = [];
  let size = 0;
  let total = 0;
  const keep = (part: Buffer): void => {
    const room = MAX_LINE + 1 - size;
    if (room > 0) held.push(part.subarray(0, room));
    size += Math.min(part.length, Math.max(room, 0));
  };
  const end = (): void => {
    lines.push(held.length === 1 ? (held[0] ?? Buffer.alloc(0)) : Buffer.concat(held));
    held = [];
    size = 0;
    if (lines.length > MAX_LINES) throw missing(what, "has over a million lines");
  };
  try {
    for await (const bytes of input) {
      const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      total += chunk.length;
      if (total > MAX_BYTES) throw missing(what, "is over 256 MiB");
      let start = 0;
      for (let at = chunk.indexOf(LF); at !== -1; at = chunk.indexOf(LF, start)) {
        keep(chunk.subarray(start, at + 1));
        end();
        start = at + 1;
      }
      if (start < chunk.length) keep(chunk.subarray(start));
    }
  } catch (error) {
    throw error instanceof RotatorError ? error : missing(what, `cannot be read (${codeOf(error)})`);
  }
  if (size > 0) end();
  if (lines.every((line) => line.every((byte) => byte === LF))) throw missing(what, "holds no ledger entry");
  return { folder: false, lines };
};
