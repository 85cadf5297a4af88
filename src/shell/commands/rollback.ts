import { RotatorError } from "../../core/errors.ts";
import { showFp } from "../../core/secret.ts";
import { isOpen } from "../../core/state.ts";
import { openJournal } from "../../flow/journal.ts";
import { rollback } from "../../flow/rollback.ts";
import { asRotatorError } from "../fault.ts";
import { askYes, type Io } from "../io.ts";
import type { Wired } from "../wire.ts";
import { follow, type RotateFlags, waitOf } from "./rotate.ts";
import { type Outcome, printNothing, printRefusal, printRotated } from "./rotate-result.ts";

export type RollbackFlags = Pick<RotateFlags, "wait" | "restarted" | "reason" | "ticket" | "yes"> & {
  readonly acceptLeaked?: boolean;
};

/** @returns the exit status of DESIGN section 9; 0 when nothing is open. */
export const rollbackCommand = async (io: Io, wired: Wired, flags: RollbackFlags): Promise<number> => {
  waitOf(flags.wait);
  const { exit, error } = await rollbackOne(io, wired, flags);
  if (error !== null) throw error;
  return exit;
};

const rollbackOne = async (io: Io, wired: Wired, flags: RollbackFlags): Promise<Outcome> => {
  try {
    const hands = await wired.hands();
    const journal = await openJournal(hands);
    const s = journal.state();
    if (!isOpen(s)) return printNothing(io, wired, s, journal.head());
    const back = s.current === null ? "the key before" : `the key ${showFp(s.current)}`;
    const isNew = s.rotation?.rolledBack === false;
    const isUntouched = s.rotation?.newFp === null && s.rotation.wroteAt === 0;
    const question = isUntouched
      ? "Take the alarm back? Nothing was written yet."
      : `Write ${back} to every store again?`;
    if (isNew && io.interactive && !flags.yes && !(await askYes(question, io.signal)))
      throw new RotatorError("INTERRUPTED", { what: "Stopped before anything was written." });
    const rotated = await follow(io, wired, flags, async (options) => {
      const done = await rollback(hands, { ...options, acceptLeaked: flags.acceptLeaked === true });
      if (done === null) throw new RotatorError("INTERNAL", { why: "the rotation ended meanwhile" });
      return done;
    });
    return await printRotated(io, wired, rotated, null);
  } catch (error) {
    return printRefusal(io, wired, asRotatorError(error));
  }
};
