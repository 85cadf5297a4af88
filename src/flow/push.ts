import { ProviderError } from "../core/errors.ts";
import type { LedgerEvent } from "../core/events.ts";
import type { Fp, Secret } from "../core/secret.ts";
import { type AppState, unproved } from "../core/state.ts";
import type { Check, Store, Stored } from "../ports.ts";
import { ensureOurs } from "./claim.ts";
import { isInterrupt, orElse } from "./interrupt.ts";
import type { Slots } from "./slots.ts";
import { asAnswer, asProviderError, codeOf, isWanted, type Pass, patiently, rotationOf } from "./pass.ts";

type Facts = readonly LedgerEvent[];
type Seen = { readonly fp: Fp | null; readonly stored: Stored | null };

const MOVES = 3;
const MIRROR_EVERY_MS = 5_000;
const MIRROR_PATIENCE_MS = 600_000;

const storeOf = (pass: Pass, target: string): Store => {
  const found = pass.hands.app.stores.find((s) => s.plan.name === target);
  if (found === undefined) throw new ProviderError("CONFIG", "not_applied", "not in the config");
  return found.store;
};

const look = async (pass: Pass, store: Store, signal = pass.looking): Promise<Seen> => {
  const stored = await patiently(pass.hands, signal, () => store.read(signal));
  return { stored, fp: stored === null ? null : stored.secret.fingerprint(pass.journal.state().salt ?? "") };
};

/** The new key, the current key, nothing, what was last seen there, or what we meant to write there: everything else is somebody's work. */
export const isOurs = (s: AppState, target: string, fp: Fp | null): boolean =>
  fp === null ||
  fp === s.rotation?.newFp ||
  fp === s.current ||
  s.lastSeen.get(target) === fp ||
  [...(s.rotation?.intents.values() ?? [])].some((i) => i.target === target && i.fp === fp);

/** In `replace` mode nothing works anyway, in an emergency nothing may wait: an unknown value that IMKIT rejects may be overwritten too. */
const mayOverwrite = async (pass: Pass, target: string, seen: Seen): Promise<boolean> => {
  const s = pass.journal.state();
  if (isOurs(s, target, seen.fp)) return true;
  const isUrgent = s.rotation?.mode === "replace" || s.rotation?.emergency != null;
  if (!isUrgent || seen.stored === null) return false;
  const probe = await pass.hands.platform.probe(seen.stored.secret, { urgent: false }, pass.looking);
  return probe.verdict === "rejected";
};

/** A store that quotes another ledger, or an entry that this one lacks, was written with a ledger that we do not have. */
export const witnessProblem = (pass: Pick<Pass, "journal">, stored: Stored | null): string | null => {
  const quoted = stored?.witness ?? null;
  if (quoted === null || pass.journal.overrules(quoted)) return null;
  if (quoted.ledger !== pass.journal.ledgerId()) return "LEDGER_FOREIGN";
  return pass.journal.h16(quoted.seq) === quoted.h16 ? null : "LEDGER_BEHIND";
};

/** Writes the new key to one store, over nothing but what was expected there, and reads it back. */
export const writeStore = async (
  pass: Pass,
  target: string,
  intent: string,
  slots: Slots,
): Promise<Facts> => {
  const facts = await writeIn(pass, target, intent, slots).catch((thrown: unknown) => {
    slots.say(target, false);
    throw thrown;
  });
  slots.say(target, facts[0]?.type === "result" && facts[0].outcome === "ok");
  return facts;
};

