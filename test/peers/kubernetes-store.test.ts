import { rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import { request } from "node:https";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, connect, type Socket } from "node:net";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterEach, beforeEach, describe, expect, inject, it, test } from "vitest";
import { kubeProblem, openKube } from "../../providers/kubernetes.ts";
import kubernetesSecret from "../../providers/stores/kubernetes-secret.ts";
import { ProviderError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Store, WriteOp } from "../../src/ports.ts";
import { storeContract } from "../contract/store.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { tempDir, toolsIn } from "../kit/provider-tools.ts";
import { eventually, kubernetes } from "./kubernetes.ts";
import { bind, ROLE } from "./kubernetes-role.ts";

const kube = kubernetes(inject("kubernetes"));
const base64 = (text: string) => Buffer.from(text).toString("base64");
const soon = () => AbortSignal.timeout(30_000);
const op = (): WriteOp => ({
  id: "0123456789abcdef0123456789abcdef",
  witness: { ledger: "ledger-1", seq: 7, h16: "00112233aabbccdd" },
});
type Shape = {
  readonly metadata: {
    readonly resourceVersion: string;
    readonly annotations?: Record<string, string>;
    readonly labels?: Record<string, string>;
  };
  readonly data?: Record<string, string>;
};
type Options = Partial<Parameters<typeof kubernetesSecret.open>[0]>;

/** A namespace of its own, an identity that has the shipped role and nothing else, and one Secret with a neighbour. */
const place = async (secret: Record<string, unknown> = {}) => {
  const namespace = await kube.namespace();
  await bind(kube, namespace, ROLE);
  const path = `/api/v1/namespaces/${namespace}/secrets/imkit-secrets`;
  await kube.must("POST", `/api/v1/namespaces/${namespace}/secrets`, {
    type: "Opaque",
    data: { "client-key": "bm90LW91cnM=" },
    ...secret,
    metadata: {
      labels: { team: "chat" },
      annotations: { note: "kept" },
      ...(secret["metadata"] as object),
      name: "imkit-secrets",
    },
  });
  const { dir, remove } = await tempDir();
  const login = async (user: Record<string, unknown>, cluster?: Record<string, unknown>) =>
    await writeFile(join(dir, "kubeconfig"), kube.kubeconfig(user, cluster));
  await login({ token: await kube.tokenOf(namespace) });
  const config = { kubeconfig: "kubeconfig", namespace, secret: "imkit-secrets", key: "api-key" };
  const open = (options: Options = {}): Store =>
    kubernetesSecret.open({ ...config, create: false, adopt: false, ...options }, toolsIn(dir).tools);
  return {
    namespace,
    path,
    dir,
    login,
    open,
    remove,
    held: async () => (await kube.must("GET", path)) as unknown as Shape,
    put: async (key: string) => await kube.must("PATCH", path, { data: { "api-key": base64(key) } }),
    at: async (store: Store) => (await store.read(soon()))?.revision ?? null,
  };
};
type Place = Awaited<ReturnType<typeof place>>;

storeContract({
  it,
  expect,
  name: "kubernetes-secret on an API server",
  open: async () => {
    const { open, path, held, put, remove } = await place();
    return {
      store: open(),
      put: async (secret) => void (await put(secret.reveal())),
      breakIt: async () => void (await kube.must("DELETE", path)),
      neighbours: async () =>
        JSON.stringify(await held(), (name, value: unknown) =>
          /^(resourceVersion|managedFields|api-key|imkit-rotator\/.*)$/.test(name) ? undefined : value,
        ),
      writes: async () => Number((await held()).metadata.resourceVersion),
      close: remove,
    };
  },
});

