import { RotatorError } from "../core/errors.ts";
import type { Fp } from "../core/secret.ts";
import { type AppState, wanted } from "../core/state.ts";
import type { Hands } from "./hands.ts";
import { type Journal, openJournal } from "./journal.ts";
import { openKeys } from "./keys.ts";
import { asProviderError } from "./pass.ts";
import type { Probe } from "../ports.ts";

export type StoreView = {
  readonly name: string;
  readonly type: string;
  readonly where: string;
  readonly state: "in-sync" | "drift" | "absent" | "error";
  readonly fp: Fp | null;
  readonly code: string | null;
};
export type StatusView = {
  readonly state: AppState;
  readonly stores: readonly StoreView[];
  readonly probe: Probe | null;
  readonly head: { readonly seq: number; readonly h: string } | null;
};

const PATIENCE_MS = 5_000;

/** Ledger and stores, in parallel, 5 s each; IMKIT only with `probe`. Writes nothing. */
export const status = async (hands: Hands, options: { readonly probe: boolean }): Promise<StatusView> => {
  const reading = Promise.all(hands.app.stores.map((target) => readOne(hands, target)));
  const [reads, journal] = await Promise.all([reading, openJournal(hands)]);
  const s = journal.state();
  return {
    state: s,
    stores: judge(s, reads),
    probe: options.probe ? await ask(hands, journal) : null,
    head: journal.head(),
  };
};

type Read = {
  readonly plan: Hands["app"]["stores"][number]["plan"];
  readonly where: string;
  /** Under the ledger's salt, or under none while there is no ledger. */
  readonly fingerprint: (salt: string) => Fp | null;
  readonly code: string | null;
};

const readOne = async (hands: Hands, { plan, store }: Hands["app"]["stores"][number]): Promise<Read> => {
  const stop = new AbortController();
  const signal = AbortSignal.any([hands.signal, stop.signal]);
  const late = hands.clock.sleep(PATIENCE_MS, signal).then(() => "late" as const);
  try {
    const stored = await Promise.race([store.read(signal), late]);
    if (hands.signal.aborted) throw new RotatorError("INTERRUPTED");
    if (stored === "late") return { plan, where: store.where, fingerprint: () => null, code: "TIMEOUT" };
    return {
      plan,
      where: store.where,
      fingerprint: (salt) => stored?.secret.fingerprint(salt) ?? null,
      code: null,
    };
  } catch (error) {
    return { plan, where: store.where, fingerprint: () => null, code: asProviderError(error).code };
  } finally {
    stop.abort();
  }
};

const judge = (s: AppState, reads: readonly Read[]): readonly StoreView[] => {
  const salt = s.salt ?? "00".repeat(32);
  const should = wanted(s);
  const fps = reads.map((r) => r.fingerprint(salt));
  const present = new Set(fps.filter((fp) => fp !== null));
  return reads.map((r, i): StoreView => {
    const fp = fps[i] ?? null;
    const base = { name: r.plan.name, type: r.plan.type, where: r.where, code: r.code };
    if (r.code !== null) return { ...base, fp: null, state: "error" };
    if (fp === null) return { ...base, fp, state: "absent" };
    if (!s.adopted) return { ...base, fp: null, state: present.size === 1 ? "in-sync" : "drift" };
    return { ...base, fp, state: fp === should ? "in-sync" : "drift" };
  });
};

const ask = async (hands: Hands, journal: Journal): Promise<Probe | null> => {
  const s = journal.state();
  const fp = wanted(s);
  const key = fp === null ? null : await openKeys(hands, journal).get(fp);
  if (key === null) return null;
  const { probeKey } = await import("./probing.ts");
  return probeKey(hands, key, hands.signal);
};
