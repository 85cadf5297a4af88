import type { LedgerEvent } from "./events.ts";
import {
  freshRollout,
  freshStore,
  nextGeneration,
  type Rotation,
  type RolloutProgress,
  type StoreProgress,
} from "./rotation.ts";

type Rotated = StoreProgress | RolloutProgress;
/** Positions count the events of a ledger; an entry has room for this many. */
const PER_ENTRY = 4096;
export const positionOf = (seq: number, index: number): number => seq * PER_ENTRY + index + 1;
const lastOf = (seq: number): number => positionOf(seq + 1, -1);

export type Position = { readonly at: number; readonly id: string; readonly ts: string };

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
      return {
        ...r,
        mode: e.mode,
        modeTs: r.modeTs ?? p.ts,
        sameApp: e.sameApp,
        acceptedApp: e.acceptedApp === true,
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
    case "closing":
      return { ...r, closing: true };
    case "done":
      return { ...r, ended: "done", waitingFor: null };
    case "abandoned":
      return { ...r, ended: "abandoned", waitingFor: null };
    case "genesis":
    case "adopted":
    case "discarded":
    case "opened":
    case "emergency-requested":
    case "claimed":
    case "renewed":
    case "released":
    case "notified":
    case "rollback-requested":
      return r;
    case "late-effect":
      return late(r, e.target);
  }
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

const drop = (r: Rotation, target: string): Rotation => {
  const store = r.stores.get(target);
  if (store)
    return { ...r, stores: new Map(r.stores).set(target, { ...store, state: "dropped", open: null }) };
  const rollout = r.rollouts.get(target);
  if (rollout)
    return { ...r, rollouts: new Map(r.rollouts).set(target, { ...rollout, state: "dropped", open: null }) };
  return r;
};

const holdsNew = (s: StoreProgress): boolean => s.state === "written" || s.state === "unchanged";
const setStore = (r: Rotation, s: StoreProgress): Rotation => ({
  ...r,
  stores: new Map(r.stores).set(s.name, s),
});
const setRollout = (r: Rotation, w: RolloutProgress): Rotation => ({
  ...r,
  rollouts: new Map(r.rollouts).set(w.name, w),
});

const begin = (r: Rotation, e: LedgerEvent & { type: "intent" }, p: Position): Rotation => {
  const intents = new Map(r.intents).set(p.id, { target: e.target, run: e.run, opId: e.opId, fp: e.fp });
  const open = { id: p.id, run: e.run, unknown: false };
  const store = r.stores.get(e.target);
  if (store) {
    const next: StoreProgress = { ...store, open, tries: store.tries + 1, retryAtMs: null };
    return { ...setStore(r, next), intents, wroteAt: p.at };
  }
  const rollout = r.rollouts.get(e.target);
  if (rollout) {
    const next: RolloutProgress = {
      ...rollout,
      open,
      state: "rolling",
      tries: rollout.tries + 1,
      retryAtMs: null,
    };
    return { ...setRollout(r, next), intents, rolledAt: p.at };
  }
  return { ...r, intents };
};

const end = (r: Rotation, e: LedgerEvent & { type: "result" }, p: Position): Rotation => {
  const intent = r.intents.get(e.intent);
  const target = intent?.target ?? "";
  const store = r.stores.get(target);
  const code = e.code ?? null;
  // What was done for a key that is no longer the new one, or was called off, leaves everything to do.
  const isVoid = e.outcome !== "unknown" && (intent?.fp !== r.newFp || code === "CANCELLED");
  const retryAtMs = e.retryAfterMs === undefined ? null : Date.parse(p.ts) + e.retryAfterMs;
  if (store?.open?.id === e.intent) {
    if (isVoid) return setStore(r, { ...store, state: "pending", code: null, open: null });
    if (e.outcome === "unknown") {
      return setStore(r, { ...store, state: "unknown", code, open: { ...store.open, unknown: true } });
    }
    if (e.outcome === "failed") {
      const state = code === "CONFLICT" ? "conflict" : "failed";
      return setStore(r, { ...store, state, code, open: null, retryAtMs });
    }
    return wrote(r, store, e.changed !== false, e.revision ?? null, p);
  }
  const rollout = r.rollouts.get(target);
  if (rollout?.open?.id !== e.intent) return r;
  if (isVoid) return setRollout(r, { ...rollout, state: "pending", code: null, open: null });
  if (e.outcome === "unknown")
    return setRollout(r, { ...rollout, code, open: { ...rollout.open, unknown: true } });
  const reason = e.reason ?? null;
  if (e.outcome === "failed") {
    const state = code === "HELD" ? "held" : "failed";
    return { ...setRollout(r, { ...rollout, state, code, reason, open: null, retryAtMs }), rolledAt: p.at };
  }
  const done: RolloutProgress = {
    ...rollout,
    state: "done",
    code: null,
    reason,
    open: null,
    proof: e.proof ?? 0,
  };
  return { ...setRollout(r, done), rolledAt: p.at, rolledTs: p.ts };
};

