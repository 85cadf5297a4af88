import type { ProcessClaim, Usage, Verdict } from "./core/events.ts";
import type { NoticeType } from "./core/notice.ts";
import type { Fp, Secret } from "./core/secret.ts";
import type { NextStep } from "./core/steps.ts";

declare const revisionBrand: unique symbol;
/** A store's own name for one written state (version id, resourceVersion, content hash). Printable ASCII, at most 200 characters. */
export type Revision = string & { readonly [revisionBrand]: true };

/** Where a store write came from: `<ledger id> <seq> <first 16 hex of the entry hash>` of its intent. */
export type Witness = { readonly ledger: string; readonly seq: number; readonly h16: string };

export type Stored = {
  readonly secret: Secret;
  readonly revision: Revision;
  /** When this value was written, epoch ms, where the store knows. */
  readonly createdAt: number | null;
  readonly witness: Witness | null;
};

/** One finding of a preflight. `id` is stable kebab-case; `message` and `fix` hold no key and no vendor text. */
export type Check = {
  readonly id: string;
  readonly status: "ok" | "warn" | "fail" | "unproved";
  readonly message: string;
  readonly fix?: string;
  /** The provider code that a write would end in, for `fail`. */
  readonly code?: string;
};

export type StoreCaps = {
  /** Has a slot beside the current value (AWSPENDING), and `stage`. */
  readonly staging: boolean;
  /** `write` is refused by the store itself when `expect` no longer holds. */
  readonly compareAndSwap: boolean;
  readonly witness: boolean;
  readonly retire: boolean;
};

/** `id` is 32 hex digits, the same for every try of one intent; `witness` is null where no ledger is behind the write. */
export type WriteOp = { readonly id: string; readonly witness: Witness | null };

/** A value that lies ready in a store's slot, where nobody reads it. */
export type Staged = {
  /** Makes it the current value. @throws as `write` does */
  readonly commit: (signal: AbortSignal) => Promise<Revision>;
  /** Takes it out of the slot again, as far as that can be done. Never rejects: what stays is taken off by the next write. */
  readonly drop: (signal: AbortSignal) => Promise<void>;
};

/**
 * One place that holds the key, bound to its place when opened. Every method rejects with `ProviderError` only, and honours `signal`
 * within a second; each call ends in under 60 s by itself.
 */
export interface Store {
  /** Human-readable address for logs and the ledger, e.g. `dotenv:/srv/chat/.env#IMKIT_API_KEY`. No secret in it. */
  readonly where: string;
  readonly caps: StoreCaps;
  /** May I write here? Without any visible write. Never rejects: a doubt is a check with `unproved`, a no is `fail` with a code. */
  preflight(signal: AbortSignal): Promise<readonly Check[]>;
  /**
   * @returns what is stored, or `null` only when absence of the entry is PROVEN (inside an existing file or secret, or the whole file
   *   or secret is absent and `create: true`).
   * @throws ProviderError for every doubt; NOT_FOUND when the whole file or secret is absent and `create` is not set.
   */
  read(signal: AbortSignal): Promise<Stored | null>;
  /**
   * Makes `next` the current value if the store still stands at `expect` (`null` = absent). The same op twice is one write; writing the value
   * that is there already succeeds without a change. Durable when it returns.
   * @throws ProviderError CONFLICT not_applied when the store has moved on; outcome `unknown` when it cannot say whether it wrote.
   */
  write(next: Secret, expect: Revision | null, op: WriteOp, signal: AbortSignal): Promise<Revision>;
  /**
   * The first half of `write`: lays `next` beside the current value, which stays. Only where `caps.staging`. `write` alone does both halves.
   * @throws ProviderError CONFLICT when the store has moved on; always `not_applied`.
   */
  stage?(next: Secret, expect: Revision | null, op: WriteOp, signal: AbortSignal): Promise<Staged>;
  /** Disables a superseded version. Only where `caps.retire`. */
  retire?(revision: Revision, signal: AbortSignal): Promise<void>;
  /**
   * Takes the entry away, or empties it, if the store still stands at `expect`: for inboxes. `read` says null afterwards. Absent where the
   * kind of store has no safe way to do that.
   * @throws ProviderError CONFLICT not_applied when the store has moved on.
   */
  remove?(expect: Revision, signal: AbortSignal): Promise<void>;
}

/** What a rollout is told. `rotation` is the same for every repeat, so that a repeat can be a no-op. Never a key. */
export type RolloutOp = {
  readonly app: string;
  readonly rotation: string;
  readonly opId: string;
  readonly fingerprint: Fp;
};
export type RolloutState = {
  readonly state: "rolling" | "done" | "failed" | "held";
  /** 0 said so, 1 observed restarted after the write, 2 the workload itself showed the new fingerprint. */
  readonly proof: 0 | 1 | 2;
  /** Our own words; empty when there is nothing to say. */
  readonly reason: string;
};

