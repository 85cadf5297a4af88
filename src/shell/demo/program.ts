import { type ChildProcess, spawn } from "node:child_process";
import { RotatorError } from "../../core/errors.ts";
import { parseObject } from "../sandbox/answers.ts";

type Line = Readonly<Record<string, unknown>>;

/** What one run of the real program gave. */
export type Answer = {
  readonly code: number | null;
  /** Its stdout lines that are JSON objects, in order. */
  readonly lines: readonly Line[];
  /** The last of them; empty when there is none. */
  readonly last: Line;
};

export type Program = {
  /**
   * Runs `imkit-rotator <args> --json` to its end, as a process of its own.
   * @throws RotatorError INTERRUPTED when the demo is told to stop
   */
  readonly run: (args: readonly string[], stdin?: string) => Promise<Answer>;
  /** Everything that all runs printed, for the search for keys. */
  readonly printed: () => string;
  readonly stop: () => Promise<void>;
};

type Options = {
  readonly command: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
};

const LIMIT_MS = 120_000;

export const openProgram = ({ command, cwd, env, signal }: Options): Program => {
  let printed = "";
  const running = new Map<ChildProcess, Promise<number | null>>();
  const run = async (args: readonly string[], stdin = ""): Promise<Answer> => {
    if (signal.aborted) throw new RotatorError("INTERRUPTED");
    const [file = "", ...first] = command;
    const child = spawn(file, [...first, ...args, "--json"], { cwd, env, stdio: ["pipe", "pipe", "pipe"] });
    let out = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      out += text;
      printed += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      printed += text;
    });
    child.stdin.on("error", () => {});
    child.stdin.end(stdin);
    const stop = (): void => void child.kill("SIGTERM");
    const limit = setTimeout(() => child.kill("SIGKILL"), LIMIT_MS);
    signal.addEventListener("abort", stop, { once: true });
    const ended = new Promise<number | null>((resolve) => {
      child.on("close", resolve).on("error", () => resolve(null));
    });
    running.set(child, ended);
    const code = await ended;
    running.delete(child);
    clearTimeout(limit);
    signal.removeEventListener("abort", stop);
    if (signal.aborted) throw new RotatorError("INTERRUPTED");
    const lines = out
      .split("\n")
      .map(parseObject)
      .filter((line) => line !== null);
    return { code, lines, last: lines.at(-1) ?? {} };
  };
  const stop = async (): Promise<void> => {
    for (const child of running.keys()) child.kill("SIGTERM");
    await Promise.all(running.values());
  };
  return { run, printed: () => printed, stop };
};
