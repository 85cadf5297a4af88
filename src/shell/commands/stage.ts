import { RotatorError } from "../../core/errors.ts";
import { phaseOf, failureOf as stopOf } from "../../core/outcome.ts";
import type { NextStep } from "../../core/steps.ts";
import { showFp } from "../../core/secret.ts";
import { unusableRoom } from "../../flow/rooms.ts";
import { discard, type StageResult, stage } from "../../flow/stage.ts";
import { type Io, signalsHeard } from "../io.ts";
import { readKey } from "../key.ts";
import { nextJson, paint, printNext } from "../print.ts";
import { hintsOf, linesOf, pauseSteps, sentence, stepsOf } from "../steps.ts";
import { warnFirst } from "../warn-first.ts";
import type { Wired } from "../wire.ts";
import { rotateCommand } from "./rotate.ts";

export type StageFlags = {
  readonly fromStdin?: boolean;
  readonly fromFile?: string;
  readonly fromEnv?: string;
  readonly replace?: boolean;
  readonly discard?: boolean;
  readonly forget?: boolean;
};

/** @returns the exit status: accepted 0, unclear 1, rejected or of another app 4. */
export const stageCommand = async (io: Io, wired: Wired, flags: StageFlags): Promise<number> => {
  checkFlags(flags);
  if (flags.discard) return discardCommand(io, wired, flags.forget === true);
  const unusable = await unusableRoom(await wired.hands());
  if (unusable !== null) throw unusable;
  if (io.interactive && sourcesOf(flags) === 0) await warnFirst(io, wired);
  const { key, source } = await readKey(io, flags, wired.name);
  const result = await stage(await wired.hands(), key, { source, replace: flags.replace === true });
  await signalsHeard();
  return tell(io, wired, result);
};

const sourcesOf = (flags: StageFlags): number =>
  [flags.fromStdin, flags.fromFile, flags.fromEnv].filter((f) => f !== undefined && f !== false).length;

const checkFlags = (flags: StageFlags): void => {
  const refuse = (what: string): never => {
    throw new RotatorError("USAGE", { what, do: ["imkit-rotator stage --help"] });
  };
  if (flags.forget && !flags.discard) refuse("--forget goes with --discard.");
  if (sourcesOf(flags) > 1) refuse("Only one of --from-stdin, --from-file, --from-env.");
  if (flags.discard && (flags.replace || sourcesOf(flags) > 0)) refuse("--discard takes no key.");
};

const tell = async (io: Io, wired: Wired, result: StageResult): Promise<number> => {
  const error = failureOf(wired, result, io.signal.aborted);
  const next = result.sameApp === "different" ? otherApp(wired, result) : nextOf(wired, result);
  if (io.json) {
    io.out(
      JSON.stringify({
        schemaVersion: 1,
        app: wired.name,
        fingerprint: showFp(result.fp),
        verdict: result.verdict,
        durable: true,
        mode: result.mode,
        sameApp: result.sameApp,
        next: nextJson(io, next),
      }),
    );
  } else {
    io.out(`Staged ${showFp(result.fp)} for ${wired.name}: ${result.verdict} by IMKIT; saved, durable.`);
    if (result.mode !== null) io.say(`  Mode ${result.mode}; same app: ${result.sameApp}.`);
    if (error === null) printNext(io, next, io.say);
  }
  if (error !== null) throw error;
  if (result.mode !== "replace") return 0;
  io.warn(
    `  ${paint(io, "red", "!")} The old key is dead already: services are failing NOW until the stores are written.`,
  );
  if (!io.interactive) return 0;
  return rotateCommand(io, wired, { yes: true });
};

/** What the ledger says; only the rotation writes down that its key is here again. */
const nextOf = (wired: Wired, { state, verdict }: StageResult): readonly NextStep[] => {
  const phase = phaseOf(state);
  const isMended = phase === "failed" && verdict === "accepted" && isOfKey(state);
  return stepsOf(wired, state, isMended ? "rotating" : phase);
};

/** What the rotation failed at was its key, and no store or rollout. */
const isOfKey = ({ rotation }: StageResult["state"]): boolean =>
  rotation !== null && stopOf(rotation)?.target === null;

const otherApp = (wired: Wired, result: StageResult): readonly NextStep[] => [
  {
    who: "you",
    text: "Stage a key of the right app instead",
    command: `imkit-rotator stage ${wired.name} --replace`,
  },
  { who: "you", text: "Or drop it", command: `imkit-rotator stage ${wired.name} --discard --forget` },
  {
    who: "you",
    text: "Or, if it really is meant",
    command: `imkit-rotator rotate ${wired.name} --accept-app ${showFp(result.appFingerprint ?? "")}`,
  },
];

const failureOf = (wired: Wired, result: StageResult, interrupted: boolean): RotatorError | null => {
  const state = `The key ${showFp(result.fp)} is saved in escrow (durable). No store was touched by this.`;
  const rotateAgain = `imkit-rotator rotate ${wired.name}`;
  const instead = `imkit-rotator stage ${wired.name} --replace`;
  const undo = [`imkit-rotator stage ${wired.name} --discard`];
  if (result.sameApp === "different") {
    return new RotatorError("WRONG_APP", {
      why: "IMKIT shows another app for it than for the current key.",
      state,
      do: otherApp(wired, result).flatMap((n) => n.command ?? []),
      hints: hintsOf(otherApp(wired, result)),
      undo: [`imkit-rotator stage ${wired.name} --discard --forget`],
    });
  }
  if (result.verdict === "accepted") return null;
  if (result.verdict === "rejected") {
    return new RotatorError("KEY_REJECTED", {
      state,
      do: [rotateAgain, instead],
      hints: {
        [rotateAgain]: "If it is the right one, have it asked again",
        [instead]: "If not, give the right one",
      },
      undo,
    });
  }
  if (interrupted) return new RotatorError("INTERRUPTED", { state, do: [rotateAgain], undo });
  return new RotatorError("IMKIT_UNCLEAR", {
    why: sentence(result.why),
    state,
    do: [...linesOf(pauseSteps(wired)), rotateAgain, `imkit-rotator doctor ${wired.name}`],
    undo,
  });
};

const discardCommand = async (io: Io, wired: Wired, forget: boolean): Promise<number> => {
  const { fp, state } = await discard(await wired.hands(), forget);
  const phase = phaseOf(state);
  const next = fp === null ? [] : stepsOf(wired, state, phase);
  if (io.json) {
    io.out(
      JSON.stringify({
        schemaVersion: 1,
        app: wired.name,
        fingerprint: fp === null ? null : showFp(fp),
        discarded: fp !== null,
        forgotten: fp !== null && state.forgotten.has(fp),
        next: nextJson(io, next),
      }),
    );
  } else if (fp === null) {
    io.out(`Nothing is staged for ${wired.name}.`);
  } else {
    const isRejected = state.verdicts.get(fp)?.verdict === "rejected";
    const word = isRejected
      ? "IMKIT rejected it when it was last asked."
      : "It works in IMKIT until it is revoked there.";
    io.out(`Discarded ${showFp(fp)}. ${word}`);
    printNext(io, next, io.say);
  }
  return phase === "waiting-revoke" ? 3 : 0;
};
