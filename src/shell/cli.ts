import { parse } from "./args.ts";
import { asRotatorError } from "./fault.ts";
import { guard } from "./guard.ts";
import { exitOfError } from "./interrupt.ts";
import { type Globals, openIo } from "./io.ts";
import { printError } from "./print.ts";
import { listenToLauncher, onSignals } from "./signals.ts";

/** A terminal that hangs up ends us as an operator's SIGTERM does. */
const STOPS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** argv to exit status: the only place that turns errors into words and numbers. */
const main = async (argv: readonly string[]): Promise<number> => {
  const stop = new AbortController();
  onSignals(STOPS, (name) => {
    // A second signal means now. State is durable at every instant, so leaving is always safe.
    if (stop.signal.aborted) process.exit(name === "SIGINT" ? 130 : 143);
    stop.abort(name);
  });
  listenToLauncher();
  let globals: Globals = { json: argv.includes("--json"), color: !argv.includes("--no-color") };
  // Nobody reads any more (`| head -1`): the work goes on, and its own result decides the exit status.
  process.stdout.on("error", () => {});
  process.stderr.on("error", () => {});
  process.on("uncaughtException", (error) => process.exit(fail(error, globals, stop.signal)));

  try {
    guard(argv, process.execArgv, process.env, await isInspected());
    const parsed = parse(argv);
    globals = parsed.globals;
    return parsed.job === null ? 0 : await parsed.job(openIo(globals, stop.signal), globals);
  } catch (error) {
    return fail(error, globals, stop.signal);
  }
};

const fail = (error: unknown, globals: Globals, signal: AbortSignal): number => {
  const io = openIo(globals, signal);
  const shown = asRotatorError(error);
  const exit = exitOfError(io, shown);
  printError(io, shown, exit);
  return exit;
};

const isInspected = async (): Promise<boolean> => {
  const flags = [...process.execArgv, process.env["NODE_OPTIONS"] ?? ""].join(" ");
  if (!/inspect/.test(flags)) return false;
  return (await import("node:inspector")).url() !== undefined;
};

const flush = (stream: NodeJS.WriteStream): Promise<void> =>
  new Promise((resolve) => stream.write("", () => resolve()));

const run = async (): Promise<void> => {
  const exit = await main(process.argv.slice(2));
  await Promise.all([flush(process.stdout), flush(process.stderr)]);
  process.exit(exit);
};
void run();
