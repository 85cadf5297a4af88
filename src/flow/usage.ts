import type { LedgerEvent } from "../core/events.ts";
import type { Fp } from "../core/secret.ts";
import { type Pass, rotationOf } from "./pass.ts";

/** What IMKIT counts now, asked with the first of these keys that gets an answer. Nothing to ask with: no event. */
const countWith = async (
  pass: Pass,
  when: "before" | "after",
  fps: readonly Fp[],
): Promise<readonly LedgerEvent[]> => {
  const { hands, journal, run, looking } = pass;
  const base = { type: "observed", what: "usage", rotation: rotationOf(pass).id, run, when } as const;
  let asked: Fp | null = null;
  for (const fp of fps) {
    if (journal.state().verdicts.get(fp)?.verdict === "rejected") continue;
    const key = await pass.keys.get(fp);
    if (key === null) continue;
    asked = fp;
    const usage = await hands.platform.usage(key, looking);
    if (usage !== null) return [{ ...base, fp, usage }];
  }
  return asked === null ? [] : [{ ...base, fp: asked, usage: null }];
};

/** Before an emergency changes anything, with whatever key works. */
export const usageBefore = (pass: Pass): Promise<readonly LedgerEvent[]> => {
  const { newFp } = rotationOf(pass);
  const old = [...pass.journal.state().old.keys()];
  return countWith(pass, "before", newFp === null ? old : [...old, newFp]);
};

/** When everything is done, with the new key. */
export const usageAfter = (pass: Pass): Promise<readonly LedgerEvent[]> => {
  const { newFp, emergency } = rotationOf(pass);
  return emergency === null || newFp === null ? Promise.resolve([]) : countWith(pass, "after", [newFp]);
};
