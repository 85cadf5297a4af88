import { hash } from "node:crypto";
import type { Entry, EntryBody } from "./events.ts";
import { entryProblem, type ProblemCode } from "./shape.ts";

/** Longest line in bytes, with its LF. */
export const MAX_LINE = 16_384;
const MAX_DEPTH = 6;
const LF = 10;
const DOMAIN = Buffer.from("imkit-rotator/ledger/v1\0");
const FRAME = /^\{"h":"([0-9a-f]{64})","r":\{/;
const BODY_AT = 76;

const PLAIN = /^[ -$&-~]*$/;
const ASCII = /^[ -~]*$/;
/** What is stored as it is and stands in JSON as it is. */
const BARE = /^[ !#$&-[\]-~]*$/;
/** A `%` that does not stand for a byte, or stands for one that needs no `%`. */
const STRAY_PERCENT = /%(?![0-9A-Fa-f]{2})|%[2-6][0-9A-Fa-f](?<!%25)|%7[0-9A-Ea-e]/;

/** Text as the ledger stores it: printable ASCII; everything else, and `%`, as percent-encoded UTF-8 in upper case. */
export const encodeText = (text: string): string =>
  PLAIN.test(text)
    ? text
    : text
        .toWellFormed()
        .replace(/[^ -$&-~]+/g, (run) =>
          Array.from(Buffer.from(run), (byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join(
            "",
          ),
        );

/** The other way. @throws Error when `stored` is no such form. */
export const decodeText = (stored: string): string => {
  if (PLAIN.test(stored)) return stored;
  if (!isStored(stored)) throw new Error("not percent-encoded text");
  return decodeURIComponent(stored);
};

const isStored = (text: string): boolean =>
  PLAIN.test(text) || (ASCII.test(text) && !STRAY_PERCENT.test(text));

const mapText = (value: unknown, change: (text: string) => string): unknown => {
  if (typeof value === "string") return change(value);
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => mapText(item, change));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, mapText(item, change)]));
};

/**
 * RFC 8785 for the values that the ledger knows: strings as `encodeText` gives them, safe integers, booleans, null, arrays and objects
 * to a depth of 6. Keys with the value `undefined` are left out.
 * @throws Error on anything else.
 */
export const canonical = (value: unknown): string => write(value, 1);

const write = (value: unknown, depth: number): string => {
  if (value === null || value === true || value === false) return String(value);
  if (typeof value === "string") return writeText(value);
  if (typeof value === "number" && Number.isSafeInteger(value))
    return Object.is(value, -0) ? "0" : String(value);
  if (typeof value !== "object" || depth > MAX_DEPTH) throw new Error("no canonical form");
  if (Array.isArray(value)) return `[${Array.from(value, (item) => write(item, depth + 1)).join(",")}]`;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) throw new Error("no canonical form");
  const fields = value as Readonly<Record<string, unknown>>;
  let out = "";
  for (const key of sorted(Object.keys(fields))) {
    const item = fields[key];
    if (item !== undefined) out += `${out === "" ? "" : ","}${writeText(key)}:${write(item, depth + 1)}`;
  }
  return `{${out}}`;
};

/** In place. What was read is in order already. */
const sorted = (keys: string[]): readonly string[] =>
  keys.every((key, at) => at === 0 || (keys[at - 1] ?? "") < key) ? keys : keys.sort();

const writeText = (text: string): string => {
  if (BARE.test(text)) return `"${text}"`;
  if (!isStored(text)) throw new Error("no canonical form");
  return JSON.stringify(text);
};

const hashOf = (body: Uint8Array): string => hash("sha256", Buffer.concat([DOMAIN, body]), "hex");

/** `entry` is what a reader makes of `line`. */
export type Sealed = { readonly h: string; readonly line: Uint8Array; readonly entry: Entry };

/**
 * One whole ledger line, LF included, and its hash. Text in `body` may be any text.
 * @throws Error when the body is not one that a reader takes, or over 16 KiB: both are faults of the caller.
 */
export const seal = (body: EntryBody): Sealed => {
  const stored = mapText(body, encodeText);
  const problem = entryProblem(stored);
  if (problem !== null) throw new Error(`not a ledger entry: ${problem}`);
  const r = canonical(stored);
  const h = hashOf(Buffer.from(r, "latin1"));
  const line = Buffer.from(`{"h":"${h}","r":${r}}\n`, "latin1");
  if (line.length > MAX_LINE) throw new Error("ledger entry over 16 KiB");
  const read: unknown = JSON.parse(r);
  return { h, line, entry: { ...((r.includes("%") ? mapText(read, decodeText) : read) as EntryBody), h } };
};

/** What one line holds. `h` is the hash that it states, also when something else is wrong with it. */
export type Line =
  | { readonly problem: null; readonly h: string; readonly entry: Entry }
  | { readonly problem: ProblemCode; readonly h: string | null };

/** Reads one line, whatever it holds. Never throws. The hash is taken over the stored bytes, before anything is parsed. */
export const inspect = (bytes: Uint8Array): Line => {
  const raw = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (raw.length > MAX_LINE) return { problem: "NOT_CANONICAL", h: null };
  if (raw.at(-1) !== LF) return { problem: "UNREADABLE", h: null };
  const line = raw.toString("latin1");
  const h = FRAME.exec(line)?.[1];
  if (h === undefined || !line.endsWith("}}\n")) {
    return { problem: isJson(raw) ? "NOT_CANONICAL" : "UNREADABLE", h: null };
  }
  if (hashOf(raw.subarray(BODY_AT, -2)) !== h) return { problem: "BAD_HASH", h };
  const body = parse(line.slice(BODY_AT, -2));
  const problem = body === undefined ? "NOT_CANONICAL" : entryProblem(body);
  if (problem !== null) return { problem, h };
  const text = line.includes("%") ? decodeAll(body) : body;
  if (text === undefined) return { problem: "NOT_CANONICAL", h };
  return { problem: null, h, entry: { ...(text as EntryBody), h } };
};

/** A BOM, CRLF or blanks around good JSON are a matter of form; what is no JSON at all was torn. */
const isJson = (raw: Buffer): boolean => {
  try {
    JSON.parse(raw.toString("utf8").replace(/^\uFEFF/, ""));
    return true;
  } catch {
    return false;
  }
};

const parse = (text: string): unknown => {
  try {
    const value: unknown = JSON.parse(text);
    return canonical(value) === text ? value : undefined;
  } catch {
    return undefined;
  }
};

const decodeAll = (body: unknown): unknown => {
  try {
    return mapText(body, decodeText);
  } catch {
    return undefined;
  }
};

export type Opened = { readonly entry: Entry } | { readonly problem: ProblemCode };

/** One entry by itself: frame, hash, form, types. Its place in the chain is not looked at. Never throws. */
export const openEntry = (bytes: Uint8Array): Opened => {
  const line = inspect(bytes);
  return line.problem === null ? { entry: line.entry } : { problem: line.problem };
};

/** The entry that must come after `previous` (null: the first one of a ledger). Never throws. */
export const follow = (previous: Pick<Entry, "seq" | "h" | "ledger"> | null, bytes: Uint8Array): Opened => {
  const opened = openEntry(bytes);
  if ("problem" in opened) return opened;
  const { seq, prev, ledger } = opened.entry;
  if (seq !== (previous === null ? 0 : previous.seq + 1)) return { problem: "BAD_SEQ" };
  if (prev !== (previous?.h ?? null)) return { problem: "BAD_PREV" };
  if (previous !== null && ledger !== previous.ledger) return { problem: "BAD_PREV" };
  return opened;
};
