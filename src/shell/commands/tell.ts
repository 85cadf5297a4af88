import type { RotatorError } from "../../core/errors.ts";
import { tellOfRun } from "../../flow/tick.ts";
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
