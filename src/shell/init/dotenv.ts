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
  /** One of them has a value. */
  readonly isFilled: boolean;
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
  const names = Object.keys(values).sort();
  const shaped = names.filter((name) => name !== KEY_NAME && isKeyShaped(values[name] ?? ""));
  const keyNames = [...(names.includes(KEY_NAME) ? [KEY_NAME] : []), ...shaped];
  return {
    path,
    keyNames,
    isFilled: keyNames.some((name) => (values[name] ?? "").trim() !== ""),
    baseUrl: baseUrlIn(values),
  };
};

const URL_NAME = /^IMKIT_(?:.*_)?(?:URL|HOST|ENDPOINT|BASE|DOMAIN|SERVER)$/;
/** As IMKIT hands them out. */
const VENDOR_URL = /^https:\/\/[a-z0-9-]+\.imkit\.io\/?$/i;

/** The variable of the vendor's name, else the one value that can be nothing else. */
const baseUrlIn = (values: ReturnType<typeof parseEnv>): string | null => {
  const named = values["IMKIT_BASE_URL"];
  if (named) return named;
  const like = Object.entries(values).flatMap(([name, value]) => {
    const isUrl = value !== undefined && (URL_NAME.test(name) ? /^https?:\/\/\S+$/ : VENDOR_URL).test(value);
    return isUrl ? [value.replace(/\/$/, "")] : [];
  });
  const [only] = like;
  return only !== undefined && like.every((value) => value === only) ? only : null;
};

/**
 * The one env file that is meant, where nobody says so: `.env` if it holds a key, else the only one that does; where none does, `.env` or
 * the only one there is. Several = a person must say; none = there is no env file.
 */
export const theEnvFile = (
  files: readonly EnvFile[],
): { readonly one: EnvFile | null; readonly several: readonly EnvFile[] } => {
  const groups = [
    files.filter((file) => file.isFilled),
    files.filter((file) => file.keyNames.length > 0),
    files.filter((file) => file.path === ".env"),
    files.filter((file) => file.baseUrl !== null),
    files,
  ];
  const group = groups.find((some) => some.length > 0) ?? [];
  const [only] = group;
  const one = group.find((file) => file.path === ".env") ?? (group.length === 1 ? only : undefined) ?? null;
  return { one, several: one === null ? group : [] };
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
