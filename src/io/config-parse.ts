import { Composer, type Document, isAlias, isMap, isScalar, isSeq, LineCounter, Parser } from "yaml";
import { isKeyShaped } from "../core/intake.ts";
import { configInvalid } from "./config-read.ts";

export type Path = readonly (string | number)[];

/** A parsed file: plain values (objects without prototype) and where each of them stands. */
export type Source = {
  readonly value: unknown;
  /** `<path>:<line>:<column>` of the value at `path`, or of its key; of the nearest thing around it when it is not there. */
  readonly at: (path: Path, what: "key" | "value") => string;
};

const MAX_DEPTH = 16;
const MAX_NODES = 20_000;
const INERT = new Set(["__proto__", "constructor", "prototype"]);

/**
 * YAML 1.2 (of which JSON is a part) with all that surprises switched off: duplicate keys, tags, directives, merge keys, several documents.
 * @throws RotatorError CONFIG_INVALID
 */
export const parseConfigText = (path: string, text: string): Source => {
  const counter = new LineCounter();
  const place = (offset: number): string => {
    const { line, col } = counter.linePos(offset);
    return `${path}:${Math.max(1, line)}:${Math.max(1, col)}`;
  };
  const document = compose(text, counter, place);
  return resolveValues(document, place);
};

const compose = (text: string, counter: LineCounter, place: (offset: number) => string): Document => {
  const tokens = [...new Parser(counter.addNewLine).parse(text)];
  const secretAt = findSecret(text);
  if (secretAt !== null)
    throw configInvalid([
      `${place(secretAt)}: an API Key stands in this file: it is exposed, so revoke it and issue another one; secrets are never written in the config (valueFrom)`,
    ]);
  // The composer is recursive: what is nested too deeply must not reach it.
  const deep = tooDeep(tokens);
  if (deep !== null)
    throw configInvalid([`${place(deep)}: is nested too deeply (at most ${MAX_DEPTH} levels)`]);
  const composer = new Composer({
    version: "1.2",
    schema: "core",
    strict: true,
    stringKeys: true,
    uniqueKeys: true,
    merge: false,
    resolveKnownTags: false,
    prettyErrors: false,
    logLevel: "silent",
    lineCounter: counter,
  });
  const documents = [...composer.compose(tokens, true, text.length)];
  const [document] = documents;
  if (document === undefined) throw configInvalid([`${place(0)}: is empty`]);
  const faults = documents.flatMap((one) => [...one.errors, ...one.warnings]);
  const lines = faults.map((fault) => `${place(fault.pos[0])}: ${wordsFor(fault.code)}`);
  if (documents.length > 1) lines.push(`${place(documents[1]?.range[0] ?? 0)}: ${wordsFor("MULTIPLE_DOCS")}`);
  if (document.directives?.yaml.explicit) lines.push(`${place(0)}: ${wordsFor("BAD_DIRECTIVE")}`);
  if (lines.length > 0) throw configInvalid(lines);
  return document;
};

/** The offset of a word of the API Key's own shape anywhere in the text, comments included. Base64 of Base64 has no + and no /. */
const findSecret = (text: string): number | null => {
  for (const found of text.matchAll(/[A-Za-z0-9]{40,}={0,2}/g)) if (isKeyShaped(found[0])) return found.index;
  return null;
};

/** What the parser hands to the composer, as far as it is looked at here. */
type Token = { readonly offset?: number; readonly value?: unknown; readonly items?: readonly Item[] };
type Item = { readonly key?: unknown; readonly value?: unknown };

const tooDeep = (tokens: readonly unknown[]): number | null => {
  const open: (readonly [unknown, number])[] = tokens.map((token) => [token, 0]);
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const [token, depth] = next;
    if (!isToken(token)) continue;
    if (depth > MAX_DEPTH) return token.offset ?? 0;
    for (const child of [token.value, ...(token.items ?? []).flatMap(({ key, value }) => [key, value])])
      open.push([child, depth + 1]);
  }
  return null;
};

const isToken = (value: unknown): value is Token => typeof value === "object" && value !== null;

/** The library's own words quote the text, so only its code is used. */
const wordsFor = (code: string): string => WORDS[code] ?? "is not valid YAML";
const WORDS: Readonly<Record<string, string>> = {
  DUPLICATE_KEY: "this key stands here twice",
  TAB_AS_INDENT: "tabs may not indent YAML; use spaces",
  BAD_ALIAS: "this alias names no anchor above it",
  TAG_RESOLVE_FAILED: "tags (!…) are not used in this file",
  BAD_DIRECTIVE: "directives (%…) are not used in this file",
  MULTIPLE_DOCS: "the file must be one YAML document",
  NON_STRING_KEY: "a key must be plain text",
  BAD_INDENT: "is not indented as its neighbours are",
  MISSING_CHAR: "a bracket, quote, comma, colon or space is missing here",
};

const resolveValues = (document: Document, place: (offset: number) => string): Source => {
  const values = new Map<string, number>();
  const keys = new Map<string, number>();
  const lines: string[] = [];
  let nodes = 0;

  const walk = (node: unknown, path: Path, from: number): unknown => {
    nodes += 1;
    if (nodes > MAX_NODES || path.length > MAX_DEPTH) {
      throw configInvalid([`${place(from)}: its aliases unfold to too much`]);
    }
    if (isAlias(node)) {
      const start = node.range?.[0] ?? from;
      const named = node.resolve(document);
      if (named === undefined) lines.push(`${place(start)}: ${wordsFor("BAD_ALIAS")}`);
      return walk(named, path, start);
    }
    const start = startOf(node) ?? from;
    values.set(idOf(path), start);
    if (isMap(node)) {
      const object: Record<string, unknown> = Object.create(null);
      for (const { key, value } of node.items) {
        const name = isScalar(key) ? String(key.value) : "";
        const keyStart = startOf(key) ?? start;
        keys.set(idOf([...path, name]), keyStart);
        if (INERT.has(name)) lines.push(`${place(keyStart)}: ${name} may not be used as a key`);
        else object[name] = walk(value, [...path, name], keyStart);
      }
      return object;
    }
    if (isSeq(node)) return node.items.map((item, index) => walk(item, [...path, index], start));
    return isScalar(node) ? node.value : null;
  };

  const value = walk(document.contents, [], 0);
  if (lines.length > 0) throw configInvalid(lines);
  if (value === null) throw configInvalid([`${place(0)}: is empty`]);
  return {
    value,
    at: (path, what) => {
      const exact = (what === "key" ? keys : values).get(idOf(path));
      if (exact !== undefined) return place(exact);
      for (let around = path; ; around = around.slice(0, -1)) {
        const found = keys.get(idOf(around)) ?? values.get(idOf(around));
        if (found !== undefined || around.length === 0) return place(found ?? 0);
      }
    },
  };
};

export const idOf = (path: Path): string => JSON.stringify(path);

const startOf = (node: unknown): number | undefined =>
  isScalar(node) || isMap(node) || isSeq(node) ? node.range?.[0] : undefined;
