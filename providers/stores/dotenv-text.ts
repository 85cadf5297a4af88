import { parseEnv } from "node:util";
import { parse as parseDotenv } from "dotenv";
import type { ProviderCode } from "../../src/core/errors.ts";

/** Where our entry's value stands: offsets into the text. `value` is what stands between them, "" for an entry without one. */
export type Entry = {
  readonly line: number;
  readonly from: number;
  readonly to: number;
  readonly value: string;
};

/**
 * A file that we are sure to understand. `text` has one character per byte (latin1), so that bytes that are no UTF-8 survive.
 * `entry` is null when the key is proven not to be there.
 */
export type EnvFile = {
  readonly text: string;
  readonly key: string;
  readonly entry: Entry | null;
  /** The line end that an added line gets. */
  readonly eol: string;
};

/** Why a file is left alone: the line and our own words, never a value. */
export type Refusal = { readonly code: ProviderCode; readonly line: number; readonly why: string };

export const MAX_BYTES = 1024 * 1024;
/** npm dotenv needs quadratic time for them. */
const MAX_BLANK_LINES = 1_000;
const BOM = "\xef\xbb\xbf";
const ASSIGNMENT = /^[ \t\f\v]*(?:export[ \t\f\v]+)?[\w.-]+[ \t\f\v]*=[ \t\f\v]*(["'`])/;
const DOUBTFUL = /^[^#=:"'`]*(?:["'][^"'=:]*["'])?[ \t\f\v]*[=:][ \t\f\v]*(["'`])/;
const ENCRYPTED = /^\s*(?:export\s+)?(?:DOTENV_PUBLIC_KEY\w*\s*[=:]|[\w.-]+\s*=\s*["'`]?encrypted:)/;
const COMMENT = /^[ \t\f\v]*#/;
const REST = /^[ \t\f\v]*(?:#.*)?$/s;
/** What an env file can hold without quotes and every reader gives back. Base64 is within. */
const PLAIN = /^[A-Za-z0-9+/=_.:@%,~-]+$/;

/**
 * Reads `bytes` once from top to bottom. A `Refusal` for whatever one of the common readers may understand in another way, and for a
 * dotenvx file that nobody called `encrypted`.
 */
export const readEnv = (bytes: Uint8Array, key: string, encrypted = false): EnvFile | Refusal => {
  const text = Buffer.from(bytes).toString("latin1");
  const foreign = foreignFormat(text);
  if (foreign !== null) return foreign;
  const definition = definitionOf(key);
  const entries: (Entry | Refusal)[] = [];
  let blanks = 0;
  for (const row of rows(text)) {
    if ("code" in row) return row;
    blanks = /\S/.test(row.text) ? 0 : blanks + 1;
    if (blanks > MAX_BLANK_LINES) return refuse(row.line, "too many empty lines in a row");
    if (!encrypted && ENCRYPTED.test(row.text))
      return refuse(row.line, "this is an encrypted env file (dotenvx): set encrypted: true");
    const entry = entryOf(row, key, definition);
    if (entry !== null) entries.push(entry);
  }
  const [first, second] = entries;
  if (first !== undefined && second !== undefined) {
    const lines = entries.map((entry) => entry.line).join(" and ");
    return {
      code: "CONFLICT",
      line: second.line,
      why: `duplicate: ${key} is defined on lines ${lines}; keep one of them`,
    };
  }
  if (first !== undefined && "code" in first) return first;
  const file: EnvFile = { text, key, entry: first ?? null, eol: lineEnd(text) };
  const agreed = READERS.every(
    (reader) => reader(file).get(key) === (file.entry === null ? undefined : utf8(file.entry.value)),
  );
  return agreed ? file : refuse(doubtfulLine(file), `readers of env files disagree on ${key} here`);
};

/** Whether every reader gives this value back as it is, without quotes and with them. */
export const isPlain = (value: string): boolean => PLAIN.test(value);

/** All variables whose name begins like this, for any reader. */
export const namesFrom = (text: string, start: string): readonly string[] => {
  const names = READERS.flatMap((reader) => [...reader({ text, key: "", entry: null, eol: "" }).keys()]);
  return [...new Set(names)].filter((name) => name.startsWith(start));
};

/**
 * The same file with `value` as the key's value: nothing else differs by a byte. A new line gets `quote` around it. null when an env file
 * cannot hold `value` safely.
 */
export const withValue = (file: EnvFile, value: string, quote = ""): Uint8Array | null => {
  if (!isPlain(value)) return null;
  const { text, key, entry, eol } = file;
  if (entry !== null) return Buffer.from(text.slice(0, entry.from) + value + text.slice(entry.to), "latin1");
  const gap = text === "" || text === BOM || /[\r\n]$/.test(text) ? "" : eol;
  return Buffer.from(`${text}${gap}${key}=${quote}${value}${quote}${eol}`, "latin1");
};

/** The same file with an empty value: such an entry counts as absent. null when it has none. */
export const withoutValue = ({ text, entry }: EnvFile): Uint8Array | null =>
  entry === null ? null : Buffer.from(text.slice(0, entry.from) + text.slice(entry.to), "latin1");

/** Do two independent readers (npm dotenv, node:util) find `value` in the new bytes, and every other variable as before? */
export const readsAs = (before: EnvFile, after: Uint8Array, value: string): boolean => {
  const text = Buffer.from(after).toString("latin1");
  return READERS.every((reader) => {
    const [old, now] = [reader(before), reader({ ...before, text, entry: null })];
    const same = now.get(before.key) === value;
    old.delete(before.key);
    now.delete(before.key);
    return same && old.size === now.size && [...old].every(([name, held]) => now.get(name) === held);
  });
};

/** The line behind which a new entry goes. */
export const lastLine = ({ text }: EnvFile): number => 1 + countLines(text.trimEnd());

type Row = { readonly text: string; readonly at: number; readonly line: number };

/** The lines at which a definition can begin: the inner lines of a quoted value are skipped, after doubt about its end was ruled out. */
function* rows(text: string): Generator<Row | Refusal> {
  let at = text.startsWith(BOM) ? BOM.length : 0;
  let line = 1;
  while (at < text.length) {
    let end = lineEndAt(text, at);
    const row = { text: text.slice(at, end), at, line };
    const opened = COMMENT.test(row.text) ? null : (ASSIGNMENT.exec(row.text) ?? DOUBTFUL.exec(row.text));
    const [quote = ""] = opened?.slice(1) ?? [];
    if (opened !== null && !row.text.includes(quote, opened[0].length)) {
      const close = closingQuote(text, at + opened[0].length, quote);
      if (close === null)
        return yield refuse(line, "this quote is not closed, or not in a way that all readers see");
      if (!ASSIGNMENT.test(row.text))
        return yield refuse(line, "a value of several lines without a plain NAME= before it");
      end = lineEndAt(text, close);
    }
    yield row;
    const after = text.startsWith("\r\n", end) ? end + 2 : end + 1;
    line += countLines(text.slice(at, after));
    at = after;
  }
}

/** Offset of the quote that ends a value of several lines. null: none, or a backslash or text beside it leaves readers to guess. */
const closingQuote = (text: string, from: number, quote: string): number | null => {
  const close = text.indexOf(quote, from);
  if (close === -1 || isEscaped(text, close)) return null;
  return REST.test(text.slice(close + 1, lineEndAt(text, close))) ? close : null;
};

/** Every form that some common reader takes for a definition of `key`: export, blanks, quoted names, `KEY: value`, a bare name. */
const definitionOf = (key: string): RegExp =>
  new RegExp(
    `^(?:[ \\t\\f\\v]|\\xc2\\xa0|${BOM})*(export[ \\t\\f\\v]+)?(["']?)${key}\\2[ \\t\\f\\v]*(\\+?=|:|$|#)`,
  );

/** What this row says of our key: null = nothing. `export KEY` alone is no definition: it passes on one that stands elsewhere. */
const entryOf = (row: Row, key: string, definition: RegExp): Entry | Refusal | null => {
  const head = definition.exec(row.text);
  if (head === null) return null;
  const [matched, exported, nameQuote, sign] = head;
  if (exported !== undefined && (sign === "" || sign === "#")) return null;
  if (sign !== "=" || nameQuote !== "") return refuse(row.line, `write this line as ${key}=value`);

  const blanksBefore = /[ \t\f\v]=$/.test(matched);
  const behind = row.text.slice(matched.length);
  const lead = behind.length - behind.replace(/^[ \t\f\v]+/, "").length;
  const shown = behind.slice(lead);
  const at = row.at + matched.length + lead;
  if (shown === "") {
    const spot = blanksBefore ? at : at - lead;
    return { line: row.line, from: spot, to: spot, value: "" };
  }
  if (shown.startsWith("#"))
    return refuse(row.line, "a comment where the value should be; remove it or put it on its own line");
  const found = /^["'`]/.test(shown) ? quotedValue(shown) : plainValue(shown);
  if (typeof found === "string") return refuse(row.line, found);
  if (found.value.includes("$"))
    return refuse(row.line, "the value refers to another variable ($); write the key itself");
  return {
    line: row.line,
    from: at + found.from,
    to: at + found.from + found.value.length,
    value: found.value,
  };
};

type Found = { readonly from: number; readonly value: string };

const quotedValue = (shown: string): Found | string => {
  const [quote = ""] = shown;
  const close = shown.indexOf(quote, 1);
  if (close === -1) return "the quote is not closed on this line";
  if (isEscaped(shown, close)) return "a backslash stands before the closing quote";
  if (!REST.test(shown.slice(close + 1))) return "there is text behind the closing quote";
  return { from: 1, value: shown.slice(1, close) };
};

const plainValue = (shown: string): Found | string => {
  const [value = ""] = /^[^#]*[^# \t\f\v]/.exec(shown) ?? [];
  return /["'`\\]/.test(value) ? "a quote or backslash inside a value without quotes" : { from: 0, value };
};

const foreignFormat = (text: string): Refusal | null => {
  if (/^(\xff\xfe|\xfe\xff)/.test(text)) return refuse(1, "this is UTF-16; save it as UTF-8");
  const nul = text.indexOf("\0");
  return nul === -1 ? null : refuse(1 + countLines(text.slice(0, nul)), "a NUL byte: this is no env file");
};

/** The commonest line end; the last one where there are equally many; LF in a file without any. */
const lineEnd = (text: string): string => {
  const ends = text.match(/\r?\n/g) ?? [];
  const windows = ends.filter((end) => end === "\r\n").length;
  if (windows * 2 === ends.length) return ends.at(-1) ?? "\n";
  return windows * 2 > ends.length ? "\r\n" : "\n";
};

/** Node's own reader takes the next line for the value of a name that only blanks follow: then the line before ours is the culprit. */
const doubtfulLine = ({ text, key, entry }: EnvFile): number => {
  const lines = text.slice(0, entry?.from ?? text.length).split(/\r\n|\n|\r/);
  const before = lines[(entry?.line ?? lines.length) - 2] ?? "";
  if (entry !== null) return /=[ \t]+$/.test(before) ? entry.line - 1 : entry.line;
  return (
    1 +
    Math.max(
      0,
      lines.findIndex((line) => line.includes(key)),
    )
  );
};

type Reader = (file: EnvFile) => Map<string, string | undefined>;

/** Neither gets the byte order mark, nor the blanks of a value that is nothing else: `parseEnv` stumbles over both. */
const READERS: readonly Reader[] = [parseDotenv, parseEnv].map((parse) => ({ text, entry }) => {
  const plain = entry?.value === "" ? withoutBlanksAt(text, entry.from) : text;
  return new Map(Object.entries(parse(utf8(plain.startsWith(BOM) ? plain.slice(BOM.length) : plain))));
});

const withoutBlanksAt = (text: string, at: number): string =>
  text.slice(0, at).replace(/[ \t\f\v]+$/, "") + text.slice(at).replace(/^[ \t\f\v]+/, "");

const utf8 = (text: string): string => Buffer.from(text, "latin1").toString("utf8");
const refuse = (line: number, why: string): Refusal => ({ code: "CONFIG", line, why });
const isEscaped = (text: string, at: number): boolean =>
  /(?<!\\)(?:\\\\)*\\$/.test(text.slice(Math.max(0, at - 64), at));
const countLines = (text: string): number => (text.match(/\r\n|\n|\r/g) ?? []).length;
const lineEndAt = (text: string, from: number): number => {
  const found = /[\r\n]/g;
  found.lastIndex = from;
  return found.exec(text)?.index ?? text.length;
};
