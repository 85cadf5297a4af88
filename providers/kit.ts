import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import type { core } from "zod/mini";
import { type Applied, ProviderError } from "../src/core/errors.ts";
import { parseDuration } from "../src/core/policy.ts";
import type { Rollout, Store } from "../src/ports.ts";

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

/** A file-system failure as our error. The library's text (it holds paths and syscalls, and may hold more) is dropped. */
export const fromErrno = (error: unknown, outcome: Applied, hint = ""): ProviderError => {
  if (error instanceof ProviderError) return error;
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  switch (code) {
    case "ENOENT":
    case "ENOTDIR":
      return new ProviderError("NOT_FOUND", outcome, hint);
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new ProviderError("AUTHZ", outcome, hint);
    case "ENOSPC":
    case "EDQUOT":
      return new ProviderError("QUOTA", outcome, hint);
    case "ABORT_ERR":
    case "ETIMEDOUT":
      return new ProviderError("TIMEOUT", outcome, hint);
    default:
      return new ProviderError("UNAVAILABLE", outcome, hint);
  }
};

/** Own limit of a call, below the 60 s of the port. */
export const CALL_LIMIT_MS = 59_000;

/** `<integer>(ms|s|m|h|d)`. */
export const DURATION = /^(\d{1,9})(ms|s|m|h|d)$/;

/** Milliseconds of a text that `DURATION` has passed; 0 for any other. */
export const durationMs = (text: string): number => parseDuration(text) ?? 0;

/** Of a clock that never jumps. Not performance.now(): its first use loads ten modules of Node, and every start comes by here. */
const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6;

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
  const both = AbortSignal.any([signal, limit.signal]);
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
  try {
    return await Promise.race([work(both, commit), over.promise]);
  } finally {
    clearTimeout(timer);
    both.removeEventListener("abort", stop);
  }
};
