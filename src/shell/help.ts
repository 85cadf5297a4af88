import type { Globals, Io } from "./io.ts";

/** What a parsed command line runs: gets the process, gives the exit status. */
export type Job = (io: Io, globals: Globals) => Promise<number>;

/** Help begins with examples: words behind the program's name, or a whole line that begins with `$ `. */
export const examples = (lines: readonly string[]): string =>
  `Examples:\n${lines.map((line) => `  ${line.startsWith("$ ") ? line : `$ imkit-rotator ${line}`}`).join("\n")}\n`;

export const EXIT_HELP = `
Exit status:
  0 done, or nothing to do          4 refused: key rejected, wrong app, conflict
  1 a step failed, or unclear       5 findings: drift, ledger broken, doctor
  2 usage or config, malformed key  6 another rotator is at work
  3 waiting for a person            130/143 interrupted; safe to run again`;
