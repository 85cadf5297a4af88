import { constants, type BigIntStats, readFileSync } from "node:fs";
import { type FileHandle, lstat, open, realpath, rename, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ProviderError } from "../../src/core/errors.ts";
import { errnoOf, fromErrno, refused } from "../kit.ts";

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY } = constants;

/** A file as it was read. `path` is the real one, behind all symlinks; `stat` belongs to the very file that `bytes` came from. */
export type Loaded = {
  readonly path: string;
  readonly bytes: Buffer;
  readonly stat: BigIntStats;
};

/** What tests replace. */
export type Hooks = {
  readonly rename?: (from: string, to: string) => Promise<void>;
  /** Runs when all is ready, right before the last look at the file. */
  readonly beforeSwap?: () => Promise<void>;
};

export type Swap = Hooks & {
  /** From here on the outcome is `unknown`. @throws ProviderError when the time is up. */
  readonly commit: () => void;
  readonly backup: (bytes: Uint8Array) => Promise<void>;
};

/** One fixed name, so that a killed run leaves at most one file, which the next one knows as its own. */
export const temporaryOf = (path: string): string =>
  join(dirname(path), `.${basename(path)}.imkit-rotator.tmp`);

/**
 * @param path may be a symlink; it is read through.
 * @returns null when no file is there and its folder is.
 * @throws ProviderError CONFIG (no plain file, a symlink to nowhere), TOO_LARGE, NOT_FOUND (no folder), or what the file system says
 */
export const loadFile = async (path: string, maxBytes: number): Promise<Loaded | null> => {
  try {
    const real = await realpath(path);
    const handle = await open(real, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    try {
      const found = await handle.stat({ bigint: true });
      if (!found.isFile()) throw refused("CONFIG", `${path} is not a plain file`);
      const bytes = await readAtMost(handle, Number(found.size), maxBytes);
      if (bytes === null) throw refused("TOO_LARGE", `${path} is larger than ${maxBytes} bytes`);
      return { path: real, bytes, stat: found };
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (!isMissing(error)) throw fromErrno(error, "not_applied", `${path} cannot be read`);
    if (await exists(path)) throw refused("CONFIG", `${path} is a symlink to a file that is not there`);
    if (await exists(dirname(path))) return null;
    throw refused("NOT_FOUND", `the folder of ${path} does not exist`);
  }
};

/** Why a rename would not do: the file is itself a mount point, or has a second name that a rename would leave behind. */
export const inPlaceOf = ({ path, stat }: Loaded): "mount" | "links" | null =>
  isMountPoint(path) ? "mount" : stat.nlink > 1n ? "links" : null;

/** Makes `bytes` the content of the file, all or nothing, and durable. @throws ProviderError CONFLICT when it changed since `loaded`. */
export const replaceFile = async (
  path: string,
  loaded: Loaded,
  bytes: Uint8Array,
  swap: Swap,
): Promise<void> => {
  if (inPlaceOf(loaded) !== null) return await writeInPlace(loaded, bytes, swap);
  const renamed = await renameOver(loaded.path, bytes, loaded.stat, swap, async () => {
    const now = await loadFile(path, loaded.bytes.length);
    if (
      now === null ||
      now.path !== loaded.path ||
      !isSame(now.stat, loaded.stat) ||
      !now.bytes.equals(loaded.bytes)
    )
      throw changed();
  });
  if (!renamed) await writeInPlace(loaded, bytes, swap);
};

/** Makes a file of mode 0600 where none is. @throws ProviderError CONFLICT when one has appeared. */
export const createFile = async (path: string, bytes: Uint8Array, swap: Swap): Promise<void> => {
  const renamed = await renameOver(path, bytes, null, swap, async () => {
    if (await exists(path)) throw changed();
  });
  if (!renamed) throw refused("UNAVAILABLE", `${path} cannot be renamed into its place`);
};

/** What a killed run left beside the file. It holds a key, so it goes, unless it is younger than `minAgeMs`: then it may be in use. */
export const removeLeftover = async (
  path: string,
  minAgeMs: number,
): Promise<"none" | "removed" | "kept"> => {
  const temporary = temporaryOf(path);
  try {
    const { mtimeMs } = await lstat(temporary);
    if (minAgeMs > 0 && Date.now() - mtimeMs < minAgeMs) return "kept";
    await unlink(temporary);
    return "removed";
  } catch (error) {
    return isMissing(error) ? "none" : "kept";
  }
};

/** Makes what was written durable, also what an earlier, killed run renamed. */
export const syncFile = async (path: string): Promise<void> => {
  const handle = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  await syncAndClose(handle);
  await syncFolder(dirname(path));
};

/** false: the file system refuses to rename over this file (EBUSY, EXDEV: a mount point), nothing was changed. */
const renameOver = async (
  path: string,
  bytes: Uint8Array,
  like: BigIntStats | null,
  { commit, beforeSwap, rename: move = rename }: Swap,
  lastLook: () => Promise<void>,
): Promise<boolean> => {
  const temporary = temporaryOf(path);
  await removeLeftover(path, 0);
  const handle = await open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600).catch(
    failing(`no file can be made in ${dirname(path)}; its user needs write access there`),
  );
  let done = false;
  try {
    if (like !== null) await takeOver(handle, like, path);
    await handle.writeFile(bytes);
    await handle.sync();
    await beforeSwap?.();
    await lastLook();
    const mine = await handle.stat({ bigint: true });
    if (!isSame(mine, await lstat(temporary, { bigint: true }))) throw changed();
    commit();
    await move(temporary, path);
    done = true;
  } catch (error) {
    if (hasCode(error, "EBUSY", "EXDEV")) return false;
    const outcome = hasCode(error, "EIO") ? "unknown" : "not_applied";
    throw fromErrno(
      error,
      outcome,
      `${path} cannot be replaced; its user needs write access to ${dirname(path)}`,
    );
  } finally {
    await handle.close();
    if (!done) await unlink(temporary).catch(() => {});
  }
  await syncFolder(dirname(path));
  return true;
};

const takeOver = async (handle: FileHandle, like: BigIntStats, path: string): Promise<void> => {
  const mine = await handle.stat({ bigint: true });
  if (mine.uid !== like.uid || mine.gid !== like.gid) {
    await handle
      .chown(Number(like.uid), Number(like.gid))
      .catch(failing(`${path} belongs to ${like.uid}:${like.gid}, which only that user or root can keep`));
  }
  // After chown, which clears bits.
  await handle.chmod(Number(like.mode & 0o7777n));
};

/** Keeps the file itself. Not all or nothing, so an encrypted copy is made first and only the bytes that differ are written, in one go. */
const writeInPlace = async (
  loaded: Loaded,
  bytes: Uint8Array,
  { commit, backup, beforeSwap }: Swap,
): Promise<void> => {
  const { path } = loaded;
  await removeLeftover(path, 0);
  await backup(loaded.bytes).catch(
    failing(`no encrypted copy of ${path} can be kept, so it is not written in place`),
  );
  const handle = await open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK).catch(
    failing(`${path} must be written in place, and this user may not write to it`),
  );
  let committed = false;
  try {
    await beforeSwap?.();
    const now = await readAtMost(handle, loaded.bytes.length, loaded.bytes.length);
    const same = isSame(await handle.stat({ bigint: true }), loaded.stat) && now?.equals(loaded.bytes);
    if (!same) throw changed();
    const from = loaded.bytes.findIndex((byte, index) => byte !== bytes[index]);
    const start = from === -1 ? loaded.bytes.length : from;
    commit();
    committed = true;
    const { bytesWritten } = await handle.write(bytes, start, bytes.length - start, start);
    const whole = bytesWritten === bytes.length - start;
    if (!whole) throw new ProviderError("UNAVAILABLE", "unknown", `${path} was written in part`);
    await handle.truncate(bytes.length);
    await handle.sync();
  } catch (error) {
    throw fromErrno(error, committed ? "unknown" : "not_applied", `${path} cannot be written in place`);
  } finally {
    await handle.close();
  }
};

