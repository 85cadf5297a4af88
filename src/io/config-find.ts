import { lstatSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { RotatorError } from "../core/errors.ts";

export type Env = Readonly<Record<string, string | undefined>>;

export const CONFIG_NAMES = [
  "imkit-rotator.config.yaml",
  "imkit-rotator.config.yml",
  "imkit-rotator.config.json",
] as const;

export type ConfigSearch = { readonly flag: string | undefined; readonly env: Env; readonly cwd: string };

/**
 * The config file to use: `--config`, $IMKIT_ROTATOR_CONFIG, `cwd` and every folder above it, $XDG_CONFIG_HOME/imkit-rotator, then
 * /etc/imkit-rotator. The first place that has one decides; whether the file is sound is `loadConfig`'s to say.
 * @throws RotatorError CONFIG_MISSING, or CONFIG_INVALID when one folder has two
 */
export const findConfig = async ({ flag, env, cwd }: ConfigSearch): Promise<string> => {
  if (flag !== undefined) return named(flag, "--config", cwd);
  if (env["IMKIT_ROTATOR_CONFIG"]) return named(env["IMKIT_ROTATOR_CONFIG"], "$IMKIT_ROTATOR_CONFIG", cwd);
  const folders = [...upwards(resolve(cwd)), join(configHome(env), "imkit-rotator"), "/etc/imkit-rotator"];
  for (const folder of folders) {
    const found = inFolder(folder);
    if (found !== null) return found;
  }
  throw new RotatorError("CONFIG_MISSING", {
    why: `There is no ${CONFIG_NAMES[0]} in ${cwd}, in a folder above it, in ${join(configHome(env), "imkit-rotator")} or in /etc/imkit-rotator.`,
  });
};

/** $XDG_CONFIG_HOME, else ~/.config. */
export const configHome = (env: Env): string => xdg(env, "XDG_CONFIG_HOME", ".config");

/** $STATE_DIRECTORY (systemd), else $XDG_STATE_HOME/imkit-rotator, else ~/.local/state/imkit-rotator. */
export const defaultStateDir = (env: Env): string => {
  const given = env["STATE_DIRECTORY"]?.split(":")[0];
  return given ? resolve(given) : join(xdg(env, "XDG_STATE_HOME", ".local/state"), "imkit-rotator");
};

/** A path of the config: `~/` is the home folder, a relative one starts at the config file's folder. */
export const configPath = (path: string, dir: string, env: Env): string =>
  path === "~" || path.startsWith("~/") ? join(home(env), path.slice(1)) : resolve(dir, path);

/** As the XDG specification wants it, a relative path in the variable counts as unset. */
const xdg = (env: Env, variable: string, fallback: string): string => {
  const given = env[variable];
  return given?.startsWith("/") ? given : join(home(env), fallback);
};

const home = (env: Env): string => env["HOME"] || homeOfUser();

/** A user that is only a number, as in a container, has none. */
const homeOfUser = (): string => {
  try {
    return homedir();
  } catch {
    return "/";
  }
};

const named = (path: string, by: string, cwd: string): string => {
  const file = resolve(cwd, path);
  if (path !== "" && isThere(file)) return file;
  throw new RotatorError("CONFIG_MISSING", { why: `The file that ${by} names is not there: ${file}` });
};

const inFolder = (folder: string): string | null => {
  const found = CONFIG_NAMES.map((name) => join(folder, name)).filter(isThere);
  if (found.length < 2) return found[0] ?? null;
  throw new RotatorError("CONFIG_INVALID", {
    what: "Two config files lie beside each other.",
    why: found.map((path) => `${path}:1:1: is one of ${found.length}; keep one`).join("\n"),
    do: ["Remove one of them, or name the right one with --config."],
  });
};

/** A folder that may not be entered counts as one without a config; a dangling link or a directory of that name counts as there. */
const isThere = (path: string): boolean => {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return false;
  }
};

const upwards = (from: string): readonly string[] =>
  dirname(from) === from ? [from] : [from, ...upwards(dirname(from))];
