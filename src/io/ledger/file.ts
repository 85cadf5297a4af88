import { randomBytes } from "node:crypto";
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fsync,
  linkSync,
  openSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { type FileHandle, open, readdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { MAX_LINE } from "../../core/chain.ts";
import { RotatorError } from "../../core/errors.ts";
import type { Ledger } from "../../ports.ts";
import {
  ELSEWHERE,
  errnoOf,
  makeFolderDurably,
  removeStale,
  syncFolder,
  TEMPORARY,
  whyNoFiles,
} from "../disk.ts";

const LF = 10;
const BATCH = 32;
const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

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
 * are given. Never rejects.
 */
export const readEntryFile = async (path: string): Promise<EntryFile> => {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    const info = await handle.stat();
    if (!info.isFile()) return { state: "broken", why: "is not a regular file" };
    return { state: "read", bytes: await readWhole(handle, Math.min(info.size, MAX_LINE + 1)) };
  } catch (error) {
    const code = codeOf(error);
    if (code === "ENOENT") return { state: "absent" };
    if (code === "ELOOP") return { state: "broken", why: "is a symbolic link" };
    if (code === "ENXIO") return { state: "broken", why: "is not a regular file" };
    return { state: "blocked", why: `cannot be read (${code})` };
  } finally {
    await handle?.close().catch(() => {});
  }
};

const readWhole = async (handle: FileHandle, size: number): Promise<Buffer> => {
  const bytes = Buffer.alloc(size);
  let at = 0;
  while (at < size) {
    const { bytesRead } = await handle.read(bytes, at, size - at, at);
    if (bytesRead === 0) break;
    at += bytesRead;
  }
  return bytes.subarray(0, at);
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
        await removeStale(dir, join(dir, entryName(seq)));
      }
      return made;
    },
    read: async (fromSeq) => {
      const last = fromSeq === 0 ? await lastEntry(dir) : -1;
      const lines: Uint8Array[] = [];
      for (let seq = fromSeq; ; ) {
        const wanted = Math.max(1, Math.min(BATCH, last - seq + 1));
        const files = await Promise.all(
          Array.from({ length: wanted }, (_, index) => readEntry(join(dir, entryName(seq + index)))),
        );
        const end = files.indexOf(null);
        for (const line of end === -1 ? files : files.slice(0, end)) if (line !== null) lines.push(line);
        if (end !== -1) {
          if (seq + end <= last) throw broken(join(dir, entryName(seq + end)), "is missing");
          return lines;
        }
        seq += wanted;
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

const readEntry = async (path: string): Promise<Buffer | null> => {
  const file = await readEntryFile(path);
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
const lastEntry = async (dir: string): Promise<number> => {
  try {
    return (await readdir(dir)).reduce((last, name) => Math.max(last, entryNumber(name) ?? -1), -1);
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

const sync = promisify(fsync);

/**
 * Only the two fsyncs, which wait for the disk, go through the thread pool. The other calls do their work in memory, in less time than the
 * way there and back.
 */
const createEntry = async (dir: string, seq: number, bytes: Uint8Array): Promise<"created" | "exists"> => {
  const temporary = join(dir, `${TEMPORARY}${randomBytes(12).toString("hex")}`);
  const opened: number[] = [];
  let isRemoved = false;
  try {
    const file = openSync(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    opened.push(file);
    writeWhole(file, bytes);
    // One fsync and no second one: after an error the kernel may have dropped the page and then report success.
    await sync(file);
    if (seq > 0) requireEntry(dir, seq - 1);
    const folder = openSync(dir, O_RDONLY);
    opened.push(folder);
    if (!linkNew(temporary, join(dir, entryName(seq)), seq)) return "exists";
    const synced = sync(folder);
    isRemoved = remove(temporary);
    await synced;
    return "created";
  } catch (error) {
    throw error instanceof RotatorError ? error : refusal(seq, dir, codeOf(error));
  } finally {
    if (!isRemoved) remove(temporary);
    for (const descriptor of opened) close(descriptor);
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

/** After an fsync, closing has nothing more to say. */
const close = (descriptor: number): void => {
  try {
    closeSync(descriptor);
  } catch {}
};

const writeWhole = (file: number, bytes: Uint8Array): void => {
  for (let at = 0; at < bytes.length; ) {
    const written = writeSync(file, bytes, at, bytes.length - at, at);
    if (written === 0) throw new Error("short write");
    at += written;
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
