/** A cron line taken apart: what each field allows. The day fields may hold node-cron's own words (`L`, `15W`, `5L`, `1#2`). */
export type CronFields = {
  readonly minute: readonly number[];
  readonly hour: readonly number[];
  readonly dayOfMonth: readonly (number | string)[];
  readonly month: readonly number[];
  readonly dayOfWeek: readonly (number | string)[];
};
export type Schedule = { readonly fields: CronFields; readonly timezone: string };

/** A civil day. `month` is 1-12. */
type Day = { readonly year: number; readonly month: number; readonly day: number };

const MINUTE = 60_000;
const DAY = 86_400_000;
/** Clocks of two machines on one ledger may differ by this much. */
const SKEW_MS = 5 * MINUTE;

/**
 * Whether a tick at `nowMs` may open a rotation or remind: an instant of the schedule lies in (previous tick, now]. Also true without a
 * schedule, without a known previous tick, and after the clock was set back: an instant is never lost, and one that comes twice does nothing.
 */
export const mayOpen = (schedule: Schedule | null, previousMs: number | null, nowMs: number): boolean => {
  if (schedule === null || previousMs === null || previousMs > nowMs + SKEW_MS) return true;
  return hasInstant(schedule, previousMs, nowMs);
};

/** What the next tick takes for the previous one. Never back, but after the clock was. */
export const tickAfter = (previousMs: number | null, nowMs: number): number =>
  previousMs === null || previousMs > nowMs + SKEW_MS ? nowMs : Math.max(previousMs, nowMs);

/** Whether an instant of the schedule lies in (after, until]. */
export const hasInstant = (schedule: Schedule, afterMs: number, untilMs: number): boolean => {
  if (!(untilMs > afterMs)) return false;
  const local = localClock(schedule.timezone);
  const last = dayStart(local(untilMs));
  for (let at = dayStart(local(afterMs)); at <= last; at += DAY) {
    const day = dayOf(at);
    if (!isDay(schedule.fields, day)) continue;
    // Whatever the clocks do, a day that is two days away from both ends lies between them.
    if (at - 2 * DAY > afterMs && at + 3 * DAY < untilMs) return true;
    if (instantsOn(schedule, day, local).some((ms) => ms > afterMs && ms <= untilMs)) return true;
  }
  return false;
};

/** The first instant of the schedule after `afterMs`; null when there is none within 100 years. */
export const nextInstant = (schedule: Schedule, afterMs: number): number | null => {
  const local = localClock(schedule.timezone);
  const first = dayStart(local(afterMs));
  for (let at = first; at <= first + 36_525 * DAY; at += DAY) {
    const day = dayOf(at);
    const found = isDay(schedule.fields, day) ? instantsOn(schedule, day, local) : [];
    const later = found.filter((ms) => ms > afterMs);
    if (later.length > 0) return Math.min(...later);
  }
  return null;
};

/** As node-cron has it: the day of the month and the day of the week must both fit. */
const isDay = (fields: CronFields, { year, month, day }: Day): boolean => {
  if (!fields.month.includes(month)) return false;
  const last = new Date(Date.UTC(year, month, 0)).getUTCDate();
  const weekday = weekdayOf(year, month, day);
  return (
    fields.dayOfMonth.some((word) => fitsDate(word, { year, month, day }, last)) &&
    fields.dayOfWeek.some((word) => fitsWeekday(word, day, weekday, last))
  );
};

const weekdayOf = (year: number, month: number, day: number): number =>
  new Date(Date.UTC(year, month - 1, day)).getUTCDay();

const fitsDate = (word: number | string, { year, month, day }: Day, last: number): boolean => {
  if (typeof word === "number") return word === day;
  if (word === "L") return day === last;
  const [, back] = /^L-(\d{1,2})$/.exec(word) ?? [];
  if (back !== undefined) return day === last - Number(back);
  const [, near] = /^(\d{1,2}|L)W$/.exec(word) ?? [];
  return near !== undefined && day === workday(year, month, near === "L" ? last : Number(near), last);
};

/** The working day nearest to a date, within its month. */
const workday = (year: number, month: number, target: number, last: number): number => {
  if (target < 1 || target > last) return -1;
  const weekday = weekdayOf(year, month, target);
  if (weekday === 6) return target === 1 ? 3 : target - 1;
  if (weekday === 0) return target === last ? target - 2 : target + 1;
  return target;
};

const fitsWeekday = (word: number | string, day: number, weekday: number, last: number): boolean => {
  if (typeof word === "number") return word % 7 === weekday;
  const [, name = "", nth] = /^([0-7])(?:L|#([1-5]))$/i.exec(word) ?? [];
  if (name === "" || Number(name) % 7 !== weekday) return false;
  return nth === undefined ? day + 7 > last : Math.ceil(day / 7) === Number(nth);
};

/**
 * Every instant of one civil day. A local time that comes twice (the clock goes back) is two of them; one that is skipped (the clock goes
 * forward) is taken as much later as the clock was put forward, so no day is without.
 */
const instantsOn = ({ fields }: Schedule, day: Day, local: LocalClock): readonly number[] => {
  const noon = Date.UTC(day.year, day.month - 1, day.day, 12);
  const [before, after] = [offsetAt(local, noon - DAY), offsetAt(local, noon + DAY)];
  return fields.hour.flatMap((hour) =>
    fields.minute.flatMap((minute) => {
      const wall = Date.UTC(day.year, day.month - 1, day.day, hour, minute);
      if (before === after && offsetAt(local, wall - before) === before) return [wall - before];
      const near = [offsetAt(local, wall - DAY), offsetAt(local, wall + DAY)];
      const found = [...new Set(near)].map((offset) => wall - offset).filter((ms) => local(ms) === wall);
      return found.length > 0 ? found : [wall - (near[0] ?? 0)];
    }),
  );
};

/** Wall-clock time, as if it were UTC. */
type LocalClock = (ms: number) => number;

const offsetAt = (local: LocalClock, ms: number): number => local(ms) - ms;
const dayStart = (wall: number): number => Math.floor(wall / DAY) * DAY;
const dayOf = (wall: number): Day => {
  const date = new Date(wall);
  return { year: date.getUTCFullYear(), month: date.getUTCMonth() + 1, day: date.getUTCDate() };
};

const clocks = new Map<string, LocalClock>();
const localClock = (timezone: string): LocalClock => {
  const known = clocks.get(timezone);
  if (known !== undefined) return known;
  const two = "2-digit" as const;
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone: timezone,
    hourCycle: "h23",
    year: "numeric",
    month: two,
    day: two,
    hour: two,
    minute: two,
    second: two,
  });
  const clock: LocalClock = (ms) => {
    // The American order.
    const numbers = format.format(ms).match(/\d+/g) ?? [];
    const [month = 1, day = 1, year = 0, hour = 0, minute = 0, second = 0] = numbers.map(Number);
    const whole = Math.floor(ms / 1_000) * 1_000;
    return Date.UTC(year, month - 1, day, hour, minute, second) + (ms - whole);
  };
  clocks.set(timezone, clock);
  return clock;
};
