import { constants, type BigIntStats, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { ProviderError } from "../../src/core/errors.ts";
import { errnoOf, fromErrno, refused } from "../kit.ts";
import { type Calls, isMissing } from "./dotenv-calls.ts";

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY } = constants;

/** A file as it was read. `path` is the real one, behind all symlinks; `stat` belongs to the very file that `bytes` came from. */
export type Loaded = {
  readonly path: string;
  readonly bytes: Buffer;
  readonly stat: BigIntStats;
};

/** What tests replace. */
export type Hooks = {
  readonly calls?: Calls;
  readonly rename?: Calls["rename"];
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
export const loadFile = async (calls: Calls, path: string, maxBytes: number): Promise<Loaded | null> => {
  try {
    const real = await calls.realpath(path);
    const file = await calls.open(real, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    try {
      const found = await calls.fstat(file);
      if (!found.isFile()) throw refused("CONFIG", `${path} is not a plain file`);
      const bytes = await readAtMost(calls, file, Number(found.size), maxBytes);
      if (bytes === null) throw refused("TOO_LARGE", `${path} is larger than ${maxBytes} bytes`);
      return { path: real, bytes, stat: found };
    } finally {
      await calls.close(file);
    }
  } catch (error) {
    if (!isMissing(error)) throw fromErrno(error, "not_applied", `${path} cannot be read`);
    if (await exists(calls, path))
      throw refused("CONFIG", `${path} is a symlink to a file that is not there`);
    if (!hasCode(error, "ENOTDIR") && (await exists(calls, dirname(path)))) return null;
    throw refused("NOT_FOUND", `the folder of ${path} does not exist`);
  }
};

export type InPlace = "mount" | "links" | null;

/** Why a rename would not do: the file is itself a mount point, or has a second name that a rename would leave behind. */
export const inPlaceOf = ({ path, stat }: Loaded): InPlace =>
  isMountPoint(path) ? "mount" : stat.nlink > 1n ? "links" : null;

/** Makes `bytes` the content of the file, all or nothing, and durable. @throws ProviderError CONFLICT when it changed since `loaded`. */
export const replaceFile = async (
  calls: Calls,
  path: string,
  loaded: Loaded,
  bytes: Uint8Array,
  swap: Swap,
): Promise<void> => {
  if (inPlaceOf(loaded) !== null) return await writeInPlace(calls, loaded, bytes, swap);
  const renamed = await renameOver(calls, loaded.path, bytes, loaded.stat, swap, async () => {
    const now = await loadFile(calls, path, loaded.bytes.length);
    if (
      now === null ||
      now.path !== loaded.path ||
      !isSame(now.stat, loaded.stat) ||
      !now.bytes.equals(loaded.bytes)
    )
      throw changed();
  });
  if (!renamed) await writeInPlace(calls, loaded, bytes, swap);
};

/** Makes a file of mode 0600 where none is. @throws ProviderError CONFLICT when one has appeared. */
export const createFile = async (
  calls: Calls,
  path: string,
  bytes: Uint8Array,
  swap: Swap,
): Promise<void> => {
  const renamed = await renameOver(calls, path, bytes, null, swap, async () => {
    if (await exists(calls, path)) throw changed();
  });
  if (!renamed) throw refused("UNAVAILABLE", `${path} cannot be renamed into its place`);
};

/** What a killed run left beside the file. It holds a key, so it goes, unless it is younger than `minAgeMs`: then it may be in use. */
export const removeLeftover = async (
  calls: Calls,
  path: string,
  minAgeMs: number,
): Promise<"none" | "removed" | "kept"> => {
  const temporary = temporaryOf(path);
  try {
    const found = await calls.lstat(temporary);
    if (found === null) return "none";
    if (minAgeMs > 0 && Date.now() - Number(found.mtimeMs) < minAgeMs) return "kept";
    await calls.unlink(temporary);
    return "removed";
  } catch (error) {
    return isMissing(error) ? "none" : "kept";
  }
};

/** Makes what was written durable, also what an earlier, killed run renamed. */
export const syncFile = async (calls: Calls, path: string): Promise<void> => {
  const file = await calls.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  await syncAndClose(calls, file);
  await syncFolder(calls, dirname(path));
};

/** false: the file system refuses to rename over this file (EBUSY, EXDEV: a mount point), nothing was changed. */
const renameOver = async (
  calls: Calls,
  path: string,
  bytes: Uint8Array,
  like: BigIntStats | null,
  { commit, beforeSwap, rename = calls.rename }: Swap,
  lastLook: () => Promise<void>,
): Promise<boolean> => {
  const temporary = temporaryOf(path);
  await removeLeftover(calls, path, 0);
  const file = await orRefuse(
    `no file can be made in ${dirname(path)}; its user needs write access there`,
    async () => await calls.open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600),
  );
  let done = false;
  try {
    if (like !== null) await takeOver(calls, file, like, path);
    await writeAll(calls, file, bytes);
    await calls.sync(file);
    await beforeSwap?.();
    await lastLook();
    const [mine, there] = [await calls.fstat(file), await calls.lstat(temporary)];
    if (there === null || !isSame(mine, there)) throw changed();
    commit();
    await rename(temporary, path);
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
    await calls.close(file);
    if (!done) await removeLeftover(calls, path, 0);
  }
  await syncFolder(calls, dirname(path));
  return true;
};

const writeAll = async (calls: Calls, file: number, bytes: Uint8Array): Promise<void> => {
  for (let at = 0, wrote = -1; at < bytes.length; at += wrote) {
    wrote = await calls.write(file, bytes, at, bytes.length - at, at);
    if (wrote === 0) throw new Error("short write");
  }
};

const takeOver = async (calls: Calls, file: number, like: BigIntStats, path: string): Promise<void> => {
  const mine = await calls.fstat(file);
  if (mine.uid !== like.uid || mine.gid !== like.gid) {
    await orRefuse(
      `${path} belongs to ${like.uid}:${like.gid}, which only that user or root can keep`,
      async () => await calls.chown(file, Number(like.uid), Number(like.gid)),
    );
  }
  // After chown, which clears bits.
  await calls.chmod(file, Number(like.mode & 0o7777n));
};

/** Keeps the file itself. Not all or nothing, so an encrypted copy is made first and only the bytes that differ are written, in one go. */
const writeInPlace = async (
  calls: Calls,
  loaded: Loaded,
  bytes: Uint8Array,
  { commit, backup, beforeSwap }: Swap,
): Promise<void> => {
  const { path } = loaded;
  await removeLeftover(calls, path, 0);
  await orRefuse(`no encrypted copy of ${path} can be kept, so it is not written in place`, () =>
    backup(loaded.bytes),
  );
  const file = await orRefuse(
    `${path} must be written in place, and this user may not write to it`,
    async () => await calls.open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK),
  );
  let committed = false;
  try {
    await beforeSwap?.();
    const now = await readAtMost(calls, file, loaded.bytes.length, loaded.bytes.length);
    const same = isSame(await calls.fstat(file), loaded.stat) && now?.equals(loaded.bytes);
    if (!same) throw changed();
    const from = loaded.bytes.findIndex((byte, index) => byte !== bytes[index]);
    const start = from === -1 ? loaded.bytes.length : from;
    commit();
    committed = true;
    const length = bytes.length - start;
    if ((await calls.write(file, bytes, start, length, start)) !== length)
      throw new ProviderError("UNAVAILABLE", "unknown", `${path} was written in part`);
    await calls.truncate(file, bytes.length);
    await calls.sync(file);
  } catch (error) {
    throw fromErrno(error, committed ? "unknown" : "not_applied", `${path} cannot be written in place`);
  } finally {
    await calls.close(file);
  }
};