describe("on an API server", () => {
  const [oldKey, newKey] = [madeKey(), madeKey()];
  let here: Place;
  beforeEach(async () => {
    here = await place({ data: { "client-key": "bm90LW91cnM=", "api-key": base64(oldKey) } });
  });
  afterEach(async () => await here.remove());

  const clean = (...said: readonly unknown[]): void => {
    const text = said
      .map((one) => `${String(one)}${inspect(one, { depth: 8, showHidden: true })}`)
      .join("\n");
    for (const key of [oldKey, newKey]) expect(findKey(text, key)).toEqual([]);
  };
  const refusal = async (call: Promise<unknown>) => {
    const error = await call.then(
      () => null,
      (caught: unknown) => caught,
    );
    if (!(error instanceof ProviderError)) throw new Error("this call had to be refused, and was not");
    clean(error, error.stack);
    return { code: error.code, outcome: error.outcome };
  };
  const refusedWrite = async (store: Store) =>
    await refusal(store.write(new Secret(newKey), await here.at(store), op(), soon()));
  const checksOf = async (store: Store) => {
    const checks = await store.preflight(soon());
    clean(...checks);
    return checks.filter(({ status }) => status !== "ok").map(({ id, status, code }) => [id, status, code]);
  };

  test("base64 exactly once; witness and op beside it; neighbours, labels, annotations as they were", async () => {
    const store = here.open();
    await store.write(new Secret(newKey), await here.at(store), op(), soon());
    const { data, metadata } = await here.held();
    expect(data).toEqual({ "client-key": "bm90LW91cnM=", "api-key": base64(newKey) });
    expect(metadata.labels).toEqual({ team: "chat" });
    expect(metadata.annotations).toEqual({
      note: "kept",
      "imkit-rotator/ledger": "ledger-1 7 00112233aabbccdd",
      "imkit-rotator/op": "0123456789abcdef0123456789abcdef api-key",
    });
    expect((await store.read(soon()))?.witness).toEqual(op().witness);
  });

  test("one character of sixty, a line break at the end, base64 twice: each is another value", async () => {
    const drift = `${oldKey.slice(0, 34)}${oldKey[34] === "p" ? "F" : "p"}${oldKey.slice(35)}`;
    for (const text of [drift, `${oldKey}\n`, base64(oldKey)]) {
      await here.put(text);
      const found = await here.open().read(soon());
      expect(found?.secret.equals(new Secret(text))).toBe(true);
      expect(found?.secret.equals(new Secret(oldKey))).toBe(false);
    }
  });

  test("eight rotators at once: one writes, seven are told of a conflict", async () => {
    const at = await here.at(here.open());
    const keys = Array.from({ length: 8 }, () => new Secret(madeKey()));
    const ended = await Promise.allSettled(
      keys.map(async (key) => await here.open().write(key, at, { ...op(), witness: null }, soon())),
    );
    const lost = ended.flatMap((one) => (one.status === "rejected" ? [one.reason as ProviderError] : []));
    expect(lost.map(({ code, outcome }) => `${code} ${outcome}`)).toEqual(
      Array(7).fill("CONFLICT not_applied"),
    );
    const winner = keys[ended.findIndex(({ status }) => status === "fulfilled")];
    expect((await here.open().read(soon()))?.secret.equals(winner ?? new Secret(""))).toBe(true);
  });

  test("an answer lost before or after the change: unknown, then the same op makes it once", async () => {
    for (const when of ["before", "after"] as const) {
      await here.put(oldKey);
      const lossy = await lossyProxy(when);
      try {
        const direct = here.open();
        const at = await here.at(direct);
        const token = await kube.tokenOf(here.namespace);
        await here.login({ token }, { server: lossy.url, "insecure-skip-tls-verify": true });
        const call = here.open().write(new Secret(newKey), at, op(), soon());
        expect(await refusal(call)).toEqual({ code: "UNAVAILABLE", outcome: "unknown" });
        await here.login({ token });
        const seen = await here.open().read(soon());
        expect(seen?.secret.equals(new Secret(when === "after" ? newKey : oldKey))).toBe(true);
        const revision = await direct.write(new Secret(newKey), at, op(), soon());
        expect(await here.at(direct)).toBe(revision);
        expect(revision === seen?.revision).toBe(when === "after");
      } finally {
        await lossy.close();
      }
    }
  });

  test("immutable: refused with advice", async () => {
    await kube.must("PATCH", here.path, { immutable: true });
    expect(await refusedWrite(here.open())).toEqual({ code: "IMMUTABLE", outcome: "not_applied" });
    expect(await checksOf(here.open())).toEqual([["secret", "fail", "IMMUTABLE"]]);
  });

  test("the server's own words for it are understood, too", async () => {
    await kube.must("PATCH", here.path, { immutable: true });
    const { tools } = toolsIn(here.dir);
    const body = { data: { "api-key": base64(newKey) } };
    const answer = await openKube({ kubeconfig: "kubeconfig" }, tools).call(
      { method: "PATCH", path: here.path, body },
      soon(),
    );
    expect(kubeProblem(answer, true)).toMatchObject({ code: "IMMUTABLE", outcome: "not_applied" });
    clean(kubeProblem(answer, true));
    // A value that is not base64 comes back with the whole Secret in the server's words.
    const torn = { data: { "api-key": `!${newKey}` } };
    const quoted = await openKube({ kubeconfig: "kubeconfig" }, tools).call(
      { method: "PATCH", path: here.path, body: torn },
      soon(),
    );
    expect(JSON.stringify(quoted.body)).toContain(newKey);
    clean(kubeProblem(quoted, true));
  });

  test("an owner is respected, unless adopt: true", async () => {
    const { metadata } = (await kube.must("POST", `/api/v1/namespaces/${here.namespace}/configmaps`, {
      metadata: { name: "owner" },
    })) as unknown as { readonly metadata: { readonly uid: string } };
    const owner = { apiVersion: "v1", kind: "ConfigMap", name: "owner", uid: metadata.uid };
    await kube.must("PATCH", here.path, { metadata: { ownerReferences: [owner] } });
    expect(await refusedWrite(here.open())).toEqual({ code: "NOT_OWNED", outcome: "not_applied" });
    expect(await checksOf(here.open())).toEqual([["secret", "fail", "NOT_OWNED"]]);
    const adopting = here.open({ adopt: true });
    expect(await checksOf(adopting)).toEqual([]);
    await adopting.write(new Secret(newKey), await here.at(adopting), op(), soon());
    expect((await here.held()).data?.["api-key"]).toBe(base64(newKey));
  });

  test("a policy of the cluster is found by the dry run, and named when it refuses the write", async () => {
    const name = `no-${here.namespace}`;
    const admission = "/apis/admissionregistration.k8s.io/v1";
    await kube.must("POST", `${admission}/validatingadmissionpolicies`, {
      metadata: { name },
      spec: {
        failurePolicy: "Fail",
        matchConstraints: {
          resourceRules: [
            { apiGroups: [""], apiVersions: ["v1"], operations: ["UPDATE"], resources: ["secrets"] },
          ],
        },
        validations: [
          { expression: "false", messageExpression: "'holds ' + string(object.data['api-key'])" },
        ],
      },
    });
    await kube.must("POST", `${admission}/validatingadmissionpolicybindings`, {
      metadata: { name },
      spec: {
        policyName: name,
        validationActions: ["Deny"],
        matchResources: {
          namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": here.namespace } },
        },
      },
    });
    await eventually("the policy", async () => (await checksOf(here.open())).length > 0);
    expect(await checksOf(here.open())).toEqual([["dry-run", "fail", "AUTHZ"]]);
    expect(await refusedWrite(here.open())).toEqual({ code: "AUTHZ", outcome: "not_applied" });
  });

  test("over 1 MiB; over a quota; in a namespace that is not there", async () => {
    const filler = Buffer.alloc(1024 * 1024 - 30, 1).toString("base64");
    await kube.must("PATCH", here.path, { data: { "client-key": filler, "api-key": null } });
    expect(await refusedWrite(here.open())).toEqual({ code: "TOO_LARGE", outcome: "not_applied" });
    expect(await checksOf(here.open())).toEqual([["dry-run", "fail", "TOO_LARGE"]]);
    await here.login({ token: kube.adminToken });
    const making = { create: true, secret: "fresh" };
    expect(await refusedWrite(here.open({ ...making, namespace: "not-there" }))).toEqual({
      code: "NOT_FOUND",
      outcome: "not_applied",
    });
    const quotas = `/api/v1/namespaces/${here.namespace}/resourcequotas`;
    const hard = { "count/secrets": "1" };
    await kube.must("POST", quotas, { metadata: { name: "few" }, spec: { hard } });
    await kube.must("PATCH", `${quotas}/few/status`, { status: { hard, used: hard } });
    await eventually("the quota", async () => {
      const path = `/api/v1/namespaces/${here.namespace}/secrets?dryRun=All`;
      const { body } = await kube.api("POST", path, { metadata: { name: "fresh" } });
      return String(body["message"]).includes("exceeded quota");
    });
    expect(await refusedWrite(here.open(making))).toEqual({ code: "QUOTA", outcome: "not_applied" });
  });

  test("through the proxy that the kubeconfig names", async () => {
    const targets: string[] = [];
    const proxy = createServer();
    proxy.on("connect", (incoming, socket: Socket) => {
      targets.push(incoming.url ?? "");
      const { hostname, port } = new URL(`https://${incoming.url}`);
      const through = connect(Number(port), hostname, () => {
        socket.write("HTTP/1.1 200 OK\r\n\r\n");
        through.pipe(socket).pipe(through);
      });
      for (const end of [through, socket]) end.on("error", () => end.destroy());
    });
    proxy.listen(0, "127.0.0.1");
    await once(proxy, "listening");
    const url = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    const token = await kube.tokenOf(here.namespace);
    const cluster = { server: kube.server, "certificate-authority": kube.caFile, "proxy-url": url };
    await here.login({ token }, cluster);
    const store = here.open();
    await store.write(new Secret(newKey), await here.at(store), op(), soon());
    expect((await here.held()).data?.["api-key"]).toBe(base64(newKey));
    expect(new Set(targets)).toEqual(new Set([new URL(kube.server).host]));
    proxy.close();
    await here.login({ token }, { ...cluster, "proxy-url": "http://127.0.0.1:1" });
    expect(await refusal(here.open().read(soon()))).toEqual({ code: "UNAVAILABLE", outcome: "not_applied" });
  });

  test("logins: client certificate, token file, login program; a wrong one and an unknown authority are refused", async () => {
    await here.login({ "client-certificate": kube.clientCert, "client-key": kube.clientKey });
    expect(await checksOf(here.open())).toEqual([]);
    const token = await kube.tokenOf(here.namespace);
    await writeFile(join(here.dir, "token"), `${token}\n`);
    await here.login({ tokenFile: "token" });
    expect(await checksOf(here.open())).toEqual([]);
    await writeFile(
      join(here.dir, "login.sh"),
      `#!/bin/sh\nprintf '{"kind":"ExecCredential","status":{"token":"%s"}}' "$(cat token)"\n`,
      { mode: 0o755 },
    );
    await here.login({ exec: { command: "./login.sh", apiVersion: "client.authentication.k8s.io/v1" } });
    const store = here.open();
    await store.write(new Secret(newKey), await here.at(store), op(), soon());
    expect((await here.held()).data?.["api-key"]).toBe(base64(newKey));

    await here.login({ token: "wrong" });
    expect(await refusal(here.open().read(soon()))).toEqual({ code: "AUTHN", outcome: "not_applied" });
    expect(await checksOf(here.open())).toEqual([["api-server", "fail", "AUTHN"]]);
    const authority = { server: kube.server, "certificate-authority": kube.caFile };
    await here.login({ token }, { ...authority, "tls-server-name": "kubernetes.default.svc" });
    expect(await checksOf(here.open())).toEqual([]);
    await here.login({ token }, { ...authority, "tls-server-name": "another.example" });
    expect(await refusal(here.open().read(soon()))).toEqual({ code: "CONFIG", outcome: "not_applied" });
    await here.login({ token }, { server: kube.server });
    expect(await refusal(here.open().read(soon()))).toEqual({ code: "CONFIG", outcome: "not_applied" });
    await rm(join(here.dir, "kubeconfig"));
    expect((await refusal(here.open().read(soon()))).code).toBe("CONFIG");
  });
});

/** Stands before the API server and loses the answer to each PATCH: unsent, or done. */
const lossyProxy = async (when: "before" | "after") => {
  const ca = readFileSync(kube.caFile);
  const proxy = createServer((incoming, outgoing) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of incoming) chunks.push(chunk as Buffer);
      const patch = incoming.method === "PATCH";
      if (patch && when === "before") return void outgoing.destroy();
      const { host: _, ...headers } = incoming.headers;
      const call = request(`${kube.server}${incoming.url}`, { method: incoming.method, headers, ca });
      call.end(Buffer.concat(chunks));
      const [answer] = (await once(call, "response")) as [IncomingMessage];
      const body: Buffer[] = [];
      for await (const chunk of answer) body.push(chunk as Buffer);
      if (patch && when === "after") return void outgoing.destroy();
      outgoing.writeHead(answer.statusCode ?? 500, { "content-type": "application/json" });
      outgoing.end(Buffer.concat(body));
    })().catch(() => outgoing.destroy());
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  return {
    url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    close: async () => {
      proxy.closeAllConnections();
      proxy.close();
      await once(proxy, "close");
    },
  };
};
