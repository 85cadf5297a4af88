import type { LedgerEvent, ProcessClaim, SameApp, Verdict } from "./events.ts";
import { evolveRotation } from "./evolve.ts";
import { type News, NO_NEWS, withNews } from "./news.ts";
import { openRotation, positionOf, type Rotation, rekey } from "./rotation.ts";
import type { Fp } from "./secret.ts";
import { amendOld, join, leave, type OldKeys, without } from "./old-keys.ts";
import { see, type Sightings } from "./sightings.ts";

export type Staged = {
  readonly fp: Fp;
  readonly verdict: Verdict;
  readonly sameApp: SameApp;
  readonly ts: string;
};

/** What one app's ledger says is true. Never stored, only folded. */
export type AppState = {
  readonly app: string | null;
  readonly salt: string | null;
  readonly adopted: boolean;
  /** What the stores should hold while no rotation is open. */
  readonly current: Fp | null;
  /** Last fingerprint seen in, or written to, each store. */
  readonly lastSeen: ReadonlyMap<string, Fp | null>;
  /** Every key fingerprint that the ledger names. */
  readonly known: ReadonlySet<Fp>;
  /** When each key came in that a person gave, and no store. */
  readonly came: ReadonlyMap<Fp, string>;
  readonly stale: ReadonlySet<Fp>;
  readonly dead: ReadonlySet<Fp>;
  readonly old: OldKeys;
  /** Discarded with --forget: no proof is needed, `status` still tells. */
  readonly forgotten: ReadonlySet<Fp>;
  readonly staged: Staged | null;
  readonly verdicts: Sightings;
  /** Keys that a person called leaked. */
  readonly leaked: ReadonlySet<Fp>;
  readonly appFingerprint: string | null;
  readonly rotation: Rotation | null;
  readonly claim: (ProcessClaim & { readonly at: number }) | null;
  /** UTC instant of the last `done`, else of `adopted`. */
  readonly freshTs: string | null;
  readonly news: News;
  readonly lastEnded: {
    readonly rotation: string;
    readonly newFp: Fp | null;
    readonly old: readonly Fp[];
  } | null;
};

export const EMPTY: AppState = {
  app: null,
  salt: null,
  adopted: false,
  current: null,
  lastSeen: new Map(),
  known: new Set(),
  came: new Map(),
  stale: new Set(),
  dead: new Set(),
  old: new Map(),
  forgotten: new Set(),
  staged: null,
  verdicts: new Map(),
  leaked: new Set(),
  appFingerprint: null,
  rotation: null,
  claim: null,
  freshTs: null,
  news: NO_NEWS,
  lastEnded: null,
};

/** Where an event stands: entry, index in it, and the entry's time. */
export type At = { readonly seq: number; readonly index: number; readonly ts: string };

/** Pure: same events, same state. One step of the fold. */
export const evolve = (s: AppState, e: LedgerEvent, at: At): AppState => {
  const next = withNews(evolveApp(s, e, at), e, at.ts);
  const r = next.rotation;
  if (r === null || r.ended !== null || !("rotation" in e) || e.rotation !== r.id || e.type === "opened")
    return next;
  const position = { at: positionOf(at.seq, at.index), id: `${at.seq}.${at.index}`, ts: at.ts };
  const rotation = evolveRotation(r, e, position);
  return rotation === r ? next : { ...next, rotation };
};

const evolveApp = (s: AppState, e: LedgerEvent, at: At): AppState => {
  switch (e.type) {
    case "genesis":
      return { ...s, app: e.app, salt: e.salt };
    case "adopted":
      return adopted(s, e, at);
    case "staged":
      return staged(s, e, at);
    case "discarded":
      return discarded(s, e, at);
    case "opened":
      return opened(s, e, at);
    case "mode-found":
      return { ...s, verdicts: see(s.verdicts, e.fp, { verdict: "accepted", ts: at.ts, ...yesOf(e) }) };
    case "observed":
      return observed(s, e, at);
    case "result":
      return resulted(s, e);
    case "claimed":
      return { ...s, claim: { ...e, at: at.seq } };
    case "released":
      return s.claim?.inst === e.inst ? { ...s, claim: null } : s;
    case "wrong-key-revoked":
      return { ...s, verdicts: see(s.verdicts, e.new, { verdict: "rejected", ts: at.ts }) };
    case "proof":
      return {
        ...s,
        // Outside of a rotation nothing is left to close: the key is dead and no old key any more.
        old: e.rotation === undefined ? leave(s.old, e.fp) : amendOld(s.old, e.fp, { proved: true }),
        dead: new Set(s.dead).add(e.fp),
        verdicts: see(s.verdicts, e.fp, { verdict: "rejected", ts: at.ts }),
        forgotten: without(s.forgotten, e.fp),
      };
    case "waived":
      return e.fp === undefined
        ? s
        : { ...s, old: amendOld(s.old, e.fp, { waived: true }), forgotten: without(s.forgotten, e.fp) };
    case "done":
      return done(s, e, at);
    case "abandoned":
      if (s.current === null || s.rotation?.id !== e.rotation) return s;
      return { ...s, old: leave(s.old, s.current), leaked: without(s.leaked, s.current) };
    case "emergency-requested":
      return leaked(s, e);
    case "rollback-requested":
      return rolledBack(s, e);
    case "plan-amended":
    case "run-started":
    case "renewed":
    case "intent":
    case "waiting":
    case "notified":
    case "restarted":
    case "late-effect":
    case "closing":
      return s;
  }
};

