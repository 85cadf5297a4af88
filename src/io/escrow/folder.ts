import { lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { type ErrorWords, RotatorError } from "../../core/errors.ts";
import { errnoOf, makeFolderDurably, readRegular, syncFolder, TEMPORARY, unlinkIfThere } from "../disk.ts";

/** An ESCROW_FAILED in our own words. */
export const failed = (why: string, words: Omit<ErrorWords, "why"> = {}): RotatorError =>
  new RotatorError("ESCROW_FAILED", { why, ...words });

/** What went wrong with a file, as ESCROW_FAILED with the errno name and without the system's text. */
export const failedOn = (error: unknown, doing: string): RotatorError =>
  error instanceof RotatorError ? error : failed(`${doing} (${errnoOf(error) || "unexpected failure"}).`);

/**
 * A private folder: 0700 when made here, never a symbolic link, never writable for group or others.
 * @returns false when it is not there and `make` is not set.
 * @throws RotatorError ESCROW_FAILED
 */
export const hasPrivateFolder = async (dir: string, make: boolean): Promise<boolean> => {
  try {
    if (make) await makeFolderDurably(dir);
    const found = lstatSync(dir);
    if (found.isSymbolicLink() || !found.isDirectory())
      throw failed(`${dir} is not a folder of its own (a symbolic link is not followed).`);
    if ((found.mode & 0o022) !== 0)
      throw failed(`${dir} is writable for its group or for everybody, so others could plant a key in it.`, {
        do: [`chmod 700 ${dir}`],
      });
    return true;
  } catch (error) {
    if (!make && errnoOf(error) === "ENOENT") return false;
    throw failedOn(error, `The folder ${dir} cannot be used`);
  }
};

/**
 * The bytes and the mode of a regular file of at most `maxBytes`; symbolic links are not followed, a FIFO does not block.
 * @returns null when there is no such file.
 * @throws RotatorError ESCROW_FAILED
 */
export const readPrivate = (
  path: string,
  maxBytes: number,
): { readonly bytes: Buffer; readonly mode: number } | null => {
  try {
    const found = readRegular(path, maxBytes + 1);
    if (found === "absent") return null;
    if (found === "special") throw failed(`${path} is not a regular file.`);
    if (found.bytes.length > maxBytes) throw failed(`${path} is too large.`);
    return found;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return null;
    if (errnoOf(error) === "ELOOP") throw failed(`${path} is a symbolic link, which is not followed.`);
    throw failedOn(error, `${path} cannot be read`);
  }
};

/** Absence is success; also takes away what a write of that name that was killed has left. */
export const removePrivate = async (dir: string, name: string): Promise<void> => {
  unlinkIfThere(join(dir, name));
  removeLeftovers(dir, name);
  await syncFolder(dir);
};

/** What killed writes of that name have left, and those under way: these fail with ENOENT. */
export const removeLeftovers = (dir: string, name: string): void => {
  const leftovers = readdirSync(dir).filter((entry) => entry.startsWith(`${TEMPORARY}${name}-`));
  for (const entry of leftovers) unlinkIfThere(join(dir, entry));
};
