import {
  accessSync,
  constants,
  existsSync,
  linkSync,
  openSync,
  readdirSync,
  statSync,
  unlinkSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { MAX_LINE } from "../../core/chain.ts";
import { RotatorError } from "../../core/errors.ts";
import type { Ledger } from "../../ports.ts";
import {
  close,
  ELSEWHERE,
  errnoOf,
  makeFolderDurably,
  readRegular,
  removeStale,
  sync,
  syncFolder,
  temporaryIn,
  whyNoFiles,
  writeNew,
} from "../disk.ts";

const LF = 10;

/** `00000042.json` for 42. */
export const entryName = (seq: number): string => `${String(seq).padStart(8, "0")}.json`;

/** The number of an entry's file name, else null. */
export const entryNumber = (name: string): number | null =>
  /^\d{8,15}\.json$/.test(name) && name === entryName(Number.parseInt(name, 10))
    ? Number.parseInt(name, 10)
    : null;

/** Why a directory entry is no ledger entry, or its bytes. `blocked`: the system would not let us look. */
export type EntryFile =
  | { readonly state: "read"; readonly bytes: Buffer }
  | { readonly state: "absent" }
  | { readonly state: "broken"; readonly why: string }
  | { readonly state: "blocked"; readonly why: string };

/**
 * Opens one entry by its name: never through a symbolic link, never waiting for a pipe. Of a file over 16 KiB the first 16 KiB + 1 byte
 * are given. Never throws.
 */
export const readEntryFile = (path: string): EntryFile => {
  try {
    const found = readRegular(path, MAX_LINE + 1);
    if (found === "absent") return { state: "absent" };
    if (found === "special") return { state: "broken", why: "is not a regular file" };
    return { state: "read", bytes: found.bytes };
  } catch (error) {
    const code = codeOf(error);
    if (code === "ENOENT") return { state: "absent" };
    if (code === "ELOOP") return { state: "broken", why: "is a symbolic link" };
    if (code === "ENXIO") return { state: "broken", why: "is not a regular file" };
    return { state: "blocked", why: `cannot be read (${code})` };
  }
};

/** The system's name for an error, for our words. */
export const codeOf = (error: unknown): string => errnoOf(error) || "unknown error";

/** The ledger of one app as a directory with one file per entry (docs/adr/0003). Touches nothing before the first `create`. */
export const fileLedger = (dir: string): Ledger => {
  let tidied = false;
  return {
    where: `file:${dir}`,
    create: async (seq, bytes) => {
      if (seq === 0) await makeDirectory(dir);
      const made = await createEntry(dir, seq, bytes);
      if (!tidied) {
        tidied = true;
        removeStale(dir, join(dir, entryName(seq)));
      }
      return made;
    },
    read: async (fromSeq) => {
      const last = fromSeq === 0 ? lastEntry(dir) : -1;
      const lines: Uint8Array[] = [];
      for (let seq = fromSeq; ; seq++) {
        const path = join(dir, entryName(seq));
        const line = readEntry(path);
        if (line !== null) lines.push(line);
        else if (seq <= last) throw broken(path, "is missing");
        else return lines;
      }
    },
    preflight: async () => {
      const why = await whyNoFiles(dir);
      if (why === null) return [{ id: "writable", status: "ok", message: `Entries can be added in ${dir}.` }];
      return [
        {
          id: "writable",
          status: "fail",
          message: `No entry can be added in ${dir} (${why}), so nothing would be done.`,
          fix: ELSEWHERE,
          code: existsSync(join(dir, entryName(0))) ? "UNAVAILABLE" : "STATE_UNUSABLE",
        },
      ];
    },
  };
};

const broken = (path: string, why: string): RotatorError =>
  new RotatorError("LEDGER_BROKEN", { why: `The ledger entry ${path} ${why}.` });

const readEntry = (path: string): Buffer | null => {
  const file = readEntryFile(path);
  if (file.state === "absent") return null;
  if (file.state === "broken") throw broken(path, file.why);
  if (file.state === "blocked") {
    throw new RotatorError("STATE_UNUSABLE", { why: `The ledger entry ${path} ${file.why}.` });
  }
  if (file.bytes.length === 0) throw broken(path, "is empty");
  if (file.bytes.length > MAX_LINE) throw broken(path, "is over 16 KiB");
  if (file.bytes.at(-1) !== LF) throw broken(path, "is torn");
  return file.bytes;
};

/** Asked before the entries are read: whatever it names was whole at that time, so what is missing then was taken away. */
const lastEntry = (dir: string): number => {
  try {
    return readdirSync(dir).reduce((last, name) => Math.max(last, entryNumber(name) ?? -1), -1);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return -1;
    throw new RotatorError("STATE_UNUSABLE", { why: `The ledger ${dir} cannot be read (${codeOf(error)}).` });
  }
};

const NO_ACCESS = new Set(["EACCES", "EPERM", "EROFS", "ENOTDIR", "ELOOP", "ENAMETOOLONG", "ENOENT"]);
const NO_LINKS = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EXDEV", "EINVAL"]);

/** A directory that cannot be used is a matter of the config when the ledger begins, and a failing disk later. */
const refusal = (seq: number, dir: string, code: string): RotatorError =>
  seq === 0 && NO_ACCESS.has(code)
    ? new RotatorError("STATE_UNUSABLE", { why: `The ledger ${dir} cannot be made (${code}).` })
    : new RotatorError("LEDGER_UNWRITABLE", {
        why: `Entry ${seq} of ${dir} cannot be written (${code}).`,
        state: "What the entries before it began is looked at again by the next run.",
      });

const makeDirectory = async (dir: string): Promise<void> => {
  try {
    const target = resolve(dir);
    // Another process may have made it just now and not come to its fsync.
    if (!(await makeFolderDurably(target))) await syncFolder(dirname(target)).catch(() => {});
  } catch (error) {
    throw refusal(0, dir, codeOf(error));
  }
};

/** No hole is ever written, not even into a directory that was emptied or swapped while we ran. */
const requireEntry = (dir: string, seq: number): void => {
  try {
    accessSync(join(dir, entryName(seq)));
  } catch {
    throw new RotatorError("LEDGER_UNWRITABLE", { why: `Entry ${seq} of ${dir}, the one before, is gone.` });
  }
};

const createEntry = async (dir: string, seq: number, bytes: Uint8Array): Promise<"created" | "exists"> => {
  const temporary = temporaryIn(dir);
  let folder: number | null = null;
  let isRemoved = false;
  try {
    await writeNew(temporary, bytes);
    if (seq > 0) requireEntry(dir, seq - 1);
    folder = openSync(dir, constants.O_RDONLY);
    if (!linkNew(temporary, join(dir, entryName(seq)), seq)) return "exists";
    const synced = sync(folder);
    isRemoved = remove(temporary);
    await synced;
    return "created";
  } catch (error) {
    throw error instanceof RotatorError ? error : refusal(seq, dir, codeOf(error));
  } finally {
    if (!isRemoved) remove(temporary);
    if (folder !== null) close(folder);
  }
};

const remove = (path: string): boolean => {
  try {
    unlinkSync(path);
    return true;
  } catch {
    return false;
  }
};

/** @returns false when another one has that number. A network file system may report our own link, made at the first try, as there. */
const linkNew = (temporary: string, path: string, seq: number): boolean => {
  try {
    linkSync(temporary, path);
    return true;
  } catch (error) {
    const code = codeOf(error);
    if (code === "EEXIST") return statSync(temporary).nlink > 1;
    if (seq !== 0 || !NO_LINKS.has(code)) throw error;
    throw new RotatorError("STATE_UNUSABLE", {
      why: `The file system of ${dirname(path)} makes no hard links (${code}), which keep two rotators apart.`,
      do: [
        "Name a directory on a local Linux file system (ext4, xfs, btrfs, overlay) in state.dir.",
        "In Kubernetes, set ledger: { type: kubernetes } instead.",
      ],
    });
  }
};
