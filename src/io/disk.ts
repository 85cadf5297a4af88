import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import {
  access,
  type FileHandle,
  link,
  lstat,
  open,
  readdir,
  rename,
  stat,
  statfs,
  unlink,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { makeFolder } from "./make-folder.ts";

/** What the name of a file begins with that is not whole yet. */
export const TEMPORARY = ".tmp-";
const DAY_MS = 86_400_000;

/** The system's name for an error, e.g. ENOENT, or "" where it has none; its text is dropped. */
export const errnoOf = (error: unknown): string => {
  const code = error instanceof Error && "code" in error ? error.code : null;
  return typeof code === "string" && /^[A-Z0-9_]{2,40}$/.test(code) ? code : "";
};

/** `work`, then the handle is closed, whatever came of it. */
export const closing = async <T>(handle: FileHandle, work: () => Promise<T>): Promise<T> => {
  try {
    return await work();
  } finally {
    await handle.close();
  }
};

/** The names in a folder last from here on. */
export const syncFolder = async (dir: string): Promise<void> => {
  const handle = await open(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  await closing(handle, () => handle.sync());
};

/** `makeFolder` whose every new folder survives a power cut. @returns false when all were there */
export const makeFolderDurably = async (dir: string): Promise<boolean> => {
  const first = await makeFolder(dir);
  if (first === undefined) return false;
  for (let at = dir; ; at = dirname(at)) {
    await syncFolder(dirname(at));
    if (at === first || at === dirname(at)) return true;
  }
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
  const temporary = join(dir, `${TEMPORARY}${name}-${randomBytes(8).toString("hex")}`);
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const handle = await open(temporary, flags, 0o600);
  try {
    await closing(handle, async () => {
      await handle.writeFile(bytes);
      await handle.sync();
    });
    if (mode === "replace") await rename(temporary, join(dir, name));
    else await link(temporary, join(dir, name));
  } catch (error) {
    if (mode === "keep" && errnoOf(error) === "EEXIST") return false;
    throw error;
  } finally {
    await unlinkIfThere(temporary);
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

export const unlinkIfThere = async (path: string): Promise<void> => {
  try {
    await unlink(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
};

/** Temporary files of killed processes, older by a day than the file just made. The file system's own clock decides. Never rejects. */
export const removeStale = async (dir: string, made: string): Promise<void> => {
  try {
    const now = (await lstat(made)).mtimeMs;
    for (const name of (await readdir(dir)).filter((each) => each.startsWith(TEMPORARY))) {
      const path = join(dir, name);
      if ((await lstat(path)).mtimeMs < now - DAY_MS) await unlink(path);
    }
  } catch {
    // They harm nobody.
  }
};
