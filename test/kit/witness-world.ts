import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeWorld, type World, type WorldOptions } from "./world.ts";

/** A third-party store that quotes the ledger entry behind its value, as the cloud stores do. One JSON file. */
const STORE = `
import { createHmac, randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";

export default ({ z, Secret, ProviderError, defineStore, bounded, resolvePath }) => {
  const salt = randomBytes(32);
  const revisionOf = (text) => createHmac("sha256", salt).update(text).digest("hex");
  return defineStore({
    kind: "vault",
    schema: z.strictObject({ path: z.string() }),
    open: ({ path: given }, tools) => {
      const path = resolvePath(given, tools);
      const load = async () => {
        try {
          return JSON.parse(await readFile(path, "utf8"));
        } catch {
          throw new ProviderError("NOT_FOUND", "not_applied", "no such file");
        }
      };
      const read = (signal) =>
        bounded(signal, 10_000, async () => {
          const { value, witness } = await load();
          if (value === null) return null;
          return { secret: new Secret(value), revision: revisionOf(value), createdAt: null, witness };
        });
      const write = (next, expect, op, signal) =>
        bounded(signal, 10_000, async (_, commit) => {
          const { value } = await load();
          if (value === next.reveal()) return revisionOf(value);
          if ((value === null ? null : revisionOf(value)) !== expect)
            throw new ProviderError("CONFLICT", "not_applied", "moved on");
          commit();
          await writeFile(path, JSON.stringify({ value: next.reveal(), witness: op.witness }));
          return revisionOf(next.reveal());
        });
      const preflight = async () => [{ id: "vault", status: "ok", message: "may be written" }];
      const caps = { staging: false, compareAndSwap: false, witness: true, retire: false };
      return { where: "vault:" + path, caps, preflight, read, write };
    },
  });
};
`;

export type Quote = { readonly ledger: string; readonly seq: number; readonly h16: string };
export type WitnessWorld = World & {
  readonly vault: () => { readonly value: string | null; readonly witness: Quote | null };
  readonly setVault: (value: string | null, witness?: Quote | null) => void;
};

/** A world with one store more, `vault`, that holds the first key. */
export const makeWitnessWorld = async (options: WorldOptions = {}): Promise<WitnessWorld> => {
  const w = await makeWorld(options);
  writeFileSync(join(w.dir, "vault.store.mjs"), STORE);
  const file = join(w.dir, "vault.json");
  const config = readFileSync(w.configFile, "utf8");
  const line = "    stores:\n      - { name: vault, type: ./vault.store.mjs, path: ./vault.json }";
  writeFileSync(w.configFile, config.replace("    stores:", line));
  const setVault: WitnessWorld["setVault"] = (value, witness = null) =>
    writeFileSync(file, JSON.stringify({ value, witness }));
  setVault(w.sandbox.firstKey());
  return { ...w, setVault, vault: () => JSON.parse(readFileSync(file, "utf8")) };
};
