import type { Usage } from "../../core/events.ts";
import { type Phase, phaseOf } from "../../core/outcome.ts";
import { dueAt } from "../../core/policy.ts";
import { type AppState, isOpen, unproved, wanted } from "../../core/state.ts";
import { openJournal } from "../../flow/journal.ts";
import { sampleUsage } from "../../flow/sample.ts";
import type { Wired } from "../wire.ts";

/** How one app stands after a tick, as numbers. No key and no fingerprint is in it. Times are epoch ms. */
export type View = {
  readonly phase: Phase;
  /** Id and end of the last rotation; null = there was none, or it is open. */
  readonly ended: { readonly id: string; readonly how: "done" | "abandoned"; readonly atMs: number } | null;
  readonly freshMs: number | null;
  readonly dueMs: number | null;
  /** Since when a person is waited for; null = nobody is. */
  readonly waitingMs: number | null;
  readonly entries: number;
  readonly stores: ReadonlyMap<string, boolean>;
  readonly isOldAccepted: boolean;
  readonly verifiedMs: number;
  readonly usage: { readonly counts: Usage; readonly atMs: number } | null;
};

/** IMKIT counts the last hour: more often says nothing new. */
export const USAGE_EVERY_MS = 300_000;
const WAITS: ReadonlySet<Phase> = new Set([
  "waiting-key",
  "waiting-restart",
  "waiting-revoke",
  "wrong-key-revoked",
  "blackout",
]);

const msOf = (ts: string | null): number | null => (ts === null ? null : Date.parse(ts));

/**
 * Reads the ledger anew, which verifies its chain, and asks IMKIT for its counts where the last ones are old. `drift` names the stores that
 * the tick found without the right key.
 * @throws RotatorError LEDGER_*
 */
export const viewOf = async (
  wired: Wired,
  drift: ReadonlySet<string>,
  before: View | null,
): Promise<View> => {
  const hands = await wired.hands();
  const journal = await openJournal(hands);
  const s = journal.state();
  const phase = phaseOf(s);
  const now = wired.now();
  const every = wired.app.rotateEveryMs;
  const due = every === null || !s.adopted ? null : dueAt(s.freshTs, every);
  const isDue = phase === "idle" && due !== null && Date.parse(due) <= now;
  const last = before?.usage ?? null;
  const isFresh = last !== null && now >= last.atMs && now - last.atMs < USAGE_EVERY_MS;
  const counts = isFresh || hands.signal.aborted ? null : await sampleUsage(hands, journal).catch(() => null);
  return {
    phase,
    ended: endOf(s),
    freshMs: s.adopted ? msOf(s.freshTs) : null,
    dueMs: msOf(due),
    waitingMs: waitingSince(s, phase) ?? (isDue ? msOf(due) : null),
    entries: journal.entries(),
    stores: new Map(
      wired.app.stores.map(({ plan: { name } }) => [name, isInSync(s, name) && !drift.has(name)]),
    ),
    isOldAccepted: unproved(s).some((fp) => s.verdicts.get(fp)?.verdict === "accepted"),
    verifiedMs: now,
    usage: isFresh || hands.signal.aborted ? last : counts === null ? null : { counts, atMs: now },
  };
};

const endOf = ({ rotation: r, freshTs }: AppState): View["ended"] =>
  r === null || r.ended === null ? null : { id: r.id, how: r.ended, atMs: msOf(freshTs) ?? 0 };

const waitingSince = (s: AppState, phase: Phase): number | null => {
  if (!WAITS.has(phase)) return null;
  return msOf(s.news.waiting?.ts ?? (isOpen(s) ? (s.rotation?.openedTs ?? null) : null));
};

/** What was last seen in it, or written to it. */
const isInSync = (s: AppState, name: string): boolean => {
  const seen = s.lastSeen.get(name);
  return seen !== undefined && seen === wanted(s);
};
