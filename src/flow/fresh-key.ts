import { failureOf, type Phase } from "../core/outcome.ts";
import { type AppState, isFresh } from "../core/state.ts";
import type { Hands } from "./hands.ts";

/** IMKIT may reject a fresh key for some seconds: with `--wait` it is asked again for this long. */
const FRESH_KEY_MS = 120_000;
const FRESH_KEY_FIRST_MS = 5_000;

/** How long to wait before a key that IMKIT does not accept yet is asked about again; null = that is no use (any more). */
export const freshKeyPatience = (hands: Hands): ((s: AppState, phase: Phase) => number | null) => {
  let spent = 0;
  let wait = FRESH_KEY_FIRST_MS;
  return (s, phase) => {
    const r = s.rotation;
    if (phase !== "failed" || r === null || r.newFp === null || r.verified?.ok !== false) return null;
    if (r.wroteAt > 0 && !isFresh(s, r.newFp)) return null;
    if (failureOf(r)?.code !== "KEY_REJECTED" || spent >= FRESH_KEY_MS) return null;
    const now = wait;
    spent += now;
    wait *= 2;
    hands.tell({
      kind: "note",
      text: `IMKIT rejects the new key so far; it is asked again in ${now / 1000} s.`,
    });
    return now;
  };
};