const writeIn = async (pass: Pass, target: string, intent: string, slots: Slots): Promise<Facts> => {
  const r = rotationOf(pass);
  const base = { type: "result", rotation: r.id, intent } as const;
  const cancelled: LedgerEvent = { ...base, outcome: "failed", code: "CANCELLED" };
  if (r.newFp === null || !isWanted(pass, intent)) return [cancelled];
  const key = await pass.keys.get(r.newFp);
  if (key === null) return [{ ...base, outcome: "failed", code: "ESCROW_LOST" }];
  let over: { readonly replaced?: string } = {};
  try {
    const store = storeOf(pass, target);
    for (let move = 1; ; move++) {
      const seen = await look(pass, store);
      over = replacing(store, seen);
      if (seen.stored?.secret.equals(key)) {
        return [{ ...base, outcome: "ok", changed: false, revision: seen.stored.revision }];
      }
      if (!(await mayOverwrite(pass, target, seen)))
        return [{ ...base, outcome: "failed", code: "CONFLICT" }];
      await keepOld(pass, seen);
      const written = await writeOnce(pass, { target, store, key, seen, intent, slots });
      if (written === "cancelled") return [cancelled];
      if (written !== "moved") return [{ ...(await readBack(pass, store, key, base)), ...over }];
      if (move >= MOVES) return [{ ...base, outcome: "failed", code: "CONFLICT" }];
    }
  } catch (thrown) {
    // Only the look before a write is given up at once: nothing was written.
    if (isInterrupt(thrown)) return [cancelled];
    const ended = failed(pass, asAnswer(thrown), r.stores.get(target)?.tries ?? 1);
    return [{ ...base, ...ended, ...(ended.outcome === "unknown" ? over : {}) }];
  }
};

/** Only where it can be disabled later. */
const replacing = (store: Store, { stored }: Seen): { readonly replaced?: string } =>
  stored === null || !store.caps.retire ? {} : { replaced: stored.revision };

type Write = {
  readonly target: string;
  readonly store: Store;
  readonly key: Secret;
  readonly seen: Seen;
  readonly intent: string;
  readonly slots: Slots;
};

const writeOnce = async (pass: Pass, w: Write): Promise<"written" | "moved" | "cancelled"> => {
  const { key, seen, intent, slots } = w;
  const seq = Number(intent.split(".")[0]);
  const op = {
    id: rotationOf(pass).intents.get(intent)?.opId ?? intent,
    witness: { ledger: pass.journal.ledgerId() ?? "", seq, h16: pass.journal.h16(seq) ?? "" },
  };
  const expect = seen.stored?.revision ?? null;
  try {
    if (!slots.has(w.target) || w.store.stage === undefined) {
      if (!(await slots.all) || !(await mayStart(pass, w))) return "cancelled";
      await w.store.write(key, expect, op, pass.signal);
      return "written";
    }
    if (!(await mayStart(pass, w))) return "cancelled";
    const staged = await w.store.stage(key, expect, op, pass.signal);
    slots.say(w.target, true);
    if ((await slots.all) && (await mayStart(pass, w))) {
      await staged.commit(pass.signal);
      return "written";
    }
    await staged.drop(pass.signal);
    return "cancelled";
  } catch (thrown) {
    const error = asAnswer(thrown);
    if (error.code === "CONFLICT" && error.outcome === "not_applied") return "moved";
    throw error;
  }
};

/** Right before an effect: the ledger is still ours, old keys are safe, and the effect is still wanted. */
const mayStart = async (pass: Pass, { seen, intent }: Write): Promise<boolean> => {
  const { journal, hands } = pass;
  await ensureOurs(journal, hands.host.claim.inst);
  // What stands there may have been called an old key a moment ago; and what a store shows may be older than what it holds.
  const isKept = [await keepOld(pass, seen), await pass.keys.keepKnown(unproved(journal.state()))];
  if (isKept.includes(true)) await ensureOurs(journal, hands.host.claim.inst);
  return isWanted(pass, intent);
};

const readBack = async (
  pass: Pass,
  store: Store,
  key: Secret,
  base: { readonly type: "result"; readonly rotation: string; readonly intent: string },
): Promise<LedgerEvent & { readonly type: "result" }> => {
  try {
    // It belongs to the write, and has its time.
    const { stored } = await look(pass, store, pass.signal);
    if (stored?.secret.equals(key))
      return { ...base, outcome: "ok", changed: true, revision: stored.revision };
    return { ...base, outcome: "failed", code: "VERIFY_MISMATCH" };
  } catch (thrown) {
    const code = isInterrupt(thrown) ? "INTERRUPTED" : asProviderError(thrown).code;
    return { ...base, outcome: "unknown", code };
  }
};

/** A write that took place over somebody else's value is no success that a second look could find: a person has to know. */
const isFinal = (e: ProviderError): boolean =>
  e.outcome === "not_applied" || (e.code === "CONFLICT" && e.outcome === "applied");

