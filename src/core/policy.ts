const UNITS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const LARGEST_FIRST = ["d", "h", "m", "s", "ms"] as const;
const DAY_MS = UNITS.d;
/** A hundred years: longer is a slip of the finger, and every sum of two such times is still a date. */
const MAX_DURATION_MS = 36_500 * DAY_MS;
const MAX_DATE_MS = 8.64e15;

/** `<integer>(ms|s|m|h|d)` in milliseconds, zero allowed; null for anything else and for more than 36500 days. */
export const parseDuration = (text: string): number | null => {
  const [, digits = "", unit = ""] = /^(\d{1,15})(ms|s|m|h|d)$/.exec(text) ?? [];
  if (!isUnit(unit)) return null;
  const ms = Number(digits) * UNITS[unit];
  return ms <= MAX_DURATION_MS ? ms : null;
};

const isUnit = (text: string): text is keyof typeof UNITS => Object.hasOwn(UNITS, text);

/** An RFC 3339 date-time with its zone, as UTC with milliseconds; null for anything else, also for the 30th of February. */
export const parseInstant = (text: string): string | null => {
  const parts = /^(\d{4})-(\d\d)-(\d\d)[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)$/.exec(text);
  if (parts === null) return null;
  const at = Date.parse(text.replace(" ", "T").toUpperCase());
  const [, year, month, day] = parts.map(Number);
  const isDay = new Date(Date.UTC(year ?? 0, (month ?? 0) - 1, day)).getUTCDate() === day;
  return Number.isNaN(at) || !isDay ? null : new Date(at).toISOString();
};

/** The shortest text that `parseDuration` reads as the same time: 90000 is `90s`, 7200000 is `2h`. Fractions of a ms are dropped. */
export const formatDuration = (ms: number): string => {
  const whole = Math.max(0, Math.trunc(ms));
  if (whole === 0) return "0s";
  const unit = LARGEST_FIRST.find((name) => whole % UNITS[name] === 0) ?? "ms";
  return `${whole / UNITS[unit]}${unit}`;
};

/**
 * When the key is due: the UTC instant of the last `done`, else of `adopted`, plus the interval in days of exactly 24 h, as RFC 3339. null
 * when there is no such instant yet, or none that can be read.
 */
export const dueAt = (lastDoneOrAdopted: string | null, rotateEveryMs: number): string | null => {
  if (lastDoneOrAdopted === null) return null;
  const due = Date.parse(lastDoneOrAdopted) + rotateEveryMs;
  return Math.abs(due) <= MAX_DATE_MS ? new Date(due).toISOString() : null;
};

/** Whole days of 24 h from `since` to `nowMs`, never below 0 (clocks step back); null when there is no readable `since`. */
export const ageDays = (since: string | null, nowMs: number): number | null => {
  const started = since === null ? Number.NaN : Date.parse(since);
  return Number.isNaN(started) ? null : Math.max(0, Math.floor((nowMs - started) / DAY_MS));
};

export type Reminder = {
  readonly overdue: boolean;
  /** The latest of the `remindBefore` times that has come, in ms before the due instant; null = none yet. */
  readonly beforeMs: number | null;
};

/**
 * Which reminder stands at `nowMs`. It is the same for every tick until the next one comes, so a caller that sends each (rotation,
 * `beforeMs`) once repeats none, and sends one, not all, after a long sleep.
 */
export const reminderAt = (
  due: string | null,
  remindBeforeMs: readonly number[],
  nowMs: number,
): Reminder => {
  const left = due === null ? Number.NaN : Date.parse(due) - nowMs;
  if (Number.isNaN(left)) return { overdue: false, beforeMs: null };
  const come = remindBeforeMs.filter((before) => before >= left);
  return { overdue: left <= 0, beforeMs: come.length === 0 ? null : Math.min(...come) };
};
