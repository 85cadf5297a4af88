import type { RotateOptions } from "../../src/flow/rotate.ts";

/** A `rotate` without a flag, but for how long it waits. */
export const PLAIN_ROTATE: Omit<RotateOptions, "waitMs"> = {
  reason: null,
  ticket: null,
  drop: [],
  restarted: false,
  acceptApp: null,
  confirm: false,
};
