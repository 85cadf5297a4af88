import { createHash, randomBytes } from "node:crypto";

/** A key by its id, or by itself. */
export type KeyRef = number | string;
/** Times are epoch milliseconds. `revokedAt` is the moment of the act; with a revocation lag the key works a little longer. */
export type KeyInfo = { readonly id: number; readonly issuedAt: number; readonly revokedAt: number | null };
/** Requests that were made with one key: served, answered 401, answered 429. */
export type KeyStats = { readonly ok: number; readonly rejected: number; readonly limited: number };
export type Client = { readonly _id: string; readonly nickname: string };

type StateOptions = {
  /** `overlap`: an older key goes on working beside a new one. `replace`: issuing a key revokes the older ones. */
  readonly mode: "overlap" | "replace";
  readonly revocationLagMs: number;
  readonly activationLagMs: number;
  /** Requests a minute and key. */
  readonly limit: number;
  readonly now: () => number;
};

/** What IMKIT makes of the key of a request. `id` is null for a key that it never issued. */
export type Judgement =
  | { readonly kind: "accepted"; readonly id: number }
  | { readonly kind: "missing" }
  | { readonly kind: "invalid"; readonly id: number | null }
  | { readonly kind: "limited"; readonly id: number; readonly retryAfter: number };

export type State = {
  /** Issues a key and returns it; only its hash is kept, so it can never be shown again. */
  readonly issue: () => { readonly id: number; readonly key: string };
  /** false: there is no such key. Revoking twice changes nothing. */
  readonly revoke: (ref: KeyRef) => boolean;
  readonly keys: () => readonly KeyInfo[];
  readonly stats: (ref: KeyRef) => KeyStats;
  readonly find: (ref: KeyRef) => KeyInfo | null;
  readonly judge: (key: string | undefined) => Judgement;
  readonly clients: Map<string, Client>;
};

type Entry = {
  readonly id: number;
  readonly issuedAt: number;
  readonly acceptedFrom: number;
  revokedAt: number | null;
  windowStart: number;
  windowCount: number;
  ok: number;
  rejected: number;
  limited: number;
};

const MINUTE = 60_000;

const hash = (key: string): string => createHash("sha256").update(key).digest("hex");

/** A key of the vendor's form: Base64 of the Base64 of 32 random bytes, 60 characters. */
export const makeKey = (): string => Buffer.from(randomBytes(32).toString("base64")).toString("base64");

/** The keys of one app and what was done with them. Lives in memory only. */
export const createState = (options: StateOptions): State => {
  const { now } = options;
  const byHash = new Map<string, Entry>();

  const entryOf = (ref: KeyRef): Entry | undefined =>
    typeof ref === "string" ? byHash.get(hash(ref)) : [...byHash.values()].find((entry) => entry.id === ref);

  const info = ({ id, issuedAt, revokedAt }: Entry): KeyInfo => ({ id, issuedAt, revokedAt });

  const end = (entry: Entry): void => {
    entry.revokedAt ??= now();
  };

  const works = (entry: Entry, at: number): boolean =>
    at >= entry.acceptedFrom && (entry.revokedAt === null || at < entry.revokedAt + options.revocationLagMs);

  return {
    clients: new Map(),
    issue: () => {
      const first = byHash.size === 0;
      if (options.mode === "replace") [...byHash.values()].forEach(end);
      const at = now();
      const key = makeKey();
      const id = byHash.size + 1;
      byHash.set(hash(key), {
        id,
        issuedAt: at,
        // The first key stands for one that was issued long ago.
        acceptedFrom: first ? at : at + options.activationLagMs,
        revokedAt: null,
        windowStart: 0,
        windowCount: 0,
        ok: 0,
        rejected: 0,
        limited: 0,
      });
      return { id, key };
    },
    revoke: (ref) => {
      const entry = entryOf(ref);
      if (entry !== undefined) end(entry);
      return entry !== undefined;
    },
    keys: () => [...byHash.values()].map(info),
    find: (ref) => {
      const entry = entryOf(ref);
      return entry === undefined ? null : info(entry);
    },
    stats: (ref) => {
      const { ok, rejected, limited } = entryOf(ref) ?? { ok: 0, rejected: 0, limited: 0 };
      return { ok, rejected, limited };
    },
    judge: (key) => {
      if (key === undefined || key === "") return { kind: "missing" };
      const entry = byHash.get(hash(key));
      if (entry === undefined) return { kind: "invalid", id: null };
      const at = now();
      if (!works(entry, at)) {
        entry.rejected += 1;
        return { kind: "invalid", id: entry.id };
      }
      if (at - entry.windowStart >= MINUTE) {
        entry.windowStart = at;
        entry.windowCount = 0;
      }
      if (entry.windowCount >= options.limit) {
        entry.limited += 1;
        const retryAfter = Math.ceil((entry.windowStart + MINUTE - at) / 1000);
        return { kind: "limited", id: entry.id, retryAfter };
      }
      entry.windowCount += 1;
      entry.ok += 1;
      return { kind: "accepted", id: entry.id };
    },
  };
};
