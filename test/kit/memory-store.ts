import { type Applied, type ProviderCode, ProviderError } from "../../src/core/errors.ts";
import type { Secret } from "../../src/core/secret.ts";
import type { Check, Revision, Store, StoreCaps, Stored, Witness } from "../../src/ports.ts";

/** What goes wrong in one call. `after`: the write has taken effect and the answer is lost. */
export type Fault = {
  readonly code: ProviderCode;
  readonly outcome: Applied;
  readonly when?: "before" | "after";
};

export type MemoryStore = Store & {
  /** Somebody else writes; `null` removes the entry. */
  readonly put: (secret: Secret | null) => void;
  readonly held: () => Secret | null;
  /** Revisions that were disabled. */
  readonly retired: () => readonly string[];
  /** What lies ready. */
  readonly slot: () => Secret | null;
  /** How many writes took effect. */
  readonly writes: () => number;
  /** Asked before every call; a fault that it gives back happens. */
  fault: (call: "preflight" | "read" | "write" | "stage" | "remove", nth: number) => Fault | null;
};

/** A store in memory that keeps the port to the letter, with faults on demand. */
export const memoryStore = (where = "memory:a", caps: Partial<StoreCaps> = {}): MemoryStore => {
  let now: { readonly secret: Secret; readonly revision: Revision; readonly witness: Witness | null } | null =
    null;
  let [version, writes] = [0, 0];
  let slot: Secret | null = null;
  const retired: string[] = [];
  const calls = { preflight: 0, read: 0, write: 0, stage: 0, remove: 0 };
  const fresh = (): Revision => `v${(version += 1)}` as Revision;

  const failing = (call: keyof typeof calls, signal: AbortSignal): Fault | null => {
    calls[call] += 1;
    if (signal.aborted) throw new ProviderError("TIMEOUT", "not_applied");
    const fault = store.fault(call, calls[call]);
    if (fault !== null && fault.when !== "after") throw new ProviderError(fault.code, fault.outcome);
    return fault;
  };

  const store: MemoryStore = {
    where,
    caps: { staging: false, compareAndSwap: true, witness: true, retire: false, ...caps },
    fault: () => null,
    put: (secret) => {
      now = secret === null ? null : { secret, revision: fresh(), witness: null };
    },
    held: () => now?.secret ?? null,
    retired: () => retired,
    slot: () => slot,
    writes: () => writes,
    preflight: async (signal): Promise<readonly Check[]> => {
      try {
        failing("preflight", signal);
        return [{ id: "memory", status: "ok", message: "may be written" }];
      } catch (error) {
        const code = error instanceof ProviderError ? error.code : "UNAVAILABLE";
        return [{ id: "memory", status: code === "TIMEOUT" ? "unproved" : "fail", message: "no", code }];
      }
    },
    read: async (signal): Promise<Stored | null> => {
      failing("read", signal);
      return now === null ? null : { ...now, createdAt: null };
    },
    write: async (next, expect, op, signal) => {
      const fault = failing("write", signal);
      if (!now?.secret.equals(next)) {
        if ((now?.revision ?? null) !== expect) throw new ProviderError("CONFLICT", "not_applied");
        now = { secret: next, revision: fresh(), witness: op.witness };
        writes += 1;
      }
      if (fault !== null) throw new ProviderError(fault.code, fault.outcome);
      return now?.revision ?? fresh();
    },
    remove: async (expect, signal) => {
      const fault = failing("remove", signal);
      if (now === null) return;
      if (now.revision !== expect) throw new ProviderError("CONFLICT", "not_applied");
      now = null;
      if (fault !== null) throw new ProviderError(fault.code, fault.outcome);
    },
    ...(caps.staging === true && {
      stage: async (next, expect, op, signal) => {
        const fault = failing("stage", signal);
        if (!now?.secret.equals(next) && (now?.revision ?? null) !== expect)
          throw new ProviderError("CONFLICT", "not_applied");
        slot = next;
        if (fault !== null) throw new ProviderError(fault.code, fault.outcome);
        return {
          commit: async (signal) => {
            slot = null;
            return await store.write(next, expect, op, signal);
          },
          drop: async () => {
            slot = null;
          },
        };
      },
    }),
    ...(caps.retire === true && {
      retire: async (revision: Revision) => {
        if (revision === now?.revision) throw new ProviderError("CONFLICT", "not_applied");
        retired.push(revision);
      },
    }),
  };
  return store;
};
