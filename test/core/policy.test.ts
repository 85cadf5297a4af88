import { assert, integer, property } from "fast-check";
import { describe, expect, test } from "vitest";
import { ageDays, dueAt, formatDuration, parseDuration, reminderAt } from "../../src/core/policy.ts";

const DAY = 86_400_000;

describe("durations", () => {
  test.each([
    ["0s", 0],
    ["0ms", 0],
    ["1ms", 1],
    ["5s", 5_000],
    ["10m", 600_000],
    ["4h", 14_400_000],
    ["90d", 90 * DAY],
    ["007d", 7 * DAY],
    ["36500d", 36_500 * DAY],
  ])("%s is %d ms", (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });

  test.each([
    "",
    "5",
    "s",
    "-1s",
    "+1s",
    "1.5h",
    "1e3s",
    "5 s",
    " 5s",
    "5s\n",
    "5S",
    "5w",
    "1h30m",
    "0x10s",
    "٣s",
    "36501d",
    "99999999999999d",
    "9007199254740993ms",
    `${"9".repeat(400)}d`,
    "5constructor",
  ])("%j is no duration", (text) => {
    expect(parseDuration(text)).toBeNull();
  });

  test("what is formatted is read back as the same time", () => {
    assert(
      property(integer({ min: 0, max: 36_500 * DAY }), (ms) => parseDuration(formatDuration(ms)) === ms),
    );
    expect([0, 1, 999, 60_000, 90_000, 7_200_000, 90 * DAY].map(formatDuration)).toEqual([
      "0s",
      "1ms",
      "999ms",
      "1m",
      "90s",
      "2h",
      "90d",
    ]);
    expect(formatDuration(-5)).toBe("0s");
    expect(formatDuration(1.9)).toBe("1ms");
  });
});

describe("due dates", () => {
  test("are days of 24 hours from a UTC instant, whatever the local clocks do", () => {
    // 2026-03-08 is a day of 23 hours in New York.
    expect(dueAt("2026-03-07T12:00:00.000Z", 2 * DAY)).toBe("2026-03-09T12:00:00.000Z");
    expect(dueAt("2026-03-07T07:00:00.000-05:00", DAY)).toBe("2026-03-08T12:00:00.000Z");
    expect(dueAt("2026-03-07T12:00:00.000Z", 0)).toBe("2026-03-07T12:00:00.000Z");
  });

  test("there is none without a readable start or beyond all dates", () => {
    expect(dueAt(null, DAY)).toBeNull();
    expect(dueAt("yesterday", DAY)).toBeNull();
    expect(dueAt("2026-03-07T12:00:00.000Z", Number.MAX_SAFE_INTEGER)).toBeNull();
  });

  test("age counts whole days and is never negative", () => {
    const since = "2026-01-01T00:00:00.000Z";
    const start = Date.parse(since);
    expect(ageDays(since, start)).toBe(0);
    expect(ageDays(since, start + DAY - 1)).toBe(0);
    expect(ageDays(since, start + DAY)).toBe(1);
    expect(ageDays(since, start - DAY)).toBe(0);
    expect(ageDays(null, start)).toBeNull();
    expect(ageDays("soon", start)).toBeNull();
  });
});

describe("reminders", () => {
  const due = "2026-06-01T00:00:00.000Z";
  const at = Date.parse(due);
  const before = [14 * DAY, 3 * DAY, 0];

  test.each([
    [-15 * DAY, false, null],
    [-14 * DAY - 1, false, null],
    [-14 * DAY, false, 14 * DAY],
    [-4 * DAY, false, 14 * DAY],
    [-3 * DAY, false, 3 * DAY],
    [-1, false, 3 * DAY],
    [0, true, 0],
    [100 * DAY, true, 0],
  ])("%d ms from the due instant", (offset, overdue, beforeMs) => {
    expect(reminderAt(due, before, at + offset)).toEqual({ overdue, beforeMs });
    expect(reminderAt(due, before.toReversed(), at + offset)).toEqual({ overdue, beforeMs });
  });

  test("without a due instant nothing is overdue; without reminders it still can be", () => {
    expect(reminderAt(null, before, at)).toEqual({ overdue: false, beforeMs: null });
    expect(reminderAt(due, [], at)).toEqual({ overdue: true, beforeMs: null });
  });
});
