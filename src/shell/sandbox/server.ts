import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createAdmin, type LogEntry, makeClientKey } from "./admin.ts";
import { type ErrorShape, errorSender } from "./answers.ts";
import { createDashboard } from "./dashboard.ts";
import { createFaults, type Fault } from "./faults.ts";
import { createState, type KeyInfo, type KeyRef, type KeyStats } from "./state.ts";

const MAX_LOG = 5000;

export type SandboxOptions = {
  /** Name on the Dashboard; one sandbox is one app. Default `demo`. */
  readonly app?: string;
  /** 0 (default): any free port of 127.0.0.1. */
  readonly port?: number;
  /** `overlap` (default): older keys go on working. `replace`: issuing a key revokes them. */
  readonly mode?: "overlap" | "replace";
  readonly errorShape?: ErrorShape;
  /** What a wrong key gets; default INVALID_API_KEY. */
  readonly invalidCode?: "INVALID_API_KEY" | "UNAUTHORIZED" | "INVALID_AUTH";
  /** How long a revoked key still works, ms. */
  readonly revocationLagMs?: number;
  /** How long a key issued after the first is still rejected, ms. */
  readonly activationLagMs?: number;
  /** Requests a minute and key; default 1,000. */
  readonly limit?: number;
  /** Sends an HTTP Retry-After header with 429, too. */
  readonly retryAfterHeader?: boolean;
  /** `result.clientKey` of /admin/stats: what tells two apps apart. Default: made up. */
  readonly clientKey?: string;
  /** Epoch ms. */
  readonly now?: () => number;
};

/** A running IMKIT stand-in for one app. Keys live in memory and end with it. */
export type Sandbox = {
  readonly app: string;
  /** Base URL, without a trailing slash. */
  readonly url: string;
  readonly dashboard: string;
  readonly port: number;
  /** The key (id 1) that the app starts with. */
  readonly firstKey: () => string;
  /** Issues a key as the Dashboard does; its id is that of `keys().at(-1)`. */
  readonly issue: () => string;
  /** false: no such key. */
  readonly revoke: (ref: KeyRef) => boolean;
  readonly keys: () => readonly KeyInfo[];
  readonly stats: (ref: KeyRef) => KeyStats;
  /** The last 5,000 things that happened, without keys. */
  readonly log: () => readonly LogEntry[];
  /** Makes the next `count` requests that fit go wrong; the returned function takes the fault away. */
  readonly fault: (fault: Fault) => () => void;
  /** Cuts open connections; resolves when the port is free. Closing twice is fine. */
  readonly close: () => Promise<void>;
};

/**
 * Starts a stand-in for IMKIT on 127.0.0.1: admin API and Dashboard.
 * @throws the error of listen(2), e.g. EADDRINUSE
 */
export const startSandbox = async ({
  app = "demo",
  port: wanted = 0,
  mode = "overlap",
  errorShape = "flat",
  invalidCode = "INVALID_API_KEY",
  revocationLagMs = 0,
  activationLagMs = 0,
  limit = 1000,
  retryAfterHeader = false,
  clientKey = makeClientKey(),
  now = Date.now,
}: SandboxOptions = {}): Promise<Sandbox> => {
  const state = createState({ mode, revocationLagMs, activationLagMs, limit, now });
  const faults = createFaults((ref) => state.find(ref)?.id ?? null);
  const sendError = errorSender(errorShape, retryAfterHeader);
  const entries: LogEntry[] = [];
  const log = (entry: Omit<LogEntry, "at">): void => {
    entries.push({ at: now(), ...entry });
    if (entries.length > MAX_LOG) entries.shift();
  };

  const closing = new AbortController();
  const sleep = (ms: number): Promise<void> =>
    pause(ms, undefined, { signal: closing.signal }).catch(() => {});
  const admin = createAdmin({ state, faults, sendError, invalidCode, clientKey, now, sleep, log });
  const dashboard = createDashboard({ app, state, replaces: mode === "replace", now, log });

  let hosts: ReadonlySet<string> = new Set();
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    // A page on another site could point its name at 127.0.0.1; the name in Host gives it away.
    if (!hosts.has((request.headers.host ?? "").toLowerCase())) {
      log({ type: "refused", id: null, call: "any", answer: "host" });
      return sendError(response, "MISDIRECTED");
    }
    const target = request.url ?? "/";
    const url = target.startsWith("/") ? URL.parse(`http://sandbox${target}`) : null;
    if (url !== null && (await admin(request, response, url))) return;
    if (url !== null && (await dashboard(request, response, url))) return;
    sendError(response, "NOT_FOUND");
  };

  const server = createServer((request, response) => {
    answer(request, response).catch(() => {
      if (!response.headersSent) sendError(response, "INTERNAL");
      else response.destroy();
    });
  });
  server.headersTimeout = 10_000;
  server.requestTimeout = 15_000;
  server.listen(wanted, "127.0.0.1");
  await once(server, "listening");

  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  hosts = new Set(
    ["127.0.0.1", "localhost", "[::1]"].map((name) => (port === 80 ? name : `${name}:${port}`)),
  );
  const url = `http://127.0.0.1:${port}`;
  const first = state.issue();
  log({ type: "issued", id: first.id, call: "start", answer: "" });

  const close = async (): Promise<void> => {
    if (!server.listening) return;
    const closed = once(server, "close");
    server.close();
    server.closeAllConnections();
    closing.abort();
    await closed;
  };

  return {
    app,
    url,
    dashboard: `${url}/dashboard`,
    port,
    firstKey: () => first.key,
    issue: () => {
      const { id, key } = state.issue();
      log({ type: "issued", id, call: "program", answer: "" });
      return key;
    },
    revoke: (ref) => {
      const found = state.revoke(ref);
      if (found) log({ type: "revoked", id: state.find(ref)?.id ?? null, call: "program", answer: "" });
      return found;
    },
    keys: state.keys,
    stats: state.stats,
    log: () => [...entries],
    fault: faults.add,
    close,
  };
};
