import { Command, CommanderError } from "commander";
import { EXIT_HELP, examples, type Job } from "./help.ts";
import type { Globals } from "./io.ts";
import { addCommands } from "./table.ts";
import { usageError } from "./usage.ts";
import { VERSION } from "./version.ts";

const DEFAULT_WAIT = "30m";

/** `--wait` takes its time after `=` or as the next word, but no other next word (`rotate --wait demo`). */
const normalized = (argv: readonly string[]): string[] => {
  const end = argv.indexOf("--");
  const ours = end === -1 ? argv : argv.slice(0, end);
  const words = ours.flatMap((word, i): string[] => {
    if (ours[i - 1] === "--wait" && isDuration(word)) return [];
    if (word !== "--wait") return [word];
    const next = ours[i + 1] ?? "";
    return [`--wait=${isDuration(next) ? next : DEFAULT_WAIT}`];
  });
  return [...words, ...argv.slice(ours.length)];
};
const isDuration = (word: string): boolean => /^\d+(ms|s|m|h|d)$/.test(word);

/** The whole command table, with no command chosen yet. */
export const buildProgram = (run: (job: Job) => void): Command => {
  const program = new Command("imkit-rotator")
    .description("Rotates an IMKIT API Key in every place it lives, with proof that the old one is dead.")
    .option("-c, --config <file>", "config file")
    .option("--json", "machine-readable output on stdout")
    .option("-q, --quiet", "no progress")
    .option("-v, --verbose", "more detail")
    .option("--no-input", "never ask")
    .option("--no-color", "no colour")
    .version(VERSION, "-V, --version", "the version")
    .helpOption("-h, --help", "this help")
    .helpCommand("help [command]", "help of a command")
    .addHelpText(
      "before",
      examples([
        "demo              # the whole story, nothing to configure",
        "init              # write a config",
        "stage chat-prod --from-stdin < key.txt",
        "rotate chat-prod",
        "confirm-revoked chat-prod",
      ]),
    )
    .addHelpText("after", EXIT_HELP);
  addCommands(program, run);
  visit(program, (command) => {
    command.exitOverride().configureOutput({ outputError: () => {} });
    command.helpOption("-h, --help", "this help");
  });
  return program;
};

const visit = (command: Command, each: (command: Command) => void): void => {
  each(command);
  for (const sub of command.commands) visit(sub, each);
};

/**
 * What the command line wants done; null when it wanted help or the version, which is printed then.
 * @throws RotatorError USAGE, KEY_IN_ARGUMENT
 */
export const parse = (argv: readonly string[]): { readonly job: Job | null; readonly globals: Globals } => {
  let job: Job | null = null;
  const program = buildProgram((chosen) => {
    job = chosen;
  });
  try {
    program.parse(normalized(argv), { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode !== 0) throw usageError(error, nameOf(program, argv));
  }
  return { job, globals: program.opts<Globals>() };
};

/** The command that is named first among the words. */
const nameOf = (command: Command, argv: readonly string[]): string => {
  for (const [i, word] of argv.entries()) {
    const sub = command.commands.find((c) => c.name() === word);
    if (sub !== undefined) return `${word} ${nameOf(sub, argv.slice(i + 1))}`.trim();
  }
  return "";
};
