import { CODES, type Code } from "./errors.ts";
import { backoffMs, pauseLeft } from "./backoff.ts";
import type { LedgerEvent } from "./events.ts";
import { toldKey, type News } from "./news.ts";
import { failureOf, type Phase } from "./outcome.ts";
import { reminderAt, formatDuration } from "./policy.ts";
import type { Rotation } from "./rotation.ts";
import { type Fp, showFp } from "./secret.ts";
import { type AppState, isOpen, unproved } from "./state.ts";

export const NOTICE_TYPES = [
  "waiting-key",
  "waiting-restart",
  "waiting-revoke",
  "failed",
  "refused",
  "overdue",
  "due-in",
  "drift",
  "wrong-key-revoked",
  "blackout",
  "emergency",
  "done",
  "inbox-rejected",
  "escalated",
] as const;
export type NoticeType = (typeof NOTICE_TYPES)[number];

/** Something that a person should know, once. `about`: the type itself, or what an `escalated` one says again. */
export type Notice = {
  readonly key: string;
  readonly type: NoticeType;
  readonly about: NoticeType;
  readonly rotation: string | null;
  readonly text: string;
};

export type Drift = {
  readonly name: string;
  readonly state: "drift" | "absent" | "error";
  readonly fp: Fp | null;
  readonly code: string | null;
};
/** A value in an inbox that is not taken for a key. `fp` is of the value as it is. */
export type BadValue = { readonly inbox: string; readonly fp: Fp; readonly why: string };

/** All that notices are made from. */
export type Situation = {
  readonly app: string;
  readonly state: AppState;
  readonly phase: Phase;
  readonly nowMs: number;
  /** RFC 3339; null = never. */
  readonly dueAt: string | null;
  readonly remindBeforeMs: readonly number[];
  /** The schedule allows to remind now. */
  readonly mayRemind: boolean;
  /** 0 = never again. */
  readonly escalateAfterMs: number;
  readonly drift: readonly Drift[];
  readonly inbox: readonly BadValue[];
  /** What stopped the run before it could be recorded in a rotation. */
  readonly error: Code | null;
};

const DAY_MS = 86_400_000;
/** What ended longer ago is no news for a receiver that was added since. */
const RECENT_MS = DAY_MS;
/** What interrupts a run says nothing of the app; what breaks the ledger cannot be recorded. */
const SILENT: ReadonlySet<Code> = new Set([
  "LOCKED",
  "INTERRUPTED",
  "USAGE",
  "LEDGER_BROKEN",
  "LEDGER_UNWRITABLE",
]);

/** What stands now. The same situation makes the same keys, in every process. */
export const noticesOf = (it: Situation): readonly Notice[] => {
  const { state: s } = it;
  return [
    ...errorNotice(it),
    ...(s.rotation !== null && isOpen(s) ? openNotices(it, s.rotation) : idleNotices(it)),
    ...it.drift.map(driftNotice(it)),
    ...it.inbox.map(inboxNotice(it)),
  ];
};

const make = (
  type: NoticeType,
  key: string,
  text: string,
  rotation: string | null = null,
  about: NoticeType = type,
): Notice => ({ key, type, about, rotation, text });

const short = (fps: readonly Fp[]): string => fps.map(showFp).sort().join("+") || "-";

const errorNotice = ({ app, error, state: s }: Situation): readonly Notice[] => {
  if (error === null || SILENT.has(error)) return [];
  const { exit, what } = CODES[error];
  const type = exit === 4 ? "refused" : "failed";
  return [make(type, `${type}/${error}/${s.freshTs ?? "-"}`, `${app}: ${what}`)];
};

