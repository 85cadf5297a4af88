import { RotatorError } from "../core/errors.ts";

/** The process as the commands see it. Only this room touches `process`. */
export type Io = {
  /** Data, to stdout. A newline is added. */
  readonly out: (line: string) => void;
  /** Talk and progress, to stderr; nothing under --quiet. */
  readonly say: (line: string) => void;
  /** Trouble, to stderr, always. */
  readonly warn: (line: string) => void;
  /** Only under --verbose. */
  readonly detail: (line: string) => void;
  readonly json: boolean;
  /** A person is there: stdin and stderr are terminals and --no-input was not given. */
  readonly interactive: boolean;
  readonly colour: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** Aborts on SIGINT or SIGTERM; `reason` is the signal's name. */
  readonly signal: AbortSignal;
};

export type Globals = {
  readonly config?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly verbose?: boolean;
  /** false under --no-input. */
  readonly input?: boolean;
  /** false under --no-color. */
  readonly color?: boolean;
};

/** Anything that a terminal could take as a command (escape sequences, bidi marks) is shown as `?`. */
export const harmless = (text: string): string =>
  text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, "?");

export const openIo = (globals: Globals, signal: AbortSignal): Io => {
  const write = (line: string): void => void process.stderr.write(`${harmless(line)}\n`);
  const { env } = process;
  const tty = process.stderr.isTTY === true;
  const plain = globals.color === false || (env["NO_COLOR"] ?? "") !== "" || env["TERM"] === "dumb" || !tty;
  return {
    out: (line) => void process.stdout.write(`${harmless(line)}\n`),
    say: (line) => {
      if (!globals.quiet) write(line);
    },
    warn: write,
    detail: (line) => {
      if (globals.verbose) write(line);
    },
    json: globals.json === true,
    interactive: process.stdin.isTTY === true && tty && globals.input !== false && env["CI"] === undefined,
    colour: !plain,
    env,
    cwd: process.cwd(),
    signal,
  };
};

const MAX_INPUT = 64 * 1024;

/** All of stdin, at most 64 KiB. @throws RotatorError KEY_MALFORMED when it is more. */
export const readStdin = async (): Promise<string> => {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of process.stdin) {
    const bytes = Buffer.from(part as Uint8Array);
    size += bytes.length;
    if (size > MAX_INPUT) {
      process.stdin.destroy();
      throw new RotatorError("KEY_MALFORMED", { why: "More than 64 KiB came in on standard input." });
    }
    parts.push(bytes);
  }
  return Buffer.concat(parts).toString("utf8");
};

/** A hidden question on the terminal. @throws RotatorError INTERRUPTED on Ctrl-C */
export const askSecret = async (message: string): Promise<string> => {
  const { password, isCancel } = await import("@clack/prompts");
  const answer = await password({ message, mask: "*", output: process.stderr });
  if (isCancel(answer)) throw new RotatorError("INTERRUPTED");
  return answer ?? "";
};

/** Yes or no on the terminal. @throws RotatorError INTERRUPTED on Ctrl-C */
export const askYes = async (message: string): Promise<boolean> => {
  const { confirm, isCancel } = await import("@clack/prompts");
  const answer = await confirm({ message, initialValue: false, output: process.stderr });
  if (isCancel(answer)) throw new RotatorError("INTERRUPTED");
  return answer;
};

export const askText = async (message: string, initialValue: string): Promise<string> => {
  const { text, isCancel } = await import("@clack/prompts");
  const answer = await text({ message, initialValue, output: process.stderr });
  if (isCancel(answer)) throw new RotatorError("INTERRUPTED");
  return answer ?? "";
};