const yesOf = ({ acceptedTs }: { readonly acceptedTs?: string }): { readonly acceptedTs?: string } =>
  acceptedTs === undefined ? {} : { acceptedTs };

const comes = (s: AppState, fp: Fp, at: At): AppState["came"] =>
  s.known.has(fp) ? s.came : new Map(s.came).set(fp, at.ts);

/**
 * Whatever is known and was not rejected is an old key: also the one that was current until now and is in no store any more, and, while a
 * rotation is open, the one that a person calls current.
 */
const adoptedOld = (s: AppState, e: LedgerEvent & { type: "adopted" }): readonly Fp[] => {
  const newFp = isOpen(s) ? s.rotation?.newFp : e.current;
  const before =
    s.adopted && s.current !== null && s.verdicts.get(s.current)?.verdict !== "rejected" ? [s.current] : [];
  const named = isOpen(s) && e.current !== null ? [e.current] : [];
  return [...e.old, ...before, ...named].filter(
    (fp) => fp !== newFp && !e.stale.includes(fp) && !s.dead.has(fp),
  );
};

const adopted = (s: AppState, e: LedgerEvent & { type: "adopted" }, at: At): AppState => ({
  ...s,
  adopted: true,
  current: e.current,
  lastSeen: new Map(e.stores.map(({ name, fp }) => [name, fp])),
  known: new Set([...s.known, ...e.old, ...e.stale, ...(e.current === null ? [] : [e.current])]),
  stale: new Set(e.stale),
  old: adoptedOld(s, e).reduce((old, fp) => join(old, fp), s.old),
  appFingerprint: e.appFingerprint ?? s.appFingerprint,
  // A key grows no younger by being looked at once more.
  freshTs: s.adopted && s.current === e.current ? s.freshTs : at.ts,
});

const staged = (s: AppState, e: LedgerEvent & { type: "staged" }, at: At): AppState => {
  const base: AppState = {
    ...s,
    known: new Set(s.known).add(e.fp),
    came: comes(s, e.fp, at),
    verdicts: see(s.verdicts, e.fp, { verdict: e.verdict, ts: at.ts, ...yesOf(e) }),
    old: leave(e.replaces === undefined ? s.old : join(s.old, e.replaces), e.fp),
    forgotten: without(s.forgotten, e.fp),
  };
  const key: Staged = { fp: e.fp, verdict: e.verdict, sameApp: e.sameApp, ts: at.ts };
  const r = s.rotation;
  const takesOver = r !== null && r.ended === null && e.rotation === r.id;
  if (!takesOver) return { ...base, staged: key };
  // What waited for the next rotation is nobody's new key any more.
  const left =
    s.staged !== null && s.staged.fp !== e.fp && s.staged.sameApp !== "different" ? s.staged.fp : null;
  const old = left === null ? base.old : join(base.old, left);
  return { ...base, old, staged: null, rotation: r.newFp === e.fp ? r : rekey(r, e.fp, at.ts) };
};

/** Whatever place it had: a leaked key is one that has to die. */
const leaked = (s: AppState, e: LedgerEvent & { type: "emergency-requested" }): AppState => {
  const fp = e.leaked;
  if (fp === null || s.dead.has(fp)) return s;
  return {
    ...s,
    known: new Set(s.known).add(fp),
    leaked: new Set(s.leaked).add(fp),
    staged: s.staged?.fp === fp ? null : s.staged,
    old: join(s.old, fp),
    forgotten: without(s.forgotten, fp),
  };
};

