import { RotatorError } from "../../core/errors.ts";
import { showFp } from "../../core/secret.ts";
import { adopt } from "../../flow/adopt.ts";
import { openJournal } from "../../flow/journal.ts";
import { openKeys } from "../../flow/keys.ts";
import { pendingKey } from "../../flow/open.ts";
import { isOpen } from "../../core/state.ts";
import type { Io } from "../io.ts";
import type { Wired } from "../wire.ts";

/** Records which key the stores hold now. Writes no store. */
export const adoptCommand = async (
  io: Io,
  wired: Wired,
  flags: { readonly current?: string },
): Promise<number> => {
  if (flags.current !== undefined && !/^[0-9a-f]{8,16}$/.test(flags.current)) {
    throw new RotatorError("USAGE", { what: "--current wants a fingerprint of 8 to 16 hex digits." });
  }
  const hands = await wired.hands();
  const journal = await openJournal(hands);
  if (isOpen(journal.state())) {
    throw new RotatorError("TOO_LATE", {
      what: "A rotation is open, so nothing is adopted now.",
      do: [`imkit-rotator rotate ${wired.name}`],
    });
  }
  const keys = openKeys(hands, journal);
  if (!journal.state().adopted || flags.current !== undefined) {
    await adopt(hands, journal, keys, { choice: flags.current ?? null, pending: pendingKey(journal) });
  }
  const s = journal.state();
  const current = s.current === null ? null : showFp(s.current);
  const old = [...s.old.keys()].map(showFp);
  const stale = [...s.stale].map(showFp);
  if (io.json) io.out(JSON.stringify({ schemaVersion: 1, app: wired.name, current, old, stale }));
  else {
    io.out(
      current === null
        ? `${wired.name}: no store holds a working key.`
        : `${wired.name}: the current key is ${current}.`,
    );
    if (old.length > 0) io.out(`Old keys, to be revoked: ${old.join(", ")}`);
    if (stale.length > 0) io.out(`Dead values, to be overwritten by the next rotation: ${stale.join(", ")}`);
  }
  return 0;
};
