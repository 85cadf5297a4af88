import { createHash } from "node:crypto";
import { Secret } from "./secret.ts";

/** `notes` are said to the person; they and `why` name shapes only, never a character of the input. */
export type KeyCheck =
  | { readonly ok: true; readonly secret: Secret; readonly notes: readonly string[] }
  | { readonly ok: false; readonly why: string };

const SAMPLE_LENGTH = 60;
const MIN_BYTES = 16;
const MAX_LENGTH = 4096;
/** SHA-256 of the two keys that the vendor's documentation publishes: its sample, and the one inside its Kubernetes sample. */
const PUBLISHED: ReadonlySet<string> = new Set([
  "cc1c5b33f8f1a827c1333bc6cfeeb1e67f4913f7597006dac8095bfe0d26fb31",
  "30bdeecc942fe700f6bc42e48f6145d6d5675cc83cad7d0d426478db7b32453b",
]);

/**
 * Shape check of what a person gave as the new API Key (DESIGN section 9, `stage`). ASCII white space around it is dropped and said; a no-break
 * space, a byte order mark or a zero-width character is no white space in that sense and is refused.
 */
export const checkKey = (text: string): KeyCheck => {
  const key = text.replace(/^[ \t\r\n\v\f]+/, "").replace(/[ \t\r\n\v\f]+$/, "");
  const why = refusal(key);
  if (why !== null) return { ok: false, why };
  const notes: string[] = [];
  if (key !== text) notes.push("White space around the key was removed.");
  if (key.length !== SAMPLE_LENGTH)
    notes.push(`It is ${key.length} characters long; IMKIT's documented sample has ${SAMPLE_LENGTH}.`);
  if (Buffer.from(key, "base64").toString("base64") !== key)
    notes.push("Its last character is not as a Base64 encoder writes it; it may be mistyped.");
  return { ok: true, secret: new Secret(key), notes };
};

/** The same for what lies in an inbox. */
export const checkSecret = (value: Secret): KeyCheck => checkKey(value.reveal());

/** The order matters: the first that fits is what the person most likely did. */
const refusal = (key: string): string | null => {
  if (key === "") return "Nothing was given.";
  if (key.length > MAX_LENGTH) return `It is far too long for a key (over ${MAX_LENGTH} characters).`;
  return wrappingOf(key) ?? alphabetOf(key) ?? contentOf(key);
};

/** Something around, or other than, the bare key. */
const wrappingOf = (key: string): string | null => {
  if (/^[{[]/.test(key) && /[}\]]$/.test(key) && !key.startsWith("{{"))
    return "It is JSON; give the key inside it alone.";
  if (isPlaceholder(key)) return "It is a placeholder, not a key.";
  if (/^(\S+)\s+\1$/.test(key) || isDoubled(key)) return "The same text stands in it twice; paste it once.";
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(key)) return "It is a URL, not a key.";
  if (/^["'`<(\u2018-\u201f\u00ab\u300c]/.test(key) || /["'`>)\u2018-\u201f\u00bb\u300d]$/.test(key))
    return "It stands in quotes or brackets; give the key alone.";
  if (
    /^(?:(?:export|set|setx|env)\s+|\$env:)?[A-Za-z_][\w.-]{0,48}[ \t]*=[ \t]*[\x21-\x3c\x3e-\x7e]/.test(key)
  )
    return "It is a NAME=value line; give the value alone.";
  if (/^[A-Za-z][\w-]*\s*:/.test(key)) return "It is a header or a name: value line; give the value alone.";
  if (/^[\w-]+\.[\w-]+\.[\w-]*$/.test(key))
    return "It is a JWT, as the Client Key (public, for front ends) is; the API Key is another one.";
  return null;
};

const isPlaceholder = (key: string): boolean =>
  /\*{3}|\u2022{3}|\u2026|\.{3}|^(.)\1+$/.test(key) ||
  /^(?:\$\{.*\}|\$\(.*\)|\$[A-Za-z_]\w*|%\w+%|\{\{.*\}\}|<.*>)$/.test(key) ||
  (key.length < 40 &&
    /change.?me|^your\b|your.?(?:imkit|api|new|key)|placeholder|example|redacted|^x{3,}$|^(?:todo|none|null|undefined)$/i.test(
      key,
    ));

const isDoubled = (key: string): boolean =>
  key.length >= 2 * MIN_BYTES && key.length % 2 === 0 && key.startsWith(key.slice(key.length / 2));

/** A character that Base64 does not have, or padding that it cannot have. */
const alphabetOf = (key: string): string | null => {
  if (/[\r\n]/.test(key)) return "It has more than one line.";
  if (/[ \t\v\f]/.test(key)) return "There is white space inside it.";
  if (/[^\x21-\x7e]/.test(key))
    return "It holds an invisible or non-ASCII character (no-break space, byte order mark, look-alike letter); copy it again.";
  if (/[-_]/.test(key) && /^[\w+/-]+=*$/.test(key))
    return "It uses the Base64url alphabet (- and _); the API Key is plain Base64.";
  if (/[^A-Za-z0-9+/=]/.test(key)) return "It holds a character that Base64 does not have.";
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(key) || key.length % 4 !== 0)
    return "Its Base64 padding is wrong; the end or a part of it is missing, or it was pasted twice.";
  return null;
};

