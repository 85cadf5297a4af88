import type { z } from "zod";
import { type Applied, ProviderError } from "../src/core/errors.ts";
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
export type ValueFrom = { readonly valueFrom: { readonly env?: string; readonly file?: string; readonly credential?: string } };

/** A kind of store. `schema` checks the target's own config keys (all but name, type, required, write). */
export interface StoreProvider<C> {
  readonly kind: string;
  readonly schema: z.ZodType<C>;
  open(config: C, tools: Tools): Store;
}
export interface RolloutProvider<C> {
  readonly kind: string;
  readonly schema: z.ZodType<C>;
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
