import type { LedgerEvent } from "../core/events.ts";
import { type Action, nameOf } from "../core/next.ts";
import { finish } from "./close.ts";
import { usageBefore } from "./usage.ts";
import { type Pass, rotationOf } from "./pass.ts";
import { observeStore, rereadStores, watchMirror, writeStore } from "./push.ts";
import { observeRollout, roll } from "./roll.ts";
import type { Slots } from "./slots.ts";
import { preflight, probeBoth, prove, verify } from "./verify.ts";

/** What one pass has done already; `next` asks for it. An action counts when its facts are written down, not before. */
export type Memory = { readonly tried: Set<string>; probedAt: number | null };

export const remember = (memory: Memory, action: Action, monoMs: number): void => {
  switch (action.do) {
    case "verify":
      memory.probedAt = monoMs;
      return;
    case "probe":
      memory.probedAt = monoMs;
      memory.tried.add(nameOf(action));
      return;
    case "prove":
      memory.probedAt = monoMs;
      memory.tried.add(nameOf(action));
      return;
    case "observe":
    case "reread":
    case "usage":
      memory.tried.add(nameOf(action));
      return;
    case "write":
    case "roll":
      memory.tried.delete(`observe:${action.target}`);
      memory.tried.delete("probe");
      return;
    case "preflight":
    case "mirror":
    case "pause":
    case "close":
    case "finish":
      return;
  }
};

/**
 * Carries one action out. @returns the facts to write down; `intent` names the durable intent of a write or a rollout, `slots` are of the
 * stores that are written at the same time
 */
export const perform = async (
  pass: Pass,
  action: Action,
  intent: string,
  slots: Slots,
): Promise<readonly LedgerEvent[]> => {
  switch (action.do) {
    case "verify":
      return verify(pass);
    case "preflight":
      return preflight(pass);
    case "observe":
      return rotationOf(pass).stores.has(action.target)
        ? observeStore(pass, action.target, action.intent)
        : observeRollout(pass, action.target, action.intent);
    case "write":
      return writeStore(pass, action.target, intent, slots);
    case "roll":
      return roll(pass, action.target, intent);
    case "mirror":
      return watchMirror(pass, action.target);
    case "reread":
      return news(pass, await rereadStores(pass));
    case "probe":
      return probeBoth(pass);
    case "usage":
      return usageBefore(pass);
    case "pause":
      await pass.hands.clock.sleep(action.ms, pass.looking);
      return [];
    case "prove":
      return prove(pass, action.keys);
    case "close":
      return [];
    case "finish":
      return finish(pass);
  }
};

/** A second look that shows what is on record already, since the last change and proof, is not written again. */
const news = (pass: Pass, facts: readonly LedgerEvent[]): readonly LedgerEvent[] => {
  const r = rotationOf(pass);
  const since = Math.max(r.wroteAt, r.rolledAt, r.provedAt);
  const known = facts.every((e) => {
    if (e.type !== "observed" || e.target === undefined) return false;
    const seenAt = r.stores.get(e.target)?.seenAt ?? 0;
    return e.outcome === "ok" && e.fp === r.newFp && seenAt > since;
  });
  return known ? [] : facts;
};
