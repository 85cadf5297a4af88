import { ProviderError } from "../core/errors.ts";
import type { LedgerEvent } from "../core/events.ts";
import type { Rollout, RolloutOp, RolloutState } from "../ports.ts";
import { ensureOurs } from "./claim.ts";
import { asAnswer, asProviderError, codeOf, isWanted, type Pass, rotationOf } from "./pass.ts";
import type { Finding } from "./push.ts";

type Facts = readonly LedgerEvent[];
const LOOK_EVERY_MS = 2_000;
/** A rollout that is still rolling after this long has failed for this run. */
const PATIENCE_MS = 1_800_000;

const rolloutOf = (pass: Pass, target: string): Rollout => {
  const found = pass.hands.app.rollouts.find((r) => r.plan.name === target);
  if (found === undefined) throw new ProviderError("CONFIG", "not_applied", "not in the config");
  return found.rollout;
};

const opOf = (pass: Pass, intent: string): RolloutOp => {
  const r = rotationOf(pass);
  return {
    app: pass.hands.app.name,
    // A repeat may be a no-op, but not after a store was changed again: what was restarted before that holds another key.
    rotation: r.generation === 0 ? r.id : `${r.id}-${r.generation}`,
    opId: r.intents.get(intent)?.opId ?? intent,
    fingerprint: r.newFp ?? "",
  };
};

/** Triggers one rollout once, then watches it to its end. */
export const roll = async (pass: Pass, target: string, intent: string): Promise<Facts> => {
  const r = rotationOf(pass);
  const base = { type: "result", rotation: r.id, intent } as const;
  try {
    const rollout = rolloutOf(pass, target);
    const op = opOf(pass, intent);
    await ensureOurs(pass.journal, pass.hands.host.claim.inst);
    if (!isWanted(pass, intent)) return [{ ...base, outcome: "failed", code: "CANCELLED" }];
    const end = await watchToEnd(pass, rollout, op, await rollout.trigger(op, pass.signal));
    if (end.state === "done") return [{ ...base, outcome: "ok", proof: end.proof, reason: end.reason }];
    return [
      { ...base, outcome: "failed", code: end.state === "held" ? "HELD" : "FAILED", reason: end.reason },
    ];
  } catch (thrown) {
    const e = asAnswer(thrown);
    const tries = r.rollouts.get(target)?.tries ?? 1;
    const retryAfterMs = e.retryAfterMs ?? 1_000 * 4 ** Math.max(0, tries - 1);
    const outcome = e.outcome === "not_applied" ? "failed" : "unknown";
    return [{ ...base, outcome, code: codeOf(pass, e), reason: e.hint, retryAfterMs }];
  }
};

const watchToEnd = async (
  pass: Pass,
  rollout: Rollout,
  op: RolloutOp,
  first: RolloutState,
): Promise<RolloutState> => {
  const until = pass.hands.clock.monotonic() + PATIENCE_MS;
  let now = first;
  while (now.state === "rolling") {
    if (rollout.watch === undefined || pass.hands.clock.monotonic() > until) {
      return { state: "failed", proof: 0, reason: "it did not end" };
    }
    await pass.hands.clock.sleep(LOOK_EVERY_MS, pass.looking);
    now = await rollout.watch(op, pass.looking);
  }
  return now;
};

/** After a crash or a lost answer: one that can be watched is watched, any other counts as not done and is triggered again. */
export const observeRollout = async (pass: Pass, target: string, intent: string): Promise<Facts> => {
  const base = {
    type: "observed",
    rotation: rotationOf(pass).id,
    what: "intent",
    run: pass.run,
    intent,
    target,
  } as const;
  try {
    const rollout = rolloutOf(pass, target);
    if (rollout.watch === undefined) return [{ ...base, outcome: "failed", code: "INTERRUPTED" }];
    const op = opOf(pass, intent);
    const end = await watchToEnd(pass, rollout, op, await rollout.watch(op, pass.looking));
    return [{ ...base, outcome: end.state === "done" ? "ok" : "failed", code: end.state.toUpperCase() }];
  } catch (thrown) {
    return [{ ...base, outcome: "unknown", code: asProviderError(thrown).code }];
  }
};

export const preflightRollout = async (pass: Pass, target: string): Promise<Finding> => {
  try {
    const checks = await rolloutOf(pass, target).preflight(pass.looking);
    const bad = checks.find((c) => c.status === "fail");
    return { target, code: bad ? (bad.code ?? "UNAVAILABLE") : null, checks };
  } catch (thrown) {
    return { target, code: asProviderError(thrown).code, checks: [] };
  }
};
