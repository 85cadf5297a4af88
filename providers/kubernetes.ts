import * as http from "node:http";
import * as https from "node:https";
import type { Socket } from "node:net";
import * as z from "zod/mini";
import { type Applied, ProviderError } from "../src/core/errors.ts";
import { nonEmpty } from "./config-keys.ts";
import { errnoOf, refused, type Tools } from "./kit.ts";
import { type KubePlace, kubeLogin, type Login } from "./kubernetes-login.ts";

/** Config keys of everything that speaks to an API server. */
export const kubeKeys = {
  context: z.optional(
    z
      .string()
      .check(z.regex(/^[!-~]{1,200}$/), z.describe("Context of the kubeconfig. Unset = its current one.")),
  ),
  kubeconfig: z.optional(
    nonEmpty(
      "The kubeconfig file. Unset = $KUBECONFIG, else ~/.kube/config, else the ServiceAccount of the pod.",
    ),
  ),
};
export const DNS_LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
export const DNS_NAME = /^(?=.{1,253}$)[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/;

export type KubeCall = {
  readonly method: "GET" | "POST" | "PATCH" | "DELETE";
  readonly path: string;
  readonly body?: unknown;
};
export type KubeAnswer = {
  readonly status: number;
  /** Parsed JSON; null for anything else. It may hold Secrets: never show it. */
  readonly body: unknown;
  readonly retryAfterMs: number | null;
};
export type Kube = {
  /**
   * One request. A PATCH is a merge patch. Redirects are not followed and nothing is repeated, but for a login that ran out: a 401 takes
   * no effect. `sending` is called right before the first byte of the request leaves, and may throw to stop it.
   * @throws ProviderError when there is no whole answer; `unknown` when a change may have been made
   */
  readonly call: (call: KubeCall, signal: AbortSignal, sending?: () => void) => Promise<KubeAnswer>;
};

const ANSWER_CAP = 4 * 1024 * 1024;
/** Idle sockets do not keep the process; an API server closes them much later than this. */
const POOL = { keepAlive: true, timeout: 10_000 };
const agents = { "http:": new http.Agent(POOL), "https:": new https.Agent(POOL) };

/**
 * An API server, reached as the kubeconfig says. The library reads that (contexts, TLS, token files, OpenID, proxies); requests are made
 * here, because its client follows redirects with the body, reads answers of any size, and puts whole Secrets into its errors
 * (docs/adr/0010-kubernetes-requests.md). `mounted` is where a pod finds its ServiceAccount, for tests.
 */
export const openKube = (
  options: KubePlace,
  tools: Pick<Tools, "configDir" | "env">,
  mounted?: string,
): Kube => {
  const login = kubeLogin(options, tools, mounted);
  const once = async (call: KubeCall, signal: AbortSignal, sending: () => void): Promise<KubeAnswer> =>
    await send(await login.get(signal), call, signal, sending);
  return {
    call: async (call, signal, sending = () => {}) => {
      const answer = await once(call, signal, sending);
      return answer.status === 401 && login.forget() ? await once(call, signal, sending) : answer;
    },
  };
};

const send = (
  { server, options }: Login,
  { method, path, body }: KubeCall,
  signal: AbortSignal,
  sending: () => void,
): Promise<KubeAnswer> => {
  const { promise, resolve, reject } = Promise.withResolvers<KubeAnswer>();
  let sent = false;
  const outcome = (): Applied => (sent && method !== "GET" ? "unknown" : "not_applied");
  const failed = (error: unknown) => reject(trouble(error, signal.aborted, outcome()));
  const text = body === undefined ? "" : JSON.stringify(body);
  const type = method === "PATCH" ? "application/merge-patch+json" : "application/json";
  const headers = {
    ...(options.headers as Record<string, string>),
    accept: "application/json",
    "user-agent": "imkit-rotator",
    ...(text === "" ? {} : { "content-type": type, "content-length": Buffer.byteLength(text) }),
  };
  try {
    const url = new URL(`${server.replace(/\/$/, "")}${path}`);
    const [make, agent] =
      url.protocol === "http:" ? [http.request, agents["http:"]] : [https.request, agents["https:"]];
    const request = make(url, { agent, ...options, method, headers, signal });
    request.on("error", failed);
    request.on("response", (response) => {
      const chunks: Buffer[] = [];
      let size = 0;
      response.on("data", (chunk: Buffer) => {
        chunks.push(chunk);
        size += chunk.length;
        if (size <= ANSWER_CAP) return;
        reject(new ProviderError("TOO_LARGE", outcome(), "the API server's answer is larger than 4 MiB"));
        request.destroy();
      });
      response.on("error", failed);
      response.on("end", () => {
        if (!response.complete) return failed(null);
        const answer = jsonOf(Buffer.concat(chunks));
        resolve({
          status: response.statusCode ?? 0,
          body: answer,
          retryAfterMs: retryAfter(response.headers["retry-after"], answer),
        });
      });
    });
    request.once("socket", (socket) =>
      whenReady(socket, request.reusedSocket, () => {
        try {
          sending();
        } catch (error) {
          reject(error);
          request.destroy();
          return;
        }
        sent = true;
        request.end(text);
      }),
    );
  } catch (error) {
    failed(error);
  }
  return promise;
};

/** Until then nothing has left: what fails before has changed nothing. */
const whenReady = (socket: Socket, reused: boolean, ready: () => void): void => {
  const secure = "encrypted" in socket;
  const handshake = secure && "secureConnecting" in socket && socket.secureConnecting === true;
  if (reused || !(socket.connecting || handshake)) ready();
  else socket.once(secure ? "secureConnect" : "connect", ready);
};

const trouble = (error: unknown, aborted: boolean, outcome: Applied): ProviderError => {
  const code = errnoOf(error);
  if (aborted) return new ProviderError("TIMEOUT", outcome, "the API server did not answer in time");
  if (/CERT|SIGNATURE|ERR_TLS|ERR_SSL|EPROTO/.test(code))
    return new ProviderError("CONFIG", outcome, "the API server's certificate, or ours, is not accepted");
  if (code.startsWith("ERR_INVALID"))
    return new ProviderError("CONFIG", outcome, "the kubeconfig's address or login cannot be used");
  const words =
    outcome === "unknown" ? "the API server's answer was lost" : "the API server cannot be reached";
  return new ProviderError("UNAVAILABLE", outcome, words);
};

const jsonOf = (bytes: Buffer): unknown => {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return null;
  }
};

