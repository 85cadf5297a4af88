import { RotatorError } from "../core/errors.ts";
import type { Check, Platform, Rollout, Store } from "../ports.ts";
import type { Hands } from "./hands.ts";

/** This process was told to stop, and gave a question up for that. */
export const isInterrupt = (error: unknown): boolean =>
  error instanceof RotatorError && error.code === "INTERRUPTED";

/** For a question that one can do without. @throws RotatorError INTERRUPTED where it was given up; that is no answer */
export const orElse = <T, const F>(asked: Promise<T>, fallback: F): Promise<T | F> =>
  asked.catch((error: unknown) => {
    if (isInterrupt(error)) throw error;
    return fallback;
  });

/** Whatever it seems to say, a call that was told to stop has said nothing. @throws RotatorError INTERRUPTED */
const ask = async <T>(signal: AbortSignal, question: () => Promise<T>): Promise<T> => {
  try {
    if (!signal.aborted) {
      const answer = await question();
      if (!signal.aborted) return answer;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  throw new RotatorError("INTERRUPTED");
};

/**
 * The same hands, whose questions (reads, preflights, looks at a rollout, all that IMKIT is asked) end in INTERRUPTED once their signal aborts:
 * so nothing becomes a fact, an answer or a finding because this process was told to stop. What changes something keeps its own end.
 */
export const stoppable = (hands: Hands): Hands => ({
  ...hands,
  app: {
    ...hands.app,
    stores: hands.app.stores.map((target) => ({ ...target, store: stoppableStore(target.store) })),
    rollouts: hands.app.rollouts.map((target) => ({ ...target, rollout: stoppableRollout(target.rollout) })),
  },
  ledger: stoppableRoom(hands.ledger),
  escrow: stoppableRoom(hands.escrow),
  platform: stoppablePlatform(hands.platform),
});

type Room = { preflight?(signal: AbortSignal): Promise<readonly Check[]> };
const stoppableRoom = <R extends Room>(room: R): R =>
  room.preflight === undefined
    ? room
    : {
        ...room,
        preflight: (signal: AbortSignal) => ask(signal, async () => (await room.preflight?.(signal)) ?? []),
      };

export const stoppableStore = (store: Store): Store => ({
  ...store,
  preflight: (signal) => ask(signal, () => store.preflight(signal)),
  read: (signal) => ask(signal, () => store.read(signal)),
});

const stoppableRollout = (rollout: Rollout): Rollout => {
  const watch = rollout.watch?.bind(rollout);
  return {
    ...rollout,
    preflight: (signal) => ask(signal, () => rollout.preflight(signal)),
    ...(watch === undefined ? {} : { watch: (op, signal) => ask(signal, () => watch(op, signal)) }),
  };
};

const stoppablePlatform = (platform: Platform): Platform => ({
  probe: (key, options, signal) => ask(signal, () => platform.probe(key, options, signal)),
  appIdentity: (key, signal) => ask(signal, () => platform.appIdentity(key, signal)),
  usage: (key, signal) => ask(signal, () => platform.usage(key, signal)),
});
