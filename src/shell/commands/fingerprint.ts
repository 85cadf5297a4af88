import { RotatorError } from "../../core/errors.ts";
import { showFp } from "../../core/secret.ts";
import { openJournal } from "../../flow/journal.ts";
import type { Io } from "../io.ts";
import type { Wired } from "../wire.ts";
import { readKey } from "../key.ts";

/** The fingerprint, under one app's ledger, of the key on standard input: two people can compare without sending a key. */
export const fingerprintCommand = async (io: Io, wired: Wired): Promise<number> => {
  const { key } = await readKey(io, io.interactive ? {} : { fromStdin: true }, wired.name);
  const { salt } = (await openJournal(await wired.hands())).state();
  if (salt === null) {
    throw new RotatorError("USAGE", {
      what: `${wired.name} has no ledger yet, so it has no salt to take a fingerprint with.`,
      do: [`imkit-rotator adopt ${wired.name}`],
    });
  }
  const fingerprint = showFp(key.fingerprint(salt));
  io.out(io.json ? JSON.stringify({ schemaVersion: 1, app: wired.name, fingerprint }) : fingerprint);
  return 0;
};
