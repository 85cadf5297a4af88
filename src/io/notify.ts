import { createHmac } from "node:crypto";
import { RotatorError } from "../core/errors.ts";
import type { NoticeType } from "../core/notice.ts";
import type { Clock, Message, Notifier } from "../ports.ts";
import type { NotifyConfig } from "./config.ts";
import type { ValueFrom } from "./config-value.ts";
import { type Client, clientFor, type Lookup, phraseOf, type Timeouts } from "./http.ts";
import { checkBaseUrl } from "./imkit-address.ts";
import { slackBody } from "./notify-slack.ts";

export type NotifyOptions = {
  readonly clock: Clock;
  /** A `valueFrom` of the config. @throws RotatorError CONFIG_INVALID */
  readonly valueOf: (source: ValueFrom) => Promise<string>;
  readonly timeouts?: Partial<Timeouts>;
  /** Stands in for the system's DNS lookup. */
  readonly lookup?: Lookup;
};

const TIMEOUTS: Timeouts = { connect: 5_000, headers: 10_000, total: 12_000 };
/** Tries of one message by one process; later ticks try again. */
const TRIES = 3;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 5_000;

/** Words of `on` that stand for more than the type of that name. */
const GROUPS: Readonly<Record<string, readonly NoticeType[]>> = {
  waiting: ["waiting-key", "waiting-restart", "waiting-revoke"],
  due: ["due-in"],
  inbox: ["inbox-rejected"],
};

const wants = (on: readonly string[], type: NoticeType, about: NoticeType): boolean =>
  on.some((word) => word === "*" || [type, about].some((t) => word === t || GROUPS[word]?.includes(t)));

/**
 * Why a message may not be sent there, in our own words; null = it may. https, or http to this machine; no user name; what a base URL may
 * not be, only with a path and a query.
 */
export const checkHookUrl = (url: string): string | null => {
  if (!/^[\x21-\x7e]+$/.test(url) || !URL.canParse(url)) return "it is not a URL";
  if (!/^https?:\/\/[^/\\]/i.test(url)) return "it must start with https://";
  const { origin, username, password } = new URL(url);
  if (username !== "" || password !== "") return "it must not hold a user name or password";
  return checkBaseUrl(origin);
};

/** The receivers of the config, in its order. Nothing is read or sent yet. */
export const openNotifiers = (
  configs: readonly NotifyConfig[],
  options: NotifyOptions,
): readonly Notifier[] => {
  const names = new Map<string, number>();
  return configs.map((config) => {
    const base = nameOf(config);
    const nth = (names.get(base) ?? 0) + 1;
    names.set(base, nth);
    return {
      name: nth === 1 ? base : `${base}#${nth}`,
      wants: (type, about) => wants(config.on, type, about),
      problem: async () => {
        const found = await addressOf(config, options);
        return typeof found === "string" ? found : null;
      },
      notify: (message, signal) => deliver(config, options, message, signal),
    };
  });
};

/** No secret: the path of a webhook may be one, its host is not. */
const nameOf = (config: NotifyConfig): string =>
  config.type === "webhook" && typeof config.url === "string" && URL.canParse(config.url)
    ? `webhook:${new URL(config.url).host}`
    : config.type;

type Sent = { readonly ok: boolean; readonly why: string };
const failed = (why: string): Sent => ({ ok: false, why });

const deliver = async (
  config: NotifyConfig,
  options: NotifyOptions,
  message: Message,
  signal: AbortSignal,
): Promise<Sent> => {
  try {
    const address = await addressOf(config, options);
    if (typeof address === "string") return failed(address);
    const { url, secret } = address;
    const body = config.type === "slack" ? slackBody(message) : cloudEvent(message);
    const timeouts = { ...TIMEOUTS, ...options.timeouts };
    const client = await clientFor(url.startsWith("http:"), timeouts, options.lookup);
    const type = config.type === "slack" ? "application/json" : "application/cloudevents+json";
    return await tryAll(options, signal, () => {
      const headers = { "content-type": `${type}; charset=utf-8`, ...signed(message, body, secret, options) };
      return post(client, { url, body, headers, timeouts }, signal);
    });
  } catch {
    return failed("it could not be sent");
  }
};

