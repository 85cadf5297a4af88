import { spawn, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { inject } from "vitest";

declare module "vitest" {
  interface ProvidedContext {
    /** Folder in which the workers of one run share a built program. Made by test/kit/program-setup.ts. */
    programFolder?: string;
  }
}

const repository = join(import.meta.dirname, "..", "..");

export type RunOptions = {
  readonly cwd: string;
  /** The whole environment but PATH; HOME and the XDG folders are in `cwd` unless given. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Default: empty and closed. */
  readonly stdin?: string | Uint8Array;
  /** Sends a signal as soon as what came out (stdout and stderr) matches. */
  readonly signalAfter?: { readonly text: RegExp; readonly signal: NodeJS.Signals };
  /** Called with everything that came out so far, each time something did. */
  readonly onOutput?: (text: string, kill: (signal: NodeJS.Signals) => void) => void;
  /** Called once it runs. */
  readonly onStart?: (kill: (signal: NodeJS.Signals) => void, pid: number) => void;
  readonly nodeArgs?: readonly string[];
  /** In a process group of its own. */
  readonly detached?: boolean;
};
export type Ran = {
  /** Exit code; null when a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
};

let made: string | null = null;

/** Root of a snapshot of the program (bin, dist, package.json), built once per test run from the sources as they are. */
export const programRoot = async (): Promise<string> => {
  made ??= await snapshot();
  return made;
};

/** Path of the launcher. */
export const programFile = async (): Promise<string> => join(await programRoot(), "bin", "imkit-rotator.cjs");

const snapshot = async (): Promise<string> => {
  const shared = sharedFolder();
  const root = shared ?? ownFolder();
  const ready = join(root, "ready");
  const failed = join(root, "failed");
  let mine = true;
  try {
    mkdirSync(join(root, "lock"));
  } catch {
    mine = false;
  }
  if (mine) {
    try {
      build(root);
      writeFileSync(ready, "");
    } catch (error) {
      writeFileSync(failed, String(error));
    }
  }
  while (!existsSync(ready)) {
    if (existsSync(failed)) throw new Error(`the program cannot be built: ${readFileSync(failed, "utf8")}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return root;
};

const sharedFolder = (): string | null => {
  try {
    return inject("programFolder") ?? null;
  } catch {
    return null;
  }
};

const ownFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), "imkit-rotator-program-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  return folder;
};

const build = (root: string): void => {
  const built = spawnSync(process.execPath, [join(repository, "scripts", "build.mjs"), join(root, "dist")], {
    encoding: "utf8",
  });
  if (built.status !== 0) throw new Error(`${built.stdout}${built.stderr}`);
  cpSync(join(repository, "bin"), join(root, "bin"), { recursive: true });
  cpSync(join(repository, "package.json"), join(root, "package.json"));
  symlinkSync(join(repository, "node_modules"), join(root, "node_modules"));
};

/** The environment of a program that is started in a test: nothing of ours but PATH. */
export const cleanEnv = (cwd: string, env: RunOptions["env"] = {}): Record<string, string> => {
  const all = {
    PATH: `${dirname(process.execPath)}:${process.env["PATH"] ?? ""}`,
    HOME: join(cwd, "home"),
    XDG_CONFIG_HOME: join(cwd, "home", ".config"),
    XDG_STATE_HOME: join(cwd, "home", ".local", "state"),
    LANG: "C.UTF-8",
    ...env,
  };
  return Object.fromEntries(Object.entries(all).flatMap(([k, v]) => (v === undefined ? [] : [[k, v]])));
};

/** Starts the program as a user does, without a terminal, and waits for its end. Never rejects on what the program does. */
export const runProgram = async (args: readonly string[], options: RunOptions): Promise<Ran> => {
  const file = await programFile();
  const child = spawn(process.execPath, [...(options.nodeArgs ?? []), file, ...args], {
    cwd: options.cwd,
    env: cleanEnv(options.cwd, options.env),
    stdio: ["pipe", "pipe", "pipe"],
    detached: options.detached === true,
  });
  options.onStart?.((signal) => void child.kill(signal), child.pid ?? 0);
  let stdout = "";
  let stderr = "";
  let signalled = false;
  const look = (): void => {
    const all = `${stdout}${stderr}`;
    options.onOutput?.(all, (signal) => void child.kill(signal));
    const after = options.signalAfter;
    if (after === undefined || signalled || !after.text.test(all)) return;
    signalled = true;
    child.kill(after.signal);
  };
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    look();
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
    look();
  });
  // It may end before it has read all of it.
  child.stdin.on("error", () => {});
  child.stdin.end(options.stdin ?? "");
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
};
