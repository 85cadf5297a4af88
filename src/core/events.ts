import type { Fp } from "./secret.ts";

export type Verdict = "accepted" | "rejected" | "unclear";
export type Mode = "overlap" | "replace" | "first";
export type SameApp = "proved" | "remembered" | "unproved" | "different";
export type Outcome = "ok" | "failed" | "unknown";

/** A store as the plan of a rotation records it: no settings, those are read from the config at each run. */
export type PlannedStore = {
  readonly name: string;
  readonly type: string;
  readonly where: string;
  readonly required: boolean;
  /** false: a mirror that another controller fills; only read. */
  readonly write: boolean;
};
export type PlannedRollout = {
  readonly name: string;
  readonly type: string;
  readonly where: string;
  readonly required: boolean;
  readonly canary: boolean;
  readonly after: readonly string[];
};

/** One probe's evidence: HTTP status, IMKIT's code, our monotonic offset in ms, the answer's Date header. */
export type Evidence = {
  readonly verdict: Verdict;
  readonly status: number | null;
  readonly code: string | null;
  readonly atMs: number;
  readonly date: string | null;
};
export type TriadEvidence = {
  readonly new: Evidence;
  readonly old: Evidence;
  readonly control: Evidence | null;
};

export type ProcessClaim = {
  readonly inst: string;
  readonly host: string;
  readonly bootId: string;
  readonly pidNamespace: string;
  readonly pid: number;
  /** Clock ticks since boot, from /proc/PID/stat field 22, as text. */
  readonly startTime: string;
};

type InRotation = { readonly rotation: string };

/** Everything that a ledger can say, version 1. A reader that meets another type fails closed. */
export type LedgerEvent =
  | {
      readonly type: "genesis";
      readonly app: string;
      readonly salt: string;
      /** It follows another ledger, as far as that could be read: its id, and its last sound entry as `<seq>:<hash>`. */
      readonly successorOf?: { readonly ledger: string | null; readonly head: string | null };
    }
  | {
      readonly type: "adopted";
      readonly mode: "first" | "current";
      readonly by: "auto" | "operator";
      readonly current: Fp | null;
      /** Other values that may still work: each needs a proof. */
      readonly old: readonly Fp[];
      /** Values that IMKIT rejected: may be overwritten, need no proof. */
      readonly stale: readonly Fp[];
      readonly stores: readonly { readonly name: string; readonly fp: Fp | null }[];
      readonly appFingerprint: string | null;
      /** What stores quoted of another ledger (`<ledger> <seq> <h16>`) when this successor was adopted in spite of it. */
      readonly overrules?: readonly string[];
    }
  | {
      readonly type: "staged";
      readonly fp: Fp;
      readonly verdict: Verdict;
      readonly source: "prompt" | "stdin" | "file" | "env" | "escrow" | "inbox";
      readonly sameApp: SameApp;
      readonly appFingerprint: string | null;
      /** When an accepted key was asked about (RFC 3339): the entry is younger. */
      readonly acceptedTs?: string;
      readonly replaces?: Fp;
      readonly rotation?: string;
    }
  | { readonly type: "discarded"; readonly fp: Fp; readonly forget: boolean; readonly rotation?: string }
  | (InRotation & {
      readonly type: "opened";
      readonly new: Fp | null;
      readonly old: readonly Fp[];
      readonly current: Fp | null;
      readonly stores: readonly PlannedStore[];
      readonly rollouts: readonly PlannedRollout[];
      readonly reason: string | null;
      readonly ticket: string | null;
    })
  | (InRotation & {
      readonly type: "plan-amended";
      readonly stores: readonly PlannedStore[];
      readonly rollouts: readonly PlannedRollout[];
      readonly dropped: readonly string[];
    })
  | (InRotation & {
      readonly type: "emergency-requested";
      /** null: nobody knows which key leaked, or the stores held none. */
      readonly leaked: Fp | null;
      readonly since: string | null;
      readonly order: "revoke-first" | "replace-first";
    })
  | (InRotation & {
      readonly type: "mode-found";
      readonly run: number;
      readonly mode: Mode;
      readonly fp: Fp;
      readonly sameApp: SameApp;
      readonly appFingerprint: string | null;
      /** A person accepted `different` by naming the app fingerprint. */
      readonly acceptedApp?: boolean;
      /** As with `staged`. */
      readonly acceptedTs?: string;
    })
  | (InRotation & { readonly type: "run-started"; readonly run: number })
  | (ProcessClaim & { readonly type: "claimed"; readonly rotation?: string })
  | { readonly type: "renewed"; readonly inst: string; readonly rotation?: string }
  | { readonly type: "released"; readonly inst: string; readonly rotation?: string }
  | (InRotation & {
      readonly type: "intent";
      readonly run: number;
      readonly target: string;
      readonly action: "write" | "roll";
      readonly opId: string;
      readonly fp: Fp;
    })
  | (InRotation & {
      readonly type: "result";
      /** `<seq>.<index>` of the intent. */
      readonly intent: string;
      readonly outcome: Outcome;
      readonly code?: string;
      readonly revision?: string;
      /** Stores: the revision that the write was meant to follow. */
      readonly replaced?: string;
      /** false: the store held the key already. */
      readonly changed?: boolean;
      /** Rollouts: level of proof 0-2. */
      readonly proof?: number;
      readonly retryAfterMs?: number;
      readonly reason?: string;
    })
  | ObservedEvent
  | (InRotation & {
      readonly type: "waiting";
      readonly for: "key" | "restart" | "revoke" | "soak" | "mirror";
    })
  | {
      readonly type: "notified";
      /** What was told: `<rotation>/<state>…`, `due/…`, `drift/…`, `inbox-…/…`. */
      readonly key: string;
      readonly ok: boolean;
      /** Who was told; absent: the output of the run itself. */
      readonly to?: string;
      /** It is being sent: nobody else sends it meanwhile. */
      readonly sending?: true;
      /** It holds no more: when it comes again it is news. */
      readonly over?: true;
      readonly rotation?: string;
    }
  | (InRotation & { readonly type: "restarted"; readonly targets: readonly string[] })
  /** `to` becomes the new key, and what was the new key an old one. */
  | (InRotation & { readonly type: "rollback-requested"; readonly to: Fp })
  | (InRotation & { readonly type: "wrong-key-revoked"; readonly new: Fp; readonly old: readonly Fp[] })
  | {
      readonly type: "proof";
      readonly rotation?: string;
      readonly fp: Fp;
      readonly control: boolean;
      readonly triads: readonly TriadEvidence[];
    }
  | {
      readonly type: "waived";
      readonly rotation?: string;
      readonly fp?: Fp;
      readonly target?: string;
      readonly reason: string;
    }
  | (InRotation & {
      readonly type: "late-effect";
      readonly intent: string;
      readonly target: string;
      readonly fp: Fp | null;
    })
  | (InRotation & { readonly type: "closing" })
  | (InRotation & { readonly type: "done"; readonly appFingerprint: string | null })
  | (InRotation & { readonly type: "abandoned"; readonly why: string });

