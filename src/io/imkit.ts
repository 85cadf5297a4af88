import type { Agents, Got } from "got";
import { RotatorError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { type Answer, clientKeyOf, httpDate, judge, usageOf } from "../core/verdict.ts";
import type { Clock, Platform, Probe } from "../ports.ts";
import { ADDRESS_REFUSED, checkBaseUrl, guardedLookup } from "./imkit-address.ts";
import { callBudget } from "./imkit-budget.ts";

export { checkBaseUrl } from "./imkit-address.ts";

/** All in ms of real time; the wait for the call budget is not in them. */
export type ImkitTimeouts = {
  /** Each of: name lookup, TCP connect, TLS handshake. */
  readonly connect: number;
  /** From the request sent to the last header of the answer. */
  readonly headers: number;
  /** The whole call. */
  readonly total: number;
};

export type ImkitOptions = {
  /** An origin as `checkBaseUrl` wants it. */
  readonly baseUrl: string;
  readonly clock: Clock;
  /** Of this platform object: make one per app and process. */
  readonly callsPerMinute?: number;
  readonly timeouts?: Partial<ImkitTimeouts>;
  /** Stands in for the system's DNS lookup; what it finds is checked all the same. */
  readonly lookup?: Parameters<typeof guardedLookup>[1];
};

type Client = { readonly got: Got; readonly agents: Agents };
/** `why` says in our words what is wrong with the answer, or why there is none. */
type Reply = { readonly answer: Answer | null; readonly why: string; readonly heldMs: number | null };

const PROBE_PATH = "/admin/connection-count";
const STATS_PATH = "/admin/stats";
const TIMEOUTS: ImkitTimeouts = { connect: 5_000, headers: 5_000, total: 15_000 };
const MAX_BODY_BYTES = 64 * 1024;
const MAX_HEADER_BYTES = 16 * 1024;

const UNTRUSTED = "TLS certificate not trusted";
const PHRASES: Readonly<Record<string, string>> = {
  [ADDRESS_REFUSED]: "the host name leads to an address that no key is sent to",
  ENOTFOUND: "host name not found",
  EAI_AGAIN: "the name service does not answer",
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection broken off",
  EPIPE: "connection broken off",
  EHOSTUNREACH: "no route to the host",
  ENETUNREACH: "no route to the host",
  EPROTO: "no common TLS version or a broken handshake",
  CERT_HAS_EXPIRED: "TLS certificate expired",
  CERT_NOT_YET_VALID: "TLS certificate not valid yet",
  ERR_TLS_CERT_ALTNAME_INVALID: "TLS certificate is for another host",
  DEPTH_ZERO_SELF_SIGNED_CERT: UNTRUSTED,
  SELF_SIGNED_CERT_IN_CHAIN: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNTRUSTED,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNTRUSTED,
  HPE_HEADER_OVERFLOW: "headers over 16 KiB",
  ERR_ABORTED: "interrupted",
  ERR_HTTP_CONTENT_LENGTH_MISMATCH: "answer shorter than announced",
};

const inSeconds = (ms: number): string => `${ms / 1000} s`;

/** A failure of the client library in our words: its own hold the request with the key, so they are dropped here. */
const phraseOf = (error: unknown, timeouts: ImkitTimeouts): string => {
  const { code, event } = error as { readonly code?: unknown; readonly event?: unknown };
  if (event === "request") return `no whole answer within ${inSeconds(timeouts.total)}`;
  if (event === "response") return `no answer within ${inSeconds(timeouts.headers)}`;
  if (typeof event === "string") return `no connection within ${inSeconds(timeouts.connect)}`;
  const known = typeof code === "string" ? code : "";
  if (known === "ETIMEDOUT") return `no connection within ${inSeconds(timeouts.connect)}`;
  if (known.startsWith("HPE_")) return PHRASES[known] ?? "not a well-formed HTTP answer";
  if (known.startsWith("ERR_SSL_")) return PHRASES["EPROTO"] ?? "";
  return PHRASES[known] ?? "no answer";
};

/** Got costs some 60 ms to load, which commands that never ask IMKIT must not pay. */
const loadClient = async (options: ImkitOptions, loopbackOnly: boolean): Promise<Client> => {
  const [{ default: got }, http, https] = await Promise.all([
    import("got"),
    import("node:http"),
    import("node:https"),
  ]);
  // A connection carries one call: on a shared one, a late or doubled answer for one key could be taken for another key's (ADR 2).
  const common = { keepAlive: false, lookup: guardedLookup(loopbackOnly, options.lookup) };
  return {
    got,
    agents: {
      http: new http.Agent(common),
      https: new https.Agent({ ...common, rejectUnauthorized: true, minVersion: "TLSv1.2" }),
    },
  };
};

const nothing = (why: string, heldMs: number | null = null): Reply => ({ answer: null, why, heldMs });

const decode = (chunks: readonly Uint8Array[]): string | null => {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks));
  } catch {
    return null;
  }
};

