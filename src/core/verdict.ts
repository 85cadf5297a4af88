import type { Usage, Verdict } from "./events.ts";
import { type Json, type JsonObject, parseStrictJson } from "./strict-json.ts";

/** What of one HTTP answer a verdict is made of. Header values as they came, null where absent. */
export type Answer = {
  readonly status: number;
  readonly contentType: string | null;
  readonly retryAfter: string | null;
  readonly date: string | null;
  /** null = there is no text that may be judged: too large, encoded, not UTF-8. */
  readonly body: string | null;
};

export type Judgement = {
  readonly verdict: Verdict;
  /** IMKIT's error code where it is one that we know; never any other text of the answer. */
  readonly code: string | null;
  /** Our own phrase; empty unless `unclear`. */
  readonly why: string;
  /** For 429: how long to wait. */
  readonly retryAfterMs: number | null;
};

/** The part of a probe that a triad looks at. */
export type ProbeLike = {
  readonly verdict: Verdict;
  readonly status: number | null;
  readonly code: string | null;
};

const REVOKED = "INVALID_API_KEY";
/** 401 codes that prove nothing by themselves: they count beside a made-up key that got the very same answer. */
const ONLY_IN_TRIAD: ReadonlySet<string | null> = new Set(["UNAUTHORIZED", "INVALID_AUTH"]);
const KNOWN_CODES: ReadonlySet<Json> = new Set([
  REVOKED,
  "UNAUTHORIZED",
  "INVALID_AUTH",
  "MISSING_API_KEY",
  "INSUFFICIENT_PERMISSIONS",
  "INSUFFICIENT_PERMISSION",
  "PERMISSION_DENIED",
  "RATE_LIMIT_EXCEEDED",
]);
const MIN_WAIT_S = 1;
const MAX_WAIT_S = 3600;

const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isAbsent = (value: Json | undefined): value is null | undefined =>
  value === undefined || value === null;

/** The code that every place of an error answer agrees on: `error`, `error.code`, a `code` beside it. Else null. */
const agreedCode = (body: JsonObject): string | null => {
  const { error } = body;
  const main = isObject(error) ? error["code"] : error;
  if (typeof main !== "string" || !KNOWN_CODES.has(main)) return null;
  const others = [body["code"], ...(isObject(error) ? [error["error"]] : [])];
  return others.every((other) => isAbsent(other) || typeof other === "number" || other === main)
    ? main
    : null;
};

/** An error answer's RC: absent, or a whole number that is not 0 and, where it looks like an HTTP status, the one that came. */
const isErrorRc = (rc: Json | undefined, status: number): boolean => {
  if (rc === undefined) return true;
  if (!Number.isSafeInteger(rc) || rc === 0) return false;
  return rc === status || Number(rc) < 100 || Number(rc) > 599;
};

const seconds = (value: unknown): number | null => {
  if (typeof value === "number") return Number.isFinite(value) ? value : null;
  if (typeof value !== "string" || !/^-?[0-9]{1,15}(\.[0-9]{1,15})?$/.test(value.trim())) return null;
  return Number(value);
};

/** An HTTP date as seconds after the answer's own Date: two clocks are never compared. */
const secondsUntil = (value: string | null, date: string | null): number | null => {
  const then = httpDate(value);
  const now = httpDate(date);
  return then === null || now === null ? null : (Date.parse(then) - Date.parse(now)) / 1000;
};

const HTTP_DATE =
  /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT$/;

/** A Date header that is a date and nothing else (IMF-fixdate, 29 characters), else null. */
export const httpDate = (header: string | null): string | null =>
  header !== null && HTTP_DATE.test(header) && !Number.isNaN(Date.parse(header)) ? header : null;

/**
 * How long a 429 asks us to wait, in ms: the larger of `retryAfter` in the body and the Retry-After header, each only where it is a finite
 * number of seconds (a number, or a string of one: `"30"`, `"1.5"`), clamped to 1-3600 s: so 0 and -1 are one second, 1e12 is an hour.
 * The header may be an HTTP date where the answer's Date header says what "now" is. `"soon"`, an ISO date, null, 1e999: as if absent.
 * @returns null where neither says anything usable.
 */
export const retryAfterMs = (
  inBody: unknown,
  header: string | null,
  date: string | null = null,
): number | null => {
  const asked = [seconds(inBody), seconds(header), secondsUntil(header, date)].filter((s) => s !== null);
  if (asked.length === 0) return null;
  return Math.ceil(Math.min(MAX_WAIT_S, Math.max(MIN_WAIT_S, ...asked)) * 1000);
};

const unclear = (why: string, code: string | null = null): Judgement => ({
  verdict: "unclear",
  code,
  why,
  retryAfterMs: null,
});

const judgeThrottle = (answer: Answer, body: JsonObject | null): Judgement => {
  const error = body?.["error"];
  const waits = [body?.["retryAfter"], isObject(error) ? error["retryAfter"] : null].map(
    (inBody) => retryAfterMs(inBody, answer.retryAfter, answer.date) ?? 0,
  );
  const wait = Math.max(...waits);
  const why =
    wait === 0 ? "HTTP 429, too many calls" : `HTTP 429, too many calls, wait ${Math.ceil(wait / 1000)} s`;
  return { ...unclear(why, body && agreedCode(body)), retryAfterMs: wait === 0 ? null : wait };
};

