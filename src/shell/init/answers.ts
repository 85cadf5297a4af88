import { basename, isAbsolute, relative } from "node:path";
import { RotatorError } from "../../core/errors.ts";
import { looksLikeKey } from "../../core/intake.ts";
import { configPath } from "../../io/config-find.ts";
import { NAME, NAME_WORDS } from "../../io/config-schema.ts";
import { checkBaseUrl } from "../../io/imkit-address.ts";
import { askText, type Io } from "../io.ts";
import { shellWord } from "../myself.ts";
import { type EnvFile, findEnvFiles, readEnvFile, theEnvFile } from "./dotenv.ts";
import type { Answers } from "./text.ts";

export type InitFlags = {
  readonly yes?: boolean;
  readonly app?: string;
  readonly baseUrl?: string;
  readonly dotenv?: string;
  readonly variable?: string;
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

/** What is wanted to know, in the order of the command line. */
const FIELDS = {
  app: { flag: "--app", check: checkApp },
  baseUrl: { flag: "--base-url", check: checkUrl },
  dotenv: { flag: "--dotenv", check: checkPath },
  variable: { flag: "--variable", check: checkVariable },
} as const satisfies Partial<Record<keyof InitFlags, { readonly flag: string; readonly check: Check }>>;
type Field = keyof typeof FIELDS;
const NAMES = Object.keys(FIELDS) as readonly Field[];

/** `your-app` of `https://your-app.imkit.io`; for other hosts the folder's name. */
const nameFrom = (baseUrl: string | null, cwd: string): string => {
  const host = baseUrl !== null && URL.canParse(baseUrl) ? new URL(baseUrl).hostname : "";
  const label = /^(?!your-app\.)([a-z0-9-]+)\.[a-z0-9-]+\.[a-z]/i.exec(host)?.[1] ?? basename(cwd);
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

/** @param by where it was given, to a person @throws RotatorError USAGE when it cannot be taken */
const given = (field: Field, text: string, by: string = FIELDS[field].flag): string => {
  const why = FIELDS[field].check(text);
  if (why !== null)
    throw new RotatorError("USAGE", { what: `${by}: ${why}.`, do: ["imkit-rotator init --help"] });
  return text;
};

type Found = {
  readonly dotenv: EnvFile | null;
  /** Env files among which a person must choose. */
  readonly several: readonly EnvFile[];
  readonly baseUrl: string | null;
};

/** What flags, environment and folder say. */
const look = (io: Io, flags: InitFlags): Found => {
  const files = findEnvFiles(io.cwd);
  const { one, several } = theEnvFile(files);
  const dotenv =
    flags.dotenv === undefined ? one : readEnvFile(io.cwd, configPath(flags.dotenv, io.cwd, io.env));
  const elsewhere = [...new Set(files.flatMap((file) => file.baseUrl ?? []))];
  const baseUrl =
    flags.baseUrl ??
    (io.env["IMKIT_BASE_URL"] || null) ??
    dotenv?.baseUrl ??
    (elsewhere.length === 1 ? (elsewhere[0] ?? null) : null);
  return { dotenv, several, baseUrl };
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
  const { app: name, baseUrl: url, dotenv: file, variable } = flags;
  for (const field of NAMES) if (flags[field] !== undefined) given(field, flags[field]);
  const dotenv = file ?? (derived ? found.dotenv?.path : undefined);
  const baseUrl = url ?? (derived ? (found.baseUrl ?? undefined) : undefined);
  const app = name ?? (derived ? nameFrom(baseUrl ?? null, io.cwd) : undefined);
  if (app === undefined || baseUrl === undefined || dotenv === undefined)
    throw missing(flags, found, { app, baseUrl, dotenv });
  if (url === undefined) given("baseUrl", baseUrl, "IMKIT_BASE_URL");
  return { app, baseUrl, dotenv, keyName: variable ?? keyNameIn(flags, found.dotenv) };
};

/** The variable of the vendor's name, or the only one that looks like a key. @throws RotatorError USAGE where several do */
const keyNameIn = (flags: InitFlags, file: EnvFile | null): string => {
  const names = file?.keyNames ?? [];
  const [first = "IMKIT_API_KEY"] = names;
  if (first === "IMKIT_API_KEY" || names.length === 1) return first;
  throw new RotatorError("USAGE", {
    what: `${file?.path ?? "The env file"} holds several keys: ${names.join(", ")}. Which one is the IMKIT API Key?`,
    do: names.map((variable) => initLine(flags, { variable })),
  });
};

/** The same command once more, with what was missing. */
const initLine = (flags: InitFlags, more: InitFlags): string => {
  const all = { ...flags, ...more };
  const words = NAMES.flatMap((field) => {
    const value = all[field];
    return value === undefined ? [] : [FIELDS[field].flag, shellWord(value)];
  });
  return ["imkit-rotator init", ...(flags.yes ? ["--yes"] : []), ...words].join(" ");
};

type Partly = { readonly [K in "app" | "baseUrl" | "dotenv"]: string | undefined };

const missing = (flags: InitFlags, found: Found, has: Partly): RotatorError => {
  const several = found.several.map((file) => file.path);
  const why = {
    baseUrl: flags.yes ? " (IMKIT_BASE_URL is set nowhere, or not the same everywhere)" : "",
    dotenv: !flags.yes
      ? ""
      : several.length > 0
        ? ` (there are ${several.join(", ")})`
        : " (there is no env file here)",
  };
  const names = [
    ...(has.app === undefined ? ["--app"] : []),
    ...(has.baseUrl === undefined ? [`--base-url${why.baseUrl}`] : []),
    ...(has.dotenv === undefined ? [`--dotenv${why.dotenv}`] : []),
  ];
  const rest = {
    ...(has.app === undefined ? { app: "chat" } : {}),
    ...(has.baseUrl === undefined ? { baseUrl: "https://your-app.imkit.io" } : {}),
  };
  const files = has.dotenv !== undefined ? [undefined] : several.length > 0 ? several : [".env"];
  return new RotatorError("USAGE", {
    what: `Missing: ${names.join(", ")}.`,
    why: flags.yes ? "" : "There is no terminal to ask on.",
    do: [
      ...files.map((dotenv) => initLine(flags, dotenv === undefined ? rest : { ...rest, dotenv })),
      ...(flags.yes
        ? []
        : ["imkit-rotator init --yes    # takes IMKIT_BASE_URL and the env file that it finds here"]),
    ],
  });
};

/** What the flags do not say, a person does. */
const askAll = async (io: Io, flags: InitFlags, found: Found): Promise<Omit<Answers, "timezone">> => {
  const ask = async (field: Field, message: string, initial: string): Promise<string> => {
    const flag = flags[field];
    if (flag !== undefined) return given(field, flag);
    for (;;) {
      const text = (await askText(message, initial)).trim();
      const why = FIELDS[field].check(text);
      if (why === null) return text;
      io.warn(`  ! ${why.charAt(0).toUpperCase()}${why.slice(1)}.`);
    }
  };
  const likely = found.dotenv?.path ?? found.several[0]?.path ?? ".env";
  const dotenv = await ask("dotenv", "Which env file holds the API Key?", likely);
  const file = readEnvFile(io.cwd, configPath(dotenv, io.cwd, io.env));
  const keyName = await ask("variable", "Which variable in it?", file?.keyNames[0] ?? "IMKIT_API_KEY");
  const known = file?.baseUrl ?? found.baseUrl ?? "https://your-app.imkit.io";
  const baseUrl = await ask("baseUrl", "IMKIT base URL of the app?", known);
  const app = await ask("app", "A short name for the app?", nameFrom(baseUrl, io.cwd));
  return { app, baseUrl, dotenv, keyName };
};