/** @returns in our own words why it has none that can be used */
const addressOf = async (
  config: NotifyConfig,
  { valueOf }: NotifyOptions,
): Promise<{ readonly url: string; readonly secret: string | null } | string> => {
  try {
    const url = typeof config.url === "string" ? config.url : (await valueOf(config.url)).trim();
    const refused = checkHookUrl(url);
    if (refused !== null) return `its URL cannot be used: ${refused}`;
    const secret = config.type === "webhook" ? config.secret : undefined;
    return { url, secret: secret === undefined ? null : await valueOf(secret) };
  } catch (error) {
    return error instanceof RotatorError ? error.why : "its URL or secret cannot be had";
  }
};

/** The scheme of the webhook rollout: HMAC-SHA-256 of `<timestamp>.<body>`. */
const signed = (
  message: Message,
  body: string,
  secret: string | null,
  { clock }: NotifyOptions,
): Readonly<Record<string, string>> => {
  if (secret === null) return {};
  const timestamp = String(Math.floor(clock.now() / 1_000));
  const signature = createHmac("sha256", secret).update(`${timestamp}.${body}`).digest("hex");
  return {
    "x-imkit-rotator-id": message.id,
    "x-imkit-rotator-timestamp": timestamp,
    "x-imkit-rotator-signature": `sha256=${signature}`,
  };
};

/** CloudEvents 1.0, structured mode. */
const cloudEvent = (message: Message): string => {
  const { id, app, type, rotation, state, text, at, owners, head, next } = message;
  return JSON.stringify({
    specversion: "1.0",
    id,
    source: `/imkit-rotator/${app}`,
    type: `imkit-rotator.${type}`,
    subject: app,
    time: at,
    datacontenttype: "application/json",
    data: { schemaVersion: 1, app, type, rotation, state, text, owners, head, next },
  });
};

type Answer = {
  /** HTTP status; null when there was none. */
  readonly status: number | null;
  readonly retryAfterMs: number | null;
  readonly why: string;
};

const tryAll = async (
  { clock }: NotifyOptions,
  signal: AbortSignal,
  once: () => Promise<Answer>,
): Promise<Sent> => {
  for (let nth = 1; ; nth++) {
    const { status, retryAfterMs, why } = await once();
    if (status !== null && status >= 200 && status < 300) return { ok: true, why: "" };
    const said = status === null ? why : `HTTP ${status}`;
    const mayPass = status === null || status === 408 || status === 429 || status >= 500;
    if (!mayPass || nth >= TRIES || signal.aborted) return failed(said);
    const pause = Math.max(FIRST_PAUSE_MS * 2 ** (nth - 1), retryAfterMs ?? 0);
    // A longer silence is left to a later tick.
    if (pause > LONGEST_PAUSE_MS) return failed(said);
    await clock.sleep(pause, signal);
  }
};

type Posted = {
  readonly url: string;
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly timeouts: Timeouts;
};

/** One POST; of the answer only status and Retry-After are looked at. Never rejects. */
const post = (
  client: Client,
  { url, body, headers, timeouts }: Posted,
  signal: AbortSignal,
): Promise<Answer> =>
  new Promise((resolve) => {
    const none = (why: string): Answer => ({ status: null, retryAfterMs: null, why });
    const stream = client.stream(url, {
      method: "POST",
      body,
      headers: { ...headers, "accept-encoding": "identity", "user-agent": "imkit-rotator" },
      signal,
    });
    const settle = (answer: Answer): void => {
      resolve(answer);
      stream.destroy();
    };
    stream.on(
      "response",
      (response: { readonly statusCode: number; readonly headers: NodeJS.Dict<string | string[]> }) => {
        const wait = String(response.headers["retry-after"] ?? "");
        const retryAfterMs = /^\d{1,6}$/.test(wait) ? Number(wait) * 1_000 : null;
        settle({ status: response.statusCode, retryAfterMs, why: "" });
      },
    );
    stream.on("error", (error: unknown) =>
      settle(none(signal.aborted ? "interrupted" : phraseOf(error, timeouts))),
    );
    stream.once("upgrade", () => settle(none("HTTP 101, a change of protocol")));
    stream.once("close", () => settle(none("connection broken off")));
  });
