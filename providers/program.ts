import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { delimiter, join } from "node:path";
import type { Check } from "../src/ports.ts";
import { check, resolvePath, type Tools } from "./kit.ts";

/** How a program ended. `late`: stopped by us (time, abort), so what it did is not known. `missing`: it never started. */
export type Ended =
  | { readonly how: "exit"; readonly status: number; readonly output: Buffer }
  | { readonly how: "signal" | "late" | "too-much" | "missing" };

type Limits = {
  readonly limitMs: number;
  readonly signal: AbortSignal;
  /** Goes to its standard input, then end of file. */
  readonly input?: string;
  /** Bytes of standard output to keep; without it output is dropped unread. Standard error always is. */
  readonly keep?: number;
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
};

const GRACE_MS = 400;

/**
 * Starts `argv` without a shell, in a process group of its own, in the folder of the config, and waits for its end. It gets the rotator's
 * environment without any `IMKIT_API_KEY…`: a program may need cloud logins, a proxy, a locale, and we cannot know which. On time-out
 * or abort its group, and nothing else, is told to end, and killed after 400 ms. Never rejects.
 */
export const runProgram = async (
  argv: readonly string[],
  tools: Pick<Tools, "configDir" | "env">,
  { limitMs, signal, input, keep, env = {} }: Limits,
): Promise<Ended> => {
  if (signal.aborted) return { how: "late" };
  const program = await findProgram(argv[0] ?? "", tools);
  if (program === null) return { how: "missing" };
  const { promise, resolve } = Promise.withResolvers<Ended>();
  const child = spawn(program, argv.slice(1), {
    argv0: argv[0],
    cwd: tools.configDir,
    env: { ...withoutKeys(tools.env), ...env },
    stdio: [input === undefined ? "ignore" : "pipe", keep === undefined ? "ignore" : "pipe", "ignore"],
    detached: true,
  });
  let cut: "late" | "too-much" | null = null;
  const timers: NodeJS.Timeout[] = [];
  const stop = (why: "late" | "too-much") => {
    if (cut !== null) return;
    cut = why;
    killGroup(child.pid, "SIGTERM");
    timers.push(setTimeout(() => killGroup(child.pid, "SIGKILL"), GRACE_MS));
    timers.push(setTimeout(() => resolve({ how: why }), 2 * GRACE_MS));
  };
  const onAbort = () => stop("late");
  signal.addEventListener("abort", onAbort, { once: true });
  timers.push(setTimeout(onAbort, limitMs));

  const chunks: Buffer[] = [];
  let kept = 0;
  child.stdout?.on("data", (chunk: Buffer) => {
    kept += chunk.length;
    if (kept > (keep ?? 0)) stop("too-much");
    else chunks.push(chunk);
  });
  // A program that does not read its input closes the pipe; its exit status tells the rest.
  child.stdin?.on("error", () => {});
  child.stdin?.end(input);
  child.on("error", () => resolve({ how: "missing" }));
  child.on("close", (status) => {
    if (cut !== null) resolve({ how: cut });
    else if (status === null) resolve({ how: "signal" });
    else resolve({ how: "exit", status, output: Buffer.concat(chunks) });
  });
  const ended = await promise;
  if (cut !== null) killGroup(child.pid, "SIGKILL");
  timers.forEach(clearTimeout);
  signal.removeEventListener("abort", onAbort);
  return ended;
};

/** The file that `name` means: a path (from the config's folder) or a name on PATH. null = no such executable file. */
export const findProgram = async (
  name: string,
  tools: Pick<Tools, "configDir" | "env">,
): Promise<string | null> => {
  const candidates = name.includes("/")
    ? [resolvePath(name, tools)]
    : (tools.env["PATH"] ?? "/usr/local/bin:/usr/bin:/bin").split(delimiter).map((dir) => join(dir, name));
  for (const file of candidates) {
    const runnable = await access(file, constants.X_OK).then(
      async () => (await stat(file)).isFile(),
      () => false,
    );
    if (name !== "" && runnable) return file;
  }
  return null;
};

/** Can it be started? `option` is the config key that names it. */
export const programCheck = async (
  id: string,
  program: string,
  option: string,
  tools: Pick<Tools, "configDir" | "env">,
): Promise<Check> => {
  if ((await findProgram(program, tools)) !== null) return check.ok(id, `${program} can be run`);
  const fix = `Install ${program}, make it executable, or mend ${option}.`;
  return check.fail(id, `${program} is not an executable file`, fix, "CONFIG");
};

const withoutKeys = (env: Tools["env"]): Record<string, string | undefined> =>
  Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("IMKIT_API_KEY")));

const killGroup = (pid: number | undefined, signal: "SIGTERM" | "SIGKILL"): void => {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // Gone already.
  }
};
