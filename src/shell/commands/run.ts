import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { delimiter, join } from "node:path";
import { ProviderError, REFUSALS, RotatorError } from "../../core/errors.ts";
import type { Secret } from "../../core/secret.ts";
import { systemClock } from "../../io/clock.ts";
import { pickApp } from "../../io/config-app.ts";
import { errnoOf } from "../../io/disk.ts";
import { readConfigFor, readFromApp } from "../../load/open.ts";
import { secretSource } from "../../load/source.ts";
import type { Globals, Io } from "../io.ts";
import { onSignals } from "../signals.ts";

const NOT_FOUND = 127;
const NOT_EXECUTABLE = 126;
/** What is passed on to the command. Ctrl-C and Ctrl-\\ on a terminal reach it without us. */
const PASSED_ON = ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT"] as const;
const FROM_KEYBOARD = ["SIGINT", "SIGQUIT"] as const;

/**
 * Reads an app's current key and starts a command with it in its environment. Writes nothing.
 * @returns the command's exit status, 128 + n when a signal ended it, 127 or 126 when it cannot be started
 * @throws RotatorError before that: CONFIG_*, APP_UNKNOWN, STORE_FAILED, STORE_REFUSED
 */
export const runCommand = async (
  io: Io,
  globals: Globals,
  name: string,
  flags: { readonly store?: string },
  command: readonly string[],
): Promise<number> => {
  // Without it an option of the command would be taken for one of ours.
  if (!process.argv.includes("--")) {
    throw new RotatorError("USAGE", {
      what: "The command stands after --.",
      do: [`imkit-rotator run ${name} -- ${command.join(" ")}`],
    });
  }
  const config = await readConfigFor(globals.config, io.env, io.cwd);
  const app = pickApp(config, name);
  const read = readFromApp(config, app, flags.store ?? null, io.env);
  const stoppable = (signal: AbortSignal) => read(AbortSignal.any([signal, io.signal]));
  const source = secretSource({ ...systemClock, read: stoppable, ttlMs: 0 });
  const reading = source.get();
  await reading.catch(() => {});
  if (io.signal.aborted)
    throw new RotatorError("INTERRUPTED", { what: "Interrupted before the command was started." });
  const key = await reading.catch((error: unknown) => {
    throw refusal(app.name, error);
  });
  return start(io, command, key, app.baseUrl);
};

const refusal = (app: string, error: unknown): RotatorError => {
  if (error instanceof RotatorError) return error;
  const { code, hint } =
    error instanceof ProviderError ? error : new ProviderError("UNAVAILABLE", "not_applied");
  return new RotatorError(REFUSALS.has(code) ? "STORE_REFUSED" : "STORE_FAILED", {
    what: "No store could be read, so the command was not started.",
    why: hint === "" ? code : `${code}: ${hint}`,
    state: "Nothing was started and nothing was changed.",
    do: [`imkit-rotator status ${app}`, `imkit-rotator doctor ${app}`],
  });
};

/** A folder of PATH that this user may not look into gives "access denied" for a program that is nowhere. */
const isOnPath = (program: string, path = ""): boolean =>
  program.includes("/") || path.split(delimiter).some((dir) => existsSync(join(dir, program)));

const start = (io: Io, command: readonly string[], key: Secret, baseUrl: string): Promise<number> =>
  new Promise((resolve) => {
    const [program = "", ...args] = command;
    const env = { ...process.env, IMKIT_API_KEY: key.reveal(), IMKIT_BASE_URL: baseUrl };
    // From here on a signal is the command's business, and no reason for us to leave it alone. One that comes while it is being started
    // is told when it runs.
    onSignals(PASSED_ON, (signal) => child.kill(signal));
    onSignals(FROM_KEYBOARD, (signal) => {
      if (!process.stdin.isTTY) child.kill(signal);
    });
    const child = spawn(program, args, { stdio: "inherit", env });
    // A launcher that was killed takes us with it.
    process.once("disconnect", () => child.kill("SIGKILL"));
    child.on("error", (error) => {
      const code = errnoOf(error);
      const isMissing = code === "ENOENT" || (code === "EACCES" && !isOnPath(program, process.env["PATH"]));
      io.warn(`${program}: ${isMissing ? "not found" : "cannot be started"}`);
      resolve(isMissing ? NOT_FOUND : NOT_EXECUTABLE);
    });
    child.on("exit", (code, signal) => {
      resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal]));
    });
  });
