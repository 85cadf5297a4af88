import { RotatorError } from "../core/errors.ts";
import type { Env } from "../io/config-find.ts";
import { shellWord, typedName } from "./myself.ts";

/** The process as the commands see it. Only this room touches `process`. */
export type Io = {
  /** Data, to stdout. A newline is added. */
  readonly out: (line: string) => void;
  /** Data as it is, to stdout. */
  readonly raw: (bytes: Uint8Array) => void;
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
  /** Columns of the terminal behind stdout and stderr; absent where there is none. */
  readonly width?: { readonly out?: number; readonly err?: number };
  /** A command of ours (`imkit-rotator …`) with the `--config` that this one was given; any other text as it is. */
  readonly command: (text: string) => string;
  /** The same for people: as it can be pasted into the shell that started this process. */
  readonly paste: (text: string) => string;
  /** The command that this process was started with, as `command` and `paste` want it. */
  readonly again: string;
  readonly env: Env;
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

/** The colours of `styleText`. */
const OURS = new RegExp(`${String.fromCharCode(27)}\\[(?:[0-9]|2[0-9]|3[0-9])m`, "g");
/** Control characters but tab and newline, line separators, bidi marks. By number: the property \p{Cc} costs a start a millisecond. */
const COMMANDS = new RegExp(
  `[${[0x00, 0x08, 0x0b, 0x1f, 0x7f, 0x9f, 0x200e, 0x200f, 0x2028, 0x202e, 0x2066, 0x2069]
    .map((code, i) => (i % 2 === 0 ? "" : "-") + String.fromCharCode(code))
    .join("")}]`,
  "g",
);

/** Anything that a terminal could take as a command (escape sequences, bidi marks) is shown as `?`; with `colour` our own colours stay. */
export const harmless = (text: string, colour = false): string => {
  if (!colour) return text.replace(OURS, "").replace(COMMANDS, "?");
  const codes = text.match(OURS) ?? [];
  const plain = text.split(OURS).map((part) => part.replace(COMMANDS, "?"));
  return plain.map((part, i) => `${part}${codes[i] ?? ""}`).join("");
};

/** The current folder, also one that was removed meanwhile: what is looked for in it is then simply not there. */
const folder = (): string => {
  try {
    return process.cwd();
  } catch {
    return process.env["PWD"] ?? "/";
  }
};

export const isCommand = (text: string): boolean => text.startsWith("imkit-rotator ");

export const openIo = (globals: Globals, signal: AbortSignal): Io => {
  const { env, stdout, stderr } = process;
  const cwd = folder();
  const wanted = globals.color !== false && (env["NO_COLOR"] ?? "") === "" && env["TERM"] !== "dumb";
  const onOut = wanted && stdout.isTTY;
  const onErr = wanted && stderr.isTTY;
  const write = (line: string): void => void stderr.write(`${harmless(line, onErr)}\n`);
  const named = globals.config === undefined ? "" : ` -c ${shellWord(globals.config)}`;
  const command = (text: string): string =>
    isCommand(text)
      ? text.replace(/^(.*?)(\s--\s.*|\s{2,}#.*)?$/s, `$1${named.replaceAll("$", "$$$$")}$2`)
      : text;
  return {
    out: (line) => void stdout.write(`${harmless(line, onOut)}\n`),
    raw: (bytes) => void stdout.write(bytes),
    say: (line) => {
      if (!globals.quiet) write(line);
    },
    warn: write,
    detail: (line) => {
      if (globals.verbose) write(line);
    },
    json: globals.json === true,
    // Standard input last: where it is not needed, it is not opened.
    interactive: globals.input !== false && env["CI"] === undefined && stderr.isTTY && process.stdin.isTTY,
    colour: onOut || onErr,
    width: {
      ...(stdout.isTTY && stdout.columns > 0 ? { out: stdout.columns } : {}),
      ...(stderr.isTTY && stderr.columns > 0 ? { err: stderr.columns } : {}),
    },
    command,
    paste: (text) =>
      isCommand(text) ? command(text).replace("imkit-rotator", () => typedName({ env, cwd })) : text,
    again: `imkit-rotator ${typedWords(process.argv.slice(2))}`,
    env,
    cwd,
    signal,
  };
};

/** Without the config, which `command` names again. */
const typedWords = (argv: readonly string[]): string => {
  const end = argv.indexOf("--");
  const ours = end === -1 ? argv : argv.slice(0, end);
  const isConfig = (word = ""): boolean => /^(-c|--config(=|$))/.test(word);
  const kept = ours.filter((word, i) => !isConfig(word) && !/^(-c|--config)$/.test(ours[i - 1] ?? ""));
  return [...kept, ...argv.slice(ours.length)].map(shellWord).join(" ");
};

/** 130 for Ctrl-C, 143 for every other signal that asks us to stop. */
export const exitOfSignal = ({ signal }: Pick<Io, "signal">): number =>
  !signal.aborted || signal.reason === "SIGINT" ? 130 : 143;

/** Two turns of the loop, of which the second begins with a look at what has come: a signal is heard before a result is told. */
export const signalsHeard = (): Promise<void> =>
  new Promise((resolve) => void setImmediate(() => setImmediate(resolve)));

/** Until somebody asks us to stop. */
export const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });

const MAX_INPUT = 64 * 1024;

/**
 * All of a stream, at most 64 KiB, as text. Ends at once when `signal` aborts.
 * @throws RotatorError KEY_MALFORMED when it is more, INTERRUPTED; what the stream itself rejects with
 */
export const readText = async (
  stream: AsyncIterable<unknown> & { destroy(): unknown },
  name: string,
  signal: AbortSignal,
): Promise<string> => {
  const parts: Buffer[] = [];
  let size = 0;
  const stop = (): void => void stream.destroy();
  signal.addEventListener("abort", stop, { once: true });
  try {
    for await (const part of stream) {
      const bytes = Buffer.from(part as Uint8Array);
      size += bytes.length;
      if (size > MAX_INPUT) {
        stop();
        throw new RotatorError("KEY_MALFORMED", { why: `More than 64 KiB came in from ${name}.` });
      }
      parts.push(bytes);
    }
  } catch (error) {
    throw signal.aborted ? new RotatorError("INTERRUPTED", { state: "Nothing was stored." }) : error;
  } finally {
    signal.removeEventListener("abort", stop);
  }
  if (signal.aborted) throw new RotatorError("INTERRUPTED", { state: "Nothing was stored." });
  return Buffer.concat(parts).toString("utf8");
};

/** Standard input as text. @throws RotatorError KEY_MALFORMED, INTERRUPTED, INPUT_MISSING */
export const readStdin = async (signal: AbortSignal): Promise<string> => {
  try {
    return await readText(process.stdin, "standard input", signal);
  } catch (error) {
    if (error instanceof RotatorError) throw error;
    throw new RotatorError("INPUT_MISSING", { what: "Standard input could not be read." });
  }
};

export const stdinIsTerminal = (): boolean => process.stdin.isTTY;

/** The end of input (Ctrl-D) at a prompt leaves nothing to wait for: then a question is answered by nobody. */
const orEnd = async <T>(asking: Promise<T>): Promise<T> => {
  let ended = (): void => {};
  const end = new Promise<never>((_, reject) => {
    ended = () => reject(new RotatorError("INTERRUPTED", { state: "Nothing was stored." }));
    process.stdin.once("end", ended);
    process.once("beforeExit", ended);
  });
  try {
    return await Promise.race([asking, end]);
  } finally {
    process.stdin.off("end", ended);
    process.off("beforeExit", ended);
  }
};

/** A terminal that does not know its size has 80 columns: a width of 0 would be drawn one character a line. */
const answers = (): typeof process.stderr => {
  if (process.stderr.columns === 0) process.stderr.columns = 80;
  return process.stderr;
};

/** A hidden question on the terminal. @throws RotatorError INTERRUPTED on Ctrl-C or Ctrl-D */
export const askSecret = async (message: string, signal: AbortSignal): Promise<string> => {
  const { password, isCancel } = await import("@clack/prompts");
  const answer = await orEnd(password({ message, mask: "*", output: answers(), signal }));
  if (isCancel(answer)) throw new RotatorError("INTERRUPTED", { state: "Nothing was stored." });
  return answer ?? "";
};

/** Yes or no on the terminal. @throws RotatorError INTERRUPTED on Ctrl-C */
export const askYes = async (message: string, signal: AbortSignal): Promise<boolean> => {
  const { confirm, isCancel } = await import("@clack/prompts");
  const answer = await orEnd(confirm({ message, initialValue: false, output: answers(), signal }));
  if (isCancel(answer)) throw new RotatorError("INTERRUPTED");
  return answer;
};

export const askText = async (message: string, initialValue: string): Promise<string> => {
  const { text, isCancel } = await import("@clack/prompts");
  const answer = await text({ message, initialValue, output: answers() });
  if (isCancel(answer)) throw new RotatorError("INTERRUPTED");
  return answer ?? "";
};
