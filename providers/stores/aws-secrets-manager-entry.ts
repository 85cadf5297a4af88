import { refused } from "../kit.ts";

/** What AWS takes as a secret's text, in bytes. */
const MAX_BYTES = 65_536;

/**
 * The key in a secret's text; null where it has none (an empty value counts as none).
 * @param jsonKey null = the whole text is the key
 * @throws ProviderError CONFIG, CONFLICT, UNSUPPORTED, `not_applied`: the text is not what the config says. No word of it is in the error.
 */
export const entryOf = (text: string, jsonKey: string | null): string | null => {
  if (jsonKey !== null) return ownMember(text, jsonKey)?.value || null;
  if (text.trimStart().startsWith("{"))
    throw refused("CONFIG", "the secret is a JSON object; name the member that is the key: jsonKey: <name>");
  return text === "" ? null : text;
};

/**
 * The text with `value` in it and every other byte as it was; a missing member is added at the end, in the style of the last one.
 * @throws ProviderError as `entryOf`, and TOO_LARGE, VERIFY_MISMATCH
 */
export const withEntry = (text: string, jsonKey: string | null, value: string): string => {
  entryOf(text, jsonKey);
  const edited = jsonKey === null ? value : withMember(text, jsonKey, value);
  if (Buffer.byteLength(edited) > MAX_BYTES)
    throw refused("TOO_LARGE", `the secret would be larger than ${MAX_BYTES} bytes, the most that AWS takes`);
  if (entryOf(edited, jsonKey) !== value)
    throw refused("VERIFY_MISMATCH", "with the new value in it, the secret would be read otherwise");
  return edited;
};

type Member = {
  readonly name: string;
  readonly nameAt: number;
  readonly nameEnd: number;
  readonly valueAt: number;
  readonly valueEnd: number;
};

const ownMember = (text: string, jsonKey: string) => {
  // A secret without a value yet is as good as an empty object.
  if (text === "") return null;
  const own = membersOf(text).filter(({ name }) => name === jsonKey);
  if (own.length > 1)
    throw refused("CONFLICT", `the JSON has ${jsonKey} ${own.length} times; keep one of them`);
  const [member] = own;
  if (member === undefined) return null;
  const value: unknown = JSON.parse(text.slice(member.valueAt, member.valueEnd));
  if (typeof value !== "string")
    throw refused(
      "CONFIG",
      `${jsonKey} in the JSON is not a text; jsonKey names a member of the outermost object`,
    );
  return { ...member, value };
};

const withMember = (text: string, jsonKey: string, value: string): string => {
  const quoted = JSON.stringify(value);
  const own = ownMember(text, jsonKey);
  if (own !== null) return text.slice(0, own.valueAt) + quoted + text.slice(own.valueEnd);
  const name = JSON.stringify(jsonKey);
  if (text === "") return `{${name}:${quoted}}`;
  const last = membersOf(text).at(-1);
  if (last === undefined) return text.replace("{", () => `{${name}:${quoted}`);
  const lead = /\s*$/.exec(text.slice(0, last.nameAt))?.[0] ?? "";
  const colon = text.slice(last.nameEnd, last.valueAt);
  return `${text.slice(0, last.valueEnd)},${lead}${name}${colon}${quoted}${text.slice(last.valueEnd)}`;
};

/** The members of the outermost object, in order, duplicates too. What is inside of their values is skipped. */
const membersOf = (text: string): readonly Member[] => {
  if (!isObject(text))
    throw refused("CONFIG", "the secret is not a JSON object; without jsonKey the whole secret is the key");
  const members: Member[] = [];
  let at = blank(text, text.indexOf("{") + 1);
  while (text[at] !== "}") {
    const nameEnd = pastString(text, at);
    const valueAt = blank(text, blank(text, nameEnd) + 1);
    const valueEnd = pastValue(text, valueAt);
    const name = JSON.parse(text.slice(at, nameEnd)) as string;
    members.push({ name, nameAt: at, nameEnd, valueAt, valueEnd });
    at = blank(text, valueEnd);
    if (text[at] === ",") at = blank(text, at + 1);
  }
  return members;
};

const isObject = (text: string): boolean => {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && parsed !== null && !Array.isArray(parsed);
  } catch {
    return false;
  }
};

// All of these are called on text that JSON.parse has accepted.
const from = (pattern: RegExp, text: string, at: number): number => {
  pattern.lastIndex = at;
  return pattern.test(text) ? pattern.lastIndex : at;
};
const blank = (text: string, at: number): number => from(/[\t\n\r ]*/y, text, at);
const pastString = (text: string, at: number): number => from(/"[^"\\]*(?:\\.[^"\\]*)*"/y, text, at);
const pastValue = (text: string, start: number): number => {
  if (text[start] === '"') return pastString(text, start);
  if (text[start] !== "{" && text[start] !== "[") return from(/[^\s,}\]]+/y, text, start);
  let depth = 0;
  let at = start;
  do {
    const sign = text[at] ?? "";
    if ("{[".includes(sign)) depth += 1;
    if ("}]".includes(sign)) depth -= 1;
    at = sign === '"' ? pastString(text, at) : at + 1;
  } while (depth > 0);
  return at;
};
