import { RETRYABLE } from "./errors.ts";
import type { Rotation, RolloutProgress, StoreProgress } from "./rotation.ts";
import type { Fp } from "./secret.ts";
import { type AppState, isFresh, unproved } from "./state.ts";

export type Action =
  /** Ask IMKIT about the new key, every old key and a made-up one; finds the mode. Read-only. */
  | { readonly do: "verify" }
  /** Ask every target whether it may be written, and keep the old keys safe. Read-only outside escrow. */
  | { readonly do: "preflight" }
  /** Find out whether an interrupted or unanswered effect took place. */
  | { readonly do: "observe"; readonly target: string; readonly intent: string }
  | { readonly do: "write"; readonly target: string }
  | { readonly do: "roll"; readonly target: string }
  /** Watch a store that someone else fills until it shows the new key. */
  | { readonly do: "mirror"; readonly target: string }
  | { readonly do: "reread" }
  /** One probe of the new and of every old key. */
  | { readonly do: "probe" }
  /** What IMKIT counts, before an emergency changes it. */
  | { readonly do: "usage" }
  /** Let time pass before a retry. */
  | { readonly do: "pause"; readonly ms: number }
  /** The triads. */
  | { readonly do: "prove"; readonly keys: readonly Fp[] }
  | { readonly do: "close" }
  /** After `closing`: empty escrow, `done`. */
  | { readonly do: "finish" };

/** What this process knows beside the ledger. Times are of its monotonic clock, in ms. */
export type Run = {
  readonly number: number;
  /** Names (`nameOf`) of actions under way. */
  readonly running: ReadonlySet<string>;
  /** Names of read-only actions that this pass has done: `reread`, `prove`, `observe:<target>`; `probe` since the last change. */
  readonly tried: ReadonlySet<string>;
  readonly monoMs: number;
  readonly wallMs: number;
  /** When both keys were last probed by this process. */
  readonly probedAt: number | null;
  /** `confirm-revoked`: prove now, whatever the last probe said. */
  readonly confirm: boolean;
  readonly soakMs: number;
};

export const PROBE_EVERY_MS = 10_000;
/** Tries of one target within one run. */
export const MAX_TRIES = 3;
/** A store that wants more time than this is left for the next run. */
const LONGEST_PAUSE_MS = 30_000;
const NOTHING: readonly Action[] = [];

/** Name of an action for `running`: what it does and to what. */
export const nameOf = (a: Action): string => ("target" in a ? `${a.do}:${a.target}` : a.do);

/**
 * Everything that may start now. Pure: order, parallelism, when to stop and what to ask are decided here and nowhere else.
 * Nothing, with nothing running, means: done, failed, or waiting for a person (`outcome` says which).
 */
export const next = (s: AppState, run: Run): readonly Action[] => {
  const idle = onePause(decide(s, run)).filter((a) => !run.running.has(nameOf(a)));
  return [...idle, ...watch(s, run), ...count(s, run)];
};

/** The shortest: after it everything is decided again. */
const onePause = (actions: readonly Action[]): readonly Action[] => {
  const pauses = actions.filter((a) => a.do === "pause").sort((a, b) => a.ms - b.ms);
  return pauses.length < 2 ? actions : actions.filter((a) => a.do !== "pause" || a === pauses[0]);
};

