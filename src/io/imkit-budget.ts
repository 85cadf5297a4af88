import type { Clock } from "../ports.ts";

/** `go`: one call may be made now. `held`: IMKIT asked for silence that is not over yet. */
export type Turn =
  | { readonly kind: "go" }
  | { readonly kind: "interrupted" }
  | { readonly kind: "held"; readonly ms: number };

export type CallBudget = {
  /** Waits for a free call. Never rejects; an abort ends the wait at once. */
  take(urgent: boolean, signal: AbortSignal): Promise<Turn>;
  /** No call for `ms` from now on. */
  hold(ms: number): void;
};

const WINDOW_MS = 60_000;

/**
 * At most `perMinute` calls in ANY 60 seconds (a refilled bucket would let nearly twice as many through). A third of them is kept for
 * urgent calls: others wait while only that third is left, so an urgent call never stands behind them.
 */
export const callBudget = (clock: Clock, perMinute: number): CallBudget => {
  const reserve = perMinute > 1 ? Math.max(1, Math.floor(perMinute / 3)) : 0;
  const taken: number[] = [];
  let heldUntil = Number.NEGATIVE_INFINITY;

  const freeIn = (limit: number): number => {
    const now = clock.monotonic();
    while (taken.length > 0 && (taken[0] ?? now) <= now - WINDOW_MS) taken.shift();
    const blocker = taken[taken.length - limit];
    return blocker === undefined ? 0 : blocker + WINDOW_MS - now;
  };

  return {
    take: async (urgent, signal) => {
      for (;;) {
        if (signal.aborted) return { kind: "interrupted" };
        const held = heldUntil - clock.monotonic();
        if (held > 0) return { kind: "held", ms: Math.ceil(held) };
        const wait = freeIn(urgent ? perMinute : perMinute - reserve);
        if (wait <= 0) {
          taken.push(clock.monotonic());
          return { kind: "go" };
        }
        await clock.sleep(Math.ceil(wait), signal);
      }
    },
    hold: (ms) => {
      heldUntil = Math.max(heldUntil, clock.monotonic() + ms);
    },
  };
};
