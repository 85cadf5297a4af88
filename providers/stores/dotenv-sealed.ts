import { createHash } from "node:crypto";
import { basename } from "node:path";
import type { ProviderError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Revision } from "../../src/ports.ts";
import { check, refused, type Tools, type ValueFrom } from "../kit.ts";
import { type Coding } from "./dotenv-coding.ts";
import { isPublicKey, MIN_SEALED, publicKeyOf, seal, unseal } from "./dotenv-ecies.ts";
import { isPlain, namesFrom, readEnv } from "./dotenv-text.ts";

type Keys = { readonly publicKey: string; readonly privateKey: Secret | null };
type Sealing = {
  readonly path: string;
  readonly where: string;
  readonly publicKey: string | undefined;
  readonly privateKey: ValueFrom | undefined;
};

const PREFIX = "encrypted:";
const HEADER = "DOTENV_PUBLIC_KEY";
/** As dotenvx writes it: compressed, in hex. */
export const PUBLIC_KEY = /^0[23][0-9A-Fa-f]{64}$/;
const PRIVATE_KEYS =
  /^[ \t]*(?:export[ \t]+)?DOTENV_PRIVATE_KEY\w*[ \t]*=[ \t]*["'`]?([0-9a-f]{64}[0-9a-f, \t]*)/gim;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** What this process sealed, where it has no private key to tell it by. */
const ours = new Map<Revision, Secret>();

/**
 * Values as dotenvx encrypts them (`encrypted:<base64>`). The public key, of the file's own header or of the config, is enough to write.
 * To read takes the private key. Without it a read tells what this very process wrote, because nobody else can have made that
 * ciphertext; every other value is there, but unknown.
 */
export const sealedCoding = (
  { path, where, publicKey: given, privateKey }: Sealing,
  tools: Tools,
): Coding => {
  const inFile = (text: string): readonly string[] => {
    const found = namesFrom(text, HEADER).map((name) => {
      const file = readEnv(Buffer.from(text, "latin1"), name, true);
      if ("code" in file) throw refused(file.code, `${path}:${file.line}: ${file.why}`);
      return file.entry?.value.toLowerCase() ?? "";
    });
    return [...new Set(found)];
  };

  const publicKeyFor = (text: string): string => {
    const [found, another] = inFile(text);
    if (another !== undefined)
      throw refused("CONFIG", `${path} has more than one public key; which one counts depends on the reader`);
    if (found !== undefined && given !== undefined && found !== given.toLowerCase())
      throw refused("CONFIG", `${path} has another public key (${HEADER}) than the config`);
    const key = found ?? given?.toLowerCase();
    if (key === undefined)
      throw refused("CONFIG", `${path} has no ${HEADER}; dotenvx encrypt makes one, or set publicKey`);
    if (PUBLIC_KEY.test(key) && isPublicKey(key)) return key;
    throw refused("CONFIG", `the public key of ${path} is none: 66 hex digits, as dotenvx writes it`);
  };

  const keysFor = async (text: string): Promise<Keys> => {
    const publicKey = publicKeyFor(text);
    if (privateKey === undefined) return { publicKey, privateKey: null };
    // It rejects with the words of the config room; this room has its own code.
    const shown = (await tools.valueOf(privateKey).catch(() => "")).trim();
    if (shown === "") throw refused("CONFIG", "what privateKey.valueFrom names cannot be read, or is empty");
    const all = privateKeysIn(shown);
    if (all.length === 0)
      throw refused(
        "CONFIG",
        "what privateKey.valueFrom names holds no private key: 64 hex digits, or .env.keys",
      );
    const mine = all.find((key) => publicKeyOf(bytesOf(key)) === publicKey);
    if (mine === undefined)
      throw refused("KMS", `the private key does not belong to the public key of ${path}`);
    return { publicKey, privateKey: mine };
  };

  const read: Coding["read"] = async ({ text, entry, key }) => {
    if (entry === null || entry.value === "") return null;
    const spot = `${path}:${entry.line}`;
    if (!entry.value.startsWith(PREFIX))
      throw refused(
        "CONFIG",
        `${spot}: ${key} is in plain text here, so it is exposed: dotenvx encrypt, and rotate it`,
      );
    const coded = entry.value.slice(PREFIX.length);
    const sealed = Buffer.from(coded, "base64");
    if (!BASE64.test(coded) || sealed.length < MIN_SEALED)
      throw refused("CONFIG", `${spot}: the encrypted value is damaged or cut off`);
    const revision = revisionOf(where, entry.value);
    const { privateKey } = await keysFor(text);
    if (privateKey === null) return { secret: ours.get(revision) ?? null, revision };
    const value = await unseal(bytesOf(privateKey), sealed).catch(() => {
      throw refused("KMS", `${spot}: cannot be decrypted: damaged, cut off, or encrypted for another key`);
    });
    if (value.length === 0) return null;
    // dotenvx puts variables in after it has decrypted.
    if (value.includes("$"))
      throw refused("CONFIG", `${spot}: the value refers to another variable ($); write the key itself`);
    return { secret: new Secret(value), revision };
  };

  const encode: Coding["encode"] = async ({ text }, next) => {
    const value = next.reveal();
    if (!isPlain(value))
      throw refused("UNSUPPORTED", "the key has a character that env files do not hold safely");
    const { publicKey, privateKey } = await keysFor(text);
    try {
      const sealed = await seal(Buffer.from(publicKey, "hex"), Buffer.from(value));
      const coded = PREFIX + sealed.toString("base64");
      const revision = revisionOf(where, coded);
      if (privateKey === null) ours.set(revision, next);
      else if (!new Secret(await unseal(bytesOf(privateKey), sealed)).equals(next)) throw new Error();
      return { text: coded, revision };
    } catch {
      throw refused("VERIFY_MISMATCH", "what was encrypted does not come back as it was");
    }
  };

  const preflight: Coding["check"] = async (file) => {
    const held = await read(file);
    const { privateKey } = await keysFor(file.text);
    if (held !== null && held.secret === null) throw unknown(path);
    if (privateKey !== null) return [check.ok("private-key", "the private key belongs to the public key")];
    return [
      check.warn(
        "private-key",
        "without privateKey the key can be written, but read by the run alone that wrote it",
        "privateKey: { valueFrom: { file: .env.keys } }",
      ),
    ];
  };

  const head = given === undefined ? "" : `${headerFor(path)}="${given.toLowerCase()}"\n\n`;
  return { read, encode, check: preflight, quote: '"', head };
};

/** A value that is there and that nobody here can tell. */
export const unknown = (path: string): ProviderError =>
  refused(
    "UNSUPPORTED",
    `what ${path} holds is encrypted, and to tell it takes the private key: set privateKey`,
  );

/** 64 hex digits, several with commas between them, or the text of a .env.keys file. */
const privateKeysIn = (text: string): readonly Secret[] => {
  const lists = /^[0-9a-f, \t]+$/i.test(text)
    ? [text]
    : [...text.matchAll(PRIVATE_KEYS)].map(([, keys = ""]) => keys);
  const keys = lists.flatMap((list) => list.split(",")).map((key) => key.trim());
  return keys.filter((key) => /^[0-9a-f]{64}$/i.test(key)).map((key) => new Secret(key));
};

/** `.env.production` -> DOTENV_PUBLIC_KEY_PRODUCTION, as dotenvx names it. */
const headerFor = (path: string): string => {
  const [, stage = ""] = /^\.env\.(\w+(?:\.\w+)?)/.exec(basename(path)) ?? [];
  return stage === "" ? HEADER : `${HEADER}_${stage.replace(".", "_").toUpperCase()}`;
};

/** Of the ciphertext, which is random: it says nothing of the key. */
const revisionOf = (where: string, text: string): Revision =>
  createHash("sha256").update(`${where}\0${text}`).digest("hex").slice(0, 32) as Revision;

const bytesOf = (privateKey: Secret): Buffer => Buffer.from(privateKey.reveal(), "hex");