const failed = (pass: Pass, e: ProviderError, tries: number) => ({
  outcome: isFinal(e) ? ("failed" as const) : ("unknown" as const),
  code: codeOf(pass, e),
  retryAfterMs: e.retryAfterMs ?? 1_000 * 4 ** Math.max(0, tries - 1),
});

/** Reads a store whose write has no sure end: it took place, it did not, or nobody can say yet. */
export const observeStore = async (pass: Pass, target: string, intent: string): Promise<Facts> => {
  const r = rotationOf(pass);
  const base = { type: "observed", rotation: r.id, what: "intent", run: pass.run, intent, target } as const;
  try {
    const { fp } = await look(pass, storeOf(pass, target));
    if (fp === r.intents.get(intent)?.fp) return [{ ...base, outcome: "ok", fp }];
    const code = isOurs(pass.journal.state(), target, fp) ? "NOT_APPLIED" : "CONFLICT";
    return [{ ...base, outcome: "failed", code }];
  } catch (thrown) {
    return [{ ...base, outcome: "unknown", code: asProviderError(thrown).code }];
  }
};

/** One read of every store: what each holds now, as `observed` events. */
export const rereadStores = async (pass: Pass): Promise<Facts> => {
  const r = rotationOf(pass);
  const asOf = pass.journal.head()?.seq ?? 0;
  const targets = [...r.stores.values()].filter((s) => s.state !== "dropped");
  return Promise.all(
    targets.map(async ({ name }): Promise<LedgerEvent> => {
      const base = {
        type: "observed",
        rotation: r.id,
        what: "target",
        run: pass.run,
        target: name,
        asOf,
      } as const;
      try {
        const { fp } = await look(pass, storeOf(pass, name));
        if (isOurs(pass.journal.state(), name, fp)) return { ...base, outcome: "ok", fp };
        return { ...base, outcome: "failed", code: "CONFLICT", fp };
      } catch (thrown) {
        return { ...base, outcome: "failed", code: asProviderError(thrown).code };
      }
    }),
  );
};

/** Looks until a store that someone else fills shows the new key; 10 minutes at most. */
export const watchMirror = async (pass: Pass, target: string): Promise<Facts> => {
  const { clock } = pass.hands;
  const r = rotationOf(pass);
  const base = { type: "observed", rotation: r.id, what: "target", run: pass.run, target } as const;
  const until = clock.monotonic() + MIRROR_PATIENCE_MS;
  for (;;) {
    const seen = await orElse(look(pass, storeOf(pass, target)), null);
    if (seen !== null && seen.fp === r.newFp) return [{ ...base, outcome: "ok", fp: seen.fp }];
    if (clock.monotonic() >= until) return [{ ...base, outcome: "failed", code: "TIMEOUT" }];
    await clock.sleep(MIRROR_EVERY_MS, pass.looking);
  }
};

export type Finding = {
  readonly target: string;
  readonly code: string | null;
  readonly checks: readonly Check[];
  /** What a store holds, where it may be written. */
  readonly fp?: Fp | null;
  /** What a write would supersede. */
  readonly replaced?: string;
};

/** An old key must be at hand until it is proved dead: no store loses it before escrow has it. @returns whether that took time */
const keepOld = async (pass: Pass, { fp, stored }: Seen): Promise<boolean> => {
  const s = pass.journal.state();
  if (stored === null || fp === null || !(s.old.has(fp) || fp === s.current)) return false;
  return pass.keys.keep(fp, stored.secret);
};

/** Whether one store may be written: its own preflight, its value, its witness. Keeps an old key that is found there. */
export const preflightStore = async (pass: Pass, target: string): Promise<Finding> => {
  try {
    const store = storeOf(pass, target);
    const checks = await store.preflight(pass.looking);
    const bad = checks.find((c) => c.status === "fail");
    if (bad) return { target, code: bad.code ?? "UNAVAILABLE", checks };
    const seen = await look(pass, store);
    const code = witnessProblem(pass, seen.stored);
    if (code !== null) return { target, code, checks };
    await keepOld(pass, seen);
    return {
      target,
      code: (await mayOverwrite(pass, target, seen)) ? null : "CONFLICT",
      checks,
      fp: seen.fp,
      ...(seen.fp === rotationOf(pass).newFp ? {} : replacing(store, seen)),
    };
  } catch (thrown) {
    return { target, code: asAnswer(thrown).code, checks: [] };
  }
};
