import type { ProcessClaim } from "../../../src/core/events.ts";
import type { Clock, Host } from "../../../src/ports.ts";
import type { Prng } from "./prng.ts";
import type { Product } from "./product.ts";
import type { Timeline } from "./timeline.ts";

/** A line for the trace; the text is made only where there is one. */
export type Trace = (text: () => string) => void;

/** As the adapters do: a call that was told to stop says that it had no answer in time, whatever was on the way. */
export const cutOff = async <T>(signal: AbortSignal, call: Promise<T>, cut: () => T): Promise<T> => {
  const answer = await call;
  return signal.aborted ? cut() : answer;
};

/** What may befall one process. Counted in calls that it makes of its ports. */
export type Fate = {
  readonly crashAt: number;
  readonly pauseAt: number;
  readonly pauseMs: number;
  /** SIGTERM. */
  readonly stopAt: number;
};
export const NO_FATE: Fate = { crashAt: 0, pauseAt: 0, pauseMs: 0, stopAt: 0 };

export type Proc = {
  readonly name: string;
  readonly claim: ProcessClaim;
  readonly clock: Clock;
  readonly host: Host;
  readonly signal: AbortSignal;
  readonly startedAt: number;
  /** Killed, or gone after its work. */
  readonly isDead: () => boolean;
  readonly exit: () => void;
  readonly kill: () => void;
  /** Until when it was stopped, the last time. */
  readonly pausedUntil: () => number;
  /**
   * One call of a port: `apply` happens in the world some time later, and what it returned or threw is told to the process some time after
   * that, unless the process died or sleeps. `latest` = the longest time on the way; 0 = on this machine, where nothing arrives late.
   */
  readonly call: <T>(label: string, latest: number, apply: () => T) => Promise<T>;
  /** Whether what happens now was sent before the process was stopped or killed, and arrives late. */
  readonly isLate: () => boolean;
  /** Own successful append, as its clock saw the begin of it; and what it was told about the ledger last. */
  readonly memory: Memory;
};
export type Memory = {
  appendedAt: number;
  /** The ledger failed this process: it may do nothing more. */
  ledgerFailed: boolean;
  /** Entries that it has been shown. */
  shown: number;
  /** Last honest read of each store: when, and what. */
  /** The last time a store lied to it, and what it said. */
  readonly lies: Map<string, { readonly at: number; readonly value: string | null }>;
  /** When it last saw each value in each store. */
  readonly saw: Map<string, Map<string | null, number>>;
  readonly reads: Map<
    string,
    { readonly at: number; readonly value: string | null; readonly honest: boolean }
  >;
};

type Surroundings = Pick<Product, "AbortController"> & {
  readonly time: Timeline;
  readonly chance: Prng;
  readonly epoch: number;
  /** The machine's name; processes of one machine can see each other die. */
  readonly machine: string;
  readonly pid: number;
  readonly skewMs: number;
  readonly fate: Fate;
  readonly isAlive: (claim: ProcessClaim) => boolean;
  readonly trace: Trace;
  /** The process is gone and will never return. */
  readonly died: () => void;
};

/** One for each call: one for all would hold on to every process that ever waited for it. */
const never = (): Promise<never> => new Promise(() => {});

export const startProcess = (name: string, around: Surroundings): Proc => {
  const { time, chance, fate, machine } = around;
  const stop = new around.AbortController();
  let dead = false;
  let pausedUntil = 0;
  let calls = 0;
  let late = false;
  const claim: ProcessClaim = {
    inst: `i${around.pid}`,
    host: machine,
    bootId: `boot-${machine}`,
    pidNamespace: "1",
    pid: around.pid,
    startTime: "1",
  };

  const die = (): void => {
    if (dead) return;
    dead = true;
    around.trace(() => `${name} is killed`);
    around.died();
  };

  /** Hands over what a call came to, once the process runs. */
  const deliver = (tell: () => void): void => {
    if (dead) return;
    if (time.now() < pausedUntil) time.at(pausedUntil, () => deliver(tell));
    else tell();
  };

  const memory: Memory = {
    appendedAt: Number.NEGATIVE_INFINITY,
    ledgerFailed: false,
    shown: 0,
    lies: new Map(),
    saw: new Map(),
    reads: new Map(),
  };

  const call = <T>(label: string, latest: number, apply: () => T): Promise<T> => {
    if (dead) return never();
    calls++;
    let sendAt = time.now() + chance.int(0, latest);
    let isSentLate = false;
    if (calls === fate.stopAt) {
      around.trace(() => `${name} is told to stop`);
      time.after(0, () => stop.abort());
    }
    if (calls === fate.crashAt) {
      around.trace(() => `${name} dies in ${label}`);
      time.after(0, die);
      const way = chance.int(0, 2);
      if (way === 0) return never();
      if (way === 2 && latest > 0) sendAt = time.now() + chance.int(1, 5_000);
      isSentLate = true;
    }
    if (calls === fate.pauseAt) {
      around.trace(() => `${name} is stopped for ${fate.pauseMs} ms in ${label}`);
      pausedUntil = time.now() + fate.pauseMs;
      if (latest > 0 && chance.chance(0.5)) {
        sendAt = pausedUntil + chance.int(0, latest);
        isSentLate = true;
      }
    }
    return new Promise((resolve, reject) => {
      time.at(sendAt, () => {
        // Of the calls that were on the way when the process died, some arrive.
        if (dead && !isSentLate && (latest === 0 || chance.chance(0.5))) return;
        let tell: () => void;
        late = isSentLate || dead;
        try {
          const value = apply();
          tell = () => resolve(value);
        } catch (error) {
          tell = () => reject(error);
        } finally {
          late = false;
        }
        if (chance.chance(0.7)) deliver(tell);
        else time.after(chance.int(0, latest), () => deliver(tell));
      });
    });
  };

  const clock: Clock = {
    now: () => around.epoch + time.now() + around.skewMs,
    monotonic: () => time.now(),
    sleep: (ms, signal) => {
      if (dead) return never();
      return new Promise((resolve) => {
        if (signal.aborted) return resolve();
        let over = false;
        const end = (): void => {
          if (over) return;
          over = true;
          signal.removeEventListener("abort", end);
          resolve();
        };
        signal.addEventListener("abort", end);
        time.after(Math.max(0, ms), () => {
          if (!over) deliver(end);
        });
      });
    },
  };

  return {
    name,
    claim,
    clock,
    host: {
      claim,
      isGone: (other) => call("isGone", 0, () => other.host === machine && !around.isAlive(other)),
    },
    signal: stop.signal,
    startedAt: time.now(),
    isDead: () => dead,
    pausedUntil: () => pausedUntil,
    kill: die,
    exit: () => {
      dead = true;
    },
    isLate: () => late,
    call,
    memory,
  };
};
