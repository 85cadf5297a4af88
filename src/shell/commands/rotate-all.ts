import { RotatorError } from "../../core/errors.ts";
import type { Config } from "../../io/config.ts";
import type { Io } from "../io.ts";
import { printError } from "../print.ts";
import { wire } from "../wire.ts";
import { type RotateFlags, rotateOne } from "./rotate.ts";

/** Of several apps' exits the first present of these is the exit of all. */
const WORST_FIRST = [5, 1, 4, 2, 6, 3, 0];

/** Every app after the other: one result line each, then a summary line. */
export const rotateAllCommand = async (io: Io, config: Config, flags: RotateFlags): Promise<number> => {
  const exits: number[] = [];
  const apps: { app: string; status: string; exitCode: number }[] = [];
  for (const app of config.apps.values()) {
    const { exit, status } = await one(io, config, app.name, flags);
    exits.push(exit);
    apps.push({ app: app.name, status, exitCode: exit });
    if (io.signal.aborted) throw new RotatorError("INTERRUPTED");
  }
  const exitCode = WORST_FIRST.find((code) => exits.includes(code)) ?? 0;
  if (io.json) io.out(JSON.stringify({ type: "summary", schemaVersion: 1, exitCode, apps }));
  return exitCode;
};

const one = async (
  io: Io,
  config: Config,
  name: string,
  flags: RotateFlags,
): Promise<{ exit: number; status: string }> => {
  try {
    const app = config.apps.get(name);
    if (app === undefined) throw new RotatorError("APP_UNKNOWN");
    return await rotateOne(io, await wire(io, config, app), flags);
  } catch (error) {
    if (!(error instanceof RotatorError) || error.code === "INTERRUPTED") throw error;
    printError(io, error, error.exit);
    return { exit: error.exit, status: error.exit === 6 ? "locked" : error.exit === 4 ? "refused" : "failed" };
  }
};