/** `size` is what it was a moment ago: room for one byte more shows whether it has grown. */
const readAtMost = async (
  calls: Calls,
  file: number,
  size: number,
  maxBytes: number,
): Promise<Buffer | null> => {
  let buffer = Buffer.alloc(Math.min(size, maxBytes) + 1);
  let length = 0;
  for (;;) {
    const count = await calls.read(file, buffer, length, buffer.length - length, length);
    length += count;
    if (length > maxBytes) return null;
    if (count === 0) return buffer.subarray(0, length);
    if (length === buffer.length) buffer = Buffer.concat([buffer], Math.min(2 * length, maxBytes + 1));
  }
};

const syncAndClose = async (calls: Calls, file: number): Promise<void> => {
  try {
    await calls.sync(file);
  } finally {
    await calls.close(file);
  }
};

const syncFolder = async (calls: Calls, folder: string): Promise<void> => {
  try {
    await syncAndClose(calls, await calls.open(folder, O_RDONLY));
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
  return table.includes(` ${escaped} `) && table.split("\n").some((line) => line.split(" ")[4] === escaped);
};

const mounts = (): string => {
  try {
    return readFileSync("/proc/self/mountinfo", "utf8");
  } catch {
    return "";
  }
};

const exists = async (calls: Calls, path: string): Promise<boolean> => {
  try {
    return (await calls.lstat(path)) !== null;
  } catch (error) {
    throw fromErrno(error, "not_applied", `${path} cannot be looked at`);
  }
};

const isSame = (one: BigIntStats, other: BigIntStats): boolean =>
  one.dev === other.dev && one.ino === other.ino && one.size === other.size;
const orRefuse = async <T>(hint: string, work: () => Promise<T>): Promise<T> => {
  try {
    return await work();
  } catch (error) {
    throw fromErrno(error, "not_applied", hint);
  }
};
const hasCode = (error: unknown, ...codes: readonly string[]): boolean => codes.includes(errnoOf(error));
const changed = (): ProviderError => refused("CONFLICT", "the file was changed by somebody else meanwhile");
