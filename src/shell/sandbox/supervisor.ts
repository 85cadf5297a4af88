import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { parseObject } from "./answers.ts";
import type { ServiceLine } from "./chat-service.ts";

export type ServiceOptions = {
  /** Program and arguments that start one generation, e.g. `[process.execPath, bin, "demo", "--internal-service", envFile]`. */
  readonly command: readonly string[];
  /** Path of the socket for `askRestart`, in a folder that only this user can enter. About 100 bytes at most. */
  readonly socket: string;
};

/** How long a new generation may take to its first served request, and an old one to drain. */
const PATIENCE_MS = 15_000;

/** Requests of all generations so far. */
export type Totals = {
  readonly ok: number;
  readonly failed: number;
  /** How many generations served. */
  readonly generations: number;
  /** Generations that ended without having been asked to. */
  readonly crashed: number;
};

export type Service = {
  readonly totals: () => Totals;
  /** Fingerprint of the key that the serving generation read at its start; null when it got no salt. */
  readonly fingerprint: () => string | null;
  /**
   * Starts a new generation, waits until it has served a request, then lets the old one drain. Calls at the same time are done one after
   * the other. Rejects when the new one does not come up; the old one then serves on.
   */
  readonly restart: () => Promise<void>;
  /** Drains, ends, removes the socket. Gives the final totals. Stopping twice is fine. */
  readonly stop: () => Promise<Totals>;
};

type Generation = {
  readonly child: ChildProcessByStdio<Writable, Readable, null>;
  readonly ready: Promise<boolean>;
  readonly ended: Promise<void>;
  last: ServiceLine;
  asked: boolean;
  gone: boolean;
};

const parseLine = (text: string): ServiceLine | null => {
  const line = parseObject(text);
  return typeof line?.["ok"] === "number" && typeof line["failed"] === "number"
    ? (line as ServiceLine)
    : null;
};

const begin = (command: readonly string[]): Generation => {
  const [program = "", ...args] = command;
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "ignore"] });
  child.stdin.on("error", () => undefined);
  const { promise: ready, resolve: settle } = Promise.withResolvers<boolean>();
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  const timer = setTimeout(() => settle(false), PATIENCE_MS);
  const generation: Generation = {
    child,
    ready: ready.finally(() => clearTimeout(timer)),
    ended,
    last: { type: "counts", ok: 0, failed: 0 },
    asked: false,
    gone: false,
  };
  createInterface({ input: child.stdout }).on("line", (text) => {
    const line = parseLine(text);
    if (line === null) return;
    generation.last = line;
    if (line.type === "ready") settle(true);
  });
  const over = (): void => {
    generation.gone = true;
    settle(false);
    end();
  };
  // `close` and not `exit`: by then the final line has been read.
  child.on("close", over).on("error", over);
  return generation;
};

const drain = async (generation: Generation, patienceMs = PATIENCE_MS): Promise<void> => {
  if (generation.gone) return;
  generation.asked = true;
  generation.child.kill("SIGTERM");
  const timer = setTimeout(() => generation.child.kill("SIGKILL"), patienceMs);
  await generation.ended;
  clearTimeout(timer);
};

/**
 * Starts the demo's chat service and keeps it serving over restarts. Resolves once it has served a request.
 * @throws Error when the first generation does not come up
 */
export const startService = async ({ command, socket }: ServiceOptions): Promise<Service> => {
  const all: Generation[] = [];

  const next = async (): Promise<Generation> => {
    const generation = begin(command);
    all.push(generation);
    if (await generation.ready) return generation;
    await drain(generation, 1000);
    throw new Error("the chat service did not come up");
  };

  let serving = await next();
  let queue: Promise<unknown> = Promise.resolve();
  let stopped = false;

  const totals = (): Totals => ({
    ok: all.reduce((sum, { last }) => sum + last.ok, 0),
    failed: all.reduce((sum, { last }) => sum + last.failed, 0),
    generations: all.filter(({ last }) => last.ok > 0).length,
    crashed: all.filter(({ gone, asked }) => gone && !asked).length,
  });

  const restart = (): Promise<void> => {
    const turn = queue.then(async () => {
      if (stopped) throw new Error("the chat service is stopped");
      const old = serving;
      serving = await next();
      await drain(old);
    });
    queue = turn.catch(() => undefined);
    return turn;
  };

  const server = createServer((peer) => {
    peer.on("error", () => undefined);
    peer.once("data", () => {
      restart().then(
        () => peer.end("ok\n"),
        () => peer.end("failed\n"),
      );
    });
  });
  server.listen(socket);
  try {
    await once(server, "listening");
  } catch (error) {
    await drain(serving);
    throw error;
  }

  return {
    totals,
    fingerprint: () => serving.last.fp ?? null,
    restart,
    stop: async () => {
      if (!stopped) {
        stopped = true;
        server.close();
        queue = queue.then(() => drain(serving));
      }
      await queue;
      return totals();
    },
  };
};

/**
 * Asks the supervisor behind `socket` for a restart and waits for its end: the whole of `imkit-rotator demo --internal-restart <socket>`.
 * @returns the exit code: 0 restarted, 1 not
 */
export const askRestart = (socket: string): Promise<0 | 1> =>
  new Promise((resolve) => {
    let answer = "";
    const peer = connect(socket, () => peer.write("restart\n"));
    peer.setTimeout(40_000, () => peer.destroy());
    peer.on("data", (chunk) => {
      answer += chunk.toString();
    });
    peer.on("error", () => undefined);
    peer.on("close", () => resolve(answer === "ok\n" ? 0 : 1));
  });