const openNotices = (it: Situation, r: Rotation): readonly Notice[] => {
  const { app, phase, state: s } = it;
  const emergency =
    r.emergency === null
      ? []
      : [
          make(
            "emergency",
            `${r.id}/emergency/${short(r.emergency.leaked)}`,
            `${app}: EMERGENCY, ${leakedWords(r.emergency.leaked)} leaked.`,
            r.id,
          ),
        ];
  const standing = phaseNotice(app, phase, s, r);
  if (standing === null) return emergency;
  return [
    ...emergency,
    standing,
    ...(ESCALATES.has(standing.type) ? again(it, standing, s.news.waiting) : []),
  ];
};

const leakedWords = (fps: readonly Fp[]): string =>
  fps.length === 0 ? "a key" : `the key ${fps.map(showFp).join(", ")}`;

const ESCALATES: ReadonlySet<NoticeType> = new Set([
  "waiting-key",
  "waiting-restart",
  "waiting-revoke",
  "blackout",
]);

const phaseNotice = (app: string, phase: Phase, s: AppState, r: Rotation): Notice | null => {
  const fresh = r.newFp === null ? "-" : showFp(r.newFp);
  const at = (type: NoticeType, detail: string, text: string): Notice =>
    make(type, `${r.id}/${type}/${detail}`, `${app}: ${text}`, r.id);
  switch (phase) {
    case "waiting-key":
      return at("waiting-key", short(r.emergency?.leaked ?? []), "a new API Key is needed.");
    case "waiting-restart":
      return at(
        "waiting-restart",
        `${fresh}/${r.generation}`,
        "the stores hold the new key; what reads them has to be restarted.",
      );
    case "waiting-revoke":
      return at(
        "waiting-revoke",
        short(unproved(s)),
        `everything runs on the new key; the old one (${short(unproved(s))}) has to be revoked in the Dashboard.`,
      );
    case "blackout":
      return at("blackout", fresh, "BLACKOUT, no key works any more; another one is needed now.");
    case "wrong-key-revoked":
      return at("wrong-key-revoked", fresh, "the NEW key was revoked, and an old one still works.");
    case "failed":
      return failure(app, r, fresh);
    case "new":
    case "idle":
    case "staged":
    case "rotating":
      return null;
  }
};

const failure = (app: string, r: Rotation, fresh: string): Notice | null => {
  const found = failureOf(r);
  if (found === null) return null;
  const { exit, what } = CODES[found.code];
  const type = exit === 4 ? "refused" : "failed";
  const target = found.target === null ? "" : ` Target: ${found.target}.`;
  const key = `${r.id}/${type}/${found.code}/${found.target ?? "-"}/${fresh}`;
  return make(type, key, `${app}: the rotation cannot go on. ${what}${target}`, r.id);
};

const idleNotices = (it: Situation): readonly Notice[] => {
  const { app, state: s, phase, nowMs } = it;
  const ended = s.rotation?.ended === "done" && s.lastEnded?.rotation === s.rotation.id ? s.rotation : null;
  const isRecent = s.freshTs !== null && Math.abs(nowMs - Date.parse(s.freshTs)) < RECENT_MS;
  const done =
    ended === null || !isRecent
      ? []
      : [
          make(
            "done",
            `${ended.id}/done`,
            `${app}: the rotation is done; the key is ${s.current === null ? "-" : showFp(s.current)}.`,
            ended.id,
          ),
        ];
  if (phase === "waiting-revoke") {
    const fps = short(unproved(s));
    const text = `${app}: a discarded key (${fps}) still has to be revoked in the Dashboard.`;
    return [...done, make("waiting-revoke", `-/waiting-revoke/${fps}`, text)];
  }
  return phase === "idle" ? [...done, ...reminders(it)] : done;
};