const rolledBack = (s: AppState, e: LedgerEvent & { type: "rollback-requested" }): AppState => {
  const r = s.rotation;
  if (r === null || r.id !== e.rotation || r.ended !== null) return s;
  const foreign = r.sameApp === "different" && !r.acceptedApp;
  const old = leave(s.old, e.to);
  return { ...s, old: r.newFp === null || foreign ? old : join(old, r.newFp) };
};

/** A dropped key of another app was never ours: it leaves without joining the old set. */
const discarded = (s: AppState, e: LedgerEvent & { type: "discarded" }, at: At): AppState => {
  const staged = s.staged?.fp === e.fp ? null : s.staged;
  const foreign = s.staged?.fp === e.fp && s.staged.sameApp === "different";
  const known = new Set(s.known).add(e.fp);
  const came = comes(s, e.fp, at);
  if (e.forget)
    return { ...s, known, came, staged, old: leave(s.old, e.fp), forgotten: new Set(s.forgotten).add(e.fp) };
  return { ...s, known, came, staged, old: foreign ? s.old : join(s.old, e.fp, true) };
};

const opened = (s: AppState, e: LedgerEvent & { type: "opened" }, at: At): AppState => ({
  ...s,
  staged: e.new !== null && s.staged?.fp === e.new ? null : s.staged,
  old: e.old.reduce((old, fp) => join(old, fp), s.old),
  rotation: openRotation(e, at.ts, s.lastSeen.values()),
});

const observed = (s: AppState, e: LedgerEvent & { type: "observed" }, at: At): AppState => {
  if (e.what === "verdict" && typeof e.fp === "string" && e.verdict !== undefined) {
    const verdicts = see(s.verdicts, e.fp, { verdict: e.verdict, ts: at.ts, ...yesOf(e) });
    const alive = e.verdict === "accepted" && s.old.get(e.fp)?.proved === true;
    return alive
      ? { ...s, verdicts, old: amendOld(s.old, e.fp, { proved: false }), dead: without(s.dead, e.fp) }
      : { ...s, verdicts };
  }
  if (e.target !== undefined && e.fp !== undefined && e.outcome === "ok") {
    return { ...s, lastSeen: new Map(s.lastSeen).set(e.target, e.fp) };
  }
  return s;
};

const resulted = (s: AppState, e: LedgerEvent & { type: "result" }): AppState => {
  const r = s.rotation;
  const intent = r?.intents.get(e.intent);
  if (e.outcome !== "ok" || r === null || intent === undefined || !r.stores.has(intent.target)) return s;
  return { ...s, lastSeen: new Map(s.lastSeen).set(intent.target, intent.fp) };
};

const done = (s: AppState, e: LedgerEvent & { type: "done" }, at: At): AppState => {
  const r = s.rotation;
  if (r === null || r.id !== e.rotation || r.ended !== null) return s;
  return {
    ...s,
    current: r.newFp,
    staged: s.staged?.fp === r.newFp ? null : s.staged,
    // A key that was discarded while this rotation closed still waits for its proof.
    old: new Map([...s.old].filter(([, key]) => !key.proved && !key.waived)),
    stale: new Set(),
    appFingerprint: e.appFingerprint ?? s.appFingerprint,
    freshTs: at.ts,
    lastEnded: { rotation: r.id, newFp: r.newFp, old: oldOnes(s) },
  };
};

/** Old keys that still need a proof or a waiver. */
export const unproved = (s: AppState): readonly Fp[] =>
  [...s.old].filter(([, key]) => !key.proved && !key.waived).map(([fp]) => fp);

/** IMKIT rejects a fresh key for some seconds: what a person gave and nobody ever saw work is not called dead for a no. */
export const isFresh = (s: AppState, fp: Fp): boolean =>
  s.came.has(fp) && (s.verdicts.get(fp)?.acceptedTs ?? null) === null;

/** The key that the stores should hold now. */
export const wanted = (s: AppState): Fp | null => {
  const r = s.rotation;
  return r !== null && r.ended === null && r.newFp !== null && r.wroteAt > 0 ? r.newFp : s.current;
};

export const isOpen = (s: AppState): boolean => s.rotation !== null && s.rotation.ended === null;

/** The old set, the key that was current first. */
export const oldOnes = (s: AppState): readonly Fp[] => {
  const all = [...s.old.keys()];
  return s.current !== null && s.old.has(s.current)
    ? [s.current, ...all.filter((fp) => fp !== s.current)]
    : all;
};