const retryAfter = (header: string | undefined, body: unknown): number | null => {
  const seconds = Number(header ?? field(field(body, "details"), "retryAfterSeconds"));
  return Number.isFinite(seconds) && seconds > 0 ? Math.min(Math.max(seconds, 1), 3_600) * 1_000 : null;
};

/** An own member of a JSON object, else undefined. */
export const field = (value: unknown, name: string): unknown =>
  typeof value === "object" && value !== null && Object.hasOwn(value, name)
    ? (value as Record<string, unknown>)[name]
    : undefined;
const text = (value: unknown): string => (typeof value === "string" ? value : "");

/** Proven absent: the API server itself says that this very object is not there. */
export const isAbsent = ({ status, body }: KubeAnswer, kind: string, name: string): boolean =>
  status === 404 &&
  field(body, "kind") === "Status" &&
  field(body, "reason") === "NotFound" &&
  field(field(body, "details"), "kind") === kind &&
  field(field(body, "details"), "name") === name;

/**
 * An answer that is no success, in our words. Its message is looked at and never passed on: it can hold the whole object.
 * @param changes whether the request was one that changes something
 */
export const kubeProblem = (answer: KubeAnswer, changes: boolean): ProviderError => {
  const { status, body, retryAfterMs } = answer;
  const doubt: Applied = changes ? "unknown" : "not_applied";
  const no = (code: ProviderError["code"], hint: string) => refused(code, hint, retryAfterMs);
  if (status === 401) return no("AUTHN", "the API server does not accept the login");
  if (status === 429) return no("THROTTLED", "the API server asks for fewer requests");
  if (field(body, "kind") !== "Status")
    return new ProviderError("UNAVAILABLE", doubt, `HTTP ${status}, not from a Kubernetes API server`);

  const details = field(body, "details");
  const listed = field(details, "causes");
  const causes = (Array.isArray(listed) ? listed : []).map((cause) => ({
    reason: text(field(cause, "reason")),
    field: text(field(cause, "field")),
    message: text(field(cause, "message")),
  }));
  const message = text(field(body, "message"));
  const says = (pattern: RegExp) =>
    [message, ...causes.map((cause) => cause.message)].some((m) => pattern.test(m));
  if (status < 500 && says(/^admission webhook |denied (the )?request/i))
    return no("AUTHZ", "an admission policy of the cluster refuses this change");
  switch (status) {
    case 400:
      return no("CONFIG", "the API server does not understand the request");
    case 403:
      if (says(/exceeded quota|status unknown for quota/))
        return no("QUOTA", "a quota of the namespace is used up");
      if (causes.some(({ reason }) => reason === "NamespaceTerminating"))
        return no("NOT_FOUND", "the namespace is being deleted");
      return no("AUTHZ", "this identity may not do that; doctor says which right is missing");
    case 404:
      if (field(details, "kind") === "namespaces") return no("NOT_FOUND", "the namespace does not exist");
      if (text(field(details, "name")) !== "") return no("NOT_FOUND", "it does not exist");
      return no("CONFIG", "the API server does not serve this kind of object");
    case 409:
      return no("CONFLICT", "it was changed by somebody else");
    case 413:
      return no("TOO_LARGE", "larger than the API server takes");
    case 422:
      if (says(/immutable/)) return no("IMMUTABLE", IMMUTABLE_ADVICE);
      if (causes.some(({ reason }) => reason === "FieldValueTooLong"))
        return no("TOO_LARGE", "with the key it would be larger than 1 MiB");
      if (causes.some((cause) => /^(data\[|metadata\.name)/.test(cause.field)))
        return no("NAME", "the API server does not allow this name");
      return no("CONFIG", "the API server finds the object invalid");
    case 504:
      return new ProviderError("TIMEOUT", doubt, "the API server did not answer in time", retryAfterMs);
    default:
      if (says(/unable to transform key|failed to (en|de)crypt|kms/i))
        return new ProviderError("KMS", doubt, "the cluster's encryption at rest fails", retryAfterMs);
      return new ProviderError("UNAVAILABLE", doubt, `the API server answered HTTP ${status}`, retryAfterMs);
  }
};

export const IMMUTABLE_ADVICE =
  "it is immutable, and that cannot be undone: make a Secret of another name, and point this store and its workloads to it";