/** What the Base64 says. */
const contentOf = (key: string): string | null => {
  const bytes = Buffer.from(key, "base64");
  const inner = bytes.toString("latin1").trim();
  if (isPublished(key) || isPublished(inner))
    return "It is the sample key that IMKIT publishes in its documentation; it is no secret.";
  if (isKeyInBase64(inner))
    return "This is the key in Base64 once more (as under `data` in a Kubernetes Secret); give the key itself.";
  if (bytes.length < MIN_BYTES) return `It is too short: it decodes to fewer than ${MIN_BYTES} bytes.`;
  if (/^\{"[\x20-\x7e]*$/.test(inner))
    return "It is JSON, or the first part of a JWT, in Base64; it is no API Key.";
  if (/^[\w-]+\.[\w-]+\.[\w-]*$/.test(inner)) return "It is a JWT in Base64; it is no API Key.";
  return null;
};

const isPublished = (text: string): boolean => PUBLISHED.has(createHash("sha256").update(text).digest("hex"));

/** The sample's shape: Base64 of Base64 of something. */
const isKeyInBase64 = (text: string): boolean =>
  isBase64(text) && isBase64(Buffer.from(text, "base64").toString("latin1"));

const isBase64 = (text: string): boolean =>
  text.length % 4 === 0 && text.length >= MIN_BYTES && /^[A-Za-z0-9+/]+={0,2}$/.test(text);

/**
 * Whether `word` is, or carries (`--key=…`, `NAME=…`, in quotes), what looks like an API Key: for a word that must hold none. Hex digests,
 * paths and sentences do not.
 */
export const looksLikeKey = (word: string): boolean => {
  const bare = word
    .trim()
    .replace(/^[\w.:$-]*[=:]\s*(?=[^=\s])/, "")
    .replaceAll(/^["'`<]+|["'`>]+$/g, "");
  if (!/^[\w+/-]{22,}={0,2}$/.test(bare)) return false;
  const plain = bare.replaceAll("-", "+").replaceAll("_", "/");
  if (isKeyShaped(plain)) return true;
  const kinds = [/[a-z]/, /[A-Z]/, /\d.*\d/].every((kind) => kind.test(plain));
  const separators = plain.replaceAll(/[^+/]/g, "").length;
  return plain.length >= 40 && kinds && separators <= (word.startsWith("/") ? 2 : plain.length / 8);
};

/** Base64 of Base64, as the documented sample, also with its padding lost. A random word is not: each inner byte would have to be a Base64 one. */
export const isKeyShaped = (text: string): boolean => {
  const inner = Buffer.from(text, "base64").toString("latin1");
  return /^[A-Za-z0-9+/]{22,}={0,2}$/.test(text) && /^[A-Za-z0-9+/]{16,}={0,2}$/.test(inner);
};

const PIECE = 24;

/** Whether a key, or a long piece of one, stands anywhere in a text: no other text has that much that is Base64 of Base64. */
export const holdsKey = (text: string): boolean => {
  for (let at = 0; at + PIECE <= text.length; at++) if (isKeyShaped(text.slice(at, at + PIECE))) return true;
  return false;
};
