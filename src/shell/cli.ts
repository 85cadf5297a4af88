import { CommanderError } from "commander";
import { RotatorError } from "../core/errors.ts";
import { buildProgram, type Job } from "./args.ts";
import { guard } from "./guard.ts";
import { type Globals, openIo } from "./io.ts";
import { printError } from "./print.ts";

const EXITS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

/** argv to exit status: the only place that turns errors into words and numbers. */
const main = async (argv: readonly string[]): Promise<number> => {
  const stop = new AbortController();
  let signalled: number | null = null;
  for (const [name, status] of Object.entries(EXITS)) {
    process.on(name, () => {
      // A second signal means now. State is durable at every instant, so leaving is always safe.
      if (signalled !== null) process.exit(status);
      signalled = status;
      stop.abort(name);
    });
  }
  process.stdout.on("error", leaveOnBrokenPipe);
  process.stderr.on("error", leaveOnBrokenPipe);

  let globals: Globals = { json: argv.includes("--json"), color: !argv.includes("--no-color") };
  try {
    guard(argv, process.execArgv, process.env, await isInspected());
    let job: Job | null = null;
    const program = buildProgram((chosen) => {
      job = chosen;
    });
    forEach(program, (command) => {
      command.exitOverride();
      command.configureOutput({ writeErr: () => {} });
      command.enablePositionalOptions(false);
    });
    program.parse([...argv], { from: "user" });
    globals = program.opts<Globals>();
    const chosen = job as Job | null;
    if (chosen === null) return 0;
    const exit = await chosen(openIo(globals, stop.signal), globals);
    return exit;
  } catch (error) {
    return fail(error, globals, stop.signal, signalled);
  }
};

const forEach = (
  command: ReturnType<typeof buildProgram>,
  visit: (c: ReturnType<typeof buildProgram>) => void,
): void => {
  visit(command);
  for (const sub of command.commands) forEach(sub as ReturnType<typeof buildProgram>, visit);
};

const fail = (error: unknown, globals: Globals, signal: AbortSignal, signalled: number | null): number => {
  const io = openIo(globals, signal);
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    // A bare command shows its help, which went to the discarded stream.
    const what = error.code === "commander.help" ? "A command is missing." : sentence(error.message);
    printError(io, new RotatorError("USAGE", { what }), 2);
    return 2;
  }
  if (error instanceof RotatorError) {
    const exit = error.code === "INTERRUPTED" ? (signalled ?? error.exit) : error.exit;
    printError(io, error, exit);
    return exit;
  }
  // A fault of ours may carry anything in its text: only its kind and place are shown.
  const place = error instanceof Error ? (error.stack?.split("\n")[1]?.trim() ?? "") : "";
  const name = error instanceof Error ? error.name : typeof error;
  const why = `${name} ${/\(?([\w./-]+:\d+:\d+)\)?$/.exec(place)?.[1] ?? ""}`.trim();
  printError(io, new RotatorError("INTERNAL", { why, state: "What was done so far is in the ledger." }), 1);
  return 1;
};

const sentence = (message: string): string => {
  const text = message.replace(/^error: /, "").replace(/\s+/g, " ").trim();
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.?)]$/.test(text) ? "" : "."}`;
};

const isInspected = async (): Promise<boolean> => {
  const flags = [...process.execArgv, process.env["NODE_OPTIONS"] ?? ""].join(" ");
  if (!/inspect/.test(flags)) return false;
  return (await import("node:inspector")).url() !== undefined;
};

const leaveOnBrokenPipe = (error: NodeJS.ErrnoException): void => {
  process.exit(error.code === "EPIPE" ? 0 : 1);
};

const flush = (stream: NodeJS.WriteStream): Promise<void> => new Promise((resolve) => stream.write("", () => resolve()));

const exit = await main(process.argv.slice(2));
await Promise.all([flush(process.stdout), flush(process.stderr)]);
process.exit(exit);
