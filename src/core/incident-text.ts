import { holdsKey, looksLikeKey } from "./intake.ts";

/** Control characters, line separators, and marks that change the direction of text or show nothing. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/gu;
const LONGEST = 300;

/** Text that a person or another program gave: one line of what can be seen, shortened, and without anything like a key. */
export const plain = (text: string, longest = LONGEST): string => {
  const line = text
    .toWellFormed()
    .replace(/\s+/g, " ")
    .replace(UNSEEN, "?")
    .trim()
    .replace(/[A-Za-z0-9+/=_-]{22,}/g, (run) =>
      looksLikeKey(run) || holdsKey(run) ? "(left out: it looks like a key)" : run,
    );
  const all = Array.from(line);
  return all.length <= longest ? line : `${all.slice(0, longest - 1).join("")}…`;
};

/** The same inside Markdown, never at the start of a line: no mark-up, no link, no HTML, no table cell can come of it. */
export const markdown = (text: string): string =>
  ours(text)
    .replaceAll("://", "\\://")
    .replace(/(www)\./gi, "$1\\.");

/** Our own words inside Markdown: the same, and an address stays one. */
export const ours = (text: string): string =>
  text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replace(/[\\`*_[\]|~$>]/g, "\\$&");

/** A name or an address as it is, where Markdown can show it so. */
export const literal = (text: string): string =>
  text === "" || /[`|]/.test(text) ? markdown(text) : `\`${text}\``;

/** A time for people: the two largest units that matter. `null` is not a time. */
export const span = (ms: number): string => {
  const s = Math.round(ms / 1000);
  if (ms === 0) return "0 s";
  if (ms < 1000) return "under 1 s";
  const parts: readonly (readonly [number, string])[] = [
    [Math.floor(s / 86_400), "d"],
    [Math.floor(s / 3600) % 24, "h"],
    [Math.floor(s / 60) % 60, "min"],
    [s % 60, "s"],
  ];
  const first = parts.findIndex(([n]) => n > 0);
  return parts
    .slice(first, first + 2)
    .filter(([n]) => n > 0)
    .map(([n, unit]) => `${n} ${unit}`)
    .join(" ");
};

/** An instant in one time zone with its offset: `2026-03-02 16:00:05 +08:00`. @throws RangeError for an unknown zone */
export const zonedClock = (timeZone: string): ((ts: string) => string) => {
  const format = new Intl.DateTimeFormat("en-CA", {
    timeZone,
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hourCycle: "h23",
    timeZoneName: "longOffset",
  });
  return (ts) => {
    const at = new Date(ts);
    if (Number.isNaN(at.getTime())) return "?";
    const part = Object.fromEntries(format.formatToParts(at).map(({ type, value }) => [type, value]));
    const offset = part["timeZoneName"]?.replace("GMT", "") || "+00:00";
    return `${part["year"]}-${part["month"]}-${part["day"]} ${part["hour"]}:${part["minute"]}:${part["second"]} ${offset}`;
  };
};

/** The same instant in UTC: `2026-03-02 08:00:05Z`. */
export const utc = (ts: string): string => {
  const at = new Date(ts);
  return Number.isNaN(at.getTime()) ? "?" : `${at.toISOString().slice(0, 19).replace("T", " ")}Z`;
};
