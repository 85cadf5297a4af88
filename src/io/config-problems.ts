import { looksLikeKey } from "../core/intake.ts";
import type { Path, Source } from "./config-parse.ts";
import { SECRET_INLINE } from "./config-schema.ts";
import { didYouMean, nearest } from "../core/suggest.ts";

/** What any Standard Schema library says is wrong; the further fields are zod's. */
export type Issue = {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
  readonly code?: string | undefined;
  readonly expected?: string;
  readonly keys?: readonly string[];
  readonly values?: readonly unknown[];
  readonly options?: readonly unknown[];
  readonly discriminator?: string | undefined;
  readonly origin?: string;
  readonly minimum?: number | bigint;
  readonly maximum?: number | bigint;
  readonly issues?: readonly Issue[];
  readonly errors?: readonly (readonly Issue[])[];
};

/** Where the issues come from: `schema` was asked about what stands at `base`, `alsoKnown` are keys there that it does not know. */
export type Asked = {
  readonly source: Source;
  readonly base: Path;
  readonly schema: unknown;
  readonly alsoKnown: readonly string[];
};

/** One `<path>:<line>:<column>: message` a problem, in our words. No value of the file is in it, and no key that might be a secret. */
export const problemLines = (issues: readonly Issue[], asked: Asked): readonly string[] =>
  issues.flatMap((issue) => linesOf(issue, asked));

/** A line about what stands at `path`. */
export const problem = (
  source: Source,
  path: Path,
  message: string,
  what: "key" | "value" = "value",
): string => {
  const name = showPath(path);
  return `${source.at(path, what)}: ${name === "" ? "the file" : name} ${message}`;
};

/** Keys of `settings` that `schema` would drop in silence (a plain, not strict, object schema). */
export const droppedKeys = (schema: unknown, settings: object): readonly string[] => {
  const known = knownKeys([schema]);
  const objects = unfold(schema).filter(({ type }) => type === "object");
  const isClosed = objects.length > 0 && objects.every((def) => def.catchall === undefined);
  return isClosed ? Object.keys(settings).filter((key) => !known.includes(key)) : [];
};

const linesOf = (issue: Issue, asked: Asked): readonly string[] => {
  const { source, base } = asked;
  const inner = (issue.path ?? []).map((step) => (typeof step === "object" ? step.key : step));
  const path = [...base, ...inner.map((step) => (typeof step === "number" ? step : String(step)))];
  const found = valueAt(source.value, path);
  if (issue.code === "unrecognized_keys") {
    const known = knownAt(asked, path);
    return (issue.keys ?? []).map((key) => unknownKey(source, [...path, key], known));
  }
  if (issue.code === "invalid_key")
    return [
      problem(source, path, `is not a name: it ${issue.issues?.[0]?.message ?? "is not valid"}`, "key"),
    ];
  if (issue.code === "invalid_union" && issue.discriminator === undefined && !isOurs(issue.message)) {
    const branch = issue.errors?.find((errors) => !errors.some(({ path: at = [] }) => at.length === 0));
    if (branch !== undefined)
      return problemLines(branch, { ...asked, base: path, schema: null, alsoKnown: [] });
  }
  if (found === undefined) return [problem(source, path, "is missing")];
  return [problem(source, path, wordsFor(issue, found, schemasAt(asked, path)))];
};

const unknownKey = (source: Source, path: Path, known: readonly string[]): string => {
  const key = String(path.at(-1) ?? "");
  const value = valueAt(source.value, path);
  const isSecret = typeof value === "string" && (looksLikeKey(value) || SECRET_NAME.test(key));
  if (looksLikeKey(key) || (isSecret && nearest(key, known) === null))
    return problem(source, path, `is not a known key, and no place for a secret: ${EXPOSED}`, "key");
  const hint = didYouMean(key, known) || (known.length > 0 ? ` (known here: ${known.join(", ")})` : "");
  return problem(source, path, `is not a known key${hint}`, "key");
};

const SECRET_NAME = /(?:key|token|secret|password|passphrase|credential)s?$/i;
const EXPOSED = "what is written in the config is exposed and must be replaced; use valueFrom";

