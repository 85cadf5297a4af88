import type { ExtendOptions, Got } from "got";
import { ADDRESS_REFUSED, guardedLookup } from "./imkit-address.ts";

export type Lookup = Parameters<typeof guardedLookup>[1];

/** All in ms of real time. */
export type Timeouts = {
  /** Each of: name lookup, TCP connect, TLS handshake. */
  readonly connect: number;
  /** From the request sent to the last header of the answer. */
  readonly headers: number;
  /** The whole call. */
  readonly total: number;
};

export type Client = Got;

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

/** A failure of the client library in our words: its own hold the request with its headers, so they are dropped here. */
export const phraseOf = (error: unknown, timeouts: Timeouts): string => {
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

const made = new Map<string, Promise<Client>>();

/** One for all that call alike: to make one costs as much as a third of a call, and a run may be over hundreds of apps. */
export const clientFor = (loopbackOnly: boolean, timeouts: Timeouts, lookup?: Lookup): Promise<Client> => {
  if (lookup !== undefined) return loadClient(loopbackOnly, timeouts, lookup);
  const { connect, headers, total } = timeouts;
  const name = [loopbackOnly, connect, headers, total].join();
  const client = made.get(name) ?? loadClient(loopbackOnly, timeouts);
  made.set(name, client);
  // A library that could not be loaded just now, of too many open files, may be another time.
  client.catch(() => made.delete(name));
  return client;
};

/**
 * Got with what every call of ours has in common: no redirect, no retry, no decompression, TLS verified, nothing of the environment. Each call
 * adds its own address and headers. It costs some 60 ms to load, which commands that never call anybody must not pay. `lookup` stands
 * in for the system's DNS lookup.
 */
const loadClient = async (loopbackOnly: boolean, timeouts: Timeouts, lookup?: Lookup): Promise<Client> => {
  const [{ default: got }, http, https] = await Promise.all([
    import("got"),
    import("node:http"),
    import("node:https"),
  ]);
  // A connection carries one call: on a shared one, a late or doubled answer for one key could be taken for another key's (ADR 2).
  const common = { keepAlive: false, lookup: guardedLookup(loopbackOnly, lookup) };
  const agent = {
    http: new http.Agent(common),
    https: new https.Agent({ ...common, rejectUnauthorized: true, minVersion: "TLSv1.2" }),
  };
  return got.extend({
    followRedirect: false,
    retry: { limit: 0 },
    throwHttpErrors: false,
    decompress: false,
    agent,
    maxHeaderSize: MAX_HEADER_BYTES,
    https: { rejectUnauthorized: true, minVersion: "TLSv1.2" },
    timeout: {
      lookup: timeouts.connect,
      connect: timeouts.connect,
      secureConnect: timeouts.connect,
      response: timeouts.headers,
      request: timeouts.total,
    },
  } satisfies ExtendOptions);
};
