import type { Entry } from "../../../src/core/events.ts";
import type { AppState } from "../../../src/core/state.ts";
import type { Hands } from "../../../src/flow/hands.ts";
import { type Checks, checksOf } from "./checks.ts";
import { type Imkit, type IssuedKey, imkit } from "./imkit.ts";
import {
  loadWorkload,
  type Moods,
  rolloutPort,
  setValue,
  storePort,
  type TrueStore,
  type TrueWorkload,
} from "./places.ts";
import { type Prng, prng } from "./prng.ts";
import { type Fate, NO_FATE, type Proc, startProcess, type Trace } from "./process.ts";
import type { Product } from "./product.ts";
import { type TrueEscrow, type TrueLedger, trueEscrow, trueLedger } from "./record.ts";
import { drawScenario, type Scenario } from "./scenario.ts";
import { type Timeline, timeline } from "./timeline.ts";

/** How one command of the product ended. */
export type Ended<T> =
  | { readonly kind: "returned"; readonly value: T; readonly proc: Proc }
  | { readonly kind: "failed"; readonly code: string; readonly proc: Proc }
  | { readonly kind: "killed"; readonly proc: Proc };

export type World = {
  readonly product: Product;
  readonly chance: Prng;
  readonly time: Timeline;
  readonly scenario: Scenario;
  readonly imkit: Imkit;
  readonly stores: ReadonlyMap<string, TrueStore>;
  readonly workloads: ReadonlyMap<string, TrueWorkload>;
  readonly ledger: TrueLedger;
  readonly escrow: TrueEscrow;
  readonly checks: Checks;
  readonly first: IssuedKey | null;
  readonly isCalm: () => boolean;
  readonly state: () => AppState;
  readonly fpOf: (text: string) => string;
  readonly show: (text: string | null) => string;
  readonly trace: Trace;
  readonly violated: (what: string) => void;
  readonly violations: () => readonly string[];
  /** Runs one command as a process of its own. */
  readonly command: <T>(name: string, run: (hands: Hands) => Promise<T>, fate?: Fate) => Promise<Ended<T>>;
  readonly sleep: (ms: number) => Promise<void>;
  /** Somebody who is not us changes a store. */
  readonly edit: (store: TrueStore, value: string | null) => void;
  readonly restart: (w: TrueWorkload) => void;
  /** Targets that are not in the config just now. */
  readonly missing: Set<string>;
  /** Told of each new entry. */
  readonly onEntry: (happens: (proc: Proc, entry: Entry) => void) => void;
};

const summary = (value: unknown): string =>
  typeof value !== "object" || value === null
    ? ""
    : Object.entries(value)
        .filter(([, v]) => typeof v === "string" || v === null)
        .map(([k, v]) => `${k}=${String(v)}`)
        .join(" ");

const EPOCH = Date.parse("2026-03-02T08:00:00.000Z");

export type WorldOptions = {
  readonly product: Product;
  readonly sound: Product;
  readonly seed: number;
  readonly traced: boolean;
  /** For tests of one story: changes to what the seed drew. */
  readonly change?: (drawn: Scenario) => Scenario;
};

