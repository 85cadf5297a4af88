import type { LedgerEvent, Outcome } from "./events.ts";
import {
  lastOf,
  nextGeneration,
  type Position,
  type RolloutProgress,
  type Rotation,
  type StoreProgress,
  setRollout,
  setStore,
} from "./rotation.ts";

const holdsNew = (s: StoreProgress): boolean => s.state === "written" || s.state === "unchanged";

/** An effect is about to happen. */
export const begin = (r: Rotation, e: LedgerEvent & { type: "intent" }, p: Position): Rotation => {
  const intents = new Map(r.intents).set(p.id, {
    target: e.target,
    run: e.run,
    opId: e.opId,
    fp: e.fp,
    at: p.at,
    replaced: null,
  });
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

/** A restart that began before a store was written again took up nobody knows what. */
const isOvertaken = (r: Rotation, intent: string): boolean => (r.intents.get(intent)?.at ?? 0) < r.wroteAt;

/** Of a dropped target nobody wants to know more than that it is over. */
const endDropped = (r: Rotation, target: string, intent: string, outcome: Outcome): Rotation | null => {
  const store = r.stores.get(target);
  const rollout = r.rollouts.get(target);
  const isOver = outcome !== "unknown";
  if (store?.state === "dropped")
    return isOver && store.open?.id === intent ? setStore(r, { ...store, open: null }) : r;
  if (rollout?.state === "dropped")
    return isOver && rollout.open?.id === intent ? setRollout(r, { ...rollout, open: null }) : r;
  return null;
};

const superseding = (r: Rotation, id: string, replaced: string | null): Rotation => {
  const intent = r.intents.get(id);
  if (replaced === null || intent === undefined || intent.replaced !== null) return r;
  return { ...r, intents: new Map(r.intents).set(id, { ...intent, replaced }) };
};

/** A write that found its key there already may be the second try of one that did not live to say what it replaced. */
const replacedBy = (r: Rotation, e: LedgerEvent & { type: "result" }): string | null => {
  if (e.replaced !== undefined || e.outcome !== "ok" || e.changed !== false) return e.replaced ?? null;
  return r.stores.get(r.intents.get(e.intent)?.target ?? "")?.standing ?? null;
};

/** How an effect ended. */
export const end = (before: Rotation, e: LedgerEvent & { type: "result" }, p: Position): Rotation => {
  const r = superseding(before, e.intent, replacedBy(before, e));
  const intent = r.intents.get(e.intent);
  const target = intent?.target ?? "";
  const dropped = endDropped(r, target, e.intent, e.outcome);
  if (dropped !== null) return dropped;
  const store = r.stores.get(target);
  const code = e.code ?? null;
  // What was done for a key that is no longer the new one, or was called off, leaves everything to do.
  const isVoid = e.outcome !== "unknown" && (intent?.fp !== r.newFp || code === "CANCELLED");
  const retryAtMs = e.retryAfterMs === undefined ? null : Date.parse(p.ts) + e.retryAfterMs;
  if (store?.open?.id === e.intent) {
    if (isVoid) return setStore(r, { ...store, state: "pending", code: null, open: null });
    if (e.outcome === "unknown") {
      return setStore(r, {
        ...store,
        state: "unknown",
        code,
        retryAtMs,
        open: { ...store.open, unknown: true },
      });
    }
    if (e.outcome === "failed") {
      const state = code === "CONFLICT" ? "conflict" : "failed";
      return setStore(r, { ...store, state, code, open: null, retryAtMs });
    }
    return wrote(r, store, e.changed !== false, e.revision ?? null, p);
  }
  const rollout = r.rollouts.get(target);
  if (rollout?.open?.id !== e.intent) return r;
  if (isVoid || (e.outcome === "ok" && isOvertaken(r, e.intent)))
    return setRollout(r, { ...rollout, state: "pending", code: null, open: null });
  if (e.outcome === "unknown")
    return setRollout(r, { ...rollout, code, retryAtMs, open: { ...rollout.open, unknown: true } });
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
  const held = { ...r, heldAt: p.at, heldTs: p.ts };
  const written = setStore(held, { ...s, state, code: null, open: null, revision, retryAtMs: null });
  const next = changed ? lookAgainAtMirrors(written) : written;
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

/** Who fills a mirror may have copied what stood there before: it is waited for once more. */
const lookAgainAtMirrors = (r: Rotation): Rotation =>
  [...r.stores.values()]
    .filter((m) => !m.write && holdsNew(m))
    .reduce((all, m) => setStore(all, { ...m, state: "pending", seenAt: 0 }), r);

/** Something was seen. */
export const observe = (r: Rotation, e: LedgerEvent & { type: "observed" }, p: Position): Rotation => {
  const target = e.target ?? r.intents.get(e.intent ?? "")?.target ?? "";
  const store = r.stores.get(target);
  const rollout = r.rollouts.get(target);
  switch (e.what) {
    case "intent": {
      const dropped = endDropped(r, target, e.intent ?? "", e.outcome ?? "unknown");
      if (dropped !== null) return dropped;
      if (store && store.open?.id === e.intent) {
        const isVoid = r.intents.get(e.intent ?? "")?.fp !== r.newFp && e.outcome !== "unknown";
        if (isVoid) return setStore(r, { ...store, state: "pending", code: null, open: null });
        // Who wrote it may not have lived to say what it replaced: it is what stood there before.
        if (e.outcome === "ok")
          return wrote(superseding(r, e.intent ?? "", store.standing), store, true, null, p);
        if (e.outcome === "failed") {
          // Why it did not take place is what the result said; that it did not is no reason.
          if (e.code !== "CONFLICT") return setStore(r, { ...store, state: "pending", open: null });
          return setStore(r, { ...store, state: "conflict", code: e.code, open: null });
        }
        return setStore(r, { ...store, state: "unknown", code: e.code ?? null });
      }
      if (rollout?.open && rollout.open.id === e.intent) {
        const { id } = rollout.open;
        const isOld = r.intents.get(id)?.fp !== r.newFp || isOvertaken(r, id);
        if (e.outcome === "ok" && !isOld) {
          return {
            ...setRollout(r, { ...rollout, state: "done", open: null, proof: 1 }),
            rolledAt: p.at,
            rolledTs: p.ts,
          };
        }
        if (e.outcome === "unknown") return setRollout(r, { ...rollout, code: e.code ?? null });
        return setRollout(r, { ...rollout, state: "pending", open: null });
      }
      return r;
    }
    case "preflight": {
      const preflight = { run: e.run, ok: e.outcome === "ok", code: e.code ?? null };
      if (store) {
        const standing = e.revision ?? store.standing;
        return { ...setStore(r, { ...store, preflight, standing }), preflightRun: e.run };
      }
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
    case "usage":
      return { ...r, usage: e.when === "after" ? { ...r.usage, after: true } : { ...r.usage, before: true } };
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
