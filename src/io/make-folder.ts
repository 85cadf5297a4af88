import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";

/**
 * `mkdir -p` with mode 0700. Node's own goes round for ever where a parent is there and yet takes no folder, as /proc does.
 * @returns the first folder that was made; undefined when all were there.
 * @throws as fs.mkdir does; ENOTDIR when something else has that name.
 */
export const makeFolder = async (dir: string): Promise<string | undefined> => {
  try {
    await mkdir(dir, { mode: 0o700 });
    return dir;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (await isFolder(dir)) return undefined;
    const parent = dirname(dir);
    if (code !== "ENOENT" || parent === dir || (await isFolder(parent))) {
      throw code === "EEXIST" ? Object.assign(new Error("ENOTDIR"), { code: "ENOTDIR" }) : error;
    }
    const first = await makeFolder(parent);
    const made = await makeFolder(dir);
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
