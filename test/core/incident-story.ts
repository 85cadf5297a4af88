import { follow, seal } from "../../src/core/chain.ts";
import type { Entry, Evidence, LedgerEvent, TriadEvidence } from "../../src/core/events.ts";
import { bodyOf, genesis } from "../kit/ledger-story.ts";

export const R = "r1";
export const OLD = "7c2e91aa00000001";
export const NEW = "b40d55e200000002";
export const OTHER = "e91f03cc00000003";

/** Entries of one ledger: when (a time of 2 March 2026, UTC), who, what. */
export type Said = { readonly at: string; readonly by?: string; readonly events: readonly LedgerEvent[] };

/** An instant of that day. */
export const ts = (at: string): string => `2026-03-02T${at.length === 5 ? `${at}:00` : at}.000Z`;

export const ledgerOf = (story: readonly Said[]): readonly Entry[] => {
  const entries: Entry[] = [];
  for (const { at, by = "may", events } of [{ at: "07:00", events: [genesis] }, ...story]) {
    const last = entries.at(-1) ?? null;
    const change = { ts: ts(at), actor: { kind: "person", id: by } };
    const followed = follow(last, seal(bodyOf(entries.length, last?.h ?? null, events, change)).line);
    if ("problem" in followed) throw new Error(followed.problem);
    entries.push(followed.entry);
  }
  return entries;
};

export const openedAs = (change: Partial<LedgerEvent & { type: "opened" }> = {}): LedgerEvent => ({
  type: "opened",
  rotation: R,
  new: null,
  old: [OLD],
  current: OLD,
  stores: [{ name: "env", type: "dotenv", where: "dotenv:/srv/.env#KEY", required: true, write: true }],
  rollouts: [{ name: "api", type: "exec", where: "exec:restart", required: true, canary: false, after: [] }],
  reason: "found in a log",
  ticket: "SEC-7",
  ...change,
});
export const adopted: LedgerEvent = {
  type: "adopted",
  mode: "current",
  by: "auto",
  current: OLD,
  old: [],
  stale: [],
  stores: [{ name: "env", fp: OLD }],
  appFingerprint: null,
};
export const leaked = (change: Partial<LedgerEvent & { type: "emergency-requested" }> = {}): LedgerEvent => ({
  type: "emergency-requested",
  rotation: R,
  leaked: OLD,
  since: null,
  order: "replace-first",
  ...change,
});
export const run = (n = 1): LedgerEvent => ({ type: "run-started", rotation: R, run: n });
export const verdict = (
  fp: string,
  word: "accepted" | "rejected" | "unclear",
  acceptedTs?: string,
): LedgerEvent => ({
  type: "observed",
  what: "verdict",
  rotation: R,
  run: 1,
  fp,
  verdict: word,
  ...(acceptedTs === undefined ? {} : { acceptedTs }),
});
export const staged = (fp = NEW): LedgerEvent => ({
  type: "staged",
  rotation: R,
  fp,
  verdict: "accepted",
  source: "prompt",
  sameApp: "proved",
  appFingerprint: null,
});
export const modeFound = (change: Partial<LedgerEvent & { type: "mode-found" }> = {}): LedgerEvent => ({
  type: "mode-found",
  rotation: R,
  run: 1,
  mode: "overlap",
  fp: NEW,
  sameApp: "proved",
  appFingerprint: null,
  ...change,
});
export const intends = (target: string, action: "write" | "roll", fp = NEW): LedgerEvent => ({
  type: "intent",
  rotation: R,
  run: 1,
  target,
  action,
  opId: "0f".repeat(16),
  fp,
});
export const ended = (
  intent: string,
  change: Partial<LedgerEvent & { type: "result" }> = {},
): LedgerEvent => ({
  type: "result",
  rotation: R,
  intent,
  outcome: "ok",
  ...change,
});
export const readBack = (fp = NEW): LedgerEvent => ({
  type: "observed",
  what: "target",
  rotation: R,
  run: 1,
  target: "env",
  outcome: "ok",
  fp,
});
export const counted = (when: "before" | "after", messages: number): LedgerEvent => ({
  type: "observed",
  what: "usage",
  rotation: R,
  run: 1,
  when,
  fp: when === "before" ? OLD : NEW,
  usage: { users: 2, rooms: 1, totalRooms: 12, messages, peakConnections: null },
});
const answer = (word: Evidence["verdict"], status: number, code: string | null): Evidence => ({
  verdict: word,
  status,
  code,
  atMs: 1,
  date: "Mon, 02 Mar 2026 08:20:00 GMT",
});
export const triad = (change: Partial<TriadEvidence> = {}): TriadEvidence => ({
  new: answer("accepted", 200, null),
  old: answer("rejected", 401, "INVALID_API_KEY"),
  control: answer("rejected", 401, "INVALID_API_KEY"),
  ...change,
});
export const accepted = answer("accepted", 200, null);
export const proof = (fp = OLD, change: Partial<LedgerEvent & { type: "proof" }> = {}): LedgerEvent => ({
  type: "proof",
  rotation: R,
  fp,
  control: true,
  triads: [triad(), triad(), triad()],
  ...change,
});
export const done: LedgerEvent = { type: "done", rotation: R, appFingerprint: null };

/** A whole emergency, replace-first: entry 4 is the write, 6 the restart. */
export const WHOLE: readonly Said[] = [
  { at: "07:59", events: [adopted] },
  { at: "08:00", events: [openedAs(), leaked()] },
  { at: "08:01", events: [run(), verdict(OLD, "accepted"), counted("before", 40)] },
  { at: "08:05", by: "kim", events: [staged(), modeFound(), intends("env", "write")] },
  { at: "08:05:02", events: [ended("4.2", { changed: true }), readBack()] },
  { at: "08:05:03", events: [intends("api", "roll")] },
  { at: "08:05:09", events: [ended("6.0", { proof: 1 })] },
  { at: "08:05:10", events: [readBack(), { type: "waiting", rotation: R, for: "revoke" }] },
  { at: "08:07:00", events: [verdict(OLD, "rejected", ts("08:06:50"))] },
  { at: "08:07:30", events: [proof()] },
  { at: "08:07:31", events: [readBack(), counted("after", 55), done] },
];