/** What makes workloads take the key up. Rejects with `ProviderError` only; `trigger` ends in under 60 s, a long rollout goes on in `watch`. */
export interface Rollout {
  readonly where: string;
  /** `manual`: a person restarts and says so; `none`: nothing to restart, `reason` says why; `auto`: `trigger` does it. */
  readonly how: "auto" | "manual" | "none";
  /** For `none`: why nothing has to be restarted. */
  readonly reason: string;
  preflight(signal: AbortSignal): Promise<readonly Check[]>;
  /** Starts it and says where it stands. */
  trigger(op: RolloutOp, signal: AbortSignal): Promise<RolloutState>;
  /** One poll after `trigger` said `rolling`. Also asked after a crash: where absent, an interrupted trigger is triggered again. */
  watch?(op: RolloutOp, signal: AbortSignal): Promise<RolloutState>;
}

/** One probe of one key, a read-only call. */
export type Probe = {
  readonly verdict: Verdict;
  /** HTTP status; null when there was no answer. */
  readonly status: number | null;
  /** IMKIT's error code when there was a well-formed one, e.g. INVALID_API_KEY, UNAUTHORIZED; else null. */
  readonly code: string | null;
  /** The answer's Date header, at most 64 printable ASCII characters. */
  readonly date: string | null;
  /** For 429: how long IMKIT asks us to wait, clamped to 1-3600 s. */
  readonly retryAfterMs: number | null;
  /** For `unclear`: one of our own short phrases, e.g. "no answer within 15 s", "HTTP 502". No vendor text. */
  readonly why: string;
};

/** IMKIT, seen with one app's base URL. Never rejects on what a server does: that is `unclear`. */
export interface Platform {
  /** `urgent` calls (proofs) take from the call budget first. */
  probe(key: Secret, options: { readonly urgent: boolean }, signal: AbortSignal): Promise<Probe>;
  /** The app that a key belongs to: `result.clientKey` of /admin/stats, wrapped so that it cannot be printed. null = not to be had. */
  appIdentity(key: Secret, signal: AbortSignal): Promise<Secret | null>;
  /** What the app did in the last hour, by /admin/stats. null = not to be had. */
  usage(key: Secret, signal: AbortSignal): Promise<Usage | null>;
}

/** Create-if-absent of entry N: at once the append, the compare-and-swap and the lock. */
export interface Ledger {
  /** Human-readable place. */
  readonly where: string;
  /**
   * Makes entry `seq` durable, or says that it is there already. `bytes` is one whole line with its LF.
   * @throws RotatorError LEDGER_UNWRITABLE; the entry may then exist or not: read again before anything else.
   */
  create(seq: number, bytes: Uint8Array): Promise<"created" | "exists">;
  /**
   * All entries from `fromSeq` on, in order, up to the first gap. Bytes as stored; checking them is the caller's.
   * @throws RotatorError LEDGER_BROKEN for a torn, empty or non-regular entry.
   */
  read(fromSeq: number): Promise<readonly Uint8Array[]>;
  /** May I write here? Without any visible write. Absent where the first `create` says it just as well. Never rejects. */
  preflight?(signal: AbortSignal): Promise<readonly Check[]>;
}

/** Encrypted resting place of the keys of an open rotation. */
export interface Escrow {
  readonly where: string;
  list(): Promise<readonly Fp[]>;
  /** Durable, and read back and compared, when it returns. @throws RotatorError ESCROW_FAILED */
  put(fp: Fp, key: Secret): Promise<void>;
  /** null = no such blob. @throws RotatorError ESCROW_FAILED when it is there and cannot be opened. */
  get(fp: Fp): Promise<Secret | null>;
  /** Absence is success. */
  remove(fp: Fp): Promise<void>;
  /** As a ledger's. */
  preflight?(signal: AbortSignal): Promise<readonly Check[]>;
}

export interface Clock {
  /** Epoch milliseconds. */
  now(): number;
  /** Milliseconds of a clock that never jumps. */
  monotonic(): number;
  /** Resolves after `ms`, or at once when `signal` aborts. Never rejects. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

/** Who this process is, and whether another one is still there. */
export interface Host {
  readonly claim: ProcessClaim;
  /** true only when it is proven that the claiming process is gone: same host, boot and pid namespace, and no such pid + start time. */
  isGone(claim: ProcessClaim): Promise<boolean>;
}

/** One message to a person about one app. Our own words and fingerprints of 8 digits; never a key. */
export type Message = {
  /** The same for every try, so that a receiver can drop what comes twice. */
  readonly id: string;
  readonly app: string;
  readonly type: NoticeType;
  readonly rotation: string | null;
  /** Where the app stands: a word of `status`. */
  readonly state: string;
  readonly text: string;
  /** RFC 3339 UTC. */
  readonly at: string;
  readonly owners: readonly string[];
  /** `<seq>:<first 16 hex of the hash>` of the ledger. */
  readonly head: string | null;
  readonly next: readonly NextStep[];
};

/** Tells people; what came of it is recorded by the caller. */
export interface Notifier {
  /** For the ledger and remarks; no secret in it. */
  readonly name: string;
  /** `about`: the type itself, or what an `escalated` one says again. */
  readonly wants: (type: NoticeType, about: NoticeType) => boolean;
  /** Why nothing can be sent, as far as that shows without sending; null = it can. Never rejects. */
  problem(): Promise<string | null>;
  /** Bounded by itself to under a minute. Never rejects. `why` is empty, or one of our own short phrases. */
  notify(message: Message, signal: AbortSignal): Promise<{ readonly ok: boolean; readonly why: string }>;
}