const judge200 = (body: JsonObject): Judgement => {
  const { RC, result, error } = body;
  const code = agreedCode(body);
  if (RC !== undefined && RC !== 0) return unclear("HTTP 200, but RC is not 0", code);
  if (!isAbsent(error)) return unclear("HTTP 200, but with an error in it", code);
  const count = isObject(result) ? result["count"] : undefined;
  if (!Number.isSafeInteger(count) || Number(count) < 0)
    return unclear("HTTP 200, but no connection count in it");
  return { verdict: "accepted", code: null, why: "", retryAfterMs: null };
};

const judge401 = (body: JsonObject): Judgement => {
  const code = agreedCode(body);
  if (code === null) return unclear("HTTP 401 without a code of IMKIT");
  if (!isErrorRc(body["RC"], 401) || !isAbsent(body["result"]))
    return unclear("HTTP 401 that contradicts itself");
  if (code === REVOKED) return { verdict: "rejected", code, why: "", retryAfterMs: null };
  if (ONLY_IN_TRIAD.has(code)) return unclear(`HTTP 401 ${code}, which alone proves nothing`, code);
  if (code === "MISSING_API_KEY")
    return unclear("HTTP 401: something on the way removed the key header", code);
  return unclear(`HTTP 401 ${code}`, code);
};

/** A page that calls itself HTML comes from a portal or a filter, whatever it spells. */
const isHtml = (answer: Answer): boolean => /html/i.test(answer.contentType ?? "");

/** What one answer of `/admin/connection-count` says of the key that it was asked with. Every doubt is `unclear`. */
export const judge = (answer: Answer): Judgement => {
  const { status } = answer;
  const fromPortal = isHtml(answer);
  const parsed = answer.body === null || fromPortal ? undefined : parseStrictJson(answer.body);
  const body = isObject(parsed) ? parsed : null;
  if (status === 429) return judgeThrottle(answer, body);
  if (status >= 300 && status < 400) return unclear(`HTTP ${status}, a redirect, not followed`);
  if (body === null)
    return unclear(`HTTP ${status}, ${fromPortal ? "an HTML page" : "not an answer of IMKIT"}`);
  if (status === 200) return judge200(body);
  if (status === 401) return judge401(body);
  const code = agreedCode(body);
  return unclear(code === null ? `HTTP ${status}` : `HTTP ${status} ${code}`, code);
};

/** `result` of a `/admin/stats` answer that is a success and nothing else. It carries both keys. */
const statsOf = (answer: Answer): JsonObject | null => {
  if (answer.status !== 200 || answer.body === null || isHtml(answer)) return null;
  const parsed = parseStrictJson(answer.body);
  if (!isObject(parsed) || !isAbsent(parsed["error"])) return null;
  if (parsed["RC"] !== undefined && parsed["RC"] !== 0) return null;
  return isObject(parsed["result"]) ? parsed["result"] : null;
};

/**
 * `result.clientKey` of a `/admin/stats` answer, by which two keys of one app are known to be of one app.
 * @returns null unless it is a successful answer with a printable text there.
 */
export const clientKeyOf = (answer: Answer): string | null => {
  const clientKey = statsOf(answer)?.["clientKey"];
  return typeof clientKey === "string" && /^[\x21-\x7e]{1,4096}$/.test(clientKey) ? clientKey : null;
};

/** What a `/admin/stats` answer counts: numbers and nothing else of it. @returns null unless it is a success with a count in it. */
export const usageOf = (answer: Answer): Usage | null => {
  const stats = statsOf(answer);
  if (stats === null) return null;
  const count = (value: Json | undefined): number | null =>
    Number.isSafeInteger(value) && Number(value) >= 0 ? Number(value) : null;
  const { userList } = stats;
  const usage: Usage = {
    users: Array.isArray(userList) ? userList.length : null,
    rooms: count(stats["roomCount"]),
    totalRooms: count(stats["totalRoomCount"]),
    messages: count(stats["messageCount"]),
    peakConnections: count(stats["peakConnectionCount"]),
  };
  return Object.values(usage).some((n) => n !== null) ? usage : null;
};

const isRevoked = (probe: ProbeLike): boolean =>
  probe.verdict === "rejected" && probe.status === 401 && probe.code === REVOKED;

const isVagueNo = (probe: ProbeLike): boolean =>
  probe.verdict === "unclear" && probe.status === 401 && ONLY_IN_TRIAD.has(probe.code);

/** Whether the answer to a made-up key shows that this endpoint checks keys at all. */
export const controlRejects = (probe: ProbeLike): boolean => isRevoked(probe) || isVagueNo(probe);

/**
 * What three probes by the same route say of the OLD key. `control` is the made-up key, null where it is switched off: then only
 * INVALID_API_KEY counts as a no.
 */
export const judgeTriad = (probes: {
  readonly new: ProbeLike;
  readonly old: ProbeLike;
  readonly control: ProbeLike | null;
}): Verdict => {
  const { old, control } = probes;
  if (old.verdict === "accepted") return "accepted";
  if (probes.new.verdict !== "accepted") return "unclear";
  if (isRevoked(old)) return control === null || isRevoked(control) ? "rejected" : "unclear";
  const sameNo = isVagueNo(old) && control !== null && isVagueNo(control) && old.code === control.code;
  return sameNo ? "rejected" : "unclear";
};