export const makeWorld = ({
  product,
  sound,
  seed,
  traced,
  change,
}: WorldOptions): World & { readonly log: string[] } => {
  const chance = prng(seed);
  const drawn = drawScenario(chance);
  const scenario = change === undefined ? drawn : change(drawn);
  const time = timeline();
  const log: string[] = [];
  const violations: string[] = [];
  const trace: Trace = traced
    ? (text): void => void log.push(`${(time.now() / 1_000).toFixed(3).padStart(9)} ${text()}`)
    : () => {};
  const violated = (what: string): void => {
    if (violations.length < 20) violations.push(what);
    trace(() => `VIOLATION ${what}`);
  };
  const isCalm = (): boolean => scenario.calm || time.now() >= scenario.peaceAt;
  const moods = (): Moods => (isCalm() ? { refuses: 0, losesAnswer: 0, lies: 0, stale: 0 } : scenario);

  const stores = new Map(scenario.stores.map((s) => [s.plan.name, s]));
  const workloads = new Map(scenario.workloads.map((w) => [w.plan.name, w]));
  const processes = new Map<string, Proc>();
  const vendor = imkit(product, time, chance, scenario.imkit, isCalm, trace);
  const names = new Map<string, string>();
  const missing = new Set<string>();
  const listeners: ((proc: Proc, entry: Entry) => void)[] = [];
  const show = (text: string | null): string => {
    if (text === null) return "nothing";
    const known = names.get(text) ?? `K${names.size}`;
    names.set(text, known);
    return known;
  };

  let ledger: TrueLedger;
  let escrow: TrueEscrow;
  const checks: Checks = checksOf({
    sound,
    time,
    stores,
    workloads,
    escrow: () => escrow,
    ledger: () => ledger,
    imkit: vendor,
    processes,
    violated,
    probes: 3,
    epoch: EPOCH,
    isSkewed: () => scenario.skews > 0,
  });
  ledger = trueLedger({
    product,
    sound,
    time,
    chance,
    failChance: () => (isCalm() ? 0 : scenario.ledgerFails),
    entered: (proc, entry, before) => {
      checks.entered(proc, entry, before);
      ambush(proc, entry);
      for (const happens of listeners) happens(proc, entry);
    },
    violated,
    trace,
  });
  escrow = trueEscrow({
    product,
    chance,
    failChance: () => (isCalm() ? 0 : scenario.escrowFails),
    removes: () => {},
    removed: checks.escrowRemoved,
    mutates: checks.mutates,
    trace,
  });

  const fpOf = checks.fpOf;

  /** What comes in the worst moment. */
  const ambush = (proc: Proc, entry: Entry): void => {
    const isGate = entry.events.some(
      (e) => e.type === "proof" || (e.type === "observed" && e.what === "target"),
    );
    if (isCalm() || !chance.chance(scenario.ambushes * (isGate ? 8 : 1))) return;
    const soon = chance.int(0, chance.pick([100, 100, 2_000]));
    const way = chance.next();
    if (way < 0.6) {
      const store = chance.pick(scenario.stores);
      const value = chance.chance(0.7) ? (first?.text ?? null) : null;
      time.after(soon, () => edit(store, value));
    }
    if (way > 0.4 && way < 0.8) time.after(soon, proc.kill);
    if (way > 0.8 && way < 0.9 && first !== null) vendor.revoke(first.text);
    if (way > 0.9 && scenario.colleague > 0) {
      const key = vendor.issue("app-1");
      time.after(chance.int(0, 50), () => {
        void command("colleague", (hands) =>
          product.stage(hands, new product.Secret(key.text), { source: "prompt", replace: true }),
        ).then((ended) => {
          if (ended.kind === "returned") checks.acknowledged(key.text);
        });
      });
    }
  };

  /** A mirror follows its store after a while. */
  const follow = (from: TrueStore): void => {
    for (const mirror of stores.values()) {
      if (mirror.follows !== from.plan.name) continue;
      time.after(chance.int(100, 20_000), () => {
        setValue(mirror, from.value, "mirror", time.now());
        trace(() => `${mirror.plan.name} follows: ${show(mirror.value)}`);
      });
    }
  };

  const around = {
    product,
    time,
    chance,
    moods,
    isCalm,
    watcher: {
      ...checks,
      written: (store: TrueStore) => {
        checks.written(store);
        follow(store);
      },
    },
    trace,
    show,
  };

  const inConfig = <T extends { readonly plan: { readonly name: string } }>(
    all: readonly T[],
  ): readonly T[] => all.filter((t) => !missing.has(t.plan.name));

  let count = 0;
  const command = <T>(
    name: string,
    run: (hands: Hands) => Promise<T>,
    chosen: Fate | null = null,
  ): Promise<Ended<T>> =>
    new Promise((resolve) => {
      count++;
      const calm = isCalm();
      const drawn = calm
        ? NO_FATE
        : {
            crashAt: chance.chance(scenario.crashes) ? chance.int(1, chance.pick([8, 30, 80])) : 0,
            pauseAt: chance.chance(scenario.pauses) ? chance.int(1, 60) : 0,
            pauseMs: chance.pick([1_000, 25_000, 35_000, 100_000, 200_000, 400_000]),
            stopAt: chance.chance(scenario.stops) ? chance.int(1, 60) : 0,
          };
      const proc: Proc = startProcess(`${name}#${count}`, {
        AbortController: product.AbortController,
        time,
        chance,
        epoch: EPOCH,
        machine: `m${chance.int(1, scenario.machines)}`,
        pid: count,
        skewMs: chance.chance(scenario.skews) ? chance.int(-100_000, 100_000) : 0,
        fate: chosen ?? drawn,
        isAlive: (claim) => processes.get(claim.inst)?.isDead() === false,
        trace,
        died: () => resolve({ kind: "killed", proc }),
      });
      processes.set(proc.claim.inst, proc);
      trace(() => `${proc.name} starts on ${proc.claim.host}`);
      const hands: Hands = product.stoppable({
        app: {
          name: "chat",
          stores: inConfig(scenario.stores).map((s) => ({ plan: s.plan, store: storePort(around, proc, s) })),
          rollouts: inConfig(scenario.workloads).map((w) => ({
            plan: w.plan,
            rollout: rolloutPort(around, proc, w, stores),
          })),
          soakMs: scenario.soakMs,
          revoke: { probes: 3, everyMs: 5_000, control: scenario.control },
          rotateEveryMs: null,
        },
        ledger: ledger.port(proc),
        escrow: escrow.port(proc),
        platform: vendor.port(proc),
        clock: proc.clock,
        host: proc.host,
        entropy: chance.bytes,
        actor: { kind: "test", id: name },
        signal: proc.signal,
        tell: (told) => {
          if (told.kind === "note") trace(() => `${proc.name} says: ${told.text}`);
        },
      });
      run(hands).then(
        (value) => {
          trace(() => `${proc.name} returns ${summary(value)}`);
          proc.exit();
          resolve({ kind: "returned", value, proc });
        },
        (error: unknown) => {
          proc.exit();
          const code = error instanceof product.RotatorError ? error.code : "";
          trace(
            () => `${proc.name} fails: ${code} ${error instanceof product.RotatorError ? error.why : ""}`,
          );
          if (code === "" || code === "INTERNAL" || code === "LEDGER_BROKEN") {
            violated(
              `${proc.name} ends in ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
            );
          }
          resolve({ kind: "failed", code, proc });
        },
      );
    });

  const edit = (store: TrueStore, value: string | null): void => {
    trace(() => `somebody puts ${show(value)} into ${store.plan.name}`);
    setValue(store, value, "foreign", time.now());
    follow(stores.get(store.follows ?? "") ?? store);
  };

  const first = begin(scenario, vendor, chance);
  // Whoever fills a mirror does so again and again.
  if (Number.isFinite(scenario.peaceAt))
    time.at(scenario.peaceAt, () => [...stores.values()].forEach(follow));
  for (const w of workloads.values()) loadWorkload(w, stores, 0, () => {});

  return {
    product,
    chance,
    time,
    scenario,
    imkit: vendor,
    stores,
    workloads,
    ledger,
    escrow,
    checks,
    first,
    isCalm,
    state: () => ledger.state(),
    fpOf,
    show,
    trace,
    violated,
    violations: () => violations,
    command,
    sleep: (ms) => new Promise((resolve) => time.after(ms, resolve)),
    edit,
    restart: (w) =>
      loadWorkload(w, stores, time.now(), (text) => trace(() => `a person: ${text()} ${show(w.uses)}`)),
    missing,
    onEntry: (happens) => void listeners.push(happens),
    log,
  };
};

/** Puts the first keys into the stores. */
const begin = (scenario: Scenario, vendor: Imkit, chance: Prng): IssuedKey | null => {
  const put = (key: IssuedKey, where: readonly TrueStore[]): void => {
    for (const store of where) store.value = key.text;
  };
  const fresh = (): IssuedKey => Object.assign(vendor.issue(), { worksAt: 0 });
  const { stores, start } = scenario;
  if (start === "nothing") return null;
  if (start === "a dead key") {
    const key = fresh();
    put(key, stores);
    Object.assign(key, { revokedAt: 0, deadAt: 0 });
    return key;
  }
  const other = start === "one key" ? null : fresh();
  const key = fresh();
  put(key, stores);
  if (other !== null && stores.length > 1) {
    put(other, [chance.pick(stores.slice(1))]);
    if (start === "one live, one dead") Object.assign(other, { revokedAt: 0, deadAt: 0 });
  }
  return key;
};
