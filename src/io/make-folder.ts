import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";

/**
 * `mkdir -p` with mode 0700. Node's own goes round for ever where a parent is there and yet takes no folder, as /proc does.
 * @returns the first folder that was made; undefined when all were there.
 * @throws as fs.mkdir does; ENOTDIR when something else has that name.
 */
export const makeFolder = (dir: string): Promise<string | undefined> => make(dir, true);

/** `again`: a parent that was missing is made, or came meanwhile by another process's hand; then this one is tried once more. */
const make = async (dir: string, again: boolean): Promise<string | undefined> => {
  try {
    await mkdir(dir, { mode: 0o700 });
    return dir;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (await isFolder(dir)) return undefined;
    const parent = dirname(dir);
    if (code !== "ENOENT" || parent === dir || !again) {
      throw code === "EEXIST" ? Object.assign(new Error("ENOTDIR"), { code: "ENOTDIR" }) : error;
    }
    const first = await make(parent, true);
    const made = await make(dir, false);
    return first ?? made;
  }
};

const isFolder = async (dir: string): Promise<boolean> => {
  try {
    return (await stat(dir)).isDirectory();
  } catch {
    return false;
  }
};
