import { mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";

/**
 * `mkdir -p` with mode 0700. Node's own goes round for ever where a parent is there and yet takes no folder, as /proc does.
 * @returns the first folder that was made; undefined when all were there.
 * @throws as fs.mkdir does; ENOTDIR when something else has that name.
 */
export const makeFolder = (dir: string): string | undefined => (isFolder(dir) ? undefined : make(dir, true));

/** `again`: a parent that was missing is made, or came meanwhile by another process's hand; then this one is tried once more. */
const make = (dir: string, again: boolean): string | undefined => {
  try {
    mkdirSync(dir, { mode: 0o700 });
    return dir;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (isFolder(dir)) return undefined;
    const parent = dirname(dir);
    if (code !== "ENOENT" || parent === dir || !again) {
      throw code === "EEXIST" ? Object.assign(new Error("ENOTDIR"), { code: "ENOTDIR" }) : error;
    }
    const first = make(parent, true);
    const made = make(dir, false);
    return first ?? made;
  }
};

const isFolder = (dir: string): boolean => {
  try {
    return statSync(dir, { throwIfNoEntry: false })?.isDirectory() ?? false;
  } catch {
    return false;
  }
};
