import { appendFileSync, readFileSync } from "node:fs";
import { Agent, request as httpRequest } from "node:http";
import { Secret } from "../../core/secret.ts";

/** One line of what the service prints: totals since its start. `ready` comes once, after its first served request. */
export type ServiceLine = {
  readonly type: "ready" | "counts" | "final";
  readonly ok: number;
  readonly failed: number;
  readonly fp?: string;
};

/** What the service needs of its process; `shell` gives the real one, tests another. */
export type ServiceIo = {
  readonly print: (line: string) => void;
  /** Resolves when it should drain and end. */
  readonly stopped: Promise<unknown>;
};

const REQUEST_TIMEOUT = 10_000;

const valueIn = (text: string, name: string): string => {
  const line = text.split(/\r?\n/).find((one) => one.startsWith(`${name}=`));
  return (line ?? "").slice(name.length + 1).replace(/^(["'])(.*)\1$/, "$2");
};

const WRITE_EVERY = 20;

/**
 * The demo's chat service: reads `IMKIT_API_KEY` and `IMKIT_BASE_URL` from a file once, at its start, as a service does that must be
 * restarted for a new key, and uses them all the time. Its lines never hold the key. Its log (one line a request) does, where `DEBUG=1` stands
 * in that file: the demo's leak.
 * @param args `<env file> [--rate <requests a second>] [--salt <64 hex of a ledger>] [--log <file>]`
 * @returns the exit code: 0 drained, 2 file or arguments unusable
 */
export const chatService = async (args: readonly string[], io: ServiceIo): Promise<number> => {
  const option = (name: string): string | undefined => {
    const at = args.indexOf(name);
    return at === -1 ? undefined : args[at + 1];
  };
  const rate = Number(option("--rate") ?? "20");
  const salt = option("--salt");
  const logFile = option("--log");
  let text: string;
  let base: URL;
  try {
    text = readFileSync(args[0] ?? "", "utf8");
    base = new URL(valueIn(text, "IMKIT_BASE_URL"));
  } catch {
    return 2;
  }
  const key = valueIn(text, "IMKIT_API_KEY");
  if (key === "" || base.protocol !== "http:" || !(rate > 0 && rate <= 1000)) return 2;
  if (salt !== undefined && !/^[0-9a-f]{64}$/.test(salt)) return 2;
  const fp = salt === undefined ? {} : { fp: new Secret(key).fingerprint(salt) };

  const agent = new Agent({ keepAlive: true, maxSockets: 20 });
  const inFlight = new Set<Promise<void>>();
  let ok = 0;
  let failed = 0;
  let sent = 0;
  const say = (type: ServiceLine["type"]): void =>
    io.print(JSON.stringify({ type, ok, failed, ...fp } satisfies ServiceLine));

  const log = (line: string): void => {
    if (logFile === undefined) return;
    const text = `${new Date().toISOString()} chat[${process.pid}] ${line}\n`;
    appendFileSync(logFile, text, { mode: 0o600 });
  };

  const call = (body: string | null): Promise<boolean> =>
    new Promise((resolve) => {
      const no = (): void => resolve(false);
      const path = body === null ? "/admin/connection-count" : "/admin/clients";
      const headers = { "IM-API-KEY": key, ...(body === null ? {} : { "Content-Type": "application/json" }) };
      const options = { agent, headers, method: body === null ? "GET" : "POST", timeout: REQUEST_TIMEOUT };
      const request = httpRequest(new URL(path, base), options, (response) => {
        response.on("error", no).on("close", no);
        response.on("end", () => resolve(response.statusCode === 200));
        response.resume();
      });
      request.on("timeout", () => request.destroy()).on("error", no);
      request.end(body ?? undefined);
    });

  const send = (): void => {
    sent += 1;
    const user = { _id: `user${sent % 50}`, nickname: "Alice" };
    const one = call(sent % WRITE_EVERY === 0 ? JSON.stringify(user) : null).then((good) => {
      inFlight.delete(one);
      log(good ? "INFO request served" : "INFO request failed");
      if (!good) failed += 1;
      else if (++ok === 1) {
        say("ready");
        if (valueIn(text, "DEBUG") === "1") log(`DEBUG sent with {"im-api-key":"${key}"}`);
      }
    });
    inFlight.add(one);
  };

  send();
  const sending = setInterval(send, 1000 / rate);
  const counting = setInterval(() => say("counts"), 1000);
  await io.stopped;
  clearInterval(sending);
  clearInterval(counting);
  await Promise.all(inFlight);
  say("final");
  agent.destroy();
  return 0;
};

/** The process's own stdout, SIGTERM, and the end of stdin: a service whose supervisor is gone must not stay behind. */
export const serviceIo = (): ServiceIo => ({
  print: (line) => void process.stdout.write(`${line}\n`),
  stopped: new Promise<void>((resolve) => {
    process.on("SIGTERM", () => resolve());
    // Ctrl-C reaches the whole foreground group; the supervisor decides when this one ends.
    process.on("SIGINT", () => undefined);
    process.stdout.on("error", () => resolve());
    process.stdin.on("end", () => resolve()).on("error", () => resolve());
    process.stdin.resume();
    // Watched while there is work, no reason to stay when there is none.
    process.stdin.unref();
  }).finally(() => process.stdin.pause()),
});
