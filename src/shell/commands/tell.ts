import type { RotatorError } from "../../core/errors.ts";
import type { Phase } from "../../core/outcome.ts";
import { takeInboxes } from "../../flow/inbox.ts";
import { openJournal } from "../../flow/journal.ts";
import { tellOfRun } from "../../flow/tick.ts";
import { asRotatorError } from "../fault.ts";
import type { Wired } from "../wire.ts";

/** What a command other than a tick tells people. Never rejects. */
export const notifyPeople = async (
  wired: Wired,
  how: { readonly waits?: boolean; readonly error?: RotatorError | null } = {},
): Promise<void> => {
  const { waits = false, error = null } = how;
  try {
    const people = await wired.people();
    if (people.notifiers.length > 0) await tellOfRun(await wired.hands(), people, { waits, error });
  } catch {
    // The command has its own way to say that nothing can be opened.
  }
};

/** Takes in what lies in the inboxes, for a command that wants a key. Never rejects: what stops it is remarked. */
export const takeKeys = async (wired: Wired): Promise<void> => {
  if (wired.config.intake.length === 0) return;
  const hands = await wired.hands();
  try {
    await takeInboxes(hands, await openJournal(hands), await wired.inboxes());
  } catch (thrown) {
    const { code, what } = asRotatorError(thrown);
    if (code === "INTERRUPTED") return;
    hands.tell({ kind: "note", text: `The inboxes were not taken in: ${code}, ${what}` });
  }
};

/**
 * What goes on beside a rotation that waits: people are told what for, and where a key is wanted the inboxes are looked at. A receiver or an
 * inbox that does not answer holds the rotation up no more than any other person does.
 */
export const besideWaiting = (wired: Wired, isUnattended: boolean) => {
  let work = Promise.resolve();
  let told: Phase | null = null;
  let isBusy = false;
  return {
    /** The rotation goes on waiting, in this phase. */
    look: (phase: Phase): void => {
      if (phase !== told) work = work.then(() => notifyPeople(wired, { waits: isUnattended }));
      told = phase;
      if ((phase !== "waiting-key" && phase !== "blackout") || isBusy) return;
      isBusy = true;
      work = work
        .then(() => takeKeys(wired))
        .finally(() => {
          isBusy = false;
        });
    },
    over: (): Promise<void> => work,
  };
};
