import * as fc from "fast-check";
import { createTask } from "node-cron";
import { describe, expect, test } from "vitest";
import { hasInstant, mayOpen, nextInstant, type Schedule, tickAfter } from "../../src/core/schedule.ts";
import { readSchedule } from "../../src/io/cron.ts";

const ZONES = ["Asia/Taipei", "America/New_York", "Europe/London"] as const;
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const at = (text: string): number => Date.parse(text);

const scheduleOf = async (line: string, timezone: string): Promise<Schedule> => {
  const made = await readSchedule(line, timezone);
  if (made === null) throw new Error("no schedule");
  return made;
};

/** node-cron's own answer, minute by minute. */
const reference = (line: string, timezone: string, from: number, to: number): number[] => {
  const task = createTask(line, () => {}, { timezone });
  const found: number[] = [];
  for (let ms = Math.ceil((from + 1) / MINUTE) * MINUTE; ms <= to; ms += MINUTE)
    if (task.match(new Date(ms))) found.push(ms);
  void task.destroy();
  return found;
};

/** All instants in (from, to], by our own matcher. */
const instants = (schedule: Schedule, from: number, to: number): number[] => {
  const found: number[] = [];
  for (
    let next = nextInstant(schedule, from);
    next !== null && next <= to;
    next = nextInstant(schedule, next)
  )
    found.push(next);
  return found;
};

const LINES = [
  "0 10 * * 1-5",
  "30 2 * * *",
  "*/20 1-3 * * *",
  "0 0 29 2 *",
  "15 9 L * *",
  "0 9 LW * *",
  "0 9 15W * *",
  "0 9 L-3 * *",
  "0 9 * * 1#2",
  "0 9 * * 5L",
  "0 12 13 * 5",
  "59 23 31 12 *",
] as const;

describe("the matcher", () => {
  test.each(ZONES)("finds what node-cron finds, around each change of the clocks (%s)", async (zone) => {
    const changes = {
      "Asia/Taipei": [],
      "America/New_York": ["2027-03-14", "2026-11-01"],
      "Europe/London": ["2027-03-28", "2026-10-25"],
    };
    for (const day of [...changes[zone], "2028-02-29"])
      for (const line of LINES.slice(0, 4)) {
        const [from, to] = [at(`${day}T00:00:00Z`) - 6 * HOUR, at(`${day}T00:00:00Z`) + 30 * HOUR];
        const schedule = await scheduleOf(line, zone);
        const ours = instants(schedule, from, to);
        const theirs = reference(line, zone, from, to);
        // Where the clock skips the time, node-cron has no instant on that day; ours comes as much later.
        const skipped = ours.filter((ms) => !theirs.includes(ms));
        expect({ line, day, missing: theirs.filter((ms) => !ours.includes(ms)) }).toEqual({
          line,
          day,
          missing: [],
        });
        const isForward = ["2027-03-14", "2027-03-28"].includes(day);
        expect(isForward ? 0 : skipped.length).toBe(0);
      }
  });

  test("finds what node-cron finds on any day of ten years", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...ZONES),
        fc.constantFrom(...LINES.slice(4)),
        fc.integer({ min: 0, max: 3_650 }),
        async (zone, line, day) => {
          const from = at("2026-01-01T00:00:00Z") + day * DAY;
          const schedule = await scheduleOf(line, zone);
          expect(instants(schedule, from, from + DAY)).toEqual(reference(line, zone, from, from + DAY));
        },
      ),
      { numRuns: 30 },
    );
  });

  test("a time that is skipped comes as much later; a time that comes twice is two", async () => {
    const schedule = await scheduleOf("30 2 * * *", "America/New_York");
    const spring = at("2027-03-14T07:30:00Z");
    expect(instants(schedule, spring - 12 * HOUR, spring + 12 * HOUR)).toEqual([spring]);
    const twice = await scheduleOf("30 1 * * *", "America/New_York");
    const autumn = at("2026-11-01T05:30:00Z");
    expect(instants(twice, autumn - HOUR, autumn + 12 * HOUR)).toEqual([autumn, autumn + HOUR]);
  });

  test("leap days, and what never comes for years", async () => {
    const schedule = await scheduleOf("0 0 29 2 *", "Asia/Taipei");
    const first = nextInstant(schedule, at("2026-01-01T00:00:00Z"));
    expect(new Date(first ?? 0).toISOString()).toBe("2028-02-28T16:00:00.000Z");
    expect(hasInstant(schedule, at("2024-03-01T00:00:00Z"), at("2028-02-28T15:59:59.999Z"))).toBe(false);
    expect(hasInstant(schedule, at("2024-03-01T00:00:00Z"), at("2028-02-28T16:00:00Z"))).toBe(true);
  });
});

