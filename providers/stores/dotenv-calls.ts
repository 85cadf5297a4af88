import fs, { type BigIntStats } from "node:fs";
import { lstat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { errnoOf } from "../kit.ts";

type Awaitable<T> = T | Promise<T>;

/** The few calls of node:fs that a store on a disk makes, on descriptors. They throw, or reject, with what the system says. */
export type Calls = {
  readonly realpath: (path: string) => Awaitable<string>;
  /** @returns null when nothing has that name */
  readonly lstat: (path: string) => Awaitable<BigIntStats | null>;
  readonly access: (path: string, mode: number) => Awaitable<void>;
  readonly open: (path: string, flags: number, mode?: number) => Awaitable<number>;
  readonly close: (file: number) => Awaitable<void>;
  readonly fstat: (file: number) => Awaitable<BigIntStats>;
  /** @returns the number of bytes; 0 = the end */
  readonly read: (file: number, into: Buffer, at: number, length: number, from: number) => Awaitable<number>;
  readonly write: (
    ...call: readonly [file: number, bytes: Uint8Array, at: number, length: number, to: number]
  ) => Awaitable<number>;
  readonly truncate: (file: number, length: number) => Awaitable<void>;
  readonly chown: (file: number, user: number, group: number) => Awaitable<void>;
  readonly chmod: (file: number, mode: number) => Awaitable<void>;
  readonly rename: (from: string, to: string) => Awaitable<void>;
  readonly unlink: (path: string) => Awaitable<void>;
  /** Waits for the disk: always through the thread pool. */
  readonly sync: (file: number) => Promise<void>;
};

/** Nothing has that name, or a part of its path is no folder. */
export const isMissing = (error: unknown): boolean => ["ENOENT", "ENOTDIR"].includes(errnoOf(error));

export const big = { bigint: true } as const;
export const sync = promisify(fs.fsync);

/** For a disk of this machine: such a call is over sooner than the way to another thread and back. */
export const blocking: Calls = {
  realpath: fs.realpathSync.native,
  lstat: (path) => {
    try {
      return fs.lstatSync(path, { ...big, throwIfNoEntry: false }) ?? null;
    } catch (error) {
      if (isMissing(error)) return null;
      throw error;
    }
  },
  access: fs.accessSync,
  open: fs.openSync,
  close: fs.closeSync,
  fstat: (file) => fs.fstatSync(file, big),
  read: fs.readSync,
  write: fs.writeSync,
  truncate: fs.ftruncateSync,
  chown: fs.fchownSync,
  chmod: fs.fchmodSync,
  rename: fs.renameSync,
  unlink: fs.unlinkSync,
  sync,
};

/** File systems whose every call ends: ext2 to ext4, XFS, Btrfs, F2FS, ZFS, tmpfs, and a container's overlay. Linux's numbers. */
const LOCAL: ReadonlySet<number> = new Set([
  0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0x0102_1994, 0x794c_7630,
]);

const isLocal = async (path: string): Promise<boolean> =>
  process.platform === "linux" && LOCAL.has((await statfs(path)).type);

/** A link to nowhere, or to a disk that does not answer, is there. */
const isAbsent = async (path: string): Promise<boolean> => {
  try {
    await lstat(path);
    return false;
  } catch (error) {
    return isMissing(error);
  }
};

/** How to call for a file that may be a symlink, and may not be there. Asked through the thread pool. Never rejects. */
export const callsFor = async (path: string): Promise<Calls> => {
  // Where it is not there its folder alone decides.
  const isHere = await isLocal(path).catch(() => isAbsent(path));
  const isSure = isHere && (await isLocal(dirname(path)).catch(() => false));
  return isSure ? blocking : (await import("./dotenv-calls-pooled.ts")).pooled;
};
