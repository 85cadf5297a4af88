import { RotatorError } from "../../core/errors.ts";
import type { Phase } from "../../core/outcome.ts";
import type { Fp } from "../../core/secret.ts";
import type { AppState } from "../../core/state.ts";
import type { RotateOptions } from "../../flow/rotate.ts";
import { unusableRoom } from "../../flow/rooms.ts";
import { stage } from "../../flow/stage.ts";
import { asRotatorError } from "../fault.ts";
import type { Io } from "../io.ts";
import { readKey } from "../key.ts";
import { paint, printNext, printWords } from "../print.ts";
import { stepsOf } from "../steps.ts";
import { interrupt, pressEnter } from "../terminal.ts";
import type { Wired } from "../wire.ts";

const NEEDS_KEY: readonly Phase[] = ["waiting-key", "blackout"];

export type Talk = {
  readonly say: (phase: Phase, state: AppState, lost?: readonly Fp[]) => void;
  /** For `rotate`: true ends its wait. @throws RotatorError INTERRUPTED after Ctrl-C at the question for a key */
  readonly waiting: NonNullable<RotateOptions["waiting"]>;
  readonly hasRestarted: () => boolean;
  /** Whether Enter was pressed since the last call. */
  readonly takeRestarted: () => boolean;
  /** Nothing is asked any more. */
  readonly close: () => Promise<void>;
};

/**
 * While `rotate` waits: says what for, once each time it changes. On a terminal Enter says that all was restarted, and a missing key is asked
 * for while the rotation goes on watching.
 */
export const waitingTalk = (io: Io, wired: Wired, asks: boolean): Talk => {
  let said = "";
  let entered = false;
  const question = askForKey(io, wired);

  const say: Talk["say"] = (phase, state, lost = []) => {
    const turn = [turnOf(phase, state), ...lost].join(" ");
    if (said === turn) return;
    said = turn;
    io.say(paint(io, "bold", `■ Your turn: ${wired.name} is ${phase}. Ctrl-C is safe: nothing is lost.`));
    printNext(io, stepsOf(wired, state, phase, lost), io.say);
    if (asks && phase === "waiting-restart") io.say("  Or press Enter here when all was restarted.");
    if (phase === "waiting-revoke" && lost.length === 0)
      io.say("  Or leave this open: it looks again and again, and proves it by itself.");
    if (asks && NEEDS_KEY.includes(phase)) io.say("  Or paste the new key here, and this goes on by itself.");
  };

  return {
    say,
    waiting: async (phase, state, lost) => {
      const isMissing = NEEDS_KEY.includes(phase);
      if (!isMissing) await question.close();
      say(phase, state, lost);
      if (asks && isMissing) question.open();
      if (asks && phase === "waiting-restart") entered = await pressEnter(io, 5_000);
      return entered;
    },
    hasRestarted: () => entered,
    takeRestarted: () => {
      const was = entered;
      entered = false;
      return was;
    },
    close: question.close,
  };
};

/** What is to be done changes with the phase, and when somebody calls out a leak or says another order. */
const turnOf = (phase: Phase, { rotation }: AppState): string => {
  const alarm = rotation?.emergency ?? null;
  return [phase, alarm?.order ?? "", ...(alarm?.leaked ?? [])].join(" ");
};

/** The hidden question beside a running rotation. What it stages is seen by the rotation in the ledger, as any other `stage` is. */
const askForKey = (io: Io, wired: Wired) => {
  let asking: Promise<void> | null = null;
  let failure: RotatorError | null = null;
  let stop = new AbortController();

  /** Until a key is in. Asked again at once: what is pasted while nobody asks is shown on the screen. */
  const ask = async (signal: AbortSignal): Promise<void> => {
    failure = await unusableRoom(await wired.hands());
    while (failure === null) {
      try {
        const { key, source } = await readKey({ ...io, signal }, {}, wired.name);
        const { verdict } = await stage(await wired.hands(), key, { source, replace: false });
        return io.say(`  The key is saved; IMKIT says: ${verdict}.`);
      } catch (thrown) {
        const error = asRotatorError(thrown);
        if (stop.signal.aborted) return;
        if (error.code === "INTERRUPTED") {
          failure = error;
          return interrupt();
        }
        printWords(io, error);
      }
    }
  };

  return {
    open: (): void => {
      if (failure !== null) throw failure;
      if (asking !== null || io.signal.aborted) return;
      stop = new AbortController();
      asking = ask(AbortSignal.any([io.signal, stop.signal])).finally(() => {
        asking = null;
      });
    },
    close: async (): Promise<void> => {
      stop.abort();
      await asking;
    },
  };
};