const decide = (s: AppState, run: Run): readonly Action[] => {
  const r = s.rotation;
  if (r === null || r.ended !== null) return NOTHING;
  if (r.closing) return [{ do: "finish" }];

  const unsure = interrupted(r, run);
  if (unsure.length > 0) return unsure;
  // An emergency may begin without a new key: the old one is watched meanwhile.
  if (r.newFp === null) return run.probedAt === null && unproved(s).length > 0 ? [{ do: "probe" }] : NOTHING;
  if (isStopped(s, r)) return run.probedAt === null ? [{ do: "probe" }] : NOTHING;

  if (workLeft(r)) {
    if (r.verified?.run !== run.number) return [{ do: "verify" }];
    if (!r.verified.ok || (r.sameApp === "different" && !r.acceptedApp)) return NOTHING;
    if (!allAsked(r, run)) return [{ do: "preflight" }];
    if (preflightFailed(r)) return NOTHING;
  }
  const writes = isUrgent(s, r) ? storeActions(r, run) : together(r, run, storeActions(r, run));
  if (writes.length > 0) return writes;
  // In an emergency what has the new key is restarted, also while another store still has to be mended.
  const goesOn = r.emergency !== null && [...r.stores.values()].some(holdsNew);
  if (!storesDone(r) && !goesOn) return run.confirm ? proofs(s, run) : NOTHING;

  const rolls = rolloutActions(r, run, isUrgent(s, r));
  if (rolls.length > 0) return rolls;
  if (!storesDone(r) || !rolloutsDone(r)) {
    if (run.confirm) return proofs(s, run);
    return run.probedAt === null && unproved(s).length > 0 ? [{ do: "probe" }] : NOTHING;
  }

  if (soakLeft(s, run) > 0) return run.probedAt === null ? [{ do: "probe" }] : NOTHING;
  if (run.tried.has("reread") && unreadable(r).length > 0) return NOTHING;
  if (!seenSinceChange(r) || !run.tried.has("reread")) return [{ do: "reread" }];
  return gate(s, r, run);
};

/** All stores hold the new key and everything was restarted: now the old keys have to die. */
const gate = (s: AppState, r: Rotation, run: Run): readonly Action[] => {
  const left = unproved(s);
  if (left.length > 0) {
    if (run.confirm) return proofs(s, run);
    // After a leak it matters until when the old key worked: it is asked once more after the last change.
    const isOld = r.emergency !== null && !run.tried.has("probe");
    if (run.probedAt === null || isOld) return [{ do: "probe" }];
    return left.every((fp) => s.verdicts.get(fp)?.verdict === "rejected") ? proofs(s, run) : NOTHING;
  }
  if (!seenSince(r, r.provedAt)) return [{ do: "reread" }];
  const fresh = r.provedRun === run.number || run.probedAt !== null;
  return fresh ? [{ do: "close" }] : [{ do: "probe" }];
};

const proofs = (s: AppState, run: Run): readonly Action[] => {
  const keys = unproved(s);
  return keys.length === 0 || run.tried.has("prove") ? NOTHING : [{ do: "prove", keys }];
};

/** From the first store write on both keys are probed beside the work, so that a wrong or early revocation is seen. */
const watch = (s: AppState, run: Run): readonly Action[] => {
  const r = s.rotation;
  if (r === null || r.ended !== null || r.closing || r.newFp === null || r.wroteAt === 0) return NOTHING;
  if (run.running.size === 0 || ["probe", "prove", "verify"].some((name) => run.running.has(name)))
    return NOTHING;
  const due = run.probedAt === null || run.monoMs - run.probedAt >= PROBE_EVERY_MS;
  return due && unproved(s).length > 0 ? [{ do: "probe" }] : NOTHING;
};

/** Once, while the key that leaked can still be asked with, or any other. */
const count = (s: AppState, run: Run): readonly Action[] => {
  const r = s.rotation;
  if (r === null || r.ended !== null || r.closing || r.emergency === null || r.usage.before) return NOTHING;
  return run.tried.has("usage") || run.running.has("usage") ? NOTHING : [{ do: "usage" }];
};

const interrupted = (r: Rotation, run: Run): readonly Action[] =>
  [...r.stores.values(), ...r.rollouts.values()].flatMap((t): Action[] => {
    if (t.open === null || t.state === "dropped") return [];
    const mine = t.open.run === run.number && !t.open.unknown;
    if (mine || run.tried.has(`observe:${t.name}`)) return [];
    return [{ do: "observe", target: t.name, intent: t.open.id }];
  });