/** One GET, one answer; resolves whatever happens. */
const exchange = (
  client: Client,
  url: string,
  key: Secret,
  timeouts: ImkitTimeouts,
  signal: AbortSignal,
): Promise<Reply> =>
  new Promise((resolve) => {
    const stream = client.got.stream(url, {
      method: "GET",
      headers: {
        "im-api-key": key.reveal(),
        accept: "application/json",
        "accept-encoding": "identity",
        "user-agent": "imkit-rotator",
      },
      followRedirect: false,
      retry: { limit: 0 },
      throwHttpErrors: false,
      decompress: false,
      agent: client.agents,
      maxHeaderSize: MAX_HEADER_BYTES,
      https: { rejectUnauthorized: true, minVersion: "TLSv1.2" },
      timeout: {
        lookup: timeouts.connect,
        connect: timeouts.connect,
        secureConnect: timeouts.connect,
        response: timeouts.headers,
        request: timeouts.total,
      },
      signal,
    });

    let head: Omit<Answer, "body"> | null = null;
    const chunks: Uint8Array[] = [];
    let size = 0;

    const settle = (reply: Reply): void => {
      resolve(reply);
      stream.destroy();
    };
    const refuseBody = (why: string): void =>
      settle({ answer: head && { ...head, body: null }, why, heldMs: null });

    stream.on(
      "response",
      (response: { readonly statusCode: number; readonly headers: NodeJS.Dict<string | string[]> }) => {
        const header = (name: string): string | null => {
          const value = response.headers[name];
          return value === undefined ? null : String(value);
        };
        head = {
          status: response.statusCode,
          contentType: header("content-type"),
          retryAfter: header("retry-after"),
          date: header("date"),
        };
        const encoding = header("content-encoding");
        if (encoding !== null && encoding.toLowerCase() !== "identity") {
          refuseBody(`HTTP ${head.status}, encoded although that was not asked for`);
        }
      },
    );
    stream.on("data", (chunk: Uint8Array) => {
      size += chunk.length;
      if (size > MAX_BODY_BYTES) refuseBody("answer over 64 KiB");
      else chunks.push(chunk);
    });
    stream.once("end", () => {
      if (head === null) return settle(nothing("no answer"));
      return resolve({ answer: { ...head, body: decode(chunks) }, why: "", heldMs: null });
    });
    stream.on("error", (error: unknown) =>
      settle(nothing(signal.aborted ? "interrupted" : phraseOf(error, timeouts))),
    );
    stream.once("upgrade", () => settle(nothing("HTTP 101, a change of protocol")));
    stream.once("close", () => settle(nothing("connection broken off")));
  });

/**
 * IMKIT over HTTP. Whatever a server, the network or an abort does is a Probe with `unclear` (for `appIdentity` and `usage`: null); nothing
 * is logged, and of an answer only what `Probe` and `Usage` name is kept.
 * @throws RotatorError CONFIG_INVALID at once for a base URL that `checkBaseUrl` refuses.
 */
export const imkitPlatform = (options: ImkitOptions): Platform => {
  const refused = checkBaseUrl(options.baseUrl);
  if (refused !== null)
    throw new RotatorError("CONFIG_INVALID", { what: `The base URL cannot be used: ${refused}.` });
  const origin = new URL(options.baseUrl);
  const timeouts = { ...TIMEOUTS, ...options.timeouts };
  const budget = callBudget(options.clock, options.callsPerMinute ?? 60);
  let client: Promise<Client> | null = null;

  const ask = async (key: Secret, path: string, urgent: boolean, signal: AbortSignal): Promise<Reply> => {
    // Only visible ASCII goes into a header as it is: anything else would be cut, trimmed or refused with the value in the message.
    if (!/^[\x21-\x7e]{1,4096}$/.test(key.reveal()))
      return nothing("the key holds bytes that no header can carry");
    const turn = await budget.take(urgent, signal);
    if (turn.kind === "held") return nothing("IMKIT asked for a pause that is not over", turn.ms);
    if (turn.kind === "interrupted") return nothing("interrupted");
    client ??= loadClient(options, origin.protocol === "http:");
    return exchange(await client, new URL(path, origin).href, key, timeouts, signal);
  };

  const askStats = async (key: Secret, signal: AbortSignal): Promise<Answer | null> => {
    const { answer } = await ask(key, STATS_PATH, false, signal);
    const wait = answer === null ? null : judge(answer).retryAfterMs;
    if (wait !== null) budget.hold(wait);
    return answer;
  };

  return {
    probe: async (key, { urgent }, signal): Promise<Probe> => {
      const { answer, why, heldMs } = await ask(key, PROBE_PATH, urgent, signal);
      if (answer === null) {
        return { verdict: "unclear", status: null, code: null, date: null, retryAfterMs: heldMs, why };
      }
      const judged = judge(answer);
      if (judged.retryAfterMs !== null) budget.hold(judged.retryAfterMs);
      return {
        ...judged,
        status: answer.status,
        date: httpDate(answer.date),
        why: why === "" ? judged.why : why,
      };
    },
    appIdentity: async (key, signal) => {
      const answer = await askStats(key, signal);
      const clientKey = answer === null ? null : clientKeyOf(answer);
      return clientKey === null || clientKey === key.reveal() ? null : new Secret(clientKey);
    },
    usage: async (key, signal) => {
      const answer = await askStats(key, signal);
      return answer === null ? null : usageOf(answer);
    },
  };
};
