import type { Code } from "./errors.ts";
import { REFUSALS } from "./errors.ts";
import {
  isBlackout,
  MAX_TRIES,
  preflightFailed,
  rolloutsDone,
  seenSinceChange,
  storesDone,
  unreadable,
  workLeft,
} from "./next.ts";
import type { Rotation, RolloutProgress, StoreProgress } from "./rotation.ts";
import { type AppState, isOpen, unproved } from "./state.ts";

export type Phase =
  | "new"
  | "idle"
  | "staged"
  | "rotating"
  | "waiting-key"
  | "waiting-restart"
  | "waiting-revoke"
  | "wrong-key-revoked"
  | "failed"
  | "blackout";

/** The one word for where an app stands. */
export const phaseOf = (s: AppState): Phase => {
  const r = s.rotation;
  if (r === null || !isOpen(s)) {
    if (s.staged !== null) return "staged";
    if (unproved(s).length > 0 && [...s.old.values()].some((k) => k.discarded)) return "waiting-revoke";
    return s.adopted ? "idle" : "new";
  }
  if (isBlackout(s)) return "blackout";
  if (r.wrongKey) return "wrong-key-revoked";
  if (r.newFp === null) return "waiting-key";
  if (failureOf(r) !== null) return "failed";
  if (!storesDone(r)) return "rotating";
  if (!rolloutsDone(r)) {
    const left = [...r.rollouts.values()].filter(
      (w) => w.required && w.state !== "done" && w.state !== "dropped",
    );
    return left.every((w) => w.type === "manual") ? "waiting-restart" : "rotating";
  }
  // To revoke is safe only after every store was read again and the soak is over; that read is made after it.
  return unproved(s).length > 0 && seenSinceChange(r) ? "waiting-revoke" : "rotating";
};

export type Failure = { readonly code: Code; readonly target: string | null; readonly detail: string | null };

/** Why the open rotation cannot go on by itself, or null. The most final reason first. */
export const failureOf = (r: Rotation): Failure | null => {
  if (r.verified?.ok === false && r.verified.run === r.run && workLeft(r)) {
    return { code: verifyCode(r.verified.code), target: null, detail: r.verified.code };
  }
  if (r.sameApp === "different" && !r.acceptedApp) return { code: "WRONG_APP", target: null, detail: null };
  if (r.newRejected && r.wroteAt > 0) return { code: "KEY_REJECTED", target: null, detail: null };
  const targets = [...r.stores.values(), ...r.rollouts.values()].filter(
    (t) => (t.required || ("canary" in t && t.canary)) && t.state !== "dropped",
  );
  const bad = targets.filter(
    (t) =>
      ["failed", "conflict", "unknown", "held"].includes(t.state) ||
      (t.state === "pending" && t.tries >= MAX_TRIES),
  );
  const isBlocking = workLeft(r) && (preflightFailed(r) || r.emergency !== null);
  const blocked = isBlocking ? targets.filter((t) => t.preflight?.ok === false && !isFinished(t)) : [];
  const all = [
    ...[...bad, ...unreadable(r)].map((t) => ({
      name: t.name,
      code: t.code ?? "UNAVAILABLE",
      store: r.stores.has(t.name),
    })),
    ...blocked.map((t) => ({
      name: t.name,
      code: t.preflight?.code ?? "UNAVAILABLE",
      store: r.stores.has(t.name),
    })),
  ];
  const worst = all.find((t) => REFUSALS.has(t.code)) ?? all[0];
  if (worst === undefined) return null;
  return { code: targetCode(r, worst.code, worst.store), target: worst.name, detail: worst.code };
};

const isFinished = (t: StoreProgress | RolloutProgress): boolean =>
  ["written", "unchanged", "done"].includes(t.state);

const verifyCode = (code: string | null): Code => {
  if (code === "KEY_REJECTED" || code === "WRONG_APP" || code === "ESCROW_LOST") return code;
  return "IMKIT_UNCLEAR";
};

/** In an emergency a refusal is one failed target among others that went on. */
const targetCode = (r: Rotation, code: string, store: boolean): Code => {
  if (code === "LEDGER_FOREIGN" || code === "LEDGER_BEHIND") return code;
  if (r.emergency !== null) return store ? "STORE_FAILED" : "ROLLOUT_FAILED";
  if (code === "CONFLICT") return "STORE_CONFLICT";
  if (REFUSALS.has(code)) return "STORE_REFUSED";
  return store ? "STORE_FAILED" : "ROLLOUT_FAILED";
};
