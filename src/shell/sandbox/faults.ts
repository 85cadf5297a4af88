import type { ServerResponse } from "node:http";
import { type SendError, sendJson } from "./answers.ts";
import type { KeyRef } from "./state.ts";

/** The calls of the admin API that the sandbox knows. */
export type Route = "connection-count" | "stats" | "clients";

/** What goes wrong: each one is something that a real network or server does. */
export type FaultKind =
  /** The connection is cut without an answer. */
  | "down"
  /** The answer comes `ms` late. */
  | "slow"
  /** A proxy's HTML page, 502. */
  | "html"
  /** A login page, 200. */
  | "html-200"
  | "429"
  | "403"
  | "500"
  | "redirect"
  /** MISSING_API_KEY although the header was sent. */
  | "missing"
  /** 401 INVALID_API_KEY beside RC 0 and a result. */
  | "contradiction"
  /** 401 with a code that nobody knows. */
  | "odd-401"
  /** 200 to every key: a wrong base URL that checks nothing. */
  | "accept-all"
  /** 401 INVALID_API_KEY to every key. */
  | "reject-all"
  /** 200 with RC 1. */
  | "rc"
  /** 200, RC 0, count of the wrong type. */
  | "wrong-type"
  /** 200, RC 0, no result. */
  | "no-result"
  /** JSON cut in the middle, connection kept to its end. */
  | "truncated"
  /** Content-Encoding: gzip. */
  | "encoded"
  /** A body of 1 MiB. */
  | "huge";

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

const HTML = "<!doctype html><title>Sign in</title><h1>Bad Gateway</h1>";

const sendHtml = (response: ServerResponse, status: number): void => {
  response.writeHead(status, { "content-type": "text/html; charset=utf-8" }).end(HTML);
};

/** Answers with the fault. false: the request is to be answered as if nothing had happened (`slow`). */
export const playFault = (
  fault: Fault,
  response: ServerResponse,
  sendError: SendError,
  result: unknown,
): boolean => {
  const good = { RC: 0, RM: "OK", result };
  switch (fault.kind) {
    case "slow":
      return false;
    case "down":
      response.req.socket.destroy();
      return true;
    case "html":
    case "html-200":
      sendHtml(response, fault.kind === "html" ? 502 : 200);
      return true;
    case "429":
      sendError(response, "RATE_LIMIT_EXCEEDED", fault.retryAfter ?? 60);
      return true;
    case "403":
      sendError(response, "INSUFFICIENT_PERMISSIONS");
      return true;
    case "500":
      sendError(response, "INTERNAL");
      return true;
    case "redirect":
      response.writeHead(302, { location: "/dashboard" }).end();
      return true;
    case "missing":
      sendError(response, "MISSING_API_KEY");
      return true;
    case "contradiction":
      sendJson(response, 401, { ...good, error: "INVALID_API_KEY", message: "Contradiction" });
      return true;
    case "odd-401":
      sendJson(response, 401, { error: "SESSION_EXPIRED", message: "Sign in again" });
      return true;
    case "accept-all":
      sendJson(response, 200, good);
      return true;
    case "reject-all":
      sendError(response, "INVALID_API_KEY");
      return true;
    case "rc":
      sendJson(response, 200, { ...good, RC: 1, RM: "Failed" });
      return true;
    case "wrong-type":
      sendJson(response, 200, { ...good, result: { count: "128" } });
      return true;
    case "no-result":
      sendJson(response, 200, { RC: 0, RM: "OK" });
      return true;
    case "truncated":
      response.writeHead(200, { "content-type": "application/json" }).end('{"RC":0,"RM":"OK","resu');
      return true;
    case "encoded":
      sendJson(response, 200, good, { "content-encoding": "gzip" });
      return true;
    case "huge":
      sendJson(response, 200, { ...good, pad: "x".repeat(1024 * 1024) });
      return true;
  }
};