/** `size` is what it was a moment ago: room for one byte more shows whether it has grown. */
const readAtMost = async (handle: FileHandle, size: number, maxBytes: number): Promise<Buffer | null> => {
  let buffer = Buffer.alloc(Math.min(size, maxBytes) + 1);
  let length = 0;
  for (;;) {
    const { bytesRead } = await handle.read(buffer, length, buffer.length - length, length);
    length += bytesRead;
    if (length > maxBytes) return null;
    if (bytesRead === 0) return buffer.subarray(0, length);
    if (length === buffer.length) buffer = Buffer.concat([buffer], Math.min(2 * length, maxBytes + 1));
  }
};

const syncAndClose = async (handle: FileHandle): Promise<void> => {
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
};

const syncFolder = async (folder: string): Promise<void> => {
  try {
    const handle = await open(folder, O_RDONLY);
    await syncAndClose(handle);
  } catch (error) {
    // Some file systems have no fsync for folders; a folder that may be entered but not listed cannot be opened.
    if (!hasCode(error, "EINVAL", "ENOTSUP", "EACCES"))
      throw fromErrno(error, "unknown", `${folder} cannot be made durable`);
  }
};

/** Linux only; elsewhere a failed rename tells. /proc is memory: asking is faster than waiting for an answer. */
const isMountPoint = (path: string): boolean => {
  const table = mounts();
  const escaped = path.replace(/[ \t\n\\]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, "0")}`);
  return table.split("\n").some((line) => line.split(" ")[4] === escaped);
};

const mounts = (): string => {
  try {
    return readFileSync("/proc/self/mountinfo", "utf8");
  } catch {
    return "";
  }
};

const exists = async (path: string): Promise<boolean> => {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw fromErrno(error, "not_applied", `${path} cannot be looked at`);
  }
};

const isSame = (one: BigIntStats, other: BigIntStats): boolean =>
  one.dev === other.dev && one.ino === other.ino && one.size === other.size;
const failing =
  (hint: string) =>
  (error: unknown): never => {
    throw fromErrno(error, "not_applied", hint);
  };
const hasCode = (error: unknown, ...codes: readonly string[]): boolean => codes.includes(errnoOf(error));
const isMissing = (error: unknown): boolean => hasCode(error, "ENOENT", "ENOTDIR");
const changed = (): ProviderError => refused("CONFLICT", "the file was changed by somebody else meanwhile");
