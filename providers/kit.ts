import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import type { core } from "zod/mini";
import { type Applied, type ProviderCode, ProviderError } from "../src/core/errors.ts";
import { parseDuration } from "../src/core/policy.ts";
import type { Check, Rollout, Store, Witness } from "../src/ports.ts";

/** What a provider gets besides its own config. */
export type Tools = {
  readonly app: string;
  /** Folder of the config file: relative paths in the config start here. */
  readonly configDir: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** A `valueFrom` value. @throws RotatorError CONFIG_INVALID */
  readonly valueOf: (source: ValueFrom) => Promise<string>;
  /** Encrypted, durable copy of a file's bytes beside the escrow, for the one store that must write in place (bind mounts). */
  readonly backup: (name: string, bytes: Uint8Array) => Promise<void>;
};
export type ValueFrom = {
  readonly valueFrom: { readonly env?: string; readonly file?: string; readonly credential?: string };
};

/** A kind of store. `schema` checks the target's own config keys (all but name, type, required, write); `zod/mini`, for it is loaded at every start. */
export interface StoreProvider<C> {
  readonly kind: string;
  readonly schema: core.$ZodType<C>;
  open(config: C, tools: Tools): Store;
}
export interface RolloutProvider<C> {
  readonly kind: string;
  readonly schema: core.$ZodType<C>;
  open(config: C, tools: Tools): Rollout;
}

export const defineStore = <C>(provider: StoreProvider<C>): StoreProvider<C> => provider;
export const defineRollout = <C>(provider: RolloutProvider<C>): RolloutProvider<C> => provider;

/** An error that changed nothing. */
export const refused = (
  code: ProviderCode,
  hint: string,
  retryAfterMs: number | null = null,
): ProviderError => new ProviderError(code, "not_applied", hint, retryAfterMs);

/** The store no longer stands at what was expected. */
export const movedOn = (): ProviderError => refused("CONFLICT", "it holds another value by now");

const checkOf =
  (status: Check["status"]) =>
  (id: string, message: string, fix?: string, code?: string): Check => ({
    id,
    status,
    message,
    ...(fix === undefined ? {} : { fix }),
    ...(code === undefined ? {} : { code }),
  });

/** What a preflight found. A `fail` has a fix, and the code that a write would end in. */
export const check = {
  ok: checkOf("ok"),
  warn: checkOf("warn"),
  fail: checkOf("fail"),
  unproved: checkOf("unproved"),
} as const;

/** The system's name for an error, such as ENOENT; "" where it has none. */
export const errnoOf = (error: unknown): string =>
  error instanceof Error && "code" in error ? String(error.code) : "";

const ERRNO: Readonly<Record<string, ProviderCode>> = {
  ENOENT: "NOT_FOUND",
  ENOTDIR: "NOT_FOUND",
  EACCES: "AUTHZ",
  EPERM: "AUTHZ",
  EROFS: "AUTHZ",
  ENOSPC: "QUOTA",
  EDQUOT: "QUOTA",
  ABORT_ERR: "TIMEOUT",
  ETIMEDOUT: "TIMEOUT",
};

/** A file-system failure as our error. The library's text (it holds paths and syscalls, and may hold more) is dropped. */
export const fromErrno = (error: unknown, outcome: Applied, hint = ""): ProviderError =>
  error instanceof ProviderError
    ? error
    : new ProviderError(ERRNO[errnoOf(error)] ?? "UNAVAILABLE", outcome, hint);

/** A witness as a store keeps it: `<ledger> <seq> <h16>`. */
export const witnessText = ({ ledger, seq, h16 }: Witness): string => `${ledger} ${seq} ${h16}`;

/** The witness that `witnessText` gave; null for any other text. */
export const witnessIn = (text: string): Witness | null => {
  const [, ledger, seq, h16] = /^(\S{1,64}) (\d{1,15}) ([0-9a-f]{16})$/.exec(text) ?? [];
  return ledger === undefined || h16 === undefined ? null : { ledger, seq: Number(seq), h16 };
};

/** Own limit of a call, below the 60 s of the port. */
export const CALL_LIMIT_MS = 59_000;

/** `<integer>(ms|s|m|h|d)`. */
export const DURATION = /^(\d{1,9})(ms|s|m|h|d)$/;

/** Milliseconds of a text that `DURATION` has passed; 0 for any other. */
export const durationMs = (text: string): number => parseDuration(text) ?? 0;

/** Of a clock that never jumps. Not performance.now(): its first use loads ten modules of Node, and every start comes by here. */
export const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6;

/** A path of the config as an absolute one: `~/` is the home of the user, relative paths start at the config file. */
export const resolvePath = (path: string, tools: Pick<Tools, "configDir" | "env">): string => {
  if (path.startsWith("~/")) return join(tools.env["HOME"] ?? homedir(), path.slice(2));
  return isAbsolute(path) ? path : resolve(tools.configDir, path);
};

/**
 * Runs `work` under the caller's signal and a limit of our own, and stops waiting when either is over. `work` calls `commit` right before
 * the first thing that cannot be taken back; it throws once the time is up, so nothing starts late.
 * @throws ProviderError TIMEOUT: `not_applied` before `commit`, `unknown` after it.
 */
export const bounded = async <T>(
  signal: AbortSignal,
  limitMs: number,
  work: (signal: AbortSignal, commit: () => void) => Promise<T>,
): Promise<T> => {
  const limit = new AbortController();
  const both = limit.signal;
  const pass = (): void => limit.abort(signal.reason);
  if (signal.aborted) pass();
  let committed = false;
  const late = () => new ProviderError("TIMEOUT", committed ? "unknown" : "not_applied");
  const until = monotonicMs() + limitMs;
  const commit = () => {
    // Asked of the clock, too: a process that was stopped wakes before its timers fire.
    if (both.aborted || monotonicMs() >= until) throw late();
    committed = true;
  };
  if (both.aborted) throw late();
  const timer = setTimeout(() => limit.abort(), limitMs);
  const over = Promise.withResolvers<never>();
  const stop = () => over.reject(late());
  both.addEventListener("abort", stop, { once: true });
  signal.addEventListener("abort", pass, { once: true });
  try {
    return await Promise.race([work(both, commit), over.promise]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", pass);
    both.removeEventListener("abort", stop);
  }
};
