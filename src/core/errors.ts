/** One way to fail: the exit status it ends in, what it means, and the way out that is always right. */
type CodeInfo = {
  readonly exit: number;
  readonly what: string;
  /** Where nobody knows better. */
  readonly why?: string;
  readonly do: readonly string[];
};

/** Every stable error code of the program (docs/errors.md is printed from this table). Codes are added, never renamed. */
export const CODES = {
  USAGE: {
    exit: 2,
    what: "The command line is not right.",
    why: "So the command was not begun.",
    do: ["imkit-rotator --help"],
  },
  CONFIG_INVALID: { exit: 2, what: "The config file is not right.", do: ["Mend the line that is named."] },
  CONFIG_MISSING: { exit: 2, what: "No config file was found.", do: ["imkit-rotator init"] },
  APP_UNKNOWN: { exit: 2, what: "The config has no such app.", do: ["imkit-rotator status"] },
  KEY_IN_ARGUMENT: {
    exit: 2,
    what: "A key was given as an argument and is exposed now (shell history, process list).",
    do: ["Revoke that key in the Dashboard, issue another one, and give it by prompt or --from-stdin."],
  },
  KEY_MALFORMED: {
    exit: 2,
    what: "What was given is not an IMKIT API Key. Nothing was stored.",
    do: ["Copy the API Key again."],
  },
  KEY_DEAD: {
    exit: 2,
    what: "That key is known to this ledger and cannot be staged. Nothing was stored.",
    do: ["Issue a new key."],
  },
  STATE_UNUSABLE: {
    exit: 2,
    what: "The state directory cannot be used.",
    do: ["Name a local directory in state.dir that this user may write."],
  },
  PLAN_CHANGED: {
    exit: 2,
    what: "The config no longer has a target that the open rotation needs.",
    do: ["Restore the target, or run rotate with --drop <name>."],
  },
  UNSAFE_ENVIRONMENT: {
    exit: 2,
    what: "The environment would expose the key or weaken TLS.",
    do: ["Unset what is named and run again."],
  },
  INPUT_MISSING: {
    exit: 2,
    what: "An input could not be read.",
    do: ["Check the name and the permissions."],
  },

  STORE_FAILED: { exit: 1, what: "A store could not be written.", do: ["imkit-rotator doctor"] },
  ROLLOUT_FAILED: { exit: 1, what: "A rollout failed.", do: ["imkit-rotator doctor"] },
  IMKIT_UNCLEAR: {
    exit: 1,
    what: "IMKIT gave no clear answer. Nothing was concluded.",
    do: ["imkit-rotator doctor"],
  },
  ESCROW_FAILED: {
    exit: 1,
    what: "The key could not be kept safe, so nothing else was done.",
    do: ["imkit-rotator doctor"],
  },
  ESCROW_LOST: {
    exit: 1,
    what: "A key that is needed is not in escrow and in no store.",
    why: "Escrow or its identity was lost, or another process removed it.",
    do: ["imkit-rotator doctor"],
  },
  LEDGER_UNWRITABLE: {
    exit: 1,
    what: "The ledger cannot be written, so nothing else was done.",
    do: ["Make room or mend the disk, then run the same command again."],
  },
  ADOPTION_UNCLEAR: {
    exit: 1,
    what: "It is not clear which key the stores hold.",
    do: ["imkit-rotator status"],
  },
  INTERNAL: {
    exit: 1,
    what: "A fault in imkit-rotator itself.",
    do: ["Run the same command again; report it if it stays."],
  },

  STILL_ACCEPTED: { exit: 3, what: "An old key still works.", do: ["imkit-rotator status"] },
  KEY_REJECTED: {
    exit: 4,
    what: "IMKIT rejects the key.",
    why: "A fresh key may need some seconds; else it was revoked, or is no API Key of this app.",
    do: ["imkit-rotator status"],
  },
  KEY_STAGED_ALREADY: { exit: 4, what: "Another key is staged already.", do: ["imkit-rotator status"] },
  WRONG_APP: {
    exit: 4,
    what: "The key belongs to another IMKIT app.",
    why: "IMKIT shows another app for it than for the current key.",
    do: ["imkit-rotator status"],
  },
  STORE_CONFLICT: {
    exit: 4,
    what: "A store does not hold what was expected, so nothing was overwritten.",
    do: ["imkit-rotator doctor"],
  },
  STORE_REFUSED: { exit: 4, what: "A store refused.", do: ["imkit-rotator doctor"] },
  ADOPTION_REFUSED: {
    exit: 4,
    what: "Several keys are in use, and a person must say which is the current one.",
    do: ["imkit-rotator status"],
  },
  WRONG_KEY_REVOKED: {
    exit: 4,
    what: "The new key was revoked instead of the old one.",
    do: ["imkit-rotator status"],
  },
  ROLLBACK_REFUSED: { exit: 4, what: "There is no way back to the old key.", do: ["imkit-rotator status"] },
  TOO_LATE: { exit: 4, what: "It is too late for that.", do: ["imkit-rotator status"] },
  LEDGER_FOREIGN: {
    exit: 4,
    what: "A store was written under another ledger.",
    do: ["Work with that ledger, or begin another one: imkit-rotator adopt <app> --new-ledger"],
  },

  LEDGER_BROKEN: {
    exit: 5,
    what: "The ledger is broken. Nothing was written.",
    do: [
      "imkit-rotator audit verify",
      "Restore the ledger folder from a copy, or begin another one: imkit-rotator adopt <app> --new-ledger",
    ],
  },
  LEDGER_BEHIND: {
    exit: 5,
    what: "The ledger is older than what a store quotes.",
    do: [
      "imkit-rotator audit verify --stores",
      "Restore the newest copy of the ledger, or begin another one: imkit-rotator adopt <app> --new-ledger",
    ],
  },
  LOCKED: { exit: 6, what: "Another rotator is at work on this app.", do: ["imkit-rotator status"] },
  INTERRUPTED: {
    exit: 130,
    what: "Interrupted. Nothing is lost; run the same command again.",
    do: ["Run the same command again."],
  },
} as const satisfies Record<string, CodeInfo>;

