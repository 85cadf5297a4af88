import { lstat, readdir, rename } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { brokenLedger } from "../../core/contradiction.ts";
import { RotatorError } from "../../core/errors.ts";
import type { Ledger } from "../../ports.ts";
import { syncFolder } from "../disk.ts";
import { codeOf, entryName, entryNumber, fileLedger, readEntryFile } from "./file.ts";

/** What lies where a ledger is, or was before it was set aside. */
export type LedgerRemains = {
  /** `aside`: it was set aside and nothing has its place yet; `none`: there is no trace of one. */
  readonly place: "here" | "aside" | "none";
  readonly where: string;
  /** Raw lines with the numbers of their files; what cannot be read is an empty line. */
  readonly lines: readonly Uint8Array[];
  readonly seqs: readonly number[];
};

/** The ledger folder that is to be followed by a new one. */
export type FilePredecessor = {
  /** The same place, without the guard: here the successor begins. */
  readonly ledger: Ledger;
  /** @throws RotatorError STATE_UNUSABLE when the folder cannot be read at all */
  look(): Promise<LedgerRemains>;
  /**
   * Renames the folder to `ledger-<id>-<n>` beside it, durably; nothing is ever deleted. Repeatable: without a folder it does nothing.
   * @param id of the ledger; null = it cannot be read
   * @returns where it lies now, null when there was none
   * @throws RotatorError STATE_UNUSABLE; LOCKED when another one took its place since the last look
   */
  setAside(id: string | null): Promise<string | null>;
};

type Aside = { readonly path: string; readonly n: number };

const asidesOf = async (dir: string): Promise<readonly Aside[]> => {
  const names = await readdir(dirname(dir)).catch((error: unknown) => {
    if (codeOf(error) === "ENOENT") return [];
    throw unusable(dirname(dir), codeOf(error));
  });
  const pattern = new RegExp(`^${basename(dir)}-(?:[0-9a-f]{1,64}|unreadable)-(\\d{1,6})$`);
  return names
    .flatMap((name) => {
      const n = pattern.exec(name)?.[1];
      return n === undefined ? [] : [{ path: join(dirname(dir), name), n: Number(n) }];
    })
    .sort((a, b) => a.n - b.n);
};

const unusable = (path: string, code: string): RotatorError =>
  new RotatorError("STATE_UNUSABLE", { why: `${path} cannot be read or renamed (${code}).` });

const numbersIn = async (dir: string): Promise<readonly number[]> => {
  const names = await readdir(dir).catch((error: unknown) => {
    if (codeOf(error) === "ENOENT") return [];
    throw unusable(dir, codeOf(error));
  });
  return names
    .map(entryNumber)
    .filter((seq) => seq !== null)
    .sort((a, b) => a - b);
};

const readAll = async (dir: string, seqs: readonly number[]): Promise<readonly Uint8Array[]> => {
  const lines: Uint8Array[] = [];
  for (const seq of seqs) {
    const file = readEntryFile(join(dir, entryName(seq)));
    if (file.state === "blocked") throw unusable(join(dir, entryName(seq)), file.why);
    lines.push(file.state === "read" ? file.bytes : new Uint8Array());
  }
  return lines;
};

/** A folder without entries is none: a killed process may have left it behind. */
export const filePredecessor = (dir: string): FilePredecessor => {
  let seen: number | null = null;
  const inode = async (): Promise<number | null> => {
    try {
      return (await lstat(dir)).ino;
    } catch (error) {
      if (codeOf(error) === "ENOENT") return null;
      throw unusable(dir, codeOf(error));
    }
  };
  return {
    ledger: fileLedger(dir),
    look: async () => {
      seen = await inode();
      const here = await numbersIn(dir);
      if (here.length > 0)
        return { place: "here", where: `file:${dir}`, lines: await readAll(dir, here), seqs: here };
      const last = (await asidesOf(dir)).at(-1);
      if (last === undefined) return { place: "none", where: `file:${dir}`, lines: [], seqs: [] };
      const seqs = await numbersIn(last.path);
      return { place: "aside", where: `file:${last.path}`, lines: await readAll(last.path, seqs), seqs };
    },
    setAside: async (id) => {
      const n = 1 + ((await asidesOf(dir)).at(-1)?.n ?? 0);
      const name = id !== null && /^[0-9a-f]{1,64}$/.test(id) ? id : "unreadable";
      const target = join(dirname(dir), `${basename(dir)}-${name}-${n}`);
      if ((await numbersIn(dir)).length === 0) return null;
      if ((await inode()) !== seen) {
        throw new RotatorError("LOCKED", { why: "Another process began a new ledger just now." });
      }
      try {
        await rename(dir, target);
        await syncFolder(dirname(dir));
      } catch (error) {
        throw unusable(dir, codeOf(error));
      }
      return target;
    },
  };
};

/**
 * The ledger as every command but `adopt --new-ledger` sees it: where one was set aside and nothing has its place, no other one begins
 * by itself, or the link between the two would be lost.
 */
export const guardedLedger = (dir: string, app: string): Ledger => {
  const ledger = fileLedger(dir);
  return {
    ...ledger,
    read: async (fromSeq) => {
      const lines = await ledger.read(fromSeq).catch((error: unknown) => {
        if (!(error instanceof RotatorError) || error.code !== "LEDGER_BROKEN") throw error;
        throw brokenLedger(app, error.why);
      });
      if (fromSeq > 0 || lines.length > 0) return lines;
      const last = (await asidesOf(dir)).at(-1);
      if (last === undefined) return lines;
      throw new RotatorError("LEDGER_BROKEN", {
        what: "The ledger of this app is not there. Nothing was written.",
        why: `One was set aside (${last.path}), and the one that follows it was not begun, or was removed.`,
        do: [`imkit-rotator adopt ${app} --new-ledger`],
      });
    },
  };
};
