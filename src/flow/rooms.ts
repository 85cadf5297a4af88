import { type Code, RotatorError } from "../core/errors.ts";
import type { Escrow, Ledger } from "../ports.ts";
import type { Hands } from "./hands.ts";

/** Why no key could be taken in: ledger or escrow cannot be written. To be asked before a person gives the key that is shown once. Read-only. */
export const unusableRoom = async (hands: Hands): Promise<RotatorError | null> => {
  const ask = async (room: Ledger | Escrow, code: Code): Promise<RotatorError | null> => {
    const checks = (await room.preflight?.(hands.signal)) ?? [];
    const bad = checks.find((check) => check.status === "fail");
    if (bad === undefined) return null;
    return new RotatorError(bad.code === "STATE_UNUSABLE" ? bad.code : code, {
      why: bad.message,
      do: [...(bad.fix === undefined ? [] : [bad.fix]), `imkit-rotator doctor ${hands.app.name}`],
    });
  };
  const [ledger, escrow] = await Promise.all([
    ask(hands.ledger, "LEDGER_UNWRITABLE"),
    ask(hands.escrow, "ESCROW_FAILED"),
  ]);
  return ledger ?? escrow;
};
