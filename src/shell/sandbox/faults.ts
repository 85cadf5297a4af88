import type { ServerResponse } from "node:http";
import { type SendError, sendJson } from "./answers.ts";
import type { KeyRef } from "./state.ts";

/** The calls of the admin API that the sandbox knows. */
export type Route = "connection-count" | "stats" | "clients";

export type Fault = {
  readonly kind: FaultKind;
  /** How many requests it hits; default 1, may be Infinity. */
  readonly count?: number;
  /** Only this call. */
  readonly route?: Route;
  /** Only requests with this key. */
  readonly key?: KeyRef;
  /** For `slow`; default 1,000. */
  readonly ms?: number;
  /** For `429`, in seconds; default 60. */
  readonly retryAfter?: number;
};

export type Faults = {
  /** Adds a fault; the returned function takes it away again. */
  readonly add: (fault: Fault) => () => void;
  /** The first fault that fits this request, counted down. */
  readonly take: (route: Route, id: number | null) => Fault | null;
};

/** @param idOf the id of a key that a fault names */
export const createFaults = (idOf: (ref: KeyRef) => number | null): Faults => {
  const waiting = new Set<{ readonly fault: Fault; readonly id: number | null; left: number }>();
  return {
    add: (fault) => {
      const one = { fault, id: fault.key === undefined ? null : idOf(fault.key), left: fault.count ?? 1 };
      if (one.left > 0) waiting.add(one);
      return () => void waiting.delete(one);
    },
    take: (route, id) => {
      for (const one of waiting) {
        if (one.fault.route !== undefined && one.fault.route !== route) continue;
        if (one.fault.key !== undefined && one.id !== id) continue;
        one.left -= 1;
        if (one.left <= 0) waiting.delete(one);
        return one.fault;
      }
      return null;
    },
  };
};

const sendHtml = (response: ServerResponse, status: number): void => {
  const page = "<!doctype html><title>Sign in</title><h1>Bad Gateway</h1>";
  response.writeHead(status, { "content-type": "text/html; charset=utf-8" }).end(page);
};

type Played = {
  readonly fault: Fault;
  readonly response: ServerResponse;
  readonly sendError: SendError;
  /** What would have been answered. */
  readonly good: { readonly RC: number; readonly RM: string; readonly result: unknown };
};

/** What goes wrong: each one is something that a real network or server does. null = the right answer, `ms` late. */
const FAULTS = {
  /** The connection is cut without an answer. */
  down: ({ response }) => void response.req.socket.destroy(),
  slow: null,
  /** A proxy's page, 502. */
  html: ({ response }) => sendHtml(response, 502),
  /** A login page. */
  "html-200": ({ response }) => sendHtml(response, 200),
  "429": ({ response, sendError, fault }) =>
    sendError(response, "RATE_LIMIT_EXCEEDED", fault.retryAfter ?? 60),
  "403": ({ response, sendError }) => sendError(response, "INSUFFICIENT_PERMISSIONS"),
  "500": ({ response, sendError }) => sendError(response, "INTERNAL"),
  redirect: ({ response }) => void response.writeHead(302, { location: "/dashboard" }).end(),
  /** Although the header was sent. */
  missing: ({ response, sendError }) => sendError(response, "MISSING_API_KEY"),
  /** 401 beside RC 0 and a result. */
  contradiction: ({ response, good }) =>
    sendJson(response, 401, { ...good, error: "INVALID_API_KEY", message: "Contradiction" }),
  /** 401 with a code that nobody knows. */
  "odd-401": ({ response }) =>
    sendJson(response, 401, { error: "SESSION_EXPIRED", message: "Sign in again" }),
  /** 200 to every key: a wrong base URL that checks nothing. */
  "accept-all": ({ response, good }) => sendJson(response, 200, good),
  "reject-all": ({ response, sendError }) => sendError(response, "INVALID_API_KEY"),
  rc: ({ response, good }) => sendJson(response, 200, { ...good, RC: 1, RM: "Failed" }),
  "wrong-type": ({ response, good }) => sendJson(response, 200, { ...good, result: { count: "128" } }),
  "no-result": ({ response }) => sendJson(response, 200, { RC: 0, RM: "OK" }),
  /** JSON cut in the middle, connection kept to its end. */
  truncated: ({ response }) =>
    void response.writeHead(200, { "content-type": "application/json" }).end('{"RC":0,"RM":"OK","resu'),
  encoded: ({ response, good }) => sendJson(response, 200, good, { "content-encoding": "gzip" }),
  /** A body of 1 MiB. */
  huge: ({ response, good }) => sendJson(response, 200, { ...good, pad: "x".repeat(1024 * 1024) }),
} as const satisfies Readonly<Record<string, ((played: Played) => void) | null>>;

export type FaultKind = keyof typeof FAULTS;

/** Answers with the fault. false: the request is to be answered as if nothing had happened (`slow`). */
export const playFault = (
  fault: Fault,
  response: ServerResponse,
  sendError: SendError,
  result: unknown,
): boolean => {
  const play = FAULTS[fault.kind];
  play?.({ fault, response, sendError, good: { RC: 0, RM: "OK", result } });
  return play !== null;
};