const wordsFor = (issue: Issue, found: unknown, schemas: readonly Def[]): string => {
  if (typeof found === "string" && schemas.some((def) => def.shape !== undefined && "valueFrom" in def.shape))
    return isOurs(issue.message) ? issue.message : SECRET_INLINE;
  const choices = (issue.options ?? issue.values ?? []).filter((choice) => typeof choice === "string");
  if (choices.length > 0)
    return `must be one of ${choices.join(", ")}${typeof found === "string" ? didYouMean(found, choices) : ""}`;
  if (isOurs(issue.message))
    return leaves(found).some((leaf) => issue.message.includes(leaf)) ? "is not valid" : issue.message;
  if (issue.code === "invalid_type") return `must be ${EXPECTED[issue.expected ?? ""] ?? "of another kind"}`;
  const unit = UNITS[issue.origin ?? ""] ?? "";
  if (issue.minimum !== undefined) return `must be at least ${issue.minimum}${unit}`;
  if (issue.maximum !== undefined) return `must be at most ${issue.maximum}${unit}`;
  return "is not valid";
};

const UNITS: Readonly<Record<string, string>> = { string: " characters long", array: " entries long" };

/** zod's own messages begin so (and depend on what else is loaded); all others are a schema author's. */
const isOurs = (message: string): boolean => !/^(?:Invalid|Unrecognized|Expected|Too)\b/.test(message);

const EXPECTED: Readonly<Record<string, string>> = {
  string: "text (in quotes)",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  tuple: "a list",
  object: "a section of its own (key: value)",
  record: "a section of its own (key: value)",
};

/** Texts that a message could have been made from. */
const leaves = (value: unknown): readonly string[] => {
  if (typeof value === "string") return value.length >= 4 ? [value] : [];
  if (typeof value !== "object" || value === null) return [];
  return Object.values(value).flatMap(leaves);
};

export const valueAt = (value: unknown, path: Path): unknown => {
  let at: unknown = value;
  for (const step of path) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, step)) return undefined;
    at = Reflect.get(at, step);
  }
  return at;
};

const showPath = (path: Path): string =>
  path
    .map((step, index) => {
      if (typeof step === "number") return `[${step}]`;
      const word = isHarmless(step) ? step : "<a key not shown>";
      return index === 0 ? word : `.${word}`;
    })
    .join("");

/** Names are short; a longer word of mixed kinds may be a pasted secret or a part of one. */
const isHarmless = (word: string): boolean =>
  /^[\w$][\w$.-]{0,31}$/.test(word) &&
  !(word.length >= 12 && [/[a-z]/, /[A-Z]/, /\d/].every((kind) => kind.test(word)));

/** The parts of a zod schema's definition that are read here. Another library's schema has none, and then there are no suggestions. */
type Def = {
  readonly type?: string;
  readonly shape?: Readonly<Record<string, unknown>>;
  readonly catchall?: unknown;
  readonly element?: unknown;
  readonly valueType?: unknown;
  readonly innerType?: unknown;
  readonly in?: unknown;
  readonly options?: readonly unknown[];
};

const defOf = (schema: unknown): Def | null => {
  const inner = valueAt(schema, ["_zod", "def"]);
  return typeof inner === "object" ? inner : null;
};

/** The definitions that may apply, without what is only wrapped around them. */
const unfold = (schema: unknown): readonly Def[] => {
  const def = defOf(schema);
  if (def === null) return [];
  if (def.options !== undefined) return def.options.flatMap(unfold);
  const wrapped = def.innerType ?? def.in;
  return wrapped === undefined ? [def] : unfold(wrapped);
};

const schemasAt = ({ schema, base }: Asked, path: Path): readonly Def[] =>
  path
    .slice(base.length)
    .reduce<readonly Def[]>(
      (defs, step) =>
        defs.flatMap((def) =>
          unfold(typeof step === "number" ? def.element : (def.shape?.[step] ?? def.valueType)),
        ),
      unfold(schema),
    );

const knownAt = (asked: Asked, path: Path): readonly string[] => {
  const keys = schemasAt(asked, path).flatMap(({ shape }) => Object.keys(shape ?? {}));
  return path.length === asked.base.length ? [...asked.alsoKnown, ...keys] : keys;
};

const knownKeys = (schemas: readonly unknown[]): readonly string[] =>
  schemas.flatMap(unfold).flatMap(({ shape }) => Object.keys(shape ?? {}));
