import { CODES } from "./errors.ts";
import { MAX_TRIES, rolloutsDone, storesDone } from "./next.ts";
import { failureOf, type Phase } from "./outcome.ts";
import { type Fp, showFp } from "./secret.ts";
import { type AppState, isOpen, oldOnes, unproved, wanted } from "./state.ts";

export type NextStep = {
  readonly who: "you" | "tool";
  readonly text: string;
  readonly command: string | null;
};

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

/** 0 in `overlap`; in `replace` from the accepted new key to the last store written and the last workload restarted; null where unknown. */
export const blackoutMs = (s: AppState): number | null => {
  const r = s.rotation;
  if (r === null || r.mode === null || r.mode === "first") return null;
  if (r.mode === "overlap") return 0;
  if (r.modeTs === null || !storesDone(r) || !rolloutsDone(r)) return null;
  const ends = [r.wroteTs, r.rolledTs].flatMap((ts) => (ts === null ? [] : [Date.parse(ts)]));
  return ends.length === 0 ? null : Math.max(0, Math.max(...ends) - Date.parse(r.modeTs));
};

/** Here it is the newer key that has to go, and the one in use must stay. */
const nameDiscarded = (s: AppState, clock: (ts: string) => string): string => {
  const names = unproved(s).map((fp) => {
    const ts = s.verdicts.get(fp)?.ts;
    return ts === undefined ? showFp(fp) : `${showFp(fp)}, made before ${clock(ts)}`;
  });
  const keep = s.staged?.fp ?? s.current;
  return `the API Key that was discarded (${names.join("; ")}), not the one in use${keep === null ? "" : ` (${showFp(keep)})`}`;
};

/** How a person finds the right key in the Dashboard, where no fingerprint is shown. */
const nameOldKey = (s: AppState, clock: (ts: string) => string): string => {
  const r = isOpen(s) ? s.rotation : null;
  if (r === null) return nameDiscarded(s, clock);
  const fps = unproved(s).map(showFp).join(", ");
  const made = r?.openedTs ?? s.staged?.ts ?? null;
  const by = made === null ? "the old API Key" : `the API Key that was issued before ${clock(made)}`;
  return `${by}, not the one you just made (old: ${fps || "-"}${r?.newFp ? `, new: ${showFp(r.newFp)}` : ""})`;
};

/** What happens next and who does it. Commands can be pasted as they are. `clock` shows an instant in the app's time zone. */
export const nextSteps = (
  app: string,
  s: AppState,
  phase: Phase,
  clock: (ts: string) => string = (ts) => ts,
): readonly NextStep[] => {
  const you = (text: string, command: string | null = null): NextStep => ({ who: "you", text, command });
  const tool = (text: string, command: string): NextStep => ({ who: "tool", text, command });
  const cmd = (rest: string): string => `imkit-rotator ${rest}`;
  switch (phase) {
    case "new":
    case "idle":
      return [
        you("Issue a new API Key in the IMKIT Dashboard (API Settings) when it is due"),
        you("Give it to the rotator", cmd(`stage ${app}`)),
      ];
    case "staged":
      return [tool("Write the staged key to every store", cmd(`rotate ${app}`))];
    case "rotating":
      return [tool("Go on with the rotation", cmd(`rotate ${app}`))];
    case "waiting-key":
      return [
        you("Issue a new API Key in the Dashboard"),
        you("Give it to the rotator", cmd(`stage ${app}`)),
      ];
    case "blackout":
      return [
        you("Neither key works any more. Issue another API Key in the Dashboard now"),
        you("Give it to the rotator", cmd(`stage ${app}`)),
        tool("Write it to every store", cmd(`rotate ${app}`)),
      ];
    case "waiting-restart": {
      const names = workloadLines(s).filter((w) => w.state === "manual");
      return [
        you(`Restart what reads the stores (${names.map((w) => w.name).join(", ")})`),
        you("Then say so", cmd(`rotate ${app} --restarted`)),
      ];
    }
    case "waiting-revoke":
      return [
        you(`In the Dashboard (https://dashboard.imkit.io/, API Settings) revoke ${nameOldKey(s, clock)}`),
        you("Then have it proved", cmd(`confirm-revoked ${app}`)),
      ];
    case "wrong-key-revoked":
      return [
        you(
          "The new key was revoked and an old one still works: put the old key back",
          cmd(`rollback ${app}`),
        ),
        you("Or issue another API Key and stage it", cmd(`stage ${app}`)),
      ];
    case "failed": {
      const failure = s.rotation === null ? null : failureOf(s.rotation);
      if (failure?.code === "KEY_REJECTED") {
        return [
          you("IMKIT rejects the new key. A fresh key may need some seconds", cmd(`rotate ${app}`)),
          you("Or stage the right one", cmd(`stage ${app} --replace`)),
        ];
      }
      if (failure?.code === "WRONG_APP") {
        return [
          you("Stage a key of the right app instead", cmd(`stage ${app} --replace`)),
          you("Or drop it", cmd(`stage ${app} --discard --forget`)),
        ];
      }
      if (failure?.code === "ESCROW_LOST") {
        return [
          you("Give the same new key once more, if you have it", cmd(`stage ${app}`)),
          you("Else issue another API Key, and give that one", cmd(`stage ${app} --replace`)),
        ];
      }
      if (failure?.code === "IMKIT_UNCLEAR") {
        return [
          tool("Ask IMKIT again", cmd(`rotate ${app}`)),
          you("See what is wrong", cmd(`doctor ${app}`)),
          you(
            "If the new key is gone from the Dashboard, issue another one and stage it",
            cmd(`stage ${app} --replace`),
          ),
        ];
      }
      return [
        you("See what is wrong", cmd(`doctor ${app}`)),
        tool("Then go on where it stopped", cmd(`rotate ${app}`)),
      ];
    }
  }
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
