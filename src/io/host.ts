import { randomBytes } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";
import type { ProcessClaim } from "../core/events.ts";
import type { Host } from "../ports.ts";
import { errnoOf } from "./disk.ts";

/** Stands for what this system does not tell. Never equal to anything, itself included. */
export const UNKNOWN = "unknown";

/** What `isGone` asks of the system; tests give their own. */
export type HostSystem = {
  readonly platform: string;
  readonly pid: number;
  readonly hostname: () => string;
  /** Text of a /proc file; rejects as node:fs does. */
  readonly read: (path: string) => Promise<string>;
  readonly link: (path: string) => Promise<string>;
  /** Signal 0: returns when there is such a process, throws EPERM when it is another user's, ESRCH when there is none. */
  readonly poke: (pid: number) => void;
  /** macOS: an id that is new at each boot. */
  readonly bootSession: () => Promise<string>;
};

const inst = randomBytes(8).toString("hex");

/**
 * Who this process is; the same answer at each call. What the system does not tell is `unknown`, and then no claim can be proven gone.
 *
 * Linux: gone = same host name, boot id and pid namespace, and that pid has another start time, is a zombie without threads, or is neither in
 * /proc nor known to `kill(pid, 0)` (both, because `hidepid` hides other users' processes from /proc). macOS has no pid namespaces and no
 * /proc: same host name and boot session, and `kill(pid, 0)` says ESRCH; a pid that was given out again counts as alive. Elsewhere: never.
 */
export const thisHost = async (system?: HostSystem): Promise<Host> => {
  if (system !== undefined) return hostOf(system);
  if (here !== null) return here;
  const host = await hostOf(thisSystem);
  // What could not be read just now may be another time.
  if (!Object.values(host.claim).includes(UNKNOWN)) here = host;
  return host;
};

let here: Host | null = null;

const hostOf = async (system: HostSystem): Promise<Host> => {
  const claim: ProcessClaim = {
    inst,
    host: system.hostname() || UNKNOWN,
    bootId: await bootIdOf(system),
    pidNamespace: await namespaceOf(system),
    pid: system.pid,
    startTime: await startTimeOf(system),
  };
  return { claim, isGone: (other) => isGone(system, claim, other) };
};

const isGone = async (system: HostSystem, mine: ProcessClaim, other: ProcessClaim): Promise<boolean> => {
  const known = [mine.host, mine.bootId, mine.pidNamespace].every((fact) => fact !== UNKNOWN && fact !== "");
  const isOurs =
    mine.host === other.host && mine.bootId === other.bootId && mine.pidNamespace === other.pidNamespace;
  if (!known || !isOurs || !Number.isSafeInteger(other.pid) || other.pid <= 0) return false;
  if (system.platform !== "linux") return isAbsent(system, other.pid);
  const stat = await statOf(system, other.pid);
  if (stat === "absent") return isAbsent(system, other.pid);
  if (stat === null) return false;
  const isReused = other.startTime !== UNKNOWN && stat.startTime !== other.startTime;
  return isReused || stat.isDead;
};

const isAbsent = (system: HostSystem, pid: number): boolean => {
  try {
    system.poke(pid);
    return false;
  } catch (error) {
    return errnoOf(error) === "ESRCH";
  }
};

type Stat = { readonly startTime: string; readonly isDead: boolean };

/** From /proc/PID/stat: its fields follow the last `)`, since a program's name may hold spaces and brackets. null = no clear answer. */
const statOf = async ({ read }: HostSystem, pid: number): Promise<Stat | "absent" | null> => {
  try {
    const text = await read(`/proc/${pid}/stat`);
    const fields = text
      .slice(text.lastIndexOf(")") + 1)
      .trim()
      .split(/\s+/);
    const [state = ""] = fields;
    const [threads = "", , startTime = ""] = fields.slice(17);
    if (!/^[A-Za-z]$/.test(state) || !/^\d+$/.test(startTime)) return null;
    return { startTime, isDead: /^[ZXx]$/.test(state) && Number(threads) <= 1 };
  } catch (error) {
    return ["ENOENT", "ESRCH"].includes(errnoOf(error)) ? "absent" : null;
  }
};

const startTimeOf = async (system: HostSystem): Promise<string> => {
  const stat = await statOf(system, system.pid);
  return stat === null || stat === "absent" ? UNKNOWN : stat.startTime;
};

const bootIdOf = async (system: HostSystem): Promise<string> => {
  if (system.platform === "darwin") return fact(system.bootSession());
  return system.platform === "linux" ? fact(system.read("/proc/sys/kernel/random/boot_id")) : UNKNOWN;
};

const namespaceOf = async (system: HostSystem): Promise<string> => {
  if (system.platform === "darwin") return "none";
  return system.platform === "linux" ? fact(system.link("/proc/self/ns/pid")) : UNKNOWN;
};

const fact = async (answer: Promise<string>): Promise<string> => {
  const text = await answer.then(
    (said) => said.trim(),
    () => "",
  );
  return /^[\x21-\x7e]{1,128}$/.test(text) ? text : UNKNOWN;
};

/** The global `process`: an import of `node:process` opens its standard streams and costs milliseconds. */
const thisSystem: HostSystem = {
  platform: process.platform,
  pid: process.pid,
  hostname,
  // /proc is memory: asking is faster than waiting for an answer.
  read: async (path) => readFileSync(path, "utf8"),
  link: async (path) => readlinkSync(path),
  poke: (other) => void process.kill(other, 0),
  bootSession: async () => {
    const { execFile } = await import("node:child_process");
    return new Promise((resolve, reject) => {
      const argv = ["-n", "kern.bootsessionuuid"];
      execFile("/usr/sbin/sysctl", argv, { timeout: 2_000 }, (error, stdout) =>
        error === null ? resolve(stdout) : reject(error),
      );
    });
  },
};
