import type { PlannedRollout, PlannedStore } from "../../../src/core/events.ts";
import type { Secret } from "../../../src/core/secret.ts";
import type {
  Check,
  Revision,
  Rollout,
  RolloutState,
  Staged,
  Store,
  Witness,
  WriteOp,
} from "../../../src/ports.ts";
import type { Prng } from "./prng.ts";
import { cutOff, type Proc, type Trace } from "./process.ts";
import type { Product } from "./product.ts";
import type { Timeline } from "./timeline.ts";

export type Trouble = { readonly from: number; readonly to: number; readonly code: string };

/** A store as it truly is. */
export type TrueStore = {
  readonly plan: PlannedStore;
  readonly cas: boolean;
  /** Has a slot beside its value. */
  readonly staging: boolean;
  readonly witness: boolean;
  /** For a mirror: the store that it follows. */
  readonly follows: string | null;
  value: string | null;
  slot: string | null;
  revision: number;
  changedAt: number;
  changedBy: "us" | "foreign" | "mirror" | "late" | "start";
  quoted: Witness | null;
  /** When any process last had an honest look at each value that it held. */
  readonly looks: Map<string | null, number>;
  /** When it last said each value that it did not hold. */
  readonly lies: Map<string | null, number>;
  /** Values before, for stale answers. */
  before: string | null;
  readonly troubles: Trouble[];
  readonly ops: Map<string, number>;
};

/** A workload as it truly is. */
export type TrueWorkload = {
  readonly plan: PlannedRollout;
  readonly how: Rollout["how"];
  /** Says how it goes on after its trigger, as Kubernetes does; a repeat with the same mark does nothing. */
  readonly watched: boolean;
  readonly reads: string;
  readonly takesMs: number;
  uses: string | null;
  loadedAt: number;
  /** It was started on a value that came from outside. */
  tainted: boolean;
  mark: string;
  doneAt: number;
  readonly troubles: Trouble[];
  readonly ops: Map<string, number>;
};

/** What the checks are told about effects. */
export type Watcher = {
  readonly writeBegins: (proc: Proc, store: TrueStore, key: string, opId: string) => void;
  readonly writeHappens: (proc: Proc, store: TrueStore, key: string, opId: string, late: boolean) => void;
  readonly written: (store: TrueStore) => void;
  readonly rollBegins: (proc: Proc, workload: TrueWorkload, opId: string) => void;
};

export type Moods = {
  /** Chances of one call. */
  readonly refuses: number;
  readonly losesAnswer: number;
  readonly lies: number;
  readonly stale: number;
};

type Around = {
  readonly product: Product;
  readonly time: Timeline;
  readonly chance: Prng;
  readonly moods: () => Moods;
  readonly isCalm: () => boolean;
  readonly watcher: Watcher;
  readonly trace: Trace;
  readonly show: (key: string | null) => string;
};

const CODES = ["UNAVAILABLE", "TIMEOUT", "THROTTLED", "AUTHZ", "KMS"] as const;
const LATEST = 200;
type ProviderCode = ConstructorParameters<Product["ProviderError"]>[0];

const troubleNow = (troubles: readonly Trouble[], now: number, calm: boolean): string | null =>
  calm ? null : (troubles.find((t) => now >= t.from && now < t.to)?.code ?? null);
export const setValue = (
  store: TrueStore,
  value: string | null,
  by: TrueStore["changedBy"],
  now: number,
): void => {
  if (store.value === value) return;
  store.before = store.value;
  store.value = value;
  store.revision++;
  store.changedAt = now;
  store.changedBy = by;
};

/** A workload starts and reads its store. */
export const loadWorkload = (
  w: TrueWorkload,
  stores: ReadonlyMap<string, TrueStore>,
  now: number,
  trace: Trace,
): void => {
  const store = stores.get(w.reads);
  w.uses = store?.value ?? null;
  w.loadedAt = now;
  w.tainted = store?.changedBy === "foreign" || store?.changedBy === "late";
  trace(() => `${w.plan.name} starts with`);
};

