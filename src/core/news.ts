import type { LedgerEvent } from "./events.ts";
import type { Fp } from "./secret.ts";

/** One message to one receiver, as the ledger tells it. */
export type Told = {
  readonly ok: boolean;
  /** Somebody began to send it, and has not said how it ended. */
  readonly sending: boolean;
  readonly tries: number;
  readonly ts: string;
};

/** What the ledger says beside the keys: who was told what, since when a person is waited for, how often a rotation failed. */
export type News = {
  /** By `toldKey`. */
  readonly told: ReadonlyMap<string, Told>;
  readonly waiting: { readonly for: string; readonly ts: string } | null;
  /** Runs in a row without progress, and when the last one ended. null = none has ended since. */
  readonly failing: { readonly runs: number; readonly ts: string | null };
  /** Keys that came in by an inbox. */
  readonly inbox: ReadonlySet<Fp>;
};

const CALM: News["failing"] = { runs: 0, ts: null };
export const NO_NEWS: News = { told: new Map(), waiting: null, failing: CALM, inbox: new Set() };

/** `to` is the receiver; empty = the output of the run itself. */
export const toldKey = (key: string, to = ""): string => `${to} ${key}`;

/** The same state with the news after one more event. */
export const withNews = <S extends { readonly news: News }>(s: S, e: LedgerEvent, ts: string): S => {
  const news = evolveNews(s.news, e, ts);
  return news === s.news ? s : { ...s, news };
};

const evolveNews = (news: News, e: LedgerEvent, ts: string): News => {
  switch (e.type) {
    case "notified":
      return { ...news, told: told(news.told, e, ts) };
    case "waiting":
      return { ...news, waiting: { for: e.for, ts } };
    case "run-started":
      return { ...news, failing: { runs: news.failing.runs + 1, ts: null } };
    case "released":
      return e.rotation === undefined ? news : { ...news, failing: { ...news.failing, ts } };
    case "result":
      return e.outcome === "ok" ? calm(news) : news;
    case "staged":
      return e.source === "inbox" ? { ...calm(news), inbox: new Set(news.inbox).add(e.fp) } : calm(news);
    case "opened":
    case "done":
    case "abandoned":
      return { ...calm(news), waiting: null };
    case "emergency-requested":
    case "rollback-requested":
    case "restarted":
    case "plan-amended":
    case "proof":
    case "waived":
      return calm(news);
    case "genesis":
    case "adopted":
    case "discarded":
    case "mode-found":
    case "claimed":
    case "renewed":
    case "intent":
    case "observed":
    case "wrong-key-revoked":
    case "late-effect":
    case "closing":
      return news;
  }
};

const calm = (news: News): News => (news.failing === CALM ? news : { ...news, failing: CALM });

const told = (
  before: News["told"],
  e: LedgerEvent & { readonly type: "notified" },
  ts: string,
): News["told"] => {
  const key = toldKey(e.key, e.to);
  const all = new Map(before);
  if (e.over === true) {
    all.delete(key);
    return all;
  }
  const tries = (before.get(key)?.tries ?? 0) + (e.sending === true ? 1 : 0);
  return all.set(key, { ok: e.ok, sending: e.sending === true, tries, ts });
};
