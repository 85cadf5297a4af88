import { copyFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, inject, test } from "vitest";
import { openKube } from "../../providers/kubernetes.ts";
import kubernetesSecret from "../../providers/stores/kubernetes-secret.ts";
import { Secret } from "../../src/core/secret.ts";
import { madeKey } from "../kit/leak.ts";
import { tempDir, toolsIn } from "../kit/provider-tools.ts";
import { kubernetes } from "./kubernetes.ts";
import { bind, ROLE, ROLE_CREATE, type Rule, rightsOf } from "./kubernetes-role.ts";

const kube = kubernetes(inject("kubernetes"));
const soon = () => AbortSignal.timeout(30_000);
const op = { id: "0".repeat(32), witness: null };

let dir: string;
let remove: () => Promise<void>;
let namespace: string;
beforeEach(async () => {
  ({ dir, remove } = await tempDir());
  namespace = await kube.namespace();
});
afterEach(async () => await remove());

const open = async (create: boolean, secret = "imkit-secrets") => {
  await writeFile(join(dir, "kubeconfig"), kube.kubeconfig({ token: await kube.tokenOf(namespace) }));
  const config = { kubeconfig: "kubeconfig", namespace, secret, key: "api-key", create, adopt: false };
  return kubernetesSecret.open(config, toolsIn(dir).tools);
};
const makeSecret = async (name = "imkit-secrets") =>
  await kube.must("POST", `/api/v1/namespaces/${namespace}/secrets`, { metadata: { name } });
const without = (rules: readonly Rule[], verb: string): readonly Rule[] =>
  rules
    .map((rule) => ({ ...rule, verbs: rule.verbs.filter((one) => one !== verb) }))
    .filter(({ verbs }) => verbs.length > 0);
const failing = async (create: boolean) =>
  (await (await open(create)).preflight(soon()))
    .filter(({ status }) => status !== "ok")
    .map(({ id, status, code }) => `${id} ${status} ${code}`);

test("the shipped role is enough for a whole life, names one Secret, and grants nothing else", async () => {
  await makeSecret();
  await makeSecret("neighbour");
  await bind(kube, namespace, ROLE);
  const store = await open(false);
  expect((await store.preflight(soon())).every(({ status }) => status === "ok")).toBe(true);
  const first = await store.write(new Secret(madeKey()), null, op, soon());
  await store.write(new Secret(madeKey()), first, op, soon());
  expect(await store.read(soon())).not.toBeNull();
  expect(await rightsOf(kube, namespace, await kube.tokenOf(namespace))).toEqual([
    "get secrets/imkit-secrets",
    "patch secrets/imkit-secrets",
  ]);
  const other = await open(false, "neighbour");
  await expect(other.read(soon())).rejects.toMatchObject({ code: "AUTHZ", outcome: "not_applied" });
});

test.each(ROLE.role.rules.flatMap(({ verbs }) => verbs))("without %s a named check fails", async (verb) => {
  await makeSecret();
  await bind(kube, namespace, ROLE, without(ROLE.role.rules, verb));
  expect(await failing(false)).toEqual([`may-${verb} fail AUTHZ`]);
});

test("with create: true the second role is needed, and enough", async () => {
  await bind(kube, namespace, ROLE);
  expect(await failing(true)).toEqual(["may-create fail AUTHZ"]);
  await bind(kube, namespace, ROLE_CREATE);
  const store = await open(true);
  expect(await failing(true)).toEqual([]);
  expect(await store.read(soon())).toBeNull();
  const key = new Secret(madeKey());
  const made = await store.write(key, null, op, soon());
  expect((await store.read(soon()))?.secret.equals(key)).toBe(true);
  expect((await store.read(soon()))?.revision).toBe(made);
});

test("in a pod: the ServiceAccount's own token and authority, found without any kubeconfig", async () => {
  await makeSecret();
  await bind(kube, namespace, ROLE);
  await copyFile(kube.caFile, join(dir, "ca.crt"));
  await writeFile(join(dir, "token"), await kube.tokenOf(namespace));
  const { hostname, port } = new URL(kube.server);
  const env = { HOME: dir, KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port };
  const pod = openKube({}, { configDir: dir, env }, dir);
  const path = `/api/v1/namespaces/${namespace}/secrets/imkit-secrets`;
  expect((await pod.call({ method: "GET", path }, soon())).status).toBe(200);
  const foreign = await pod.call({ method: "GET", path: "/api/v1/namespaces/default/secrets/x" }, soon());
  expect(foreign.status).toBe(403);
});

test("the API server's own log holds what was called, and nothing beyond", async () => {
  await makeSecret();
  await bind(kube, namespace, ROLE);
  const store = await open(false);
  await kube.audited();
  await store.preflight(soon());
  await store.write(new Secret(madeKey()), null, op, soon());
  await store.read(soon());
  const me = `system:serviceaccount:${namespace}:imkit-rotator`;
  const mine = (await kube.audited())
    .filter((line) => line.startsWith(me))
    .map((line) => line.slice(me.length + 1));
  expect(mine.toSorted()).toEqual([
    "create selfsubjectaccessreviews 201",
    "create selfsubjectaccessreviews 201",
    "get secrets/imkit-secrets 200",
    "get secrets/imkit-secrets 200",
    "get secrets/imkit-secrets 200",
    "patch secrets/imkit-secrets 200",
    "patch secrets/imkit-secrets 200",
  ]);
});
