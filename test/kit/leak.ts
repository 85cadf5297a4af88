import { createHash, randomBytes } from "node:crypto";

/** A key of the documented shape: Base64 of Base64 of 32 random bytes, 60 characters. */
export const madeKey = (): string => Buffer.from(randomBytes(32).toString("base64")).toString("base64");

/**
 * Names of the encodings in which `key`, or a piece of it, stands in `text`; empty = clean. `text` may hold anything; give bytes as latin1.
 * The raw key is looked for in every window of 8 characters (also in other case and backwards), each encoding in pieces of
 * 12 or more.
 */
export const findKey = (text: string, key: string): string[] => {
  const found = ENCODINGS.filter(({ needles }) => needles(key).some((needle) => text.includes(needle)));
  const lower = text.toLowerCase();
  const windows = windowsOf(key);
  const raw = [
    ...(windows.some((window) => text.includes(window)) ? ["raw"] : []),
    ...(windowsOf(key.toLowerCase()).some((window) => lower.includes(window)) ? ["raw, any case"] : []),
    ...(windowsOf(reversed(key)).some((window) => text.includes(window)) ? ["reversed"] : []),
  ];
  return [...raw, ...found.map(({ name }) => name)];
};

/** How many encodings `findKey` knows. */
export const encodingCount = (): number => ENCODINGS.length + 3;

/** Every encoding with one example, for the test of the test. */
export const examples = (key: string): readonly { readonly name: string; readonly text: string }[] =>
  ENCODINGS.map(({ name, encode }) => ({ name, text: encode(key) }));

const WINDOW = 8;
const PIECE = 12;
const reversed = (text: string): string => text.split("").reverse().join("");
const windowsOf = (text: string): string[] =>
  text.length <= WINDOW
    ? [text]
    : Array.from({ length: text.length - WINDOW + 1 }, (_, at) => text.slice(at, at + WINDOW));
/** Cut so that a piece stands for at least 6 characters of the key: shorter ones occur by chance. */
const pieces = (encoded: string, keyLength: number): string[] => {
  const size = Math.max(PIECE, Math.ceil((6 * encoded.length) / keyLength));
  if (encoded.length < 2 * size) return [encoded];
  return Array.from({ length: Math.floor(encoded.length / size) }, (_, n) =>
    encoded.slice(n * size, (n + 1) * size),
  );
};

type Encoding = {
  readonly name: string;
  readonly encode: (key: string) => string;
  readonly needles: (key: string) => readonly string[];
};

const bytes = (key: string): Buffer => Buffer.from(key, "utf8");
const each = (key: string, form: (code: number, char: string) => string, between = ""): string =>
  key
    .split("")
    .map((char) => form(char.charCodeAt(0), char))
    .join(between);
const hex = (code: number, width = 2): string => code.toString(16).padStart(width, "0");

const plain = (name: string, encode: (key: string) => string): Encoding => ({
  name,
  encode,
  needles: (key) => {
    const encoded = encode(key);
    // Where nothing had to be escaped the raw search has done it.
    return encoded === key ? [] : pieces(encoded, key.length).filter((piece) => !key.includes(piece));
  },
});

/** Base64 of the key somewhere inside a longer Base64: three alignments, cut where neighbours mix in. */
const aligned = (
  name: string,
  before: (key: string) => string,
  form: (text: string) => string = (t) => t,
): Encoding[] =>
  [0, 1, 2].map((shift) => ({
    name: `${name}, alignment ${shift}`,
    encode: (key) => form(Buffer.from(`${"~".repeat(shift)}${before(key)}~~`).toString("base64")),
    needles: (key) => {
      const encoded = form(Buffer.from("~".repeat(shift) + before(key)).toString("base64"));
      return pieces(encoded.slice(shift === 0 ? 0 : 4, -4), key.length);
    },
  }));

const base64url = (text: string): string => text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

const base32 = (key: string): string => {
  const bits = each(key, (code) => code.toString(2).padStart(8, "0"));
  return (bits.match(/.{1,5}/g) ?? [])
    .map((five) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[Number.parseInt(five.padEnd(5, "0"), 2)])
    .join("");
};

const rot13 = (key: string): string =>
  key.replace(/[a-z]/gi, (c) => String.fromCharCode(c.charCodeAt(0) + (c.toLowerCase() < "n" ? 13 : -13)));

