import type { Phase } from "./outcome.ts";
import type { AppState } from "./state.ts";

const FIRST_MS = 60_000;
const LONGEST_MS = 3_600_000;

/** 1 min after the first failure, twice as long after each further one, at most 1 h. */
export const backoffMs = (failures: number): number =>
  Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(20, Math.max(0, failures - 1)));

/**
 * How much of a pause of `ms` that began at `ts` is left at `nowMs`. A clock that was set back ends it: to try too early harms nobody, and to
 * wait for a day does.
 */
export const pauseLeft = (ts: string, ms: number, nowMs: number): number => {
  const gone = nowMs - Date.parse(ts);
  return gone >= 0 && gone < ms ? ms - gone : 0;
};

/**
 * How long a tick leaves a failing rotation alone, in ms; 0 = it goes on now. Counted in the ledger, so that every process waits alike. A
 * run that was killed has no end, and one that was stopped while it got on has not failed: both are gone on with at once.
 */
export const backoffLeft = (s: AppState, phase: Phase, nowMs: number): number => {
  const r = s.rotation;
  const { runs, ts } = s.news.failing;
  const fails = phase === "failed" || (phase === "rotating" && r?.waitingFor !== "soak");
  if (!fails || ts === null || r === null) return 0;
  // It got on, and nothing failed: it was only stopped.
  if (phase === "rotating" && runs === 0) return 0;
  return pauseLeft(ts, r.emergency === null ? backoffMs(runs) : FIRST_MS, nowMs);
};