/** What `/admin/stats` counts over the last hour; null where the answer lacks it. Numbers only: its body carries both keys. */
export type Usage = {
  readonly users: number | null;
  readonly rooms: number | null;
  readonly totalRooms: number | null;
  readonly messages: number | null;
  readonly peakConnections: number | null;
};

/**
 * Something seen, nothing done. With `intent`: closes that intent or `unknown` (`outcome` ok = it took effect, failed = it did not).
 * `what`: `target` = one store's value in a read of all of them, `preflight` = may we write there, `verdict` = IMKIT on a key,
 * `usage` = what IMKIT counts, before or after an emergency.
 */
export type ObservedEvent = InRotation & {
  readonly type: "observed";
  readonly what: "intent" | "target" | "preflight" | "verdict" | "usage";
  readonly run: number;
  readonly intent?: string;
  readonly target?: string;
  readonly outcome?: Outcome;
  readonly code?: string;
  readonly fp?: Fp | null;
  /** With `preflight`: what a write would supersede, where that can be disabled later. */
  readonly revision?: string;
  readonly verdict?: Verdict;
  /** The last entry that was there when the read began: what came later it cannot have seen. */
  readonly asOf?: number;
  /** With `verdict`: when this process asked about the key the last time that it was accepted (RFC 3339), if it was. */
  readonly acceptedTs?: string;
  readonly when?: "before" | "after";
  /** null: IMKIT gave no counts. */
  readonly usage?: Usage | null;
};

export type EventType = LedgerEvent["type"];

/** Entry body `R` of one ledger line. */
export type EntryBody = {
  readonly v: 1;
  readonly ledger: string;
  readonly seq: number;
  readonly prev: string | null;
  /** RFC 3339 UTC with milliseconds; informational, order is by seq. */
  readonly ts: string;
  readonly inst: string;
  readonly actor: { readonly kind: string; readonly id: string };
  readonly events: readonly LedgerEvent[];
};

/** A verified entry with its hash. */
export type Entry = EntryBody & { readonly h: string };