/** A prefix of 16 hex digits is a leak, too: it tests a guess, and it is the same in every ledger. */
const digest = (name: string): Encoding[] =>
  (["hex", "base64"] as const).map((form) => {
    const of = (key: string) => createHash(name).update(key).digest(form);
    return { name: `${name} ${form}`, encode: of, needles: (key) => pieces(of(key), of(key).length) };
  });

const inner = (key: string): string => Buffer.from(key, "base64").toString("latin1");
/** The bytes within Base64 of Base64 as hex; of any other text the text itself: what comes out of that is too short to be looked for. */
const innermost = (key: string): string => {
  const twice = Buffer.from(inner(key), "base64");
  const again = Buffer.from(twice.toString("base64")).toString("base64");
  return again === key ? twice.toString("hex") : key;
};

const ENCODINGS: readonly Encoding[] = [
  ...aligned("base64", (key) => key),
  ...aligned("base64url", (key) => key, base64url),
  ...aligned("base64 twice", (key) => Buffer.from(key).toString("base64")),
  ...aligned("base64 of JSON", (key) => JSON.stringify(key)),
  ...aligned("base64 of hex", (key) => bytes(key).toString("hex")),
  ...aligned("base64 of UTF-16LE", (key) => Buffer.from(key, "utf16le").toString("latin1")),
  plain("decoded once", inner),
  plain("decoded twice, hex", innermost),
  plain("base32", base32),
  plain("hex", (key) => bytes(key).toString("hex")),
  plain("HEX", (key) => bytes(key).toString("hex").toUpperCase()),
  plain("hex, spaces", (key) => each(key, (code) => hex(code), " ")),
  plain("hex, colons", (key) => each(key, (code) => hex(code), ":")),
  plain("hex, 0x and commas", (key) => each(key, (code) => `0x${hex(code)}`, ", ")),
  plain("hex dump of util.inspect", (key) => `<Buffer ${each(key, (code) => hex(code), " ")}>`),
  plain("\\x escapes", (key) => each(key, (code) => `\\x${hex(code)}`)),
  plain("\\u escapes", (key) => each(key, (code) => `\\u${hex(code, 4)}`)),
  plain("\\u{} escapes", (key) => each(key, (code) => `\\u{${hex(code)}}`)),
  plain("octal escapes", (key) => each(key, (code) => `\\${code.toString(8).padStart(3, "0")}`)),
  plain("percent, all", (key) => each(key, (code) => `%${hex(code).toUpperCase()}`)),
  plain("percent, lower case", (key) => each(key, (code) => `%${hex(code)}`)),
  plain("percent, twice", (key) => each(key, (code) => `%25${hex(code).toUpperCase()}`)),
  plain("HTML decimal", (key) => each(key, (code) => `&#${code};`)),
  plain("HTML hex", (key) => each(key, (code) => `&#x${hex(code)};`)),
  plain("quoted-printable", (key) => each(key, (code) => `=${hex(code).toUpperCase()}`)),
  plain("UTF-16LE", (key) => Buffer.from(key, "utf16le").toString("latin1")),
  plain("UTF-16BE", (key) => each(key, (_, char) => `\0${char}`)),
  plain("UTF-32LE", (key) => each(key, (_, char) => `${char}\0\0\0`)),
  plain("UTF-16LE hex", (key) => Buffer.from(key, "utf16le").toString("hex")),
  plain("bytes as JSON", (key) => each(key, (code) => String(code), ",")),
  plain("bytes as text", (key) => each(key, (code) => String(code), ", ")),
  plain("binary", (key) => each(key, (code) => code.toString(2).padStart(8, "0"))),
  plain("spaced", (key) => each(key, (_, char) => char, " ")),
  plain("dashed", (key) => each(key, (_, char) => char, "-")),
  plain("one a line", (key) => each(key, (_, char) => char, "\n")),
  plain("characters as JSON", (key) => each(key, (_, char) => char, '","')),
  plain("backslashes before all", (key) => each(key, (_, char) => `\\${char}`)),
  plain("rot13", rot13),
  plain("reversed base64", (key) => reversed(Buffer.from(key).toString("base64"))),
  plain("reversed hex", (key) => reversed(bytes(key).toString("hex"))),
  ...["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3-256", "blake2b512"].flatMap(digest),
];
