import { createHash, randomBytes } from "node:crypto";
import { Secret } from "../../src/core/secret.ts";
import type { Check, Revision } from "../../src/ports.ts";
import type { EnvFile } from "./dotenv-text.ts";

/** How a value stands in the file: as it is, or sealed. All reject with ProviderError, `not_applied`. */
export type Coding = {
  /** What the entry holds; `secret` is null for a value that is there and cannot be told. null = absent or empty. */
  readonly read: (file: EnvFile) => Promise<Held | null>;
  /** What to write for `next`, and the revision that a read will then give. */
  readonly encode: (file: EnvFile, next: Secret) => Promise<Coded>;
  /** Beyond what every env file is asked. */
  readonly check: (file: EnvFile) => Promise<readonly Check[]>;
  /** Around the value of a new line. */
  readonly quote: string;
  /** What a file begins with that is made. */
  readonly head: string;
};
export type Held = { readonly secret: Secret | null; readonly revision: Revision };
export type Coded = { readonly text: string; readonly revision: Revision };

export const plainCoding = (where: string): Coding => ({
  read: async ({ entry }) => {
    if (entry === null || entry.value === "") return null;
    const secret = new Secret(Buffer.from(entry.value, "latin1"));
    return { secret, revision: revisionOf(where, secret) };
  },
  encode: async (_, next) => ({ text: next.reveal(), revision: revisionOf(where, next) }),
  check: async () => [],
  quote: "",
  head: "",
});

/** Of the value alone: an edit of a neighbour is kept and is no conflict. With a salt of this process: no digest of the key in the ledger. */
const REVISION_SALT = randomBytes(32);
const revisionOf = (where: string, secret: Secret): Revision =>
  createHash("sha256")
    .update(REVISION_SALT)
    .update(`${where}\0`)
    .update(secret.reveal())
    .digest("hex")
    .slice(0, 32) as Revision;
