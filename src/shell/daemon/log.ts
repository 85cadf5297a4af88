import { holdsKey, looksLikeKey } from "../../core/intake.ts";
import type { Globals, Io } from "../io.ts";

/** Goes into a line of the log as JSON; what is no plain data is not shown. */
export type Fields = Readonly<Record<string, unknown>>;
type Write = (msg: string, fields?: Fields) => void;

/** The daemon's one way to say something: a line of JSON on standard output. */
export type Log = {
  readonly debug: Write;
  readonly info: Write;
  readonly warn: Write;
  readonly error: Write;
};

const MAX_TEXT = 2_000;
const MAX_ITEMS = 100;
const MAX_DEPTH = 6;
const HIDDEN = "[removed]";

/** Whatever has the form of an API Key, whole or a long piece of one, is taken out of a text. */
const clean = (text: string): string => {
  const short = text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
  return short
    .replace(/[A-Za-z0-9+/=]{24,}/g, (run) => (holdsKey(run) ? HIDDEN : run))
    .replace(/[^\s"'`,;()[\]{}<>]{22,}/g, (word) => (looksLikeKey(word) ? HIDDEN : word));
};

/** Only plain data, copied: no `toJSON`, getter or inspector of anything else is ever asked. An error says its kind alone. */
export const shown = (value: unknown, depth = 0): unknown => {
  if (value === null || typeof value === "boolean" || typeof value === "number") return value;
  if (typeof value === "string") return clean(value);
  if (value instanceof Error) return `[${clean(value.name)}]`;
  if (typeof value !== "object" || depth >= MAX_DEPTH) return value === undefined ? undefined : "[not shown]";
  if (Array.isArray(value)) return value.slice(0, MAX_ITEMS).map((item) => shown(item, depth + 1));
  const proto: unknown = Object.getPrototypeOf(value);
  if (proto !== Object.prototype && proto !== null) return "[not shown]";
  const fields = Object.entries(value).slice(0, MAX_ITEMS);
  return Object.fromEntries(fields.map(([key, item]) => [clean(key), shown(item, depth + 1)]));
};

/** The names that pino gives its own fields. */
const OWN: ReadonlySet<string> = new Set(["level", "time", "msg"]);

/** `-v` shows every step, `-q` only trouble. */
export const openLog = async (io: Pick<Io, "out">, globals: Globals): Promise<Log> => {
  const { pino, stdTimeFunctions } = await import("pino");
  const level = globals.verbose ? "debug" : globals.quiet ? "warn" : "info";
  const logger = pino(
    {
      level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write: (line: string) => io.out(line.trimEnd()) },
  );
  const write =
    (name: keyof Log): Write =>
    (msg, fields = {}) => {
      if (!logger.isLevelEnabled(name)) return;
      const kept = Object.entries(fields).filter(([key]) => !OWN.has(key));
      // Nothing of it is a format: a `%s` in a text stays one.
      logger[name](shown(Object.fromEntries(kept)), "%s", clean(msg));
    };
  return { debug: write("debug"), info: write("info"), warn: write("warn"), error: write("error") };
};
