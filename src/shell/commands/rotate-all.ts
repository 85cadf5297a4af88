import { RotatorError } from "../../core/errors.ts";
import { EMPTY } from "../../core/state.ts";
import type { AppConfig, Config } from "../../io/config.ts";
import { asRotatorError } from "../fault.ts";
import { exitOfSignal, type Globals, type Io } from "../io.ts";
import { errorLine, printWords } from "../print.ts";
import { readConfig, wire } from "../wire.ts";
import { checkFlags, type RotateFlags, rotateOne } from "./rotate.ts";
import { dryRun } from "./rotate-plan.ts";
import { type Outcome, printRefusal } from "./rotate-result.ts";

/** Of several apps' exits the first present of these is the exit of all. */
const WORST_FIRST = [5, 1, 4, 2, 6, 3, 0];

/** Every app after the other: one result line each, then a summary line. What stops one app does not stop the next. */
export const rotateAllCommand = async (
  io: Io,
  globals: Globals,
  app: string | undefined,
  flags: RotateFlags,
): Promise<number> => {
  checkFlags(flags);
  const single =
    app !== undefined
      ? "a name"
      : flags.drop?.length
        ? "--drop"
        : flags.acceptApp
          ? "--accept-app"
          : flags.leaked
            ? "--leaked"
            : null;
  if (single !== null)
    throw new RotatorError("USAGE", { what: `--all does not go with ${single}: that is for one app.` });
  const config = await readConfig(io, globals);
  const ends: (Outcome & { readonly app: string })[] = [];
  for (const each of config.apps.values()) {
    if (io.signal.aborted) break;
    const end = await oneApp(io, config, each, flags);
    if (end.error !== null) printWords(io, end.error);
    ends.push({ app: each.name, ...end });
  }
  const worst = WORST_FIRST.map((exit) => ends.find((end) => end.exit === exit)).find(
    (end) => end !== undefined,
  );
  const exitCode = io.signal.aborted ? exitOfSignal(io) : (worst?.exit ?? 0);
  if (io.json) {
    const apps = ends.map(({ app: name, status, exit }) => ({ app: name, status, exitCode: exit }));
    io.out(JSON.stringify({ type: "summary", schemaVersion: 1, exitCode, apps }));
    if (!io.signal.aborted && worst?.error) io.out(errorLine(io, worst.error, exitCode));
  } else if (!flags.dryRun && ends.length > 1) {
    io.say(ends.map(({ app: name, status }) => `${name} ${status}`).join(", "));
  }
  return exitCode;
};

const oneApp = async (io: Io, config: Config, app: AppConfig, flags: RotateFlags): Promise<Outcome> => {
  try {
    const wired = await wire(io, config, app, true);
    return flags.dryRun ? await dryRun(io, wired) : await rotateOne(io, wired, flags);
  } catch (error) {
    const lastState = async () => ({ state: EMPTY, head: null });
    return printRefusal(io, { name: app.name, lastState }, asRotatorError(error));
  }
};