/**
 * A store holds the new key now. Whatever was restarted before has to be restarted again, also when somebody else put the key there: it may
 * have read another one in between.
 */
const wrote = (
  r: Rotation,
  s: StoreProgress,
  changed: boolean,
  revision: string | null,
  p: Position,
): Rotation => {
  const state = changed ? "written" : "unchanged";
  const next = setStore(r, { ...s, state, code: null, open: null, revision, retryAtMs: null });
  const wroteAt = changed ? p.at : r.wroteAt;
  const wroteTs = changed ? p.ts : r.wroteTs;
  if (r.rolledAt <= r.generationAt) return { ...next, wroteAt, wroteTs };
  const rollouts = new Map(
    [...r.rollouts].map(([name, w]) => [
      name,
      w.state === "done" && w.type !== "none" ? { ...w, state: "pending" as const, tries: 0 } : w,
    ]),
  );
  return { ...nextGeneration(next), rollouts, wroteAt: p.at, wroteTs };
};

const observe = (r: Rotation, e: LedgerEvent & { type: "observed" }, p: Position): Rotation => {
  const target = e.target ?? r.intents.get(e.intent ?? "")?.target ?? "";
  const store = r.stores.get(target);
  const rollout = r.rollouts.get(target);
  switch (e.what) {
    case "intent":
      if (store && store.open?.id === e.intent) {
        const isVoid = r.intents.get(e.intent ?? "")?.fp !== r.newFp && e.outcome !== "unknown";
        if (isVoid) return setStore(r, { ...store, state: "pending", code: null, open: null });
        if (e.outcome === "ok") return wrote(r, store, true, null, p);
        if (e.outcome === "failed") {
          const state = e.code === "CONFLICT" ? "conflict" : "pending";
          return setStore(r, { ...store, state, code: e.code ?? null, open: null });
        }
        return setStore(r, { ...store, state: "unknown", code: e.code ?? null });
      }
      if (rollout && rollout.open?.id === e.intent) {
        const isOld = r.intents.get(e.intent ?? "")?.fp !== r.newFp;
        if (e.outcome === "ok" && !isOld) {
          return {
            ...setRollout(r, { ...rollout, state: "done", open: null, proof: 1 }),
            rolledAt: p.at,
            rolledTs: p.ts,
          };
        }
        if (e.outcome === "unknown" && !isOld) return setRollout(r, { ...rollout, code: e.code ?? null });
        return setRollout(r, { ...rollout, state: "pending", open: null });
      }
      return r;
    case "preflight": {
      const preflight = { run: e.run, ok: e.outcome === "ok", code: e.code ?? null };
      if (store) return { ...setStore(r, { ...store, preflight }), preflightRun: e.run };
      if (rollout) return { ...setRollout(r, { ...rollout, preflight }), preflightRun: e.run };
      return { ...r, preflightRun: e.run };
    }
    case "target": {
      if (!store || store.state === "dropped" || store.open !== null) return r;
      const sawAt = e.asOf === undefined ? p.at : lastOf(e.asOf);
      if (sawAt < r.wroteAt) return r;
      if (e.outcome === "ok" && e.fp === r.newFp) {
        const seenAt = Math.min(p.at, sawAt);
        if (holdsNew(store)) return setStore(r, { ...store, code: null, seenAt });
        return setStore(wrote(r, store, false, store.revision, p), {
          ...store,
          state: "unchanged",
          code: null,
          seenAt,
        });
      }
      if (e.outcome === "ok") return setStore(r, { ...store, state: "pending", code: "DRIFT", seenAt: 0 });
      // Not to be read is no news about what it holds.
      const state = e.code === "CONFLICT" ? "conflict" : holdsNew(store) ? store.state : "failed";
      return setStore(r, { ...store, state, code: e.code ?? null, seenAt: 0 });
    }
    case "verdict": {
      if (e.fp !== r.newFp) return r;
      if (e.verdict === "accepted") {
        return {
          ...r,
          wrongKey: false,
          newRejected: false,
          verified: r.verified?.ok === false ? null : r.verified,
        };
      }
      const seen = { ...r, newRejected: r.newRejected || e.verdict === "rejected" };
      return e.code === undefined ? seen : { ...seen, verified: { run: e.run, ok: false, code: e.code } };
    }
  }
};

const restarted = (r: Rotation, targets: readonly string[], p: Position): Rotation => {
  let next = r;
  for (const name of targets) {
    const rollout = next.rollouts.get(name);
    if (rollout) next = setRollout(next, { ...rollout, state: "done", code: null, open: null, proof: 0 });
  }
  return { ...next, rolledAt: p.at, rolledTs: p.ts };
};
