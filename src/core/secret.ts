import { createHmac, timingSafeEqual } from "node:crypto";

/** 16 lower-case hex digits: what the ledger holds instead of a key. Shown to people as its first 8 (`showFp`). */
export type Fp = string;

const INSPECT = Symbol.for("nodejs.util.inspect.custom");
const FINGERPRINT_DOMAIN = "imkit-rotator/fingerprint/v1\0";

/**
 * A key. Never prints itself: `toString`, JSON and `util.inspect` all give `[Secret]`. Only the files named in the architecture test may
 * call `reveal()`.
 */
export class Secret {
  readonly #bytes: Buffer;

  constructor(text: string | Uint8Array) {
    this.#bytes = Buffer.from(text as string);
  }

  reveal(): string {
    return this.#bytes.toString("utf8");
  }

  get length(): number {
    return this.#bytes.length;
  }

  equals(other: Secret): boolean {
    return this.#bytes.length === other.#bytes.length && timingSafeEqual(this.#bytes, other.#bytes);
  }

  /**
   * First 16 hex digits of HMAC-SHA-256 under a ledger's public salt.
   * @param salt 64 hex digits from the `genesis` event; the HMAC key is its 32 bytes.
   */
  fingerprint(salt: string): Fp {
    return createHmac("sha256", salt, { encoding: "hex" })
      .update(FINGERPRINT_DOMAIN)
      .update(this.#bytes)
      .digest("hex")
      .slice(0, 16);
  }

  /** A made-up key of the same shape: as long, Base64, and Base64 inside where this one is. `random` gives n fresh bytes. */
  lookalike(random: (n: number) => Uint8Array): Secret {
    const text = this.reveal();
    const inner = Buffer.from(text, "base64").toString("latin1");
    if (/^[A-Za-z0-9+/]{16,}={0,2}$/.test(inner) && inner.length % 4 === 0) {
      const bytes = Buffer.from(inner, "base64").length;
      return new Secret(Buffer.from(Buffer.from(random(bytes)).toString("base64")).toString("base64"));
    }
    const made = Buffer.from(random(Buffer.from(text, "base64").length)).toString("base64");
    return new Secret(text.endsWith("=") ? made : made.replace(/=+$/, ""));
  }

  toString(): string {
    return "[Secret]";
  }
  toJSON(): string {
    return "[Secret]";
  }
  [INSPECT](): string {
    return "[Secret]";
  }
}

/** What a person sees of a fingerprint: its first 8 hex digits. */
export const showFp = (fp: Fp): string => fp.slice(0, 8);

/** The one known fingerprint that `prefix` (8 or more hex digits) means, else null. */
export const findFp = (prefix: string, known: Iterable<Fp>): Fp | null => {
  if (!/^[0-9a-f]{8,16}$/.test(prefix)) return null;
  const hits = [...new Set(known)].filter((fp) => fp.startsWith(prefix));
  return hits.length === 1 ? (hits[0] ?? null) : null;
};
