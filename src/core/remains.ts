import { openEntry } from "./chain.ts";
import { type Quote, quoteText } from "./contradiction.ts";
import { EMPTY, type AppState, evolve, isOpen } from "./state.ts";
import type { Fp } from "./secret.ts";
import { verifyLedger } from "./verify.ts";

/** What a ledger that is to be followed by another one still tells. */
export type Remains = {
  /** Its id, and its last sound entry; null = nothing of it can be read. */
  readonly ledger: string | null;
  readonly head: { readonly seq: number; readonly h: string } | null;
  readonly entries: number;
  /** Why it is broken, in our own words; null = every entry is sound. */
  readonly damage: string | null;
  /** Folded from what is sound. Only where `damage` is null it is the whole truth. */
  readonly state: AppState;
  /** The key that waited to become, or was becoming, the current one. */
  readonly pending: Fp | null;
  readonly isSuccessor: boolean;
  /** Whether it holds the entry that a store quotes, or was begun in spite of that quote. */
  readonly quoteProblem: (quote: Quote) => "LEDGER_FOREIGN" | "LEDGER_BEHIND" | null;
};

/** Reads whatever is left of a ledger; damaged entries are passed over. Never throws. */
export const readRemains = (lines: readonly Uint8Array[], seqs: readonly number[]): Remains => {
  const report = verifyLedger(lines, { folder: true, seqs });
  const hashes = new Map<number, string>();
  const overruled = new Set<string>();
  let state = EMPTY;
  let isSuccessor = false;
  const [problem] = report.problems;
  let damage = problem === undefined ? null : `entry ${problem.seq}: ${problem.code}`;
  for (const line of lines) {
    const opened = openEntry(line);
    if ("problem" in opened || opened.entry.ledger !== report.ledger) continue;
    const { seq, h, ts, events } = opened.entry;
    hashes.set(seq, h.slice(0, 16));
    try {
      for (const [index, event] of events.entries()) {
        state = evolve(state, event, { seq, index, ts });
        if (event.type === "genesis") isSuccessor = event.successorOf !== undefined;
        if (event.type === "adopted") for (const quote of event.overrules ?? []) overruled.add(quote);
      }
    } catch {
      damage ??= `entry ${seq} makes no sense`;
    }
  }
  const { seq, hash } = report.head;
  const r = isOpen(state) && state.rotation?.closing === false ? state.rotation : null;
  return {
    ledger: report.ledger,
    head: seq === null || hash === null ? null : { seq, h: hash },
    entries: report.entries,
    damage,
    state,
    pending: r?.newFp ?? state.staged?.fp ?? null,
    isSuccessor,
    quoteProblem: (quote) => {
      if (overruled.has(quoteText(quote))) return null;
      if (quote.ledger !== report.ledger) return "LEDGER_FOREIGN";
      return hashes.get(quote.seq) === quote.h16 ? null : "LEDGER_BEHIND";
    },
  };
};
