import { RotatorError } from "../../core/errors.ts";
import type { Globals, Io } from "../io.ts";
export const initCommand = async (_io: Io, _globals: Globals, _flags: unknown): Promise<number> => {
  throw new RotatorError("INTERNAL", { why: "not yet" });
};