const storeActions = (r: Rotation, run: Run): readonly Action[] =>
  [...r.stores.values()].flatMap((s): readonly Action[] => {
    if (s.state === "dropped" || s.state === "written" || s.state === "unchanged") return [];
    if (!s.write) return s.state === "pending" ? [{ do: "mirror", target: s.name }] : [];
    if (s.preflight?.ok === false && s.preflight.run === run.number) return [];
    if (s.open !== null) return run.running.has(`write:${s.name}`) ? [{ do: "write", target: s.name }] : [];
    return tries(s, run, { do: "write", target: s.name });
  });

/** Until the first store is switched nothing has changed: the writes wait for one that has to wait, and for one that was refused none starts. */
const together = (r: Rotation, run: Run, actions: readonly Action[]): readonly Action[] => {
  const all = [...r.stores.values()].filter((s) => s.state !== "dropped");
  const isBegun = all.some((s) => s.state === "written" || s.open?.unknown === true);
  if (isBegun) return actions;
  const isHeld = all.some((s) => s.open !== null || holdsUp(s, run));
  return isHeld ? actions.filter((a) => a.do !== "write") : actions;
};

/** A required store that cannot be written now: it has to wait, or has given up. */
const holdsUp = (s: StoreProgress, run: Run): boolean =>
  s.required && s.write && !holdsNew(s) && tries(s, run, { do: "write", target: s.name })[0]?.do !== "write";

const tries = (t: StoreProgress | RolloutProgress, run: Run, action: Action): readonly Action[] => {
  if (t.tries >= MAX_TRIES) return NOTHING;
  const mayPass = t.state === "failed" && t.code !== null && RETRYABLE.has(t.code) && t.tries > 0;
  if (t.state !== "pending" && !mayPass) return NOTHING;
  const wait = (t.retryAtMs ?? 0) - run.wallMs;
  if (wait > LONGEST_PAUSE_MS) return NOTHING;
  return wait > 0 ? [{ do: "pause", ms: wait }] : [action];
};

/** Nothing works where the old keys are dead already: then no workload waits for another one. */
const rolloutActions = (r: Rotation, run: Run, urgent: boolean): readonly Action[] => {
  const all = [...r.rollouts.values()].filter((w) => w.state !== "dropped");
  const canaries = all.filter((w) => w.canary);
  const canaryDone = canaries.every((w) => w.state === "done");
  return all.flatMap((w): readonly Action[] => {
    if (w.state === "done" || w.type === "manual") return [];
    if (w.preflight?.ok === false && w.preflight.run === run.number) return [];
    if (!urgent && !w.canary && !canaryDone) return [];
    if (!urgent && !w.after.every((name) => isDone(r.rollouts.get(name)))) return [];
    if (w.open !== null) return run.running.has(`roll:${w.name}`) ? [{ do: "roll", target: w.name }] : [];
    return tries(w, run, { do: "roll", target: w.name });
  });
};

const isDone = (w: RolloutProgress | undefined): boolean =>
  w === undefined || w.state === "done" || w.state === "dropped";
const holdsNew = (s: StoreProgress): boolean =>
  s.state === "written" || s.state === "unchanged" || s.state === "dropped";

/** Every required store holds the new key, and none is still being tried. */
export const storesDone = (r: Rotation): boolean =>
  [...r.stores.values()].every((s) => (s.required ? holdsNew(s) : s.open === null || s.state === "dropped"));
export const rolloutsDone = (r: Rotation): boolean =>
  [...r.rollouts.values()].every((w) => (w.required ? isDone(w) : w.open === null || w.state === "dropped"));