const mayCheck = (id: string, code: string | null): readonly Check[] => [
  { id, status: code === null ? "ok" : "fail", message: "", ...(code === null ? {} : { code }) },
];

export const storePort = (around: Around, proc: Proc, store: TrueStore): Store => {
  const { product, time, chance, moods, watcher, trace, show } = around;
  const { name } = store.plan;
  const fail = (code: string, outcome: "not_applied" | "unknown"): Error =>
    new product.ProviderError(
      code as ProviderCode,
      outcome,
      "",
      chance.chance(0.3) ? chance.int(0, 20) * 1_000 : null,
    );
  const trouble = (): string | null => troubleNow(store.troubles, time.now(), around.isCalm());
  const refusal = (): string | null =>
    trouble() ?? (chance.chance(moods().refuses) ? chance.pick(CODES) : null);
  const revisionOf = (): Revision => `r${store.revision}` as Revision;

  const put = (
    text: string,
    expect: Revision | null,
    op: { id: string; witness: Witness | null },
    late = proc.isLate(),
  ): Revision => {
    if (store.cas && (store.value === null ? null : revisionOf()) !== expect) {
      if (store.value === text && store.ops.has(op.id)) return revisionOf();
      throw fail("CONFLICT", "not_applied");
    }
    watcher.writeHappens(proc, store, text, op.id, late);
    store.ops.set(op.id, (store.ops.get(op.id) ?? 0) + 1);
    trace(() => `${name}: ${show(store.value)} -> ${show(text)} by ${proc.name}${late ? " (late)" : ""}`);
    setValue(store, text, late ? "late" : "us", time.now());
    if (store.witness) store.quoted = op.witness;
    watcher.written(store);
    return revisionOf();
  };

  const write: Store["write"] = (next, expect, op) => {
    const text = next.reveal();
    watcher.writeBegins(proc, store, text, op.id);
    return proc.call(`write ${name}`, LATEST, () => {
      const code = refusal();
      if (code !== null) throw fail(code, "not_applied");
      if (chance.chance(moods().lies)) {
        trace(() => `${name} lies to ${proc.name}`);
        return revisionOf();
      }
      if (!chance.chance(moods().losesAnswer)) return put(text, expect, op);
      const way = chance.int(0, 2);
      trace(
        () =>
          `${name} loses its answer to ${proc.name} (${["not written", "written", "written later"][way]})`,
      );
      if (way === 1) put(text, expect, op);
      if (way === 2) {
        time.after(chance.int(1, 20_000), () => {
          try {
            put(text, expect, op, true);
          } catch {}
        });
      }
      throw fail(chance.pick(["TIMEOUT", "UNAVAILABLE"]), "unknown");
    });
  };

  return {
    where: store.plan.where,
    caps: { staging: store.staging, compareAndSwap: store.cas, witness: store.witness, retire: false },
    preflight: (signal) =>
      cutOff(
        signal,
        proc.call(`preflight ${name}`, LATEST, () => mayCheck("may-write", trouble())),
        () => mayCheck("may-write", "TIMEOUT"),
      ),
    read: (signal) => {
      const call = proc.call(`read ${name}`, LATEST, () => {
        const code = refusal();
        if (code !== null) throw fail(code, "not_applied");
        const isStale = chance.chance(moods().stale);
        const value = isStale ? store.before : store.value;
        const saw = proc.memory.saw.get(name) ?? new Map<string | null, number>();
        proc.memory.saw.set(name, saw.set(value, time.now()));
        if (value === store.value) store.looks.set(value, time.now());
        if (value !== store.value) store.lies.set(value, time.now());
        if (value !== store.value) proc.memory.lies.set(name, { at: time.now(), value });
        proc.memory.reads.set(name, { at: time.now(), value, honest: value === store.value });
        trace(() => `${proc.name} reads ${name}: ${show(value)}${value === store.value ? "" : " (stale)"}`);
        if (value === null) return null;
        const revision = isStale ? (`r${store.revision - 1}` as Revision) : revisionOf();
        return {
          secret: new product.Secret(value),
          revision,
          createdAt: null,
          witness: isStale ? null : store.quoted,
        };
      });
      return cutOff(signal, call, () => {
        throw fail("TIMEOUT", "not_applied");
      });
    },
    write,
    ...(store.staging && {
      stage: (next: Secret, expect: Revision | null, op: WriteOp) => {
        const text = next.reveal();
        watcher.writeBegins(proc, store, text, op.id);
        return proc.call(`stage ${name}`, LATEST, (): Staged => {
          const code = refusal();
          if (code !== null) throw fail(code, "not_applied");
          if (store.cas && store.value !== text && (store.value === null ? null : revisionOf()) !== expect)
            throw fail("CONFLICT", "not_applied");
          store.slot = text;
          trace(() => `${name}: ${show(text)} is laid ready by ${proc.name}`);
          if (chance.chance(moods().losesAnswer)) throw fail("TIMEOUT", "not_applied");
          return {
            commit: (signal) => write(next, expect, op, signal),
            drop: () =>
              proc.call(`drop ${name}`, LATEST, () => {
                store.slot = null;
              }),
          };
        });
      },
    }),
  };
};

