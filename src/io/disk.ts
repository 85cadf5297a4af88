import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  fsync,
  linkSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { access, lstat, stat, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { makeFolder } from "./make-folder.ts";

/** What the name of a file begins with that is not whole yet. */
export const TEMPORARY = ".tmp-";
const own = randomBytes(12).toString("hex");
let named = 0;
const DAY_MS = 86_400_000;

/** The system's name for an error, e.g. ENOENT, or "" where it has none; its text is dropped. */
export const errnoOf = (error: unknown): string => {
  const code = error instanceof Error && "code" in error ? error.code : null;
  return typeof code === "string" && /^[A-Z0-9_]{2,40}$/.test(code) ? code : "";
};

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/** Waits for the disk, and so is what goes through the thread pool (docs/adr/0017-blocking-calls.md). */
export const sync = promisify(fsync);

/** After an fsync, or a read, closing has nothing more to say. */
export const close = (descriptor: number): void => {
  try {
    closeSync(descriptor);
  } catch {}
};

/**
 * The first `limit` bytes of a regular file, and its permissions. A symbolic link is not followed (ELOOP), a pipe is not waited for.
 * @returns `absent`, or `special` for what is no regular file
 * @throws what the system says
 */
export const readRegular = (
  path: string,
  limit: number,
): { readonly bytes: Buffer; readonly mode: number } | "absent" | "special" => {
  // Asked first: most look for what is not there yet, and an exception costs more than the question.
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return "absent";
  const file = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    const info = fstatSync(file);
    if (!info.isFile()) return "special";
    const bytes = Buffer.alloc(Math.min(info.size, limit));
    let at = 0;
    for (let read = -1; read !== 0 && at < bytes.length; at += read)
      read = readSync(file, bytes, at, bytes.length - at, at);
    return { bytes: bytes.subarray(0, at), mode: info.mode & 0o777 };
  } finally {
    close(file);
  }
};

/**
 * A new 0600 file with all of `bytes` on the disk; its name may not last yet. After an error the file may be there, and is not to be used: the
 * kernel may have dropped what it could not write, and report success for a second fsync.
 */
export const writeNew = async (path: string, bytes: Uint8Array): Promise<void> => {
  const file = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    for (let at = 0, wrote = -1; at < bytes.length; at += wrote) {
      wrote = writeSync(file, bytes, at, bytes.length - at, at);
      if (wrote === 0) throw new Error("short write");
    }
    await sync(file);
  } finally {
    close(file);
  }
};

/** The names in a folder last from here on. */
export const syncFolder = async (dir: string): Promise<void> => {
  const folder = openSync(dir, O_RDONLY | O_DIRECTORY);
  try {
    await sync(folder);
  } finally {
    close(folder);
  }
};

/** `makeFolder` whose every new folder survives a power cut. @returns false when all were there */
export const makeFolderDurably = async (dir: string): Promise<boolean> => {
  const first = makeFolder(dir);
  if (first === undefined) return false;
  for (let at = dir; ; at = dirname(at)) {
    await syncFolder(dirname(at));
    if (at === first || at === dirname(at)) return true;
  }
};

/** A name in that folder that no other process and no other call gives to a file. */
export const temporaryIn = (dir: string, what = ""): string => {
  named += 1;
  return join(dir, `${TEMPORARY}${what}${own}${named.toString(16).padStart(8, "0")}`);
};

/**
 * Durable 0600 file, complete or not there at all.
 * @param mode `replace` whatever has that name, or `keep` it: then nothing is written and the answer is false.
 */
export const writePrivate = async (
  dir: string,
  name: string,
  bytes: Uint8Array | string,
  mode: "replace" | "keep",
): Promise<boolean> => {
  const temporary = temporaryIn(dir, `${name}-`);
  let isMoved = false;
  try {
    await writeNew(temporary, typeof bytes === "string" ? Buffer.from(bytes) : bytes);
    if (mode === "keep") linkSync(temporary, join(dir, name));
    else {
      renameSync(temporary, join(dir, name));
      isMoved = true;
    }
  } catch (error) {
    if (mode === "keep" && errnoOf(error) === "EEXIST") return false;
    throw error;
  } finally {
    if (!isMoved) unlinkIfThere(temporary);
  }
  await syncFolder(dir);
  return true;
};

/** What to do where `whyNoFiles` says why not. */
export const ELSEWHERE = "Name a folder on a local disk that this user may write to in state.dir";

/** Of file systems that say yes and then make no file: proc, sysfs. */
const MAKE_NOTHING: ReadonlySet<number> = new Set([0x9fa0, 0x6265_6572]);

/**
 * Whether files can be made in a folder, or the folder itself where it is not there yet, as far as that can be told without making one.
 * @returns null when nothing speaks against it, else the system's name for why not. Never rejects.
 */
export const whyNoFiles = async (dir: string): Promise<string | null> => {
  try {
    if (!(await stat(dir)).isDirectory()) return "ENOTDIR";
    await access(dir, constants.W_OK | constants.X_OK);
    return MAKE_NOTHING.has((await statfs(dir)).type) ? "ENOTSUP" : null;
  } catch (error) {
    const code = errnoOf(error) || "unexpected failure";
    if (code !== "ENOENT" || dir === dirname(dir)) return code;
    // A link to nowhere is no place for a folder.
    const isThere = await lstat(dir).catch(() => null);
    return isThere === null ? whyNoFiles(dirname(dir)) : code;
  }
};

export const unlinkIfThere = (path: string): void => {
  try {
    unlinkSync(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
};

/** Temporary files of killed processes, older by a day than the file just made. The file system's own clock decides. Never throws. */
export const removeStale = (dir: string, made: string): void => {
  try {
    const now = lstatSync(made).mtimeMs;
    for (const name of readdirSync(dir).filter((each) => each.startsWith(TEMPORARY))) {
      const path = join(dir, name);
      if (lstatSync(path).mtimeMs < now - DAY_MS) unlinkSync(path);
    }
  } catch {
    // They harm nobody.
  }
};
