import { mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import dotenv from "../../providers/stores/dotenv.ts";
import { tempDir, toolsIn } from "../kit/provider-tools.ts";
import { type Place, storeContract } from "./store.ts";

/** A place around a file that begins as `text`; null = not there. */
const place = async (text: string | null, key = "IMKIT_API_KEY"): Promise<Place> => {
  const { dir, remove } = await tempDir();
  const path = join(dir, ".env");
  if (text !== null) await writeFile(path, text, { mode: 0o640 });
  const ours = new RegExp(`^(export )?${key}=.*\\n?`, "m");
  return {
    store: dotenv.open({ path, key, create: text === null }, toolsIn(dir).tools),
    put: async (secret) => {
      const before = await readFile(path, "utf8").catch(() => "");
      await writeFile(path, `${before.replace(ours, "")}${key}=${secret.reveal()}\n`);
    },
    breakIt: async () => {
      await rm(path, { force: true });
      await mkdir(path);
    },
    neighbours: async () => {
      const found = await stat(path).catch(() => null);
      if (found === null) return "";
      const rest =
        text === null || found.isDirectory() ? "" : (await readFile(path, "utf8")).replace(ours, "");
      return rest + (text === null ? "" : found.mode.toString(8));
    },
    writes: async () => Number((await stat(path, { bigint: true })).mtimeNs % 1_000_000_000_000n),
    close: remove,
  };
};

const bench = { it, expect };
storeContract({
  ...bench,
  name: "dotenv, no entry",
  open: async () => await place("# neighbours\nA=1\nB='two'\n"),
});
storeContract({
  ...bench,
  name: "dotenv, empty entry",
  open: async () => await place('A=1\nexport IMKIT_API_KEY="" # the key\nB="x\ny"\n'),
});
storeContract({ ...bench, name: "dotenv, no file", open: async () => await place(null, "CHAT_KEY") });
