import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { RotatorError } from "../../core/errors.ts";
import { parseDuration } from "../../core/policy.ts";
import { aborted, exitOfSignal, type Io } from "../io.ts";
import { shellWord } from "../myself.ts";
import { type Sandbox, startSandbox } from "../sandbox/server.ts";

/** The command line's options as they come. */
export type SandboxFlags = {
  readonly port?: string;
  readonly mode?: string;
  readonly errorShape?: string;
  readonly revocationLag?: string;
  readonly activationLag?: string;
  readonly limit?: string;
  readonly writeDotenv?: string;
  readonly writeConfig?: string;
};

const usage = (what: string, why = ""): RotatorError =>
  new RotatorError("USAGE", { what, why, do: ["imkit-rotator sandbox --help"] });

const wholeNumber = (
  name: string,
  text: string | undefined,
  fallback: number,
  min: number,
  max: number,
): number => {
  if (text === undefined) return fallback;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw usage(`${name} must be a whole number from ${min} to ${max}.`);
};

const duration = (name: string, text: string | undefined): number => {
  const ms = parseDuration(text ?? "0s");
  if (ms === null) throw usage(`${name} must be a duration such as 500ms, 5s or 2m.`);
  return ms;
};

const choice = <T extends string>(
  name: string,
  text: string | undefined,
  allowed: readonly [T, ...T[]],
): T => {
  if (text === undefined) return allowed[0];
  const found = allowed.find((one) => one === text);
  if (found === undefined) throw usage(`${name} must be one of ${allowed.join(", ")}.`);
  return found;
};

const errno = (error: unknown): string =>
  error instanceof Error && "code" in error ? String(error.code) : "";

const unwritable = (option: string, path: string, why: string): RotatorError =>
  new RotatorError("USAGE", {
    what: `${option}: ${path} cannot be written.`,
    why,
    do: ["Name another file."],
  });

const append = (path: string, lines: Readonly<Record<string, string>>): string | null => {
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_APPEND | constants.O_NOFOLLOW;
  const handle = openSync(path, flags, 0o600);
  try {
    if (!fstatSync(handle).isFile()) return "It is no regular file.";
    const before = readFileSync(handle, "utf8");
    const taken = Object.keys(lines).find((name) =>
      new RegExp(`^\\uFEFF?\\s*(export\\s+)?["']?${name}["']?\\s*[=:]`, "m").test(before),
    );
    if (taken !== undefined) return `It has ${taken} already; nothing was changed.`;
    fchmodSync(handle, 0o600);
    const text = Object.entries(lines).map(([name, value]) => `${name}=${value}\n`);
    writeFileSync(handle, (before === "" || before.endsWith("\n") ? "" : "\n") + text.join(""));
    fsyncSync(handle);
    return null;
  } finally {
    closeSync(handle);
  }
};

/** Adds the lines to a new file, or to one that has neither name yet; the file ends up readable by its owner alone. */
const writeEnvFile = (path: string, lines: Readonly<Record<string, string>>): void => {
  let refusal: string | null;
  try {
    refusal = append(path, lines);
  } catch (error) {
    refusal = errno(error);
  }
  if (refusal !== null) throw unwritable("--write-dotenv", path, refusal);
};

/** A config that can be used as it stands. Its state folder is its own: the next sandbox has other keys, so an old ledger would not fit. */
const configText = (app: string, url: string, envFile: string, configFile: string): string => {
  const stateDir = join(dirname(configFile), `imkit-rotator-state-${randomBytes(3).toString("hex")}`);
  return `# Written by "imkit-rotator sandbox" for the sandbox at ${url}. Its keys end with it.
schemaVersion: 1
state: { dir: ${JSON.stringify(stateDir)} }
apps:
  ${app}:
    baseUrl: ${url}
    stores:
      - { name: env, type: dotenv, path: ${JSON.stringify(envFile)}, key: IMKIT_API_KEY }
    rollouts:
      - { name: none, type: none, reason: "In the sandbox no service reads the file." }
    revoke: { probes: 3, every: 1s }
`;
};

const writeConfigFile = (path: string, text: string): void => {
  try {
    writeFileSync(path, text, { flag: "wx", mode: 0o600 });
  } catch (error) {
    throw unwritable(
      "--write-config",
      path,
      errno(error) === "EEXIST" ? "It exists already; nothing was changed." : errno(error),
    );
  }
};

const writeFiles = (sandbox: Sandbox, envFile: string | null, configFile: string | null): void => {
  if (envFile === null) return;
  if (configFile !== null) {
    writeConfigFile(configFile, configText(sandbox.app, sandbox.url, envFile, configFile));
  }
  try {
    writeEnvFile(envFile, { IMKIT_API_KEY: sandbox.firstKey(), IMKIT_BASE_URL: sandbox.url });
  } catch (error) {
    if (configFile !== null) rmSync(configFile, { force: true });
    throw error;
  }
};

const start = async (flags: SandboxFlags): Promise<Sandbox> => {
  const settings = {
    port: wholeNumber("--port", flags.port, 0, 0, 65_535),
    mode: choice("--mode", flags.mode, ["overlap", "replace"]),
    errorShape: choice("--error-shape", flags.errorShape, ["flat", "envelope", "mixed"]),
    revocationLagMs: duration("--revocation-lag", flags.revocationLag),
    activationLagMs: duration("--activation-lag", flags.activationLag),
    limit: wholeNumber("--limit", flags.limit, 1000, 1, 1_000_000),
  };
  if (flags.writeConfig !== undefined && flags.writeDotenv === undefined)
    throw usage("--write-config needs --write-dotenv.");
  try {
    return await startSandbox(settings);
  } catch (error) {
    throw usage(`Port ${settings.port} cannot be used.`, errno(error));
  }
};

/**
 * Runs a sandbox until a signal comes. Prints where it is; writes files only where told; never prints a key.
 * @returns the exit code: 130 or 143
 * @throws RotatorError USAGE
 */
export const sandboxCommand = async (
  io: Pick<Io, "out" | "say" | "json" | "signal">,
  flags: SandboxFlags,
): Promise<number> => {
  const sandbox = await start(flags);
  try {
    const envFile = flags.writeDotenv === undefined ? null : resolve(flags.writeDotenv);
    const configFile = flags.writeConfig === undefined ? null : resolve(flags.writeConfig);
    writeFiles(sandbox, envFile, configFile);
    const { app, url, dashboard } = sandbox;
    if (io.json) {
      io.out(JSON.stringify({ url, dashboard, envFile, configFile }));
    } else {
      const files = [
        ...(envFile === null ? [] : [`Env file   ${envFile}`]),
        ...(configFile === null ? [] : [`Config     ${configFile}`]),
      ];
      io.out([`Base URL   ${url}`, `Dashboard  ${dashboard}`, ...files].join("\n"));
      io.say("A stand-in for IMKIT, on this computer only. Ctrl-C ends it, and its keys with it.");
      const stage = `imkit-rotator -c ${shellWord(configFile ?? "")} stage ${app}`;
      if (configFile !== null) io.say(`Next: issue a key in the Dashboard, then  ${stage}`);
    }
    await aborted(io.signal);
    return exitOfSignal(io);
  } finally {
    await sandbox.close();
  }
};
