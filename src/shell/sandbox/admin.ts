import { createHmac, randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { parseObject, readBody, type SendError, sendResult } from "./answers.ts";
import { type Faults, playFault, type Route } from "./faults.ts";
import type { State } from "./state.ts";

const ROUTES: Readonly<Record<string, { readonly route: Route; readonly methods: readonly string[] }>> = {
  "/admin/connection-count": { route: "connection-count", methods: ["GET"] },
  "/admin/stats": { route: "stats", methods: ["GET"] },
  "/admin/clients": { route: "clients", methods: ["GET", "POST"] },
};
const HOUR = 3_600_000;
const MAX_CLIENTS = 1000;

/** One line of the sandbox's log. Holds no key and no path that a caller made up. */
export type LogEntry = {
  readonly at: number;
  readonly type: "issued" | "revoked" | "request" | "fault" | "refused";
  /** The key's id; null when the request had none that the sandbox issued. */
  readonly id: number | null;
  readonly call: string;
  readonly answer: string;
};

type AdminOptions = {
  readonly state: State;
  readonly faults: Faults;
  readonly sendError: SendError;
  /** What a wrong, expired or revoked key gets. */
  readonly invalidCode: string;
  readonly clientKey: string;
  readonly now: () => number;
  /** Milliseconds; ends early when the server closes. */
  readonly sleep: (ms: number) => Promise<void>;
  readonly log: (entry: Omit<LogEntry, "at">) => void;
};

/** A Client Key of the vendor's form: a JWT. The `apiKey` in it is made up and opens nothing. */
export const makeClientKey = (): string => {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const payload = {
    apiKey: randomBytes(32).toString("base64"),
    createAt: 0,
    clientId: randomBytes(12).toString("hex"),
  };
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part(payload)}`;
  return `${text}.${createHmac("sha256", randomBytes(32)).update(text).digest("base64url")}`;
};

const numberIn = (value: string | null, fallback: number, max: number): number =>
  value !== null && /^\d{1,6}$/.test(value) ? Math.min(Number(value), max) : fallback;

/** The admin API: gives a handler that answers a request and resolves, or says false for a path that is none of its own. */
export const createAdmin = (options: AdminOptions) => {
  const { state, sendError, now } = options;
  let writes = 0;

  const stats = (key: string): unknown => {
    const end = now();
    return {
      clientKey: options.clientKey,
      apiKey: key,
      startTime: new Date(end - HOUR).toISOString(),
      endTime: new Date(end).toISOString(),
      start: end - HOUR,
      end,
      userList: [...state.clients.keys()].slice(0, 100),
      roomCount: 3,
      totalRoomCount: 12,
      messageCount: writes,
      peakConnectionCount: 128,
      totalMem: 8_589_934_592,
      freeMem: 4_294_967_296,
    };
  };

  const listClients = (query: URLSearchParams): unknown => {
    const q = query.get("q") ?? "";
    const found = [...state.clients.values()].filter(({ _id, nickname }) =>
      `${_id}\n${nickname}`.includes(q),
    );
    const skip = numberIn(query.get("skip"), 0, 1_000_000);
    return {
      totalCount: found.length,
      data: found.slice(skip, skip + numberIn(query.get("limit"), 20, 100)),
    };
  };

  const putClient = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const text = await readBody(request);
    if (text === null) return sendError(response, "PAYLOAD_TOO_LARGE");
    const body = parseObject(text);
    const id = body?.["_id"];
    const nickname = body?.["nickname"] ?? "";
    if (typeof id !== "string" || id === "" || id.length > 200) return sendError(response, "BAD_REQUEST");
    if (typeof nickname !== "string" || nickname.length > 200) return sendError(response, "BAD_REQUEST");
    if (state.clients.size >= MAX_CLIENTS && !state.clients.has(id)) state.clients.clear();
    state.clients.set(id, { _id: id, nickname });
    writes += 1;
    const token = body?.["issueAccessToken"] === true ? { token: randomBytes(16).toString("hex") } : {};
    return sendResult(response, { _id: id, nickname, ...token });
  };

  return async (request: IncomingMessage, response: ServerResponse, url: URL): Promise<boolean> => {
    const known = Object.hasOwn(ROUTES, url.pathname) ? ROUTES[url.pathname] : undefined;
    if (known === undefined) return false;
    const { route, methods } = known;
    const header = request.headers["im-api-key"];
    const key = Array.isArray(header) ? header.join() : header;
    const id = key === undefined ? null : (state.find(key)?.id ?? null);
    const call = `${request.method ?? ""} ${url.pathname}`;

    const result = (): unknown =>
      route === "connection-count"
        ? { count: 128 }
        : route === "stats"
          ? stats(key ?? "")
          : listClients(url.searchParams);

    if (!methods.includes(request.method ?? "")) {
      sendError(response, "METHOD_NOT_ALLOWED");
      return true;
    }
    const fault = options.faults.take(route, id);
    if (fault !== null) {
      options.log({ type: "fault", id, call, answer: fault.kind });
      if (playFault(fault, response, sendError, result())) return true;
      await options.sleep(fault.ms ?? 1000);
    }
    const judgement = state.judge(key);
    options.log({ type: "request", id, call, answer: judgement.kind });
    switch (judgement.kind) {
      case "missing":
        sendError(response, "MISSING_API_KEY");
        break;
      case "invalid":
        sendError(response, options.invalidCode);
        break;
      case "limited":
        sendError(response, "RATE_LIMIT_EXCEEDED", judgement.retryAfter);
        break;
      case "accepted":
        if (request.method === "POST") await putClient(request, response);
        else sendResult(response, result());
        break;
    }
    return true;
  };
};