/** Also what was added to the plan while the others were asked. What is said of a store counts for a rollout of its name. */
const allAsked = (r: Rotation, run: Run): boolean => {
  const named = [...[...r.rollouts.values()].filter(({ name }) => !r.stores.has(name)), ...r.stores.values()];
  return (
    r.preflightRun === run.number &&
    named.every((t) => t.state === "dropped" || t.preflight?.run === run.number)
  );
};

/** Something has to be written or restarted by us. */
export const workLeft = (r: Rotation): boolean =>
  [...r.stores.values()].some((s) => !holdsNew(s)) ||
  [...r.rollouts.values()].some((w) => !isDone(w) && w.type !== "manual");

/** Before the first write one failed preflight of a required target stops all of them; in an emergency it stops that target only. */
export const preflightFailed = (r: Rotation): boolean =>
  r.emergency === null &&
  [...r.stores.values(), ...r.rollouts.values()].some(
    (t) => t.required && t.state !== "dropped" && t.preflight?.run === r.preflightRun && !t.preflight.ok,
  );

const seenSince = (r: Rotation, at: number): boolean =>
  [...r.stores.values()].every((s) => !s.required || s.state === "dropped" || s.seenAt > at);

/** Stores that hold the new key as far as we know, and could not be read when they were looked at again before the gate. */
export const unreadable = (r: Rotation): readonly StoreProgress[] =>
  (storesDone(r) && rolloutsDone(r) ? [...r.stores.values()] : []).filter(
    (s) => s.required && s.state !== "dropped" && holdsNew(s) && s.code !== null,
  );

/** Every required store was read back holding the new key after the last write and the last restart. */
export const seenSinceChange = (r: Rotation): boolean => seenSince(r, Math.max(r.wroteAt, r.rolledAt));

const allOldRejected = (s: AppState): boolean => {
  const left = unproved(s);
  return left.length > 0 && left.every((fp) => s.verdicts.get(fp)?.verdict === "rejected");
};

/** Nothing works already, or a key is in foreign hands: nothing waits for anything else. */
export const isUrgent = (s: AppState, r: Rotation): boolean =>
  r.emergency !== null || r.mode === "replace" || allOldRejected(s);

/** Another new key may take the place of this one unasked: it is dead, and was written somewhere. */
export const needsAnother = (s: AppState): boolean => {
  const r = s.rotation;
  return (
    r !== null && r.ended === null && !r.closing && (isStopped(s, r) || (r.newRejected && r.wroteAt > 0))
  );
};

/** The new key is dead after it was written somewhere: wrong key revoked, blackout, or nobody knows. Nothing more is written. */
const isStopped = (s: AppState, r: Rotation): boolean =>
  r.wrongKey || isBlackout(s) || (r.newRejected && r.wroteAt > 0 && r.newFp !== null && !isFresh(s, r.newFp));

/**
 * How much of the soak is left, in ms: the time that restarted workloads run on the new key while the old one still works. Nobody holds
 * the claim meanwhile.
 */
export const soakLeft = (s: AppState, run: Pick<Run, "soakMs" | "wallMs">): number => {
  const r = s.rotation;
  if (r === null || r.ended !== null || run.soakMs === 0 || r.mode !== "overlap" || r.rolledTs === null)
    return 0;
  if (r.emergency !== null) return 0;
  if (!storesDone(r) || !rolloutsDone(r) || unproved(s).length === 0 || allOldRejected(s)) return 0;
  return Math.min(run.soakMs, Math.max(0, Date.parse(r.rolledTs) + run.soakMs - run.wallMs));
};

/** The new key and every old key are rejected: nothing works, another key has to be issued. */
export const isBlackout = (s: AppState): boolean => {
  const r = s.rotation;
  if (r === null || r.ended !== null || r.newFp === null || r.wroteAt === 0) return false;
  if (s.verdicts.get(r.newFp)?.verdict !== "rejected" || isFresh(s, r.newFp)) return false;
  return [...s.old].every(([fp, key]) => key.waived || s.verdicts.get(fp)?.verdict === "rejected");
};
