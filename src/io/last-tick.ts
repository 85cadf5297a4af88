import { readFile, rename, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { temporaryIn } from "./disk.ts";

const NAME = "last-tick";

/** When the last tick of an app was, in its state folder. It may be lost: then the next tick may do everything. */
export type LastTick = {
  /** Epoch ms; null = not known. */
  read(): Promise<number | null>;
  /** Never rejects. */
  write(ms: number): Promise<void>;
};

export const lastTick = (dir: string): LastTick => ({
  read: async () => {
    const text = (await readFile(join(dir, NAME), "utf8").catch(() => "")).trimEnd();
    const ms = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(text) ? Date.parse(text) : Number.NaN;
    return Number.isNaN(ms) ? null : ms;
  },
  write: async (ms) => {
    const temporary = temporaryIn(dir);
    try {
      await writeFile(temporary, `${new Date(ms).toISOString()}\n`, { flag: "wx", mode: 0o600 });
      await rename(temporary, join(dir, NAME));
    } catch {
      await unlink(temporary).catch(() => {});
    }
  },
});