export type Code = keyof typeof CODES;

export type ErrorWords = {
  /** One sentence: what happened. Default: the table's. */
  readonly what?: string;
  readonly why?: string;
  /** Which key is live where. */
  readonly state?: string;
  readonly do?: readonly string[];
  /** For people alone: what a line of `do` is for, where that is not plain. */
  readonly hints?: Readonly<Record<string, string>>;
  readonly undo?: readonly string[];
  /** Where each store stood, for an error before there was a rotation to tell it. */
  readonly stores?: readonly StoreStop[];
};
/** `code`: why it could not be read, null = it could. */
export type StoreStop = { readonly name: string; readonly code: string | null };

/** The error that a person sees. Its words are ours alone: no vendor text, no key, no `cause`. */
export class RotatorError extends Error {
  override readonly name = "RotatorError";
  readonly code: Code;
  readonly what: string;
  readonly why: string;
  readonly state: string;
  readonly do: readonly string[];
  readonly hints: Readonly<Record<string, string>>;
  readonly undo: readonly string[];
  readonly stores: readonly StoreStop[];

  constructor(code: Code, words: ErrorWords = {}) {
    super(`${code}: ${words.what ?? CODES[code].what}`);
    this.code = code;
    this.what = words.what ?? CODES[code].what;
    const { why = "" }: CodeInfo = CODES[code];
    this.why = words.why || why;
    this.state = words.state ?? "Nothing was changed.";
    this.do = words.do ?? CODES[code].do;
    this.hints = words.hints ?? {};
    this.undo = words.undo ?? [];
    this.stores = words.stores ?? [];
  }

  get exit(): number {
    return CODES[this.code].exit;
  }

  /** The last stdout line of a failed command under `--json`. */
  toJSON(): Record<string, unknown> {
    return {
      type: "error",
      code: this.code,
      what: this.what,
      why: this.why,
      state: this.state,
      do: this.do,
      undo: this.undo,
      exitCode: this.exit,
    };
  }
}

/** What a store or rollout can answer with, beside success (DESIGN section 7). */
export const PROVIDER_CODES = [
  "CONFIG",
  "AUTHN",
  "AUTHZ",
  "KMS",
  "NOT_FOUND",
  "SOFT_DELETED",
  "DISABLED",
  "NOT_OWNED",
  "CONFLICT",
  "IMMUTABLE",
  "NAME",
  "TOO_LARGE",
  "THROTTLED",
  "QUOTA",
  "UNAVAILABLE",
  "TIMEOUT",
  "VERIFY_MISMATCH",
  "UNSUPPORTED",
] as const;
export type ProviderCode = (typeof PROVIDER_CODES)[number];

/** `not_applied`: proven without effect. `applied`: proven done. `unknown`: must be read back before anything else. */
export type Applied = "not_applied" | "applied" | "unknown";

/**
 * The one error of stores and rollouts. `hint` is our own sentence for a person (may name paths, never values or vendor text).
 * Anything else that a provider throws is taken as `UNAVAILABLE`, outcome `unknown`, and its text is dropped.
 */
export class ProviderError extends Error {
  override readonly name = "ProviderError";
  readonly code: ProviderCode;
  readonly outcome: Applied;
  readonly retryAfterMs: number | null;
  readonly hint: string;

  constructor(code: ProviderCode, outcome: Applied, hint = "", retryAfterMs: number | null = null) {
    super(hint === "" ? code : `${code}: ${hint}`);
    this.code = code;
    this.outcome = outcome;
    this.hint = hint;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Codes that a person must resolve: a failed target with one of these ends in exit 4, every other in 1. */
export const REFUSALS: ReadonlySet<string> = new Set([
  "AUTHZ",
  "CONFLICT",
  "NOT_OWNED",
  "IMMUTABLE",
  "DUPLICATE",
]);
/** Codes that may pass by themselves within one run. */
export const RETRYABLE: ReadonlySet<string> = new Set(["THROTTLED", "UNAVAILABLE", "TIMEOUT"]);
