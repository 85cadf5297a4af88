import type { LedgerEvent } from "../core/events.ts";
import { phaseOf } from "../core/outcome.ts";
import { isOpen } from "../core/state.ts";
import type { Hands } from "./hands.ts";
import type { Journal } from "./journal.ts";
import { settle } from "./open.ts";

/** Somebody else is at work while the rotation waits for a restart. */
export const isHeld = (hands: Hands, journal: Journal): boolean => {
  const s = journal.state();
  return s.claim !== null && s.claim.inst !== hands.host.claim.inst && phaseOf(s) === "waiting-restart";
};

/** When a person said that all was restarted: when the last store came to hold the key, as known by then, and the wall clock. */
export type Said = { readonly heldAt: number; readonly ms: number };

/**
 * Only what was missing can have been restarted: before every store holds the new key a restart proves nothing.
 * @returns whether it was recorded
 */
export const recordRestart = async (hands: Hands, journal: Journal, said: Said): Promise<boolean> => {
  let isRecorded = false;
  const refuse = (why: string): readonly LedgerEvent[] => {
    hands.tell({ kind: "note", text: `--restarted: ${why}` });
    isRecorded = false;
    return [];
  };
  await settle(journal, () => {
    const s = journal.state();
    const r = s.rotation;
    if (r === null || !isOpen(s) || phaseOf(s) !== "waiting-restart")
      return refuse("no restart is being waited for, so nothing was recorded.");
    if (r.heldAt !== said.heldAt)
      return refuse(
        "a store came to hold the key meanwhile, so nothing was recorded. Restart once more, then say so.",
      );
    // This process may have slept before it read the ledger. A time to come tells of another clock, not of that.
    const heldMs = Date.parse(r.heldTs ?? "");
    if (heldMs > said.ms && heldMs <= hands.clock.now())
      return refuse(
        `a store came to hold the key at ${r.heldTs}, after this was said, so nothing was recorded. Restart once more, then say so.`,
      );
    isRecorded = true;
    const left = [...r.rollouts.values()].filter((w) => w.type === "manual" && w.state === "pending");
    return [{ type: "restarted", rotation: r.id, targets: left.map((w) => w.name) }];
  });
  const { claim } = journal.state();
  if (isRecorded && claim !== null && claim.inst !== hands.host.claim.inst) {
    const text = `The restart is recorded. Process ${claim.pid} on ${claim.host} is at work: it goes on with it, and this one follows.`;
    hands.tell({ kind: "note", text });
  }
  return isRecorded;
};
