import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { callBudget, type Turn } from "../../src/io/imkit-budget.ts";
import type { Clock } from "../../src/ports.ts";

/** A clock that stands until `run` moves it to the next sleeper. */
const fakeClock = () => {
  let now = 0;
  const sleepers: { readonly at: number; readonly wake: () => void }[] = [];
  const clock: Clock = {
    now: () => now,
    monotonic: () => now,
    sleep: (ms, signal) =>
      new Promise((wake) => {
        sleepers.push({ at: now + ms, wake });
        signal.addEventListener("abort", () => wake());
      }),
  };
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  const run = async (until: number): Promise<void> => {
    await settle();
    for (;;) {
      const next = sleepers.toSorted((a, b) => a.at - b.at)[0];
      if (next === undefined || next.at > until) break;
      sleepers.splice(sleepers.indexOf(next), 1);
      now = Math.max(now, next.at);
      next.wake();
      await settle();
    }
    now = until;
  };
  return { clock, run, sleepers };
};
const never = (): AbortSignal => new AbortController().signal;

/** Starts `count` takes; the list fills with the time of each `go`. */
const start = (
  budget: ReturnType<typeof callBudget>,
  clock: Clock,
  urgent: boolean,
  count: number,
): number[] => {
  const went: number[] = [];
  for (let n = 0; n < count; n += 1) {
    void budget.take(urgent, never()).then((turn) => turn.kind === "go" && went.push(clock.monotonic()));
  }
  return went;
};

describe("callBudget", () => {
  test("60 a minute, of which 20 are for urgent calls alone", async () => {
    const { clock, run } = fakeClock();
    const budget = callBudget(clock, 60);
    const normal = start(budget, clock, false, 100);
    await run(59_999);
    expect(normal).toHaveLength(40);
    const urgent = start(budget, clock, true, 30);
    await run(59_999);
    expect(urgent).toHaveLength(20);
    await run(60_000);
    expect([normal.length, urgent.length]).toEqual([60, 30]);
  });

  test("an urgent call does not stand behind waiting others", async () => {
    const { clock, run } = fakeClock();
    const budget = callBudget(clock, 60);
    start(budget, clock, false, 500);
    const urgent = start(budget, clock, true, 1);
    await run(0);
    expect(urgent).toEqual([0]);
  });

  test("never more than the limit in any 60 s, and all are served in the end", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 12 }),
        fc.array(
          fc.record({ after: fc.nat({ max: 40_000 }), urgent: fc.boolean(), count: fc.nat({ max: 5 }) }),
          { maxLength: 12 },
        ),
        async (limit, bursts) => {
          const { clock, run } = fakeClock();
          const budget = callBudget(clock, limit);
          const went: number[][] = [];
          for (const burst of bursts) {
            went.push(start(budget, clock, burst.urgent, burst.count));
            await run(clock.monotonic() + burst.after);
          }
          await run(clock.monotonic() + 60 * 60_000 * 2);
          const all = went.flat().toSorted((a, b) => a - b);
          expect(all).toHaveLength(bursts.reduce((sum, { count }) => sum + count, 0));
          const tooMany = all.filter((at, n) => (all[n + limit] ?? Infinity) - at < 60_000);
          expect(tooMany).toEqual([]);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("a pause is told at once, to waiters too, and is over when it is over", async () => {
    const { clock, run } = fakeClock();
    const budget = callBudget(clock, 1);
    const turns: Turn[] = [];
    void budget.take(true, never()).then((turn) => turns.push(turn));
    void budget.take(true, never()).then((turn) => turns.push(turn));
    await run(1_000);
    budget.hold(90_000);
    budget.hold(10_000);
    expect(await budget.take(true, never())).toEqual({ kind: "held", ms: 90_000 });
    await run(60_000);
    expect(turns).toEqual([{ kind: "go" }, { kind: "held", ms: 31_000 }]);
    await run(91_000);
    expect(await budget.take(false, never())).toEqual({ kind: "go" });
  });

  test("an abort ends the wait", async () => {
    const { clock, run } = fakeClock();
    const budget = callBudget(clock, 1);
    start(budget, clock, true, 1);
    const stop = new AbortController();
    const turn = budget.take(true, stop.signal);
    await run(10);
    stop.abort();
    expect(await turn).toEqual({ kind: "interrupted" });
    expect(await budget.take(true, AbortSignal.abort())).toEqual({ kind: "interrupted" });
  });
});
