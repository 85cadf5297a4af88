import { RotatorError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { type Answer, clientKeyOf, httpDate, judge, usageOf } from "../core/verdict.ts";
import type { Clock, Platform, Probe } from "../ports.ts";
import { type Client, clientFor, type Lookup, phraseOf, type Timeouts } from "./http.ts";
import { checkBaseUrl } from "./imkit-address.ts";
import { callBudget } from "./imkit-budget.ts";

export { checkBaseUrl } from "./imkit-address.ts";

/** The wait for the call budget is not in them. */
export type ImkitTimeouts = Timeouts;

export type ImkitOptions = {
  /** An origin as `checkBaseUrl` wants it. */
  readonly baseUrl: string;
  readonly clock: Clock;
  /** Of this platform object: make one per app and process. */
  readonly callsPerMinute?: number;
  readonly timeouts?: Partial<ImkitTimeouts>;
  /** Stands in for the system's DNS lookup; what it finds is checked all the same. */
  readonly lookup?: Lookup;
};

/** `why` says in our words what is wrong with the answer, or why there is none. */
type Reply = { readonly answer: Answer | null; readonly why: string; readonly heldMs: number | null };

const PROBE_PATH = "/admin/connection-count";
const STATS_PATH = "/admin/stats";
const TIMEOUTS: ImkitTimeouts = { connect: 5_000, headers: 5_000, total: 15_000 };
const MAX_BODY_BYTES = 64 * 1024;

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
    if (signal.aborted) return resolve(nothing("interrupted"));
    const stream = client.stream(url, {
      method: "GET",
      headers: {
        "im-api-key": key.reveal(),
        accept: "application/json",
        "accept-encoding": "identity",
        "user-agent": "imkit-rotator",
      },
    });

    let head: Omit<Answer, "body"> | null = null;
    const chunks: Uint8Array[] = [];
    let size = 0;

    const settle = (reply: Reply): void => {
      signal.removeEventListener("abort", interrupt);
      resolve(reply);
      stream.destroy();
    };
    const interrupt = (): void => settle(nothing("interrupted"));
    // Not given to got, which takes longer over it.
    signal.addEventListener("abort", interrupt, { once: true });
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
      return settle({ answer: { ...head, body: decode(chunks) }, why: "", heldMs: null });
    });
    stream.on("error", (error: unknown) => settle(nothing(phraseOf(error, timeouts))));
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
    client ??= clientFor(origin.protocol === "http:", timeouts, options.lookup);
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
