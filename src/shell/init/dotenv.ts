import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { isKeyShaped } from "../../core/intake.ts";

/** What `init` wants to know of an env file. Holds no value of it but the base URL. */
export type EnvFile = {
  /** As it is written into the config: relative to the folder that was looked at. */
  readonly path: string;
  /** Variables that may hold the key, the likeliest first. */
  readonly keyNames: readonly string[];
  readonly baseUrl: string | null;
};

const MAX_BYTES = 1024 * 1024;
const KEY_NAME = "IMKIT_API_KEY";
/** Files that show others what to write hold no key of worth. */
const SAMPLE = /\.(?:example|sample|template|dist|defaults?|schema|bak|orig)$/i;

/** null when it is not there, is no file, or is too large to be an env file. */
export const readEnvFile = (folder: string, path: string): EnvFile | null => {
  const file = join(path.startsWith("/") ? "/" : folder, path);
  let values: ReturnType<typeof parseEnv>;
  try {
    const found = statSync(file);
    if (!found.isFile() || found.size > MAX_BYTES) return null;
    values = parseEnv(readFileSync(file, "utf8").replace(/^\uFEFF/, ""));
  } catch {
    return null;
  }
  const names = Object.keys(values);
  const shaped = names.filter((name) => name !== KEY_NAME && isKeyShaped(values[name] ?? ""));
  return {
    path,
    keyNames: [...(names.includes(KEY_NAME) ? [KEY_NAME] : []), ...shaped],
    baseUrl: values["IMKIT_BASE_URL"] || null,
  };
};

/** The env files of a folder: those with a key before those without, `.env` first among equals. */
export const findEnvFiles = (folder: string): readonly EnvFile[] => {
  let names: readonly string[];
  try {
    names = readdirSync(folder).filter(
      (name) => /^\.env(?:\..+)?$|^[\w-]+\.env$/.test(name) && !SAMPLE.test(name),
    );
  } catch {
    return [];
  }
  const order = [...names].sort((a, b) => Number(b === ".env") - Number(a === ".env") || (a < b ? -1 : 1));
  const files = order.map((name) => readEnvFile(folder, name)).filter((file) => file !== null);
  const has = (file: EnvFile): boolean => file.keyNames.length > 0;
  return [...files.filter(has), ...files.filter((file) => !has(file))];
};
