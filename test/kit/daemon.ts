import { spawn } from "node:child_process";
import { once } from "node:events";
import { cleanEnv, programFile } from "./program.ts";

type Line = Readonly<Record<string, unknown>>;

/** A running `serve`. */
export type Daemon = {
  readonly pid: number;
  readonly port: number;
  /** Each line of the log so far; a line that is no JSON is an error. */
  readonly lines: () => readonly Line[];
  /** Everything that it printed. */
  readonly printed: () => string;
  readonly stderr: () => string;
  readonly get: (
    path: string,
    method?: string,
  ) => Promise<{ readonly status: number; readonly body: string }>;
  /** One sample of /metrics; null = it is not there. */
  readonly metric: (sample: string) => Promise<number | null>;
  readonly signal: (name: NodeJS.Signals) => void;
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
};

/** Config line: a free port, and a tick every second. */
export const FAST = 'serve: { listen: "127.0.0.1:0", every: 1s }\n';

/** Starts the daemon as a service manager does, and waits until it listens. */
export const startDaemon = async (cwd: string, args: readonly string[] = []): Promise<Daemon> => {
  const file = await programFile();
  const child = spawn(process.execPath, [file, "serve", ...args], {
    cwd,
    env: cleanEnv(cwd),
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const ended = once(child, "close").then(([code, signal]) => ({
    code: code as number | null,
    signal: signal as NodeJS.Signals | null,
  }));
  const lines = (): readonly Line[] =>
    stdout
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Line);
  let isOver = false;
  void ended.then(() => (isOver = true));
  const port = await until("the daemon listens", () => {
    if (isOver) throw new Error(`it ended: ${stdout}${stderr}`);
    const found = lines().find((line) => line["msg"] === "listening")?.["port"];
    return typeof found === "number" ? found : null;
  });
  const get: Daemon["get"] = async (path, method = "GET") => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method });
    return { status: answer.status, body: await answer.text() };
  };
  return {
    pid: child.pid ?? 0,
    port,
    lines,
    printed: () => stdout + stderr,
    stderr: () => stderr,
    get,
    metric: async (sample) => {
      const { body } = await get("/metrics");
      const line = body.split("\n").find((one) => one.startsWith(`${sample} `));
      return line === undefined ? null : Number(line.slice(sample.length + 1));
    },
    signal: (name) => void child.kill(name),
    ended,
  };
};

/** Asks until there is an answer: neither null nor false. */
export const until = async <T>(
  what: string,
  ask: () => T | null | false | Promise<T | null | false>,
  patienceMs = 40_000,
): Promise<T> => {
  const end = performance.now() + patienceMs;
  for (;;) {
    const answer = await ask();
    if (answer !== null && answer !== false) return answer;
    if (performance.now() > end) throw new Error(`never came about: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};
