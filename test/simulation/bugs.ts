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
    `if (claimed || actions.every((a) => a.do === "probe" || a.do === "reread")) return false;`,
    `if (claimed || actions.every((a) => a.do !== "close" && a.do !== "finish")) return false;`,
  ),
  rare(
    bug(
      "the claim is never renewed",
      "flow/loop.ts",
      `if (!claimed || failure !== null || journal.ownHeadAgeMs() < RENEW_AFTER_MS) return;`,
      `if (number > 0) return;`,
    ),
  ),
  bug(
    "a store is written by a process that was taken for dead",
    "flow/push.ts",
    `  await ensureOurs(journal, hands.host.claim.inst);
  if (!isWanted(pass, intent)) return "cancelled";`,
    `  if (!isWanted(pass, intent)) return "cancelled";`,
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
    `if (s.rotation?.mode !== "replace" || seen.stored === null) return false;`,
    `if (seen.stored === null) return false;`,
  ),
  bug(
    "no value of ours may be written over",
    "flow/push.ts",
    `await store.write(key, seen.stored?.revision ?? null, op, pass.signal);`,
    `await store.write(key, null, op, pass.signal);`,
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
    `outcome: e.outcome === "not_applied" ? ("failed" as const) : ("unknown" as const),`,
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
    `if (!storesDone(r)) return run.confirm ? proofs(s, run) : NOTHING;`,
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
      `r.wrongKey || isBlackout(s) || (r.newRejected && r.wroteAt > 0);`,
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
    `return { ...s, known, staged, old: foreign ? s.old : join(s.old, e.fp, true) };`,
    `return { ...s, known, staged };`,
  ),
  bug(
    "what an interrupted stage left in escrow is taken in again and again",
    "core/state.ts",
    `    known: new Set(s.known).add(e.fp),
    verdicts`,
    `    known: s.known,
    verdicts`,
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
];
