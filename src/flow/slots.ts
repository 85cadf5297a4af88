import { isUrgent } from "../core/next.ts";
import type { Store } from "../ports.ts";
import { type Pass, rotationOf } from "./pass.ts";

/** Stores that are written together: none is switched before each that has a slot has the new value ready in it. */
export type Slots = {
  /** Whether that store lays its value ready first. */
  readonly has: (target: string) => boolean;
  /** A store has it ready, or will not be written in this try. Only the first word of each counts. */
  readonly say: (target: string, ready: boolean) => void;
  /** Whether all may be switched. */
  readonly all: Promise<boolean>;
  /** Waits for nobody any more. */
  readonly release: () => void;
};

/** @param awaited by name, whether the others must not be switched without it */
export const slotsOf = (awaited: ReadonlyMap<string, boolean>): Slots => {
  const open = new Set(awaited.keys());
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const look = (): void => {
    if (open.size === 0) resolve(true);
  };
  look();
  return {
    has: (target) => awaited.has(target),
    say: (target, ready) => {
      if (!open.delete(target)) return;
      if (!ready && awaited.get(target) === true) resolve(false);
      look();
    },
    all: promise,
    release: () => resolve(true),
  };
};

/** The slots of stores that are about to be written at once. Where it is urgent nobody waits. */
export const slotsFor = (pass: Pass, targets: readonly string[]): Slots => {
  const state = pass.journal.state();
  const r = rotationOf(pass);
  const storeOf = (name: string): Store | undefined =>
    pass.hands.app.stores.find((s) => s.plan.name === name)?.store;
  const staging = isUrgent(state, r) ? [] : targets.filter((name) => storeOf(name)?.stage !== undefined);
  return slotsOf(new Map(staging.map((name) => [name, r.stores.get(name)?.required !== false])));
};
