import { CODES } from "./errors.ts";
import { MAX_TRIES } from "./next.ts";
import { failureOf, type Phase } from "./outcome.ts";
import { type Fp, showFp } from "./secret.ts";
import { type AppState, oldOnes, unproved, wanted } from "./state.ts";

export type StoreLine = {
  readonly name: string;
  readonly state: "pending" | "written" | "unchanged" | "failed" | "conflict" | "unknown" | "dropped";
  readonly code: string | null;
};
export type WorkloadLine = {
  readonly name: string;
  readonly state: "pending" | "rolling" | "done" | "failed" | "manual" | "held";
  readonly proof: number | null;
  readonly reason: string | null;
};

export const storeLines = (s: AppState): readonly StoreLine[] =>
  [...(s.rotation?.stores.values() ?? [])].map((t) => {
    const blocked = t.state === "pending" && t.preflight?.ok === false && t.preflight.run === s.rotation?.run;
    const spent = t.state === "pending" && t.tries >= MAX_TRIES;
    if (!blocked) return { name: t.name, state: spent ? "failed" : t.state, code: t.code };
    const code = t.preflight?.code ?? null;
    return { name: t.name, state: code === "CONFLICT" ? "conflict" : "failed", code };
  });

export const workloadLines = (s: AppState): readonly WorkloadLine[] =>
  [...(s.rotation?.rollouts.values() ?? [])].map((w) => {
    const manual = w.type === "manual" && w.state === "pending";
    const spent = w.state === "pending" && w.tries >= MAX_TRIES;
    const state = manual ? "manual" : spent ? "failed" : w.state === "dropped" ? "done" : w.state;
    return { name: w.name, state, proof: w.proof, reason: w.reason || (spent ? w.code : null) };
  });

/** Old keys as the rotation knows them, the one that was current first; after `done` those of the last one. */
export const oldFingerprints = (s: AppState): readonly Fp[] =>
  s.old.size > 0 ? oldOnes(s) : (s.lastEnded?.old ?? []);

/** Old keys that a person attested (`--waive`) and IMKIT did not prove dead: of the open rotation, else of the last one. */
export const attestedFingerprints = (s: AppState): readonly Fp[] => {
  const waived = [...s.old].filter(([, key]) => key.waived && !key.proved).map(([fp]) => fp);
  const ended = s.rotation?.ended === "done" ? (s.lastEnded?.old ?? []) : [];
  return [...new Set([...waived, ...ended.filter((fp) => !s.dead.has(fp) && !s.old.has(fp))])];
};

/** One sentence: which key is live where. */
export const whereKeysAre = (s: AppState): string => {
  const r = s.rotation;
  const now = s.current === null ? "no key" : `the key ${showFp(s.current)}`;
  if (r === null || r.ended !== null || r.newFp === null)
    return `Stores should hold ${now}. No store was written.`;
  const all = [...r.stores.values()].filter((t) => t.state !== "dropped");
  const done = all.filter((t) => t.state === "written" || t.state === "unchanged").length;
  const fresh = showFp(r.newFp);
  if (r.wroteAt === 0) {
    const lost = failureOf(r)?.code === "ESCROW_LOST";
    const where = lost ? "is in no place that can be read" : "is safe in escrow";
    return `No store was written; they should hold ${now}. The new key ${fresh} ${where}.`;
  }
  const old = unproved(s).map((fp) => {
    const verdict = s.verdicts.get(fp)?.verdict;
    if (verdict === "accepted") return `${showFp(fp)} was accepted when IMKIT was last asked`;
    return `${showFp(fp)} ${verdict === "rejected" ? "was rejected by IMKIT and " : ""}is not proved dead yet`;
  });
  return (
    [`${done} of ${all.length} stores hold the new key ${fresh}`, ...old.map((o) => `old key ${o}`)].join(
      "; ",
    ) + "."
  );
};

/** Exit status of a rotation that stopped in this phase. */
export const exitOf = (s: AppState, phase: Phase): number => {
  switch (phase) {
    case "new":
    case "idle":
      return 0;
    case "staged":
      return 1;
    case "rotating":
      return s.rotation?.waitingFor === "soak" ? 3 : 1;
    case "waiting-key":
    case "waiting-restart":
    case "waiting-revoke":
    case "blackout":
      return 3;
    case "wrong-key-revoked":
      return 4;
    case "failed": {
      const failure = s.rotation === null ? null : failureOf(s.rotation);
      return failure === null ? 1 : CODES[failure.code].exit;
    }
  }
};

/** The key that the stores should hold, shown to people. */
export const shownCurrent = (s: AppState): string | null => {
  const fp = s.adopted ? wanted(s) : null;
  return fp === null ? null : showFp(fp);
};
