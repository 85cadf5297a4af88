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

/** Apps at work side by side: each waits for the network most of its time. */
const MOST_AT_ONCE = 32;

/**
 * Every app, some side by side: one result line each, in the order of the config, then a summary line. What stops one app does not stop
 * the next.
 */
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
  const ends = await everyApp(io, config, flags);
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

type AppEnd = Outcome & { readonly app: string };

const everyApp = async (io: Io, config: Config, flags: RotateFlags): Promise<readonly AppEnd[]> => {
  const apps = [...config.apps.values()];
  const voices = inOrder(io, apps.length);
  const ends: (AppEnd | undefined)[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < apps.length && !io.signal.aborted) {
      const nth = next++;
      const [app, voice] = [apps[nth], voices[nth]];
      if (app === undefined || voice === undefined) return;
      const end = await oneApp(voice.io, config, app, flags);
      if (end.error !== null) printWords(voice.io, end.error);
      ends[nth] = { app: app.name, ...end };
      voice.end();
    }
  };
  // A person can answer one question at a time.
  const workers = io.interactive && !flags.due ? 1 : Math.min(MOST_AT_ONCE, apps.length);
  await Promise.all(Array.from({ length: workers }, worker));
  return ends.filter((end) => end !== undefined);
};

type Voice = { readonly io: Io; readonly end: () => void };

/** One voice an app. The first that is not over speaks at once; what the others say is kept until it is their turn. */
const inOrder = (io: Io, count: number): readonly Voice[] => {
  const kept: (() => void)[][] = Array.from({ length: count }, () => []);
  const over = new Set<number>();
  let turn = 0;
  const flush = (): void => {
    for (; turn < count; turn++) {
      for (const say of kept[turn]?.splice(0) ?? []) say();
      if (!over.has(turn)) return;
    }
  };
  return kept.map((lines, nth) => {
    const later =
      <T>(write: (line: T) => void) =>
      (line: T): void => {
        if (nth === turn) write(line);
        else lines.push(() => write(line));
      };
    const { out, raw, say, warn, detail } = io;
    return {
      io: {
        ...io,
        out: later(out),
        raw: later(raw),
        say: later(say),
        warn: later(warn),
        detail: later(detail),
      },
      end: () => {
        over.add(nth);
        flush();
      },
    };
  });
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
