import { RotatorError } from "./errors.ts";

/** What a store says of the entry behind its value. */
export type Quote = { readonly ledger: string; readonly seq: number; readonly h16: string };

/** As the `adopted` event names a quote that a person overruled. */
export const quoteText = ({ ledger, seq, h16 }: Quote): string => `${ledger} ${seq} ${h16}`;

/** An entry is damaged or makes no sense. The commands in it can be pasted as they are. */
export const brokenLedger = (app: string, why: string): RotatorError =>
  new RotatorError("LEDGER_BROKEN", {
    why,
    do: [
      `imkit-rotator audit verify ${app}`,
      "Restore the ledger folder from a copy, if there is one; else begin another ledger, which keeps this one beside it:",
      `imkit-rotator adopt ${app} --new-ledger`,
    ],
  });

/** A store quotes a ledger that this one is not, or an entry that it lacks. */
export const contradicted = (
  app: string,
  code: "LEDGER_FOREIGN" | "LEDGER_BEHIND",
  stores: readonly string[],
  where: string,
): RotatorError => {
  const names = stores.join(", ");
  const successor = `imkit-rotator adopt ${app} --new-ledger`;
  const state = "Nothing was adopted and nothing was written.";
  if (code === "LEDGER_FOREIGN") {
    return new RotatorError(code, {
      why: `${names} was written under another ledger than the one in ${where}: that one is lost, or another rotator with another state directory looks after this app.`,
      state,
      do: ["If there is another rotator for this app, work with that one. Else:", successor],
    });
  }
  return new RotatorError(code, {
    why: `${names} quotes an entry that the ledger in ${where} does not hold: the ledger was cut, or is an older copy.`,
    state,
    do: ["Put the newest copy of the state directory back, if there is one. Else:", successor],
  });
};
