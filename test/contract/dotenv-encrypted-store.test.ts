import { mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import dotenv from "../../providers/stores/dotenv.ts";
import { dotenvxSets, type Made, made, publicKeyOf, toolsWith } from "../kit/dotenvx.ts";
import { tempDir } from "../kit/provider-tools.ts";
import { type Place, storeContract } from "./store.ts";

const OURS = /^(export )?IMKIT_API_KEY=.*\n?/m;
const vector = (name: string): Made => {
  const found = made.find((each) => each.name === name);
  if (found === undefined) throw new Error(`no vector "${name}"`);
  return found;
};

/** A place around a file that dotenvx encrypted, without our entry, or with an empty one; null = no file. */
const place = async (from: Made, begin: "no entry" | "empty" | "no file"): Promise<Place> => {
  const { dir, remove } = await tempDir();
  const path = join(dir, from.file);
  // Without a comment behind it: dotenvx 2.38 would say that it wrote, and write nothing.
  const entry = begin === "empty" ? 'IMKIT_API_KEY=""\n' : "";
  if (begin !== "no file") await writeFile(path, from.sealed.replace(OURS, entry), { mode: 0o640 });
  const create = begin === "no file";
  const publicKey = create ? { publicKey: publicKeyOf(from) } : {};
  const privateKey = { valueFrom: { file: "keys" } };
  const config = { path, key: "IMKIT_API_KEY", create, encrypted: true, privateKey, ...publicKey };
  return {
    store: dotenv.open(config, toolsWith(dir, { keys: from.keys })),
    put: async (secret) => {
      // The real dotenvx, which needs a file that it knows as its own.
      if (create) await writeFile(path, from.sealed, { flag: "wx" }).catch(() => {});
      await dotenvxSets(path, "IMKIT_API_KEY", secret.reveal(), from.keys);
    },
    breakIt: async () => {
      await rm(path, { force: true });
      await mkdir(path);
    },
    neighbours: async () => {
      const found = await stat(path).catch(() => null);
      if (found === null || create) return "";
      const rest = found.isDirectory() ? "" : (await readFile(path, "utf8")).replace(OURS, "");
      return rest + found.mode.toString(8);
    },
    writes: async () => Number((await stat(path, { bigint: true })).mtimeNs % 1_000_000_000_000n),
    close: remove,
  };
};

const bench = { it, expect };
storeContract({
  ...bench,
  name: "dotenv, encrypted, no entry",
  open: async () => await place(vector("export and a comment"), "no entry"),
});
storeContract({
  ...bench,
  name: "dotenv, encrypted, empty entry",
  open: async () => await place(vector("a stage"), "empty"),
});
storeContract({
  ...bench,
  name: "dotenv, encrypted, no file",
  open: async () => await place(vector("double quotes"), "no file"),
});
