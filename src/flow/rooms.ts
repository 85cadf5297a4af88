import { RotatorError } from "../core/errors.ts";
import type { Hands } from "./hands.ts";

/** Why no key could be taken in: ledger or escrow cannot be written. To be asked before a person gives the key that is shown once. Read-only. */
export const unusableRoom = async (hands: Hands): Promise<RotatorError | null> => {
  const rooms = [hands.ledger, hands.escrow].map(
    async (room) => (await room.preflight?.(hands.signal)) ?? [],
  );
  const bad = (await Promise.all(rooms)).flat().find((check) => check.status === "fail");
  if (bad === undefined) return null;
  return new RotatorError("STATE_UNUSABLE", {
    why: bad.message,
    do: [...(bad.fix === undefined ? [] : [bad.fix]), `imkit-rotator doctor ${hands.app.name}`],
  });
};
