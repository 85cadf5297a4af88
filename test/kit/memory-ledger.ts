import type { Ledger } from "../../src/ports.ts";

/** The `Ledger` port over an array: two ledgers over one array are two processes on one directory. For tests only. */
export const memoryLedger = (
  entries: Uint8Array[] = [],
): Ledger & { readonly entries: readonly Uint8Array[] } => ({
  where: "memory",
  entries,
  create: async (seq, bytes) => {
    if (entries[seq] !== undefined) return "exists";
    if (seq > entries.length)
      throw new Error(`a test wants to write entry ${seq} after ${entries.length - 1}`);
    entries[seq] = Uint8Array.from(bytes);
    return "created";
  },
  read: async (fromSeq) => entries.slice(fromSeq).map((bytes) => Uint8Array.from(bytes)),
});
