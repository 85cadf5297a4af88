import type { LedgerEvent } from "./events.ts";
import { begin, end, observe } from "./effects.ts";
import {
  type Emergency,
  freshRollout,
  freshStore,
  type Position,
  type RolloutProgress,
  type Rotation,
  rekey,
  type StoreProgress,
  setRollout,
  setStore,
} from "./rotation.ts";

type Rotated = StoreProgress | RolloutProgress;
/** One event of this rotation. Unknown orders never throw: a result for an unknown intent changes nothing. */
export const evolveRotation = (r: Rotation, e: LedgerEvent, p: Position): Rotation => {
  switch (e.type) {
    case "run-started":
      return startRun(r, e.run);
    case "staged":
      return e.fp === r.newFp && e.verdict === "accepted" ? { ...r, wrongKey: false, newRejected: false } : r;
    case "plan-amended":
      return amend(r, e);
    case "mode-found":
      // Another key may have taken its place while it was asked about.
      if (e.fp !== r.newFp) return r;
      return {
        ...r,
        mode: e.mode,
        modeTs: r.modeTs ?? p.ts,
        sameApp: e.sameApp,
        acceptedApp: e.acceptedApp === true,
        appFingerprint: e.appFingerprint,
        wrongKey: false,
        newRejected: false,
        verified: { run: e.run, ok: true, code: null },
      };
    case "intent":
      return begin(r, e, p);
    case "result":
      return end(r, e, p);
    case "observed":
      return observe(r, e, p);
    case "restarted":
      return restarted(r, e.targets, p);
    case "waiting":
      return { ...r, waitingFor: e.for };
    case "waived":
      return e.target === undefined ? r : drop(r, e.target);
    case "wrong-key-revoked":
      return e.new === r.newFp ? { ...r, wrongKey: true, newRejected: true } : r;
    case "proof":
      return { ...r, provedAt: p.at, provedRun: r.run };
    case "emergency-requested":
      return alarmed(r, e, p);
    case "rollback-requested":
      return { ...rekey(r, e.to, p.ts), rolledBack: true };
    case "closing":
      return { ...r, closing: true };
    case "done":
      return { ...r, ended: "done", waitingFor: null };
    case "abandoned":
      return { ...r, ended: "abandoned", waitingFor: null };
    case "discarded":
      // The leak goes on: the rotation waits for another key.
      return r.emergency !== null && e.fp === r.newFp ? rekey(r, null, p.ts) : r;
    case "genesis":
    case "adopted":
    case "opened":
    case "claimed":
    case "renewed":
    case "released":
    case "notified":
      return r;
    case "late-effect":
      return late(r, e.target);
  }
};

/** A leaked key cannot become the current one: the rotation waits for another. */
const alarmed = (r: Rotation, e: LedgerEvent & { type: "emergency-requested" }, p: Position): Rotation => {
  const before = r.emergency?.leaked ?? [];
  const fresh = e.leaked === null || before.includes(e.leaked) ? [] : [e.leaked];
  const leaked = [...before, ...fresh];
  const since = e.since ?? r.emergency?.since ?? null;
  const ts = r.emergency?.ts ?? p.ts;
  const emergency: Emergency = { leaked, since, order: e.order, ts };
  const waiting = r.waitingFor === "soak" ? null : r.waitingFor;
  const kept = r.newFp !== null && r.newFp === e.leaked ? rekey(r, null, p.ts) : r;
  return { ...kept, emergency, waitingFor: kept === r ? waiting : null };
};

const startRun = (r: Rotation, run: number): Rotation => ({
  ...r,
  run,
  stores: new Map(
    [...r.stores].map(([name, s]) => [
      name,
      s.state === "failed" || s.state === "conflict"
        ? { ...s, state: "pending", tries: 0, retryAtMs: null }
        : { ...s, tries: 0, retryAtMs: null },
    ]),
  ),
  rollouts: new Map(
    [...r.rollouts].map(([name, w]) => [
      name,
      w.state === "failed" || w.state === "held"
        ? { ...w, state: "pending", tries: 0, retryAtMs: null }
        : { ...w, tries: 0, retryAtMs: null },
    ]),
  ),
});

const amend = (r: Rotation, e: LedgerEvent & { type: "plan-amended" }): Rotation => {
  const stores = new Map(r.stores);
  for (const s of e.stores)
    stores.set(s.name, { ...keepIfSame(stores.get(s.name), freshStore(s)), ...s, preflight: null });
  const rollouts = new Map(r.rollouts);
  for (const w of e.rollouts)
    rollouts.set(w.name, { ...keepIfSame(rollouts.get(w.name), freshRollout(w)), ...w });
  const amended: Rotation = { ...r, stores, rollouts, preflightRun: 0 };
  return e.dropped.reduce(drop, amended);
};

/** A target that moved to another place is a new one: nothing is known of that place. */
const keepIfSame = <T extends { readonly where: string; readonly open: Rotated["open"] }>(
  before: T | undefined,
  fresh: T,
): T =>
  before === undefined ? fresh : before.where === fresh.where ? before : { ...fresh, open: before.open };

/** A rotator that had been given up for dead wrote after all: the store has to be read again. */
const late = (r: Rotation, target: string): Rotation => {
  const store = r.stores.get(target);
  return store === undefined ? r : setStore(r, { ...store, seenAt: 0 });
};

/** What was begun there and has no known end is closed when the rotation ends. */
const drop = (r: Rotation, target: string): Rotation => {
  const store = r.stores.get(target);
  if (store) return setStore(r, { ...store, state: "dropped" });
  const rollout = r.rollouts.get(target);
  return rollout ? setRollout(r, { ...rollout, state: "dropped" }) : r;
};

const restarted = (r: Rotation, targets: readonly string[], p: Position): Rotation => {
  let next = r;
  for (const name of targets) {
    const rollout = next.rollouts.get(name);
    if (rollout) next = setRollout(next, { ...rollout, state: "done", code: null, open: null, proof: 0 });
  }
  return { ...next, rolledAt: p.at, rolledTs: p.ts };
};
