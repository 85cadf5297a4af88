import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, open, readFile, rename, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** Where installed peers stay between runs. */
export const cacheDir = (): string =>
  process.env["PEERS_CACHE"] ??
  join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "imkit-rotator-peers");

export type Running = { readonly pid: number; readonly log: string; readonly stop: () => Promise<void> };

/** Runs a program to its end. @throws with the end of what it printed, when it fails */
export const runToEnd = async (
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
  cwd = tmpdir(),
): Promise<void> => {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env, cwd });
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (part: string) => (said = (said + part).slice(-4_000)));
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}:\n${said}`);
};

/** A Python of its own with one package in it; gives back its `python`. Two runs at once do not meet. */
export const pythonWith = async (name: string, requirement: string): Promise<string> => {
  const home = join(cacheDir(), name);
  const python = join(home, "bin", "python");
  if (existsSync(join(home, "installed"))) return python;
  await mkdir(cacheDir(), { recursive: true });
  const fresh = await mkdtemp(`${home}.`);
  process.stdout.write(`installing ${requirement}\n`);
  await runToEnd("python3", ["-m", "venv", fresh]);
  const pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check", requirement];
  await runToEnd(join(fresh, "bin", "python"), pip);
  await (await open(join(fresh, "installed"), "w")).close();
  await rm(home, { recursive: true, force: true });
  await rename(fresh, home).catch(async () => await rm(fresh, { recursive: true, force: true }));
  return python;
};

/** A port of 127.0.0.1 that was free a moment ago. */
export const freePort = async (): Promise<number> => {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
};

/**
 * Starts a server in a process group of its own, logging to `<dir>/<name>.log`, and waits until `isUp` says so. `stop` ends that group.
 * @throws with the end of the log, when it ends or is not up in time; nothing is left running then
 */
export const startPeer = async (
  name: string,
  dir: string,
  command: readonly string[],
  env: NodeJS.ProcessEnv,
  isUp: () => Promise<boolean>,
  seconds = 90,
): Promise<Running> => {
  const log = join(dir, `${name}.log`);
  const file = await open(log, "w", 0o600);
  // Should this process be killed, the peer goes, too.
  const child = spawn("setpriv", ["--pdeathsig", "TERM", ...command], {
    detached: true,
    stdio: ["ignore", file.fd, file.fd],
    env,
    cwd: dir,
  });
  const failed = once(child, "error").then(([error]) => Promise.reject(error as Error));
  await Promise.race([once(child, "spawn"), failed]);
  failed.catch(() => {});
  await file.close();
  const stop = () => stopGroup(child);
  const until = Date.now() + seconds * 1_000;
  while (!(await isUp().catch(() => false))) {
    if (hasEnded(child) || Date.now() > until) {
      await stop();
      const tail = (await readFile(log, "utf8")).slice(-3_000);
      throw new Error(`the peer ${name} ${hasEnded(child) ? "ended" : "did not answer"}:\n${tail}`);
    }
    await sleep(100);
  }
  return { pid: child.pid ?? 0, log, stop };
};

const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null;

const stopGroup = async (child: ChildProcess): Promise<void> => {
  if (child.pid === undefined || hasEnded(child)) return;
  const over = once(child, "exit");
  signalGroup(child.pid, "SIGTERM");
  if ((await Promise.race([over, sleep(5_000, "late", { ref: false })])) === "late") {
    signalGroup(child.pid, "SIGKILL");
    await over;
  }
};

const signalGroup = (pid: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(-pid, signal);
  } catch {
    // It is gone already.
  }
};

/** True when a GET is answered with 2xx. */
export const answers = async (url: string): Promise<boolean> =>
  (await fetch(url, { signal: AbortSignal.timeout(2_000) })).ok;
