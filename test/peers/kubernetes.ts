import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { Agent, request } from "node:https";
import { once } from "node:events";
import type { KubernetesPeer } from "./up/kubernetes.ts";

type Json = { readonly [name: string]: unknown };
type Answer = { readonly status: number; readonly body: Json };

/** The running API server, spoken to as its administrator. */
export const kubernetes = (peer: KubernetesPeer) => {
  const { server, caFile, adminToken } = peer;
  const agent = new Agent({ ca: readFileSync(caFile), keepAlive: true });

  const api = async (
    method: string,
    path: string,
    body?: unknown,
    {
      token = adminToken,
      type = method === "PATCH" ? "application/merge-patch+json" : "application/json",
    } = {},
  ): Promise<Answer> => {
    const headers = { authorization: `Bearer ${token}`, "content-type": type, accept: "application/json" };
    const call = request(`${server}${path}`, { method, agent, headers });
    call.end(body === undefined ? undefined : JSON.stringify(body));
    const [response] = (await once(call, "response")) as [
      AsyncIterable<Buffer> & { readonly statusCode: number },
    ];
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk);
    return { status: response.statusCode, body: JSON.parse(Buffer.concat(chunks).toString("utf8")) as Json };
  };
  /** `api`, for what must succeed. */
  const must = async (method: string, path: string, body?: unknown): Promise<Json> => {
    const answer = await api(method, path, body);
    if (answer.status < 300) return answer.body;
    throw new Error(`${method} ${path}: ${answer.status} ${String(answer.body["message"])}`);
  };
  let lines = 0;

  return {
    ...peer,
    api,
    must,
    /** A new namespace with the ServiceAccount `imkit-rotator`, which may do nothing. */
    namespace: async (): Promise<string> => {
      const name = `chat-${randomBytes(6).toString("hex")}`;
      await must("POST", "/api/v1/namespaces", { metadata: { name } });
      await must("POST", `/api/v1/namespaces/${name}/serviceaccounts`, {
        metadata: { name: "imkit-rotator" },
      });
      return name;
    },
    tokenOf: async (namespace: string, account = "imkit-rotator"): Promise<string> => {
      const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`;
      const { status: issued } = await must("POST", path, { spec: { expirationSeconds: 3_600 } });
      return (issued as { readonly token: string }).token;
    },
    /** A kubeconfig whose user is `user`. */
    kubeconfig: (user: Json, cluster: Json = { server, "certificate-authority": caFile }): string =>
      JSON.stringify({
        clusters: [{ name: "peers", cluster }],
        users: [{ name: "me", user }],
        contexts: [{ name: "peers", context: { cluster: "peers", user: "me" } }],
        "current-context": "peers",
      }),
    /** What the server's own log says was called since the last time, as `user verb resource/name code`. */
    audited: async (): Promise<readonly string[]> => {
      const all = (await readFile(peer.audit, "utf8")).trim().split("\n");
      const fresh = all.slice(lines);
      lines = all.length;
      return fresh.map((line) => {
        const {
          user,
          verb,
          objectRef = {},
          responseStatus,
        } = JSON.parse(line) as {
          readonly user: { readonly username: string };
          readonly verb: string;
          readonly objectRef?: { readonly resource?: string; readonly name?: string };
          readonly responseStatus: { readonly code: number };
        };
        const what = `${objectRef.resource ?? ""}${objectRef.name === undefined ? "" : `/${objectRef.name}`}`;
        return `${user.username} ${verb} ${what} ${responseStatus.code}`;
      });
    },
  };
};
export type Kubernetes = ReturnType<typeof kubernetes>;

/** Rights reach the API server's cache some milliseconds after they were granted. */
export const eventually = async (what: string, holds: () => Promise<boolean>): Promise<void> => {
  const end = performance.now() + 20_000;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`never came about: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
};
