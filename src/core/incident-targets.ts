import type { LedgerEvent } from "./events.ts";
import { lastTold, type Mark, type Reading } from "./incident-read.ts";
import { plain } from "./incident-text.ts";
import { storeLines, workloadLines } from "./report.ts";
import type { RolloutProgress } from "./rotation.ts";

export type StoreReport = {
  readonly name: string;
  readonly type: string;
  readonly where: string;
  readonly required: boolean;
  readonly state: string;
  readonly code: string | null;
  /** The entry by which it holds the new key; null = it does not, as far as we know. */
  readonly written: Mark | null;
  /** It held the new key already: we wrote nothing. */
  readonly unchanged: boolean;
  /** The last time that it was read and held the new key. */
  readonly readBack: Mark | null;
};
export type WorkloadReport = {
  readonly name: string;
  readonly type: string;
  readonly where: string;
  readonly required: boolean;
  readonly state: string;
  readonly restarted: Mark | null;
  readonly proof: number | null;
  /** What that level of proof means. */
  readonly basis: string;
  readonly reason: string | null;
};

export const storeReports = (reading: Reading): readonly StoreReport[] => {
  const { s, r, inside } = reading;
  const lines = new Map(storeLines(s).map((line) => [line.name, line]));
  return [...r.stores.values()].map((store) => {
    const { name, type, where, required } = store;
    const state = lines.get(name)?.state ?? store.state;
    const holds = state === "written" || state === "unchanged";
    const isRead = (e: LedgerEvent): boolean =>
      e.type === "observed" &&
      e.what === "target" &&
      e.target === name &&
      e.outcome === "ok" &&
      e.fp === r.newFp;
    const wrote = lastTold(inside, (e) => isEndOf(reading, e, name));
    const readBack = lastTold(inside, isRead);
    return {
      name: plain(name, 60),
      type: plain(type, 60),
      where: plain(where, 200),
      required,
      state,
      code: lines.get(name)?.code ?? null,
      written: holds ? ((state === "written" ? wrote : (wrote ?? readBack))?.mark ?? null) : null,
      unchanged: state === "unchanged",
      readBack: holds ? (readBack?.mark ?? null) : null,
    };
  });
};

/** An effect on that target, for the key that is the new one now, that took place. */
const isEndOf = ({ r }: Reading, e: LedgerEvent, target: string): boolean => {
  const ended = e.type === "result" || (e.type === "observed" && e.what === "intent");
  if (!ended || e.outcome !== "ok") return false;
  const intent = r.intents.get(e.intent ?? "");
  return intent?.target === target && intent.fp === r.newFp;
};

export const workloadReports = (reading: Reading): readonly WorkloadReport[] => {
  const { s, r, inside } = reading;
  const lines = new Map(workloadLines(s).map((line) => [line.name, line]));
  return [...r.rollouts.values()].map((w) => {
    const { name, type, where, required } = w;
    const said = (e: LedgerEvent): boolean => e.type === "restarted" && e.targets.includes(name);
    const mark = lastTold(inside, (e) => said(e) || isEndOf(reading, e, name))?.mark ?? null;
    const isDone = w.state === "done" && type !== "none";
    return {
      name: plain(name, 60),
      type: plain(type, 60),
      where: plain(where, 200),
      required,
      state: w.state === "dropped" ? "dropped" : (lines.get(name)?.state ?? w.state),
      restarted: isDone ? mark : null,
      proof: w.state === "done" ? (w.proof ?? 0) : null,
      basis: basisOf(w),
      reason: w.reason === null ? null : plain(w.reason) || null,
    };
  });
};

const basisOf = (w: RolloutProgress): string => {
  if (w.state === "dropped") return "left out by a person";
  if (w.type === "none") return "nothing to restart: the config says so, nobody looked";
  if (w.state !== "done") return "not restarted yet";
  if (w.proof === 2) return "the workload itself showed the new key's fingerprint";
  if (w.proof === 1) return "seen restarted after the write";
  if (w.type === "manual") return "a person said so, nobody looked";
  return "what restarts it reported success, nobody looked at the workload";
};
