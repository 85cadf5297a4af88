import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { RotatorError } from "../core/errors.ts";
import { configPath, type Env } from "./config-find.ts";

/** Where a secret of the config is to be found: exactly one of the three. */
export type ValueFrom = {
  readonly valueFrom: {
    readonly env?: string | undefined;
    readonly file?: string | undefined;
    readonly credential?: string | undefined;
  };
};

const MAX_BYTES = 64 * 1024;

/**
 * The value that a `valueFrom` names, without one trailing line end. `dir` is the config file's folder.
 * @throws RotatorError CONFIG_INVALID naming the variable or the path, never a value
 */
export const valueOf = async (
  { valueFrom }: ValueFrom,
  { dir, env }: { readonly dir: string; readonly env: Env },
): Promise<string> => {
  const { env: variable, file, credential } = valueFrom;
  if ([variable, file, credential].filter((way) => way !== undefined).length !== 1)
    throw missing("A valueFrom must have exactly one of env, file, credential.");
  if (variable !== undefined) {
    const name = /^[A-Za-z_]\w{0,63}$/.test(variable) ? variable : "(its name is not shown)";
    return filled(env[variable] ?? "", `The environment variable ${name} is not set or empty.`);
  }
  if (file !== undefined) return fromFile(configPath(file, dir, env));
  const folder = env["CREDENTIALS_DIRECTORY"];
  if (!folder) throw missing("$CREDENTIALS_DIRECTORY is not set (systemd: LoadCredential=).");
  if (!/^[\w.@-]+$/.test(credential ?? "") || /^\.+$/.test(credential ?? ""))
    throw missing("A credential must be a plain file name.");
  return fromFile(join(folder, credential ?? ""));
};

const fromFile = async (path: string): Promise<string> => {
  const found = await stat(path).catch(() => null);
  if (found === null || !found.isFile()) throw missing(`${path} is not there, or is not a regular file.`);
  if (found.size > MAX_BYTES) throw missing(`${path} is too large (over 64 KiB).`);
  const text = await readFile(path, "utf8").catch(() => {
    throw missing(`${path} may not be read by this user.`);
  });
  return filled(text, `${path} is empty.`);
};

const filled = (text: string, why: string): string => {
  const value = text.replace(/\r?\n$/, "");
  if (value === "") throw missing(why);
  return value;
};

const missing = (why: string): RotatorError =>
  new RotatorError("CONFIG_INVALID", {
    what: "A value that the config names (valueFrom) cannot be had.",
    why,
    do: ["Provide what is named, then run the same command again."],
  });
