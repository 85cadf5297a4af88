import { RotatorError } from "../core/errors.ts";
import type { Hands } from "./hands.ts";
import { type Journal, Moved, Superseded } from "./journal.ts";

/** A foreign claim is dead when its process wrote nothing for this long on our own monotonic clock. */
export const SILENCE_MS = 90_000;
/** An effect starts only while our last entry is younger than this. */
export const FRESH_MS = 30_000;
const LOOK_EVERY_MS = 1_000;
const MOST_SLOW = 3;

/**
 * Returns when no live foreign claim stands in the way: none, ours, provably gone, or silent for 90 s.
 * @throws RotatorError LOCKED after `waitMs`, INTERRUPTED
 */
export const awaitFree = async (hands: Hands, journal: Journal, waitMs: number): Promise<void> => {
  const { clock, host, signal } = hands;
  const started = clock.monotonic();
  for (;;) {
    await journal.refresh();
    const claim = journal.state().claim;
    if (claim === null || claim.inst === host.claim.inst) return;
    if (await host.isGone(claim)) return;
    const seen = journal.seenMs(claim.inst) ?? started;
    if (clock.monotonic() - seen >= SILENCE_MS) return;
    if (signal.aborted) throw new RotatorError("INTERRUPTED");
    if (clock.monotonic() - started >= waitMs) {
      throw new RotatorError("LOCKED", {
        why: `Process ${claim.pid} on ${claim.host} holds the claim.`,
        state: "That process goes on, also with what was recorded just now; this one wrote to no store.",
        do: [`imkit-rotator status ${hands.app.name}`, `imkit-rotator rotate ${hands.app.name} --wait=5m`],
      });
    }
    await clock.sleep(LOOK_EVERY_MS, signal);
  }
};

/** What a rotator says that was given up for dead and finds another one at work. */
export const takenOver = (app: string): RotatorError =>
  new RotatorError("LOCKED", {
    why: "Another rotator took over while this one was paused.",
    state: "The other one goes on. Whatever this one may have written late is in the ledger.",
    do: [`imkit-rotator status ${app}`],
  });

/**
 * Right before an effect: the head is ours and young, so that nobody can have taken us for dead.
 * @throws Superseded when someone has, RotatorError LEDGER_UNWRITABLE when the ledger is too slow to tell.
 */
export const ensureOurs = async (journal: Journal, inst: string): Promise<void> => {
  for (let slow = 0; slow < MOST_SLOW; ) {
    await journal.refresh();
    if (journal.superseded()) throw new Superseded();
    if (journal.ownHeadAgeMs() < FRESH_MS) return;
    try {
      await journal.decide([{ type: "renewed", inst }]);
      if (journal.ownHeadAgeMs() < FRESH_MS) return;
      slow++;
    } catch (error) {
      if (!(error instanceof Moved)) throw error;
    }
  }
  throw new RotatorError("LEDGER_UNWRITABLE", {
    why: "Writing one entry takes longer than a claim may be silent.",
  });
};