export const rolloutPort = (
  around: Around,
  proc: Proc,
  w: TrueWorkload,
  stores: ReadonlyMap<string, TrueStore>,
): Rollout => {
  const { product, time, chance, moods, watcher, trace, show } = around;
  const { name } = w.plan;
  const fail = (code: string, outcome: "not_applied" | "unknown"): Error =>
    new product.ProviderError(code as ProviderCode, outcome);
  const trouble = (): string | null => troubleNow(w.troubles, time.now(), around.isCalm());
  const load = (): void =>
    loadWorkload(w, stores, time.now(), (text) => trace(() => `${text()} ${show(w.uses)}`));
  const restart = (mark: string, opId: string): void => {
    w.ops.set(opId, (w.ops.get(opId) ?? 0) + 1);
    if (!w.watched) return load();
    if (w.mark === mark) return;
    w.mark = mark;
    w.doneAt = time.now() + w.takesMs;
    time.after(chance.int(0, w.takesMs), load);
  };
  const stand = (mark: string): RolloutState => {
    if (w.mark !== mark) return { state: "failed", proof: 0, reason: "was not told to" };
    return time.now() < w.doneAt
      ? { state: "rolling", proof: 0, reason: "" }
      : { state: "done", proof: 1, reason: "" };
  };
  return {
    where: w.plan.where,
    how: w.how,
    reason: "",
    preflight: (signal) =>
      cutOff(
        signal,
        proc.call(`preflight ${name}`, LATEST, () => mayCheck("may-roll", trouble())),
        () => mayCheck("may-roll", "TIMEOUT"),
      ),
    trigger: async (op) => {
      watcher.rollBegins(proc, w, op.opId);
      return proc.call(`roll ${name}`, w.watched ? LATEST : w.takesMs + LATEST, () => {
        const code = trouble() ?? (chance.chance(moods().refuses) ? chance.pick(CODES) : null);
        if (code !== null) throw fail(code, "not_applied");
        if (chance.chance(moods().losesAnswer)) {
          if (chance.chance(0.5)) restart(op.rotation, op.opId);
          throw fail("TIMEOUT", "unknown");
        }
        restart(op.rotation, op.opId);
        return w.watched ? stand(op.rotation) : ({ state: "done", proof: 0, reason: "" } as const);
      });
    },
    ...(w.watched
      ? {
          watch: (op, signal) => {
            const call = proc.call(`watch ${name}`, LATEST, () => {
              if (chance.chance(moods().refuses)) throw fail("UNAVAILABLE", "not_applied");
              return stand(op.rotation);
            });
            return cutOff(signal, call, () => {
              throw fail("TIMEOUT", "not_applied");
            });
          },
        }
      : {}),
  };
};
