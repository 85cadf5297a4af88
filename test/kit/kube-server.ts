import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

type Json = { [name: string]: unknown };
export type KubeFault =
  | { readonly kind: "hang" }
  /** The connection breaks; `after`: the change has been made. */
  | { readonly kind: "drop"; readonly when: "before" | "after" }
  | {
      readonly kind: "answer";
      readonly status: number;
      readonly body: unknown;
      readonly headers?: Readonly<Record<string, string>>;
    };
export type KubeRequest = {
  readonly method: string;
  readonly path: string;
  readonly dryRun: boolean;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
};

/**
 * The little of an API server that Secrets, ConfigMaps and workloads need: read by name, create, merge patch on a `resourceVersion`,
 * access reviews, dry runs, and faults on demand. It runs no controllers: a test writes each `status`. What it says in trouble holds the object, as the real one's words can. Plain HTTP on a loopback port.
 */
export const kubeServer = async () => {
  const secrets = new Map<string, Json>();
  /** All that is no Secret, by `resource/namespace/name`. */
  const others = new Map<string, Json>();
  const requests: KubeRequest[] = [];
  const sockets = new Set<ServerResponse>();
  let [version, writes] = [100, 0];

  const server = createServer((request, response) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      await answer(request, Buffer.concat(chunks).toString("utf8"), response);
    })().catch(() => response.destroy());
  });

  const answer = async (request: IncomingMessage, text: string, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? "/", "http://kube");
    const seen: KubeRequest = {
      method: request.method ?? "",
      path: url.pathname,
      dryRun: url.searchParams.get("dryRun") === "All",
      headers: request.headers,
      body: text,
    };
    requests.push(seen);
    const fault = fake.fault(seen);
    if (fault?.kind === "hang") return void sockets.add(response);
    if (fault?.kind === "drop" && fault.when === "before") return void response.destroy();
    if (fault?.kind === "answer") return say(response, fault.status, fault.body, { ...fault.headers });
    const { status, body } = served(seen);
    if (fault?.kind === "drop") return void response.destroy();
    say(response, status, body, {});
  };

  const served = ({ method, path, body, dryRun, headers }: KubeRequest): { status: number; body: Json } => {
    const parsed = body === "" ? {} : (JSON.parse(body) as Json);
    if (headers.authorization !== `Bearer ${fake.token}`) return problem(401, "Unauthorized", parsed, {});
    if (path.endsWith("/selfsubjectaccessreviews")) {
      const { resourceAttributes } = parsed["spec"] as {
        resourceAttributes: { verb: string; resource: string };
      };
      const allowed = isAllowed(resourceAttributes.verb, resourceAttributes.resource);
      return { status: 201, body: { kind: "SelfSubjectAccessReview", status: { allowed } } };
    }
    const [, namespace = "", kind = "", name = ""] =
      /^\/(?:api\/v1|apis\/apps\/v1)\/namespaces\/([^/]+)\/([a-z]+)(?:\/([^/]+))?$/.exec(path) ?? [];
    const verb = { GET: "get", PATCH: "patch", POST: "create" }[method] ?? "other";
    if (!(kind in KINDS) || !isAllowed(verb, kind)) return problem(403, "Forbidden", parsed, { kind, name });
    if (method === "POST") {
      const made = (parsed["metadata"] as Json)["name"] as string;
      if (fake.namespaces?.has(namespace) === false)
        return problem(404, "NotFound", parsed, { kind: "namespaces", name: namespace });
      if (find(kind, namespace, made) !== undefined)
        return problem(409, "AlreadyExists", parsed, { kind, name: made });
      return { status: 201, body: keep(kind, `${namespace}/${made}`, parsed, dryRun) };
    }
    const now = find(kind, namespace, name);
    if (now === undefined) return problem(404, "NotFound", parsed, { kind, name });
    if (method === "GET") return { status: 200, body: now };
    if (headers["content-type"] !== "application/merge-patch+json")
      return problem(415, "UnsupportedMediaType", parsed, {});
    const expected = (parsed["metadata"] as Json | undefined)?.["resourceVersion"];
    if (expected !== undefined && expected !== (now["metadata"] as Json)["resourceVersion"])
      return problem(409, "Conflict", now, { kind, name });
    if (now["immutable"] === true && parsed["data"] !== undefined)
      return problem(422, "Invalid", now, {
        causes: [{ field: "data", message: "field is immutable when `immutable` is set" }],
      });
    return { status: 200, body: keep(kind, `${namespace}/${name}`, mergePatch(now, parsed) as Json, dryRun) };
  };

  const isAllowed = (verb: string, kind: string): boolean =>
    !fake.denied.has(verb) && !fake.denied.has(`${verb} ${kind}`);
  const find = (kind: string, namespace: string, name: string): Json | undefined =>
    kind === "secrets" ? secrets.get(`${namespace}/${name}`) : others.get(`${kind}/${namespace}/${name}`);

  const keep = (kind: string, where: string, next: Json, dryRun: boolean): Json => {
    const [namespace = "", name = ""] = where.split("/");
    const before = find(kind, namespace, name);
    const generation = Number((before?.["metadata"] as Json | undefined)?.["generation"] ?? 0);
    const isChanged = JSON.stringify(before?.["spec"]) !== JSON.stringify(next["spec"]);
    const metadata = {
      ...(next["metadata"] as Json),
      resourceVersion: String((version += 1)),
      ...(next["spec"] === undefined ? {} : { generation: isChanged ? generation + 1 : generation }),
    };
    const made = { kind: KINDS[kind], ...next, metadata };
    if (dryRun) return made;
    writes += 1;
    if (kind === "secrets") secrets.set(where, made);
    else others.set(`${kind}/${where}`, made);
    return made;
  };

  const fake = {
    token: "fake-token",
    secrets,
    others,
    requests,
    /** Verbs that this identity lacks, of all or (`get configmaps`) of one kind. */
    denied: new Set<string>(),
    /** Where things can be made; null = everywhere. */
    namespaces: null as ReadonlySet<string> | null,
    fault: (_request: KubeRequest): KubeFault | null => null,
    writes: () => writes,
    /** Somebody else writes. `object` is merged over what is there. */
    put: (where: string, object: Json) => {
      const [namespace, name] = where.split("/");
      const now = secrets.get(where) ?? {
        kind: "Secret",
        metadata: { namespace, name, uid: `uid-${where}` },
        data: {},
      };
      keep("secrets", where, mergePatch(now, object) as Json, false);
    },
    /** The same for what is no Secret: `set("deployments", "chat/api", { status })`. */
    set: (kind: string, where: string, object: Json) => {
      const [namespace = "", name = ""] = where.split("/");
      const now = find(kind, namespace, name) ?? { metadata: { namespace, name } };
      keep(kind, where, mergePatch(now, object) as Json, false);
    },
    kubeconfig: (): string =>
      JSON.stringify({
        clusters: [{ name: "fake", cluster: { server: fake.url, "insecure-skip-tls-verify": true } }],
        users: [{ name: "me", user: { token: fake.token } }],
        contexts: [{ name: "prod", context: { cluster: "fake", user: "me" } }],
        "current-context": "prod",
      }),
    url: "",
    close: async () => {
      for (const response of sockets) response.destroy();
      server.closeAllConnections();
      if (!server.listening) return;
      server.close();
      await once(server, "close");
    },
  };
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  fake.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return fake;
};
const KINDS: Readonly<Record<string, string>> = {
  secrets: "Secret",
  configmaps: "ConfigMap",
  deployments: "Deployment",
  statefulsets: "StatefulSet",
  daemonsets: "DaemonSet",
};
export type FakeKube = Awaited<ReturnType<typeof kubeServer>>;

/** A Status whose message holds the whole object. */
export const problem = (status: number, reason: string, object: unknown, details: Json) => ({
  status,
  body: {
    kind: "Status",
    apiVersion: "v1",
    status: "Failure",
    message: `refused: ${JSON.stringify(object)}`,
    reason,
    details,
    code: status,
  },
});

const say = (
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Readonly<Record<string, string>>,
): void => {
  const type = typeof body === "string" ? "text/html" : "application/json";
  response.writeHead(status, { "content-type": type, ...headers });
  response.end(typeof body === "string" ? body : JSON.stringify(body));
};

/** RFC 7386. */
const mergePatch = (target: unknown, patch: unknown): unknown => {
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
  const next: Json = typeof target === "object" && target !== null ? { ...(target as Json) } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete next[name];
    else next[name] = mergePatch(next[name], value);
  }
  return next;
};
