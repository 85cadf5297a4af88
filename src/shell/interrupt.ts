import { CODES, RotatorError } from "../core/errors.ts";
import { type AppState, isOpen } from "../core/state.ts";
import { exitOfSignal, type Io } from "./io.ts";

/** The exit status that an error ends in; of an interruption the signal tells it. */
export const exitOfError = (io: Pick<Io, "signal">, error: RotatorError): number =>
  error.code === "INTERRUPTED" ? exitOfSignal(io) : error.exit;

/** What takes back what an interrupted rotation has begun; none where no rotation is open. */
export const undoOf = (app: string, s: AppState): readonly string[] => {
  const r = s.rotation;
  if (r === null || !isOpen(s) || r.closing) return [];
  const isUntouched = r.newFp !== null && r.intents.size === 0 && !r.rolledBack;
  if (isUntouched) return [`imkit-rotator stage ${app} --discard`];
  const isLeak = s.current !== null && s.leaked.has(s.current);
  return [
    `imkit-rotator rollback ${app}${isLeak ? " --accept-leaked   # only if the leak was a false alarm" : ""}`,
  ];
};

/** An interruption as it is shown: by what, the same command again, and what there is to take back. Any other error as it is. */
export const explained = (io: Pick<Io, "signal" | "again">, error: RotatorError): RotatorError => {
  if (error.code !== "INTERRUPTED") return error;
  const { what, why, state, do: steps, hints, undo } = error;
  const cause = io.signal.aborted
    ? `This process was told to stop (${String(io.signal.reason)}).`
    : "It was called off at a question.";
  return new RotatorError("INTERRUPTED", {
    what,
    why: why === "" ? cause : why,
    state,
    do: steps === CODES.INTERRUPTED.do ? [io.again] : steps,
    hints,
    undo: undo.length > 0 ? undo : ["Nothing has to be taken back."],
  });
};
