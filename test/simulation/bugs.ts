import type { Change } from "./copy.ts";

/** One mistake that somebody could make in the product. */
export type Bug = {
  readonly name: string;
  readonly changes: readonly Change[];
  /** It takes more worlds than every test run has time for. */
  readonly isRare?: boolean;
};

/** `find` must stand in `file` exactly once; `more`: other places that would hide the mistake. */
const bug = (name: string, file: string, find: string, put: string, more: readonly Change[] = []): Bug => ({
  name,
  changes: [{ file, find, put }, ...more],
});

const rare = (it: Bug): Bug => ({ ...it, isRare: true });

/** Each of these must be found by the simulation. They are planted in copies of the sources, never in the product. */
export const BUGS: readonly Bug[] = [
  bug(
    "a rollout without an intent",
    "flow/loop.ts",
    `if (action.do !== "write" && action.do !== "roll") return null;`,
    `if (action.do !== "write") return null;`,
  ),
  bug(
    "a write without the claim",
    "flow/loop.ts",
    `if (claimed || actions.every((a) => WATCHING.has(a.do))) return false;`,
    `if (claimed || actions.every((a) => a.do !== "close" && a.do !== "finish")) return false;`,
  ),
  rare(
    bug(
      "the claim is never renewed",
      "flow/loop.ts",
      `if (!claimed || journal.ownHeadAgeMs() < RENEW_AFTER_MS) return;`,
      `if (number > 0) return;`,
    ),
  ),
  bug(
    "a store is written by a process that was taken for dead",
    "flow/push.ts",
    `  await ensureOurs(journal, hands.host.claim.inst);
  // What stands there`,
    `  // What stands there`,
  ),
  rare(
    bug(
      "a rollout is triggered by a process that was taken for dead",
      "flow/roll.ts",
      `    await ensureOurs(pass.journal, pass.hands.host.claim.inst);
`,
      "",
    ),
  ),
  rare(
    bug(
      "freshness is not looked at before an effect",
      "flow/claim.ts",
      `export const FRESH_MS = 30_000;`,
      `export const FRESH_MS = 3_000_000;`,
    ),
  ),
  bug(
    "a live claim is taken over at once",
    "flow/claim.ts",
    `if (claim === null || claim.inst === host.claim.inst) return;`,
    `if (claim !== undefined) return;`,
  ),
  rare(
    bug(
      "a claim is taken over after 20 s of silence",
      "flow/claim.ts",
      `export const SILENCE_MS = 90_000;`,
      `export const SILENCE_MS = 20_000;`,
    ),
  ),
  bug(
    "every value is ours",
    "flow/push.ts",
    `  fp === null ||
  fp === s.rotation?.newFp ||`,
    `  s.adopted ||
  fp === s.rotation?.newFp ||`,
  ),
  bug(
    "a stranger's value is overwritten outside of a blackout",
    "flow/push.ts",
    `if (!isUrgent || seen.stored === null) return false;`,
    `if (seen.stored === null) return false;`,
  ),
  bug(
    "no value of ours may be written over",
    "flow/push.ts",
    `await w.store.write(key, expect, op, pass.signal);`,
    `await w.store.write(key, null, op, pass.signal);`,
  ),
  bug(
    "a store is switched before another one is ready",
    "flow/push.ts",
    `if (!(await slots.all) || !(await mayStart(pass, w))) return "cancelled";`,
    `if (!(await mayStart(pass, w))) return "cancelled";`,
  ),
  bug(
    "a refused slot does not hold up the others",
    "flow/slots.ts",
    `if (!ready && awaited.get(target) === true) resolve(false);`,
    ``,
  ),
  bug(
    "the others are written while a refused store waits",
    "core/next.ts",
    `if (isBegun) return actions;`,
    `return actions;`,
  ),
  bug(
    "a write is believed without a look",
    "flow/push.ts",
    `if (stored?.secret.equals(key))
      return { ...base, outcome: "ok", changed: true, revision: stored.revision };`,
    `if (stored !== undefined)
      return { ...base, outcome: "ok", changed: true, revision: "r" };`,
  ),
  bug(
    "a timeout is a failure",
    "flow/push.ts",
    `outcome: isFinal(e) ? ("failed" as const) : ("unknown" as const),`,
    `outcome: "failed" as const,`,
  ),
  bug(
    "an interrupted write is taken for done",
    "flow/push.ts",
    `if (fp === r.intents.get(intent)?.fp) return [{ ...base, outcome: "ok", fp }];`,
    `if (fp !== undefined) return [{ ...base, outcome: "ok", fp }];`,
  ),
  bug(
    "old keys are not kept",
    "flow/keys.ts",
    `      await hands.escrow.put(fp, key);`,
    `      if (journal.state().rotation === null) await hands.escrow.put(fp, key);`,
  ),
  bug(
    "the key is in the ledger",
    "flow/push.ts",
    `return [{ ...base, outcome: "ok", changed: false, revision: seen.stored.revision }];`,
    `return [{ ...base, outcome: "ok", changed: false, revision: seen.stored.secret.reveal() }];`,
  ),
  bug(
    "a repeated rollout is always a repeat",
    "flow/roll.ts",
    "rotation: r.generation === 0 ? r.id : `${r.id}-${r.generation}`,",
    "rotation: r.id,",
  ),
  bug(
    "what is interrupted is forgotten",
    "core/evolve.ts",
    `        ? { ...s, state: "pending", tries: 0, retryAtMs: null }
        : { ...s, tries: 0, retryAtMs: null },
    ]),
  ),
  rollouts`,
    `        ? { ...s, state: "pending", tries: 0, retryAtMs: null }
        : { ...s, state: s.open === null ? s.state : "pending", open: null, tries: 0, retryAtMs: null },
    ]),
  ),
  rollouts`,
  ),
  bug(
    "workloads are not restarted again after a store changed again",
    "core/effects.ts",
    `if (r.rolledAt <= r.generationAt) return`,
    `if (r.rolledAt >= 0) return`,
  ),
  rare(
    bug(
      "another new key finds everything done",
      "core/rotation.ts",
      `[...r.stores].map(([name, s]) => [name, s.state === "dropped" ? s : { ...freshStore(s), open: s.open }]),`,
      `r.stores,`,
    ),
  ),
  bug("a failed preflight stops nothing", "core/next.ts", `if (preflightFailed(r)) return NOTHING;`, ``),
  bug(
    "a rejected or strange key is rotated in",
    "core/next.ts",
    `if (!r.verified.ok || (r.sameApp === "different" && !r.acceptedApp)) return NOTHING;`,
    ``,
  ),
  bug(
    "a key of another app is rotated in",
    "core/next.ts",
    `if (!r.verified.ok || (r.sameApp === "different" && !r.acceptedApp)) return NOTHING;`,
    `if (!r.verified.ok) return NOTHING;`,
  ),
  bug(
    "workloads are restarted before all stores are written",
    "core/next.ts",
    `if (!storesDone(r) && !goesOn) return run.confirm ? proofs(s, run) : NOTHING;`,
    ``,
  ),
  bug(
    "the canary goes with the rest",
    "core/next.ts",
    `if (!urgent && !w.canary && !canaryDone) return [];`,
    ``,
  ),
  bug(
    "nothing is read again before the gate",
    "core/next.ts",
    `if (!seenSinceChange(r) || !run.tried.has("reread")) return [{ do: "reread" }];`,
    ``,
  ),
  bug(
    "nothing is read again before it is over",
    "core/next.ts",
    `if (!seenSince(r, r.provedAt)) return [{ do: "reread" }];`,
    ``,
  ),
  rare(
    bug(
      "a revoked new key stops nothing",
      "core/next.ts",
      `  r.wrongKey ||
  isBlackout(s) ||
  (r.newRejected && r.wroteAt > 0 && r.newFp !== null && !isFresh(s, r.newFp));`,
      `r.wrongKey && isBlackout(s);`,
    ),
  ),
  rare(
    bug(
      "tries are not counted",
      "core/next.ts",
      `export const MAX_TRIES = 3;`,
      `export const MAX_TRIES = 9;`,
    ),
  ),
  bug(
    "it is over without closing",
    "core/next.ts",
    `return fresh ? [{ do: "close" }] : [{ do: "probe" }];`,
    `return fresh ? [{ do: "finish" }] : [{ do: "probe" }];`,
  ),
  bug(
    "the person is asked before the workloads are restarted",
    "core/outcome.ts",
    `  if (!rolloutsDone(r)) {`,
    `  if (!rolloutsDone(r) && r.mode === "replace") {`,
  ),
  rare(
    bug(
      "the person is asked before every store was read again",
      "core/outcome.ts",
      `return unproved(s).length > 0 && seenSinceChange(r) ? "waiting-revoke" : "rotating";`,
      `return unproved(s).length > 0 ? "waiting-revoke" : "rotating";`,
    ),
  ),
  bug(
    "a replaced key needs no proof",
    "core/state.ts",
    `old: leave(e.replaces === undefined ? s.old : join(s.old, e.replaces), e.fp),`,
    `old: leave(s.old, e.fp),`,
  ),
  bug(
    "a discarded key needs no proof",
    "core/state.ts",
    `return { ...s, known, came, staged, old: foreign ? s.old : join(s.old, e.fp, true) };`,
    `return { ...s, known, came, staged };`,
  ),
  bug(
    "what an interrupted stage left in escrow is taken in again and again",
    "core/state.ts",
    `    known: new Set(s.known).add(e.fp),
    came`,
    `    known: s.known,
    came`,
  ),
  bug("one triad is enough", "flow/probing.ts", `round < probes &&`, `round < 1 &&`),
  rare(
    bug(
      "a triad without a working new key proves",
      "core/verdict.ts",
      `if (probes.new.verdict !== "accepted") return "unclear";`,
      ``,
    ),
  ),
  bug(
    "no clear answer is a proof",
    "flow/verify.ts",
    `    if (end.verdict === "rejected") {
      return [`,
    `    if (end.verdict !== "accepted") {
      return [`,
  ),
  bug(
    "of two live keys the first is the current one",
    "flow/adopt.ts",
    `return accepted.length === 1 && one ?`,
    `return one ?`,
  ),
  bug(
    "a key is told safe before escrow has it",
    "flow/stage.ts",
    `if (!isClosing(journal.state(), fp)) await keys.keep(fp, key);`,
    `keys.learn(fp, key);`,
    [{ file: "flow/stage.ts", find: `if (isGone) await hands.escrow.put(fp, key);`, put: `` }],
  ),
  bug(
    "discarding drops the key from escrow",
    "flow/stage.ts",
    `if (dropped !== null && (forget || foreign)) await dropBlob(hands, journal, dropped);`,
    `if (dropped !== null) await hands.escrow.remove(dropped);`,
  ),
  bug(
    "an entry that is there already is taken for ours",
    "flow/journal.ts",
    `if (made === "exists") return await moved(batch);`,
    ``,
  ),
  rare(
    bug(
      "a decision is written wherever the ledger is by now",
      "flow/journal.ts",
      `      else if (w.decidedAt === null) queue.unshift(w);
      else w.reject(new Moved());`,
      `      else queue.unshift({ ...w, decidedAt: null });`,
    ),
  ),
  rare(
    bug("work goes on after the ledger failed", "flow/journal.ts", `      poisoned = asError(error);`, ``),
  ),
  bug("reads of the ledger overlap", "flow/journal.ts", `turn = mine.catch(() => {});`, ``),
  bug(
    "a leaked key needs no proof",
    "core/state.ts",
    `old: join(s.old, fp),
    forgotten`,
    `old: s.old,
    forgotten`,
  ),
  bug(
    "the new key leaked and stays the new one",
    "core/evolve.ts",
    `const kept = r.newFp !== null && r.newFp === e.leaked ? rekey(r, null, p.ts) : r;`,
    `const kept = r;`,
  ),
  rare(
    bug(
      "a staged key leaked and stays staged",
      "core/state.ts",
      `staged: s.staged?.fp === fp ? null : s.staged,
    old: join`,
      `staged: s.staged,
    old: join`,
    ),
  ),
  rare(bug("a leaked key is staged again", "flow/stage.ts", `: s.leaked.has(fp)`, `: s.stale.has(fp)`)),
  bug(
    "a discard ends an emergency",
    "flow/stage.ts",
    `r.newFp === dropped && r.emergency === null`,
    `r.newFp === dropped`,
  ),
  rare(bug("a discard forgets a leak", "flow/stage.ts", `k.discarded && !s.leaked.has(fp)`, `k.discarded`)),
  rare(
    bug(
      "the key in use is discarded after a rollback",
      "flow/stage.ts",
      `(r.intents.size > 0 || r.rolledBack)`,
      `r.intents.size > 0`,
    ),
  ),
  bug("back to a dead key", "flow/rollback.ts", `if (verdict === "accepted") {`, `if (verdict.length > 0) {`),
  bug(
    "back to a leaked key",
    "flow/rollback.ts",
    `if (s.leaked.has(fp) && !acceptLeaked) {`,
    `if (s.stale.has(fp) && !acceptLeaked) {`,
  ),
  bug(
    "a rollback forgets the newer key",
    "core/state.ts",
    `old: r.newFp === null || foreign ? old : join(old, r.newFp)`,
    `old`,
  ),
  bug(
    "after a rollback both keys have to die",
    "core/state.ts",
    `const old = leave(s.old, e.to);`,
    `const old = s.old;`,
  ),
  rare(
    bug(
      "a rollback is still told that the wrong key was revoked",
      "core/rotation.ts",
      `wrongKey: false,
  newRejected: false,
  waitingFor: null,`,
      `waitingFor: null,`,
    ),
  ),
  bug(
    "workloads need no restart for another new key",
    "core/rotation.ts",
    `w.state === "dropped" ? w : { ...freshRollout(w), open: w.open },`,
    `w,`,
  ),
  bug(
    "an emergency waits for the claim",
    "flow/rotate.ts",
    `  let id: string | null = null;
  while (id === null) {`,
    `  let id: string | null = null;
  await awaitFree(hands, journal, options.waitMs);
  while (id === null) {`,
  ),
  bug(
    "the canary goes first in an emergency",
    "core/next.ts",
    `r.emergency !== null || r.mode === "replace" || allOldRejected(s);`,
    `r.mode === "replace" || allOldRejected(s);`,
  ),
  bug("an emergency waits for the soak", "core/next.ts", `if (r.emergency !== null) return 0;`, ``),
  bug(
    "one closed store stops an emergency",
    "core/next.ts",
    `  r.emergency === null &&
  [...r.stores.values(), ...r.rollouts.values()].some(`,
    `  [...r.stores.values(), ...r.rollouts.values()].some(`,
  ),
  bug(
    "in an emergency a store is written that may not be",
    "core/next.ts",
    `if (s.preflight?.ok === false && s.preflight.run === run.number) return [];`,
    ``,
  ),
  rare(
    bug(
      "in an emergency a workload is restarted that may not be",
      "core/next.ts",
      `if (w.preflight?.ok === false && w.preflight.run === run.number) return [];`,
      ``,
    ),
  ),
  bug(
    "a stranger's key that works is overwritten",
    "flow/push.ts",
    `return probe.verdict === "rejected";`,
    `return probe.verdict !== "unclear";`,
  ),
  bug(
    "an emergency does not take the key that was saved before an interruption",
    "flow/absorb.ts",
    `...(waits ? { rotation: s.rotation.id } : {}),`,
    ``,
  ),
  rare(
    bug(
      "a key was seen to work when that is written down",
      "flow/probing.ts",
      `const seen = acceptedTs === undefined ? {} : { acceptedTs };`,
      `const seen = verdict === "accepted" || acceptedTs === undefined ? {} : { acceptedTs };`,
    ),
  ),
  rare(
    bug(
      "who stops looking says that he just saw it work",
      "flow/rotate.ts",
      `verdict: "accepted",
        acceptedTs: seen,`,
      `verdict: "accepted",`,
    ),
  ),
  rare(
    bug(
      "a key is proved dead before it was alive",
      "flow/probing.ts",
      `const RIPE_MS = 30_000;`,
      `const RIPE_MS = 0;`,
    ),
  ),
  rare(
    bug(
      "a key that is too young counts as revoked",
      "flow/verify.ts",
      `if (r.wrongKey || isYoung || !isDead(first))`,
      `if (r.wrongKey || !isDead(first))`,
    ),
  ),
  rare(bug("what a dropped target left open stays open", "flow/close.ts", `...givenUp(r),`, ``)),
  rare(
    bug(
      "a rotation that closes becomes an emergency",
      "flow/emergency.ts",
      `isLate = open?.closing === true;`,
      `isLate = false;`,
    ),
  ),
  rare(
    bug(
      "a key called leaked at the last moment is lost",
      "flow/push.ts",
      `const isKept = [await keepOld(pass, seen), await pass.keys.keepKnown(unproved(journal.state()))];
  if (isKept.includes(true)) await ensureOurs`,
      `if (intent === null) await ensureOurs`,
    ),
  ),
];
