import type { Clock } from "../ports.ts";

/** A timer longer than this fires at once, so a longer sleep ends early (24.8 days) and its caller looks again. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  // Not performance.now(): its first use loads ten modules of Node.
  monotonic: () => Number(process.hrtime.bigint()) / 1e6,
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const end = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, Math.min(MAX_TIMER_MS, Math.max(0, ms) || 0));
      signal.addEventListener("abort", end, { once: true });
    }),
};