/** The ladder: each step before the due instant, overdue, and then again and again, always later. */
const reminders = (it: Situation): readonly Notice[] => {
  const { app, dueAt, nowMs } = it;
  const { overdue, beforeMs } = reminderAt(dueAt, it.remindBeforeMs, nowMs);
  if (dueAt === null || (!overdue && beforeMs === null)) return [];
  const on = dueAt.slice(0, 10);
  const ladder = overdue
    ? [make("overdue", `due/${dueAt}/overdue`, `${app}: the key is overdue since ${on}; issue a new one.`)]
    : [
        make(
          "due-in",
          `due/${dueAt}/${formatDuration(beforeMs ?? 0)}`,
          `${app}: the key is due on ${on}; issue a new one.`,
        ),
      ];
  const all = ladder.flatMap((n) => [n, ...(overdue ? again(it, n, { ts: dueAt }) : [])]);
  // A message that failed is tried again, whatever the schedule says by then.
  return all.filter((n) => it.mayRemind || isBegun(it.state.news, n.key));
};

const isBegun = (news: News, key: string): boolean =>
  [...news.told.keys()].some((id) => id.endsWith(` ${key}`));

/** At `escalateAfter`, then each time that twice as much time has passed. */
const again = (
  { nowMs, escalateAfterMs }: Situation,
  first: Notice,
  since: { readonly ts: string } | null,
): readonly Notice[] => {
  const gone = since === null ? 0 : nowMs - Date.parse(since.ts);
  if (escalateAfterMs === 0 || !(gone >= escalateAfterMs)) return [];
  const step = 1 + Math.floor(Math.log2(gone / escalateAfterMs));
  const text = `${first.text} Nothing has happened for ${formatDuration(escalateAfterMs * 2 ** (step - 1))}.`;
  return [make("escalated", `${first.key}/escalated/${step}`, text, first.rotation, first.type)];
};

const driftNotice =
  ({ app }: Situation) =>
  ({ name, state, fp, code }: Drift): Notice => {
    const what =
      state === "error"
        ? `cannot be read (${code ?? "UNAVAILABLE"})`
        : state === "absent"
          ? "holds no key any more"
          : `holds ${fp === null ? "another value" : showFp(fp)}, which is not the current key`;
    const detail = state === "drift" ? (fp === null ? "-" : showFp(fp)) : (code ?? "-");
    return make("drift", `drift/${name}/${state}/${detail}`, `${app}: the store ${name} ${what}.`);
  };

const inboxNotice =
  ({ app }: Situation) =>
  ({ inbox, fp, why }: BadValue): Notice =>
    make("inbox-rejected", inboxKey(fp), `${app}: the value in ${inbox} was not taken. ${why}`);

/** The memory of a bad inbox value. */
export const inboxKey = (fp: Fp): string => `inbox-rejected/${showFp(fp)}`;
/** The memory of a value that was taken and could not be removed. */
export const keptKey = (fp: Fp): string => `inbox-kept/${showFp(fp)}`;

/** A message under way for longer than this was not sent: its process is gone. */
export const SENDING_MS = 180_000;
/** About six hours of trying. */
export const MOST_TRIES = 12;

/** What has to be sent to one receiver now. */
export const isOwed = (news: News, key: string, to: string, nowMs: number): boolean => {
  const before = news.told.get(toldKey(key, to));
  if (before === undefined) return true;
  if (before.ok) return false;
  if (before.sending) return pauseLeft(before.ts, SENDING_MS, nowMs) === 0;
  return before.tries < MOST_TRIES && pauseLeft(before.ts, backoffMs(before.tries), nowMs) === 0;
};

const CONDITIONS = /^(?:[^/ ]+\/)?(?:failed|refused|drift)\//;

/** Failures and drift that were told and stand no more: told again when they come again. */
export const overEvents = (news: News, standing: readonly Notice[]): readonly LedgerEvent[] => {
  const keys = new Set(standing.map((n) => n.key));
  return [...news.told.keys()].flatMap((id): LedgerEvent[] => {
    const at = id.indexOf(" ");
    const [to, key] = [id.slice(0, at), id.slice(at + 1)];
    if (!CONDITIONS.test(key) || keys.has(key)) return [];
    return [{ type: "notified", key, ok: true, over: true, ...(to === "" ? {} : { to }) }];
  });
};
