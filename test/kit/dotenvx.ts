import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parse, set } from "@dotenvx/dotenvx";
import type { Tools } from "../../providers/kit.ts";
import { toolsIn } from "./provider-tools.ts";

/** A file that the real dotenvx made (test/vectors/dotenv-encrypted/make.mjs), its .env.keys, and what dotenvx reads there. */
export type Made = {
  readonly name: string;
  readonly file: string;
  readonly sealed: string;
  readonly keys: string;
  readonly value: string;
};
const vectors = join(import.meta.dirname, "../vectors/dotenv-encrypted/cases.json");
export const { dotenvx: madeBy, cases: made } = JSON.parse(readFileSync(vectors, "utf8")) as {
  readonly dotenvx: string;
  readonly cases: readonly Made[];
};

/** The hex digits in a .env.keys text, and those of the public key in an env file. */
export const privateKeyOf = ({ keys }: Pick<Made, "keys">): string =>
  /^DOTENV_PRIVATE_KEY\w*=([0-9a-f]{64})$/m.exec(keys)?.[1] ?? "";
export const publicKeyOf = ({ sealed }: Pick<Made, "sealed">): string =>
  /^DOTENV_PUBLIC_KEY\w*="([0-9a-f]{66})"/m.exec(sealed)?.[1] ?? "";

/** What the real dotenvx reads. */
export const dotenvxReads = (bytes: Buffer, privateKey: string): Record<string, string> =>
  parse(bytes.toString("utf8"), { privateKey, processEnv: {} });

/** The real dotenvx writes, with the public key of the file. */
export const dotenvxSets = async (path: string, name: string, value: string, keys: string): Promise<void> => {
  const envKeysFile = `${path}.keys`;
  await writeFile(envKeysFile, keys);
  const options = { path, envKeysFile, noArmor: true, noNative: true, quiet: true };
  await set(name, value, options);
};

/** As `toolsIn`, with what `valueFrom` gives: its env or file name is looked up here. */
export const toolsWith = (dir: string, values: Readonly<Record<string, string>>): Tools => ({
  ...toolsIn(dir).tools,
  valueOf: async ({ valueFrom }) => {
    const value = values[valueFrom.env ?? valueFrom.file ?? valueFrom.credential ?? ""];
    if (value === undefined) throw new Error("not there");
    return value;
  },
});
