import { expect, test } from "vitest";
import { hasInstant, mayOpen, type Schedule, tickAfter } from "../../src/core/schedule.ts";
import { isOpen } from "../../src/core/state.ts";
import { readSchedule } from "../../src/io/cron.ts";
import type { Message, Notifier } from "../../src/ports.ts";
import { firstKey, type Story, tell } from "./story.ts";
import { PLAIN_ROTATE } from "../kit/rotate-options.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const EPOCH = Date.parse("2026-03-02T08:00:00.000Z");

/** True times of ticks: every three weeks or so, and every few hours around each change of the clocks, and on leap days. */
const tickTimes = (): readonly number[] => {
  const times: number[] = [];
  for (let n = 0; n < 174; n++) times.push(EPOCH + n * 21 * DAY + ((n * 37) % 24) * HOUR + n * 60_000);
  for (let year = 2026; year < 2036; year++) {
    const sundays = (month: number, nth: number): number => {
      const first = new Date(Date.UTC(year, month, 1)).getUTCDay();
      return Date.UTC(year, month, 1 + ((7 - first) % 7) + 7 * (nth - 1));
    };
    const days = [sundays(2, 2), sundays(10, 1), Date.UTC(year, 2, 31), Date.UTC(year, 1, 29)];
    for (const day of days)
      for (let hour = -2; hour < 14; hour += 5) times.push(day + hour * HOUR + 7 * 60_000);
  }
  return [...new Set(times)].filter((ms) => ms > EPOCH).sort((a, b) => a - b);
};

/** What the machine's clock is off by at the n-th tick: some days it is a day ahead, some days behind. */
const offAt = (n: number): number => (n % 37 === 20 ? DAY : n % 37 === 30 ? -DAY : 0);

const years = async (story: Story, schedule: Schedule) => {
  const got: Message[] = [];
  const notifier: Notifier = {
    name: "hook",
    wants: () => true,
    problem: async () => null,
    notify: async (message) => {
      got.push(message);
      return { ok: true, why: "" };
    },
  };
  let previous: number | null = null;
  let key = firstKey(story);
  let staged = 0;

  const tick = async (off: number): Promise<boolean> => {
    const now = EPOCH + story.time.now() + off;
    const may = mayOpen(schedule, previous, now);
    const ended = await story.command("tick", (hands) =>
      story.product.tick(
        {
          ...hands,
          app: { ...hands.app, rotateEveryMs: 150 * DAY },
          clock: { ...hands.clock, now: () => hands.clock.now() + off },
        },
        {
          rotate: {
            ...PLAIN_ROTATE,
            waitMs: 0,
          },
          inboxes: [],
          mayOpen: may,
          people: {
            notifiers: [notifier],
            owners: [],
            remindBeforeMs: [14 * DAY, 0],
            escalateAfterMs: 0,
            steps: () => [],
          },
        },
      ),
    );
    expect(ended.kind).toBe("returned");
    previous = tickAfter(previous, now);
    return may;
  };

  let before = EPOCH;
  for (const [n, at] of tickTimes().entries()) {
    await story.sleep(Math.max(0, at - EPOCH - story.time.now()));
    const off = offAt(n);
    const waits = story.state().staged !== null;
    const opened = story.events("opened").length;
    const may = await tick(off);
    // What is staged is opened by the first tick that may, and by no other; the same tick again does nothing.
    expect(story.events("opened").length - opened).toBe(waits && may ? 1 : 0);
    const entries = story.ledger.lines.length;
    if (n % 3 === 0) await tick(off);
    expect(story.ledger.lines.length).toBe(entries);
    // Without a step of the clock it may exactly if the schedule says so.
    const isPlain = off === 0 && (n === 0 || offAt(n - 1) === 0);
    const isTime = hasInstant(schedule, before, at);
    expect(isPlain && n > 0 ? may : isTime).toBe(isTime);
    before = at;
    if (isOpen(story.state())) {
      story.imkit.revoke(key);
      key = story.values()["a"] ?? "";
    } else if (got.at(-1)?.type === "overdue" && story.state().staged === null) {
      await story.stage(story.key());
      staged += 1;
    }
  }
  return { got, staged };
};

test.each(["Asia/Taipei", "America/New_York", "Europe/London"])(
  "ten years of ticks: every key written once, every reminder and every end told once (%s)",
  async (zone) => {
    const schedule = await readSchedule("30 2 * * *", zone);
    if (schedule === null) throw new Error("no schedule");
    await tell({ skews: 0.000_001 }, async (story) => {
      const { got, staged } = await years(story, schedule);
      expect(staged).toBeGreaterThan(15);
      expect(story.events("opened").length).toBe(staged);
      const done = story.events("done").length;
      expect([staged, staged - 1]).toContain(done);
      expect(new Set(got.map((m) => m.id)).size).toBe(got.length);
      const count = (type: string): number => got.filter((m) => m.type === type).length;
      expect(count("overdue")).toBe(staged);
      expect(count("waiting-revoke")).toBe(staged);
      expect(count("done")).toBe(done);
    });
  },
);
