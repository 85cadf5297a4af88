import { basename, isAbsolute, relative } from "node:path";
import { RotatorError } from "../../core/errors.ts";
import { looksLikeKey } from "../../core/intake.ts";
import { configPath } from "../../io/config-find.ts";
import { NAME, NAME_WORDS } from "../../io/config-schema.ts";
import { checkBaseUrl } from "../../io/imkit-address.ts";
import { askText, type Io } from "../io.ts";
import { type EnvFile, findEnvFiles, readEnvFile } from "./dotenv.ts";
import type { Answers } from "./text.ts";

export type InitFlags = {
  readonly yes?: boolean;
  readonly app?: string;
  readonly baseUrl?: string;
  readonly dotenv?: string;
};

/** Why an answer cannot be taken; null = fine. None of them repeats the answer: it may be a key that went into the wrong field. */
type Check = (text: string) => string | null;

const KEY_HERE =
  "it looks like a key, which must not stand in the config. If it is one, this screen shows it now";
const noKey = (text: string): string | null => (looksLikeKey(text) ? KEY_HERE : null);
const checkApp: Check = (text) => noKey(text) ?? (NAME.test(text) ? null : `it ${NAME_WORDS}`);
const checkUrl: Check = (text) => noKey(text) ?? checkBaseUrl(text);
const checkPath: Check = (text) => noKey(text) ?? (text.trim() === "" ? "it must not be empty" : null);
const checkVariable: Check = (text) =>
  noKey(text) ?? (/^[A-Za-z_]\w{0,127}$/.test(text) ? null : "it must be the name of a variable");

/** `your-app` of `https://your-app.imkit.io`; for other hosts the folder's name. */
const nameFrom = (baseUrl: string | null, cwd: string): string => {
  const host = baseUrl !== null && URL.canParse(baseUrl) ? new URL(baseUrl).hostname : "";
  const label = /^([a-z0-9-]+)\.[a-z0-9-]+\.[a-z]/i.exec(host)?.[1] ?? basename(cwd);
  const name = label
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .slice(0, 32)
    .replace(/^-+|-+$/g, "");
  return NAME.test(name) ? name : "chat";
};

/** Relative to the config's folder where it lies below it, so that both may be moved together. */
const portable = (path: string, io: Io, folder: string): string => {
  const file = configPath(path, io.cwd, io.env);
  const near = relative(folder, file);
  return near.startsWith("..") || isAbsolute(near) ? file : near;
};

const given = (flag: string, text: string, check: Check): string => {
  const why = check(text);
  if (why !== null)
    throw new RotatorError("USAGE", { what: `${flag}: ${why}.`, do: ["imkit-rotator init --help"] });
  return text;
};

const ask = async (io: Io, message: string, initial: string, check: Check): Promise<string> => {
  for (;;) {
    const text = (await askText(message, initial)).trim();
    const why = check(text);
    if (why === null) return text;
    io.warn(`  ! ${why.charAt(0).toUpperCase()}${why.slice(1)}.`);
  }
};

type Found = { readonly dotenv: EnvFile | null; readonly baseUrl: string | null };

/** What flags, environment and folder say. */
const look = (io: Io, flags: InitFlags): Found => {
  const files = findEnvFiles(io.cwd);
  const dotenv =
    flags.dotenv === undefined
      ? (files[0] ?? null)
      : readEnvFile(io.cwd, configPath(flags.dotenv, io.cwd, io.env));
  const baseUrl =
    flags.baseUrl ??
    io.env["IMKIT_BASE_URL"] ??
    dotenv?.baseUrl ??
    files.find((f) => f.baseUrl)?.baseUrl ??
    null;
  return { dotenv, baseUrl };
};

/**
 * The answers: from flags, from what is found (`--yes`), or by asking. `folder` is the config's.
 * @throws RotatorError USAGE naming what is missing or wrong, INTERRUPTED
 */
export const answersOf = async (io: Io, flags: InitFlags, folder: string): Promise<Answers> => {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  const found = look(io, flags);
  const all = flags.app !== undefined && flags.baseUrl !== undefined && flags.dotenv !== undefined;
  const taken = flags.yes || all || !io.interactive ? take(io, flags, found) : await askAll(io, flags, found);
  return { ...taken, dotenv: portable(taken.dotenv, io, folder), timezone: timeZone || "UTC" };
};

const take = (io: Io, flags: InitFlags, found: Found): Omit<Answers, "timezone"> => {
  const derived = flags.yes === true;
  const dotenv = flags.dotenv ?? (derived ? found.dotenv?.path : undefined);
  const baseUrl = flags.baseUrl ?? (derived ? (found.baseUrl ?? undefined) : undefined);
  const app = flags.app ?? (derived ? nameFrom(baseUrl ?? null, io.cwd) : undefined);
  const missing = [
    ...(app === undefined ? ["--app"] : []),
    ...(baseUrl === undefined ? [derived ? "--base-url (IMKIT_BASE_URL is set nowhere)" : "--base-url"] : []),
    ...(dotenv === undefined ? [derived ? "--dotenv (there is no env file here)" : "--dotenv"] : []),
  ];
  if (app === undefined || baseUrl === undefined || dotenv === undefined) {
    throw new RotatorError("USAGE", {
      what: `Missing: ${missing.join(", ")}.`,
      why: derived ? "" : "There is no terminal to ask on.",
      do: [
        "imkit-rotator init --app chat --base-url https://your-app.imkit.io --dotenv .env",
        ...(derived
          ? []
          : ["imkit-rotator init --yes    # takes IMKIT_BASE_URL and the env file that it finds here"]),
      ],
    });
  }
  const source = flags.baseUrl === undefined ? "IMKIT_BASE_URL" : "--base-url";
  return {
    app: given("--app", app, checkApp),
    baseUrl: given(source, baseUrl, checkUrl),
    dotenv: given("--dotenv", dotenv, checkPath),
    keyName: found.dotenv?.keyNames[0] ?? "IMKIT_API_KEY",
  };
};

const askAll = async (io: Io, flags: InitFlags, found: Found): Promise<Omit<Answers, "timezone">> => {
  const dotenv =
    flags.dotenv ??
    (await ask(io, "Which env file holds the API Key?", found.dotenv?.path ?? ".env", checkPath));
  given("--dotenv", dotenv, checkPath);
  const file = readEnvFile(io.cwd, configPath(dotenv, io.cwd, io.env));
  const keyName = await ask(io, "Which variable in it?", file?.keyNames[0] ?? "IMKIT_API_KEY", checkVariable);
  const baseUrl =
    flags.baseUrl ??
    (await ask(
      io,
      "IMKIT base URL of the app?",
      file?.baseUrl ?? found.baseUrl ?? "https://your-app.imkit.io",
      checkUrl,
    ));
  given("--base-url", baseUrl, checkUrl);
  const app = flags.app ?? (await ask(io, "A short name for the app?", nameFrom(baseUrl, io.cwd), checkApp));
  return { app: given("--app", app, checkApp), baseUrl, dotenv, keyName };
};