/** A schedule, and the ticks of a machine: how much true time passes, and how much the clock is then off. */
const ticks = fc.array(
  fc.record({
    gap: fc.oneof(
      { arbitrary: fc.integer({ min: MINUTE, max: 20 * MINUTE }), weight: 8 },
      { arbitrary: fc.integer({ min: HOUR, max: 30 * HOUR }), weight: 2 },
      { arbitrary: fc.integer({ min: DAY, max: 400 * DAY }), weight: 1 },
    ),
    step: fc.oneof({ arbitrary: fc.constant(0), weight: 20 }, fc.constant(DAY), fc.constant(-DAY)),
  }),
  { minLength: 20, maxLength: 60 },
);

describe("ticks", () => {
  test.each(ZONES)("over ten years none is lost or doubled in effect (%s)", async (zone) => {
    for (const line of ["0 10 * * 1-5", "30 2 * * *"]) {
      const schedule = await scheduleOf(line, zone);
      const end = at("2036-01-01T00:00:00Z");
      let [now, previous, opens] = [at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"), 0];
      const all = instants(schedule, now, end);
      const seen = new Set<number>();
      let nth = 0;
      // Each interval between two ticks holds exactly the instants that it opened for.
      for (let n = 0; now < end; n++) {
        now = Math.min(end, now + (n % 7 === 0 ? 3 * DAY : 17 * HOUR + (n % 11) * MINUTE));
        const inside: number[] = [];
        for (; nth < all.length && (all[nth] ?? 0) <= now; nth++) inside.push(all[nth] ?? 0);
        const opened = mayOpen(schedule, previous, now);
        expect({ line, now, opened }).toEqual({ line, now, opened: inside.length > 0 });
        if (opened) opens += 1;
        for (const ms of inside) seen.add(ms);
        // The same tick once more, and a second process: nothing.
        previous = tickAfter(previous, now);
        expect(mayOpen(schedule, previous, now)).toBe(false);
      }
      expect(seen.size).toBe(all.length);
      expect(opens).toBeLessThanOrEqual(all.length);
    }
  });

  test("whatever the clock does, every instant that the clock showed is followed by a tick that may open", async () => {
    const schedules = await Promise.all(
      ZONES.flatMap((zone) => ["0 10 * * 1-5", "30 2 * * *"].map((line) => scheduleOf(line, zone))),
    );
    fc.assert(
      fc.property(
        fc.constantFrom(...schedules),
        fc.integer({ min: at("2026-01-01T00:00:00Z"), max: at("2036-01-01T00:00:00Z") }),
        ticks,
        (schedule, start, story) => {
          let [clock, previous] = [start, start as number | null];
          for (const { gap, step } of story) {
            const before = clock;
            clock += gap + step;
            const opened = mayOpen(schedule, previous, clock);
            // Forward: all between was shown or jumped over. Back: from the new time on everything is shown again.
            const isBack = clock < before - 5 * MINUTE;
            const must = isBack || (clock > before && hasInstant(schedule, before, clock));
            expect(opened || !must).toBe(true);
            previous = tickAfter(previous, clock);
            expect(mayOpen(schedule, previous, clock)).toBe(false);
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  test("without a schedule, or without a known tick before it, a tick may do everything", async () => {
    const schedule = await scheduleOf("0 10 * * *", "UTC");
    const now = at("2026-06-01T12:00:00Z");
    expect([mayOpen(null, now, now), mayOpen(schedule, null, now)]).toEqual([true, true]);
  });

  test("a machine whose clock is some minutes behind the last one opens nothing twice", async () => {
    const schedule = await scheduleOf("0 10 * * *", "UTC");
    const [first, second] = [at("2026-06-01T10:00:30Z"), at("2026-06-01T09:58:00Z")];
    expect(mayOpen(schedule, first - HOUR, first)).toBe(true);
    expect(mayOpen(schedule, first, second)).toBe(false);
    expect(tickAfter(first, second)).toBe(first);
    expect(mayOpen(schedule, first, second + 5 * MINUTE)).toBe(false);
  });
});
