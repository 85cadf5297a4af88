import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, inject, test } from "vitest";
import { findKey } from "../kit/leak.ts";
import { jsonLines, lastJson, makeWorld, type World } from "../kit/world.ts";
import { eventually, kubernetes } from "./kubernetes.ts";
import { bind, ESCROW, LEDGER, type Policy, ROLE, ROLLOUT, type Rule, rightsOf } from "./kubernetes-role.ts";

/** The built program with all of its places in a cluster: store, inbox, workload, ledger, escrow; as an identity with the shipped roles. */
const kube = kubernetes(inject("kubernetes"));
const base64 = (text: string) => Buffer.from(text).toString("base64");
const naming = (rules: readonly Rule[], name: string): readonly Rule[] =>
  rules.map((rule) => ({ ...rule, resourceNames: [name] }));
const INBOX: Policy = {
  role: { ...ROLE.role, metadata: { name: "imkit-rotator-inbox" } },
  binding: {
    ...ROLE.binding,
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: "imkit-rotator-inbox" },
  },
};

let world: World;
let namespace: string;
let apps: string;
beforeEach(async () => {
  namespace = await kube.namespace();
  apps = `/apis/apps/v1/namespaces/${namespace}`;
  await bind(kube, namespace, ROLE);
  await bind(kube, namespace, ROLLOUT, naming(ROLLOUT.role.rules.slice(0, 1), "api"));
  await bind(kube, namespace, LEDGER);
  await bind(kube, namespace, ESCROW, naming(ESCROW.role.rules, "imkit-rotator-escrow-demo"));
  await bind(kube, namespace, INBOX, naming(ROLE.role.rules, "imkit-key-inbox"));
  const cluster = `kubeconfig: ./kubeconfig, namespace: ${namespace}`;
  world = await makeWorld({
    rollouts: `[{ name: api, type: kubernetes, ${cluster}, workloads: [deployment/api], timeout: 1m }]`,
    app: `    intake: [{ type: kubernetes-secret, ${cluster}, secret: imkit-key-inbox, key: api-key }]`,
    more: `ledger: { type: kubernetes, ${cluster} }\nescrow: { type: kubernetes, ${cluster} }\n`,
  });
  const config = readFileSync(world.configFile, "utf8");
  const store = `      - { name: k8s, type: kubernetes-secret, ${cluster} }`;
  writeFileSync(world.configFile, config.replace(/^ {6}- \{ name: env, .*$/m, store));
  writeFileSync(join(world.dir, "kubeconfig"), kube.kubeconfig({ token: await kube.tokenOf(namespace) }));
  const secret = async (name: string, data: Record<string, string>) =>
    await kube.must("POST", `/api/v1/namespaces/${namespace}/secrets`, { metadata: { name }, data });
  await secret("imkit-secrets", { "api-key": base64(world.sandbox.firstKey()) });
  await secret("imkit-key-inbox", {});
  await secret("imkit-rotator-escrow-demo", {});
  await kube.must("POST", `${apps}/deployments`, {
    metadata: { name: "api" },
    spec: {
      replicas: 4,
      selector: { matchLabels: { app: "api" } },
      template: {
        metadata: { labels: { app: "api" } },
        spec: { containers: [{ name: "main", image: "chat:1" }], terminationGracePeriodSeconds: 1 },
      },
    },
  });
  await eventually("four pods", async () => {
    const { status } = (await kube.must("GET", `${apps}/deployments/api`)) as {
      readonly status: { readonly availableReplicas?: number };
    };
    return status.availableReplicas === 4;
  });
});
afterEach(async () => await world.close());

const dataOf = async (name: string) => {
  const path = `/api/v1/namespaces/${namespace}/secrets/${name}`;
  return ((await kube.must("GET", path)) as { readonly data?: Readonly<Record<string, string>> }).data ?? {};
};
const tick = async () => await world.run(["rotate", "demo", "--due", "--no-input", "--json"]);

test("ticks and kubectl's hand alone: a key in the inbox Secret, four pods made again, the old key proved dead", async () => {
  const [oldKey, newKey] = [world.sandbox.firstKey(), world.sandbox.issue()];
  const doctor = await world.run(["doctor", "demo", "--json"]);
  expect(JSON.parse(doctor.stdout), doctor.stdout).toMatchObject({ ok: true });
  await kube.must("PATCH", `/api/v1/namespaces/${namespace}/secrets/imkit-key-inbox`, {
    data: { "api-key": base64(newKey) },
  });
  const opened = await tick();
  expect([opened.code, lastJson(opened.stdout)], opened.stderr).toMatchObject([
    0,
    {
      status: "waiting",
      stores: [{ name: "k8s", state: "written" }],
      workloads: [{ name: "api", state: "done", proof: 1 }],
    },
  ]);
  expect(await dataOf("imkit-key-inbox")).toEqual({});
  expect(await dataOf("imkit-secrets")).toEqual({ "api-key": base64(newKey) });
  expect(Object.keys(await dataOf("imkit-rotator-escrow-demo")).length).toBeGreaterThan(0);
  const { items } = (await kube.must("GET", `/api/v1/namespaces/${namespace}/pods`)) as {
    readonly items: readonly {
      readonly metadata: { readonly annotations?: Readonly<Record<string, string>> };
    }[];
  };
  const rotation = String(lastJson(opened.stdout)["rotation"]);
  expect(items.map(({ metadata }) => metadata.annotations?.["imkit-rotator/rotation"])).toEqual(
    Array.from({ length: 4 }, () => rotation),
  );

  world.sandbox.revoke(oldKey);
  const closed = await tick();
  expect([closed.code, lastJson(closed.stdout)], closed.stderr).toMatchObject([0, { status: "done" }]);
  expect(await dataOf("imkit-rotator-escrow-demo")).toEqual({});
  expect(existsSync(world.ledgerDir)).toBe(false);
  const verified = await world.run(["audit", "verify", "demo", "--stores", "--json"]);
  expect([verified.code, lastJson(verified.stdout)]).toMatchObject([0, { ok: true }]);
  const listed = jsonLines((await world.run(["audit", "list", "demo", "--json"])).stdout);
  expect(listed.map(({ type }) => type)).toContain("proof");
  for (const key of [oldKey, newKey]) expect(findKey(world.printed(), key)).toEqual([]);
  const kinds = ["secrets", "configmaps", "deployments", "pods"];
  expect(await rightsOf(kube, namespace, await kube.tokenOf(namespace), kinds)).toEqual([
    "create configmaps",
    "get configmaps",
    "get deployments/api",
    "get secrets/imkit-key-inbox",
    "get secrets/imkit-rotator-escrow-demo",
    "get secrets/imkit-secrets",
    "patch deployments/api",
    "patch secrets/imkit-key-inbox",
    "patch secrets/imkit-rotator-escrow-demo",
    "patch secrets/imkit-secrets",
  ]);
});

test("two at once: one rotation, one ledger, each entry once; the way back restarts all pods again", async () => {
  const newKey = world.sandbox.issue();
  expect((await world.run(["stage", "demo", "--from-stdin"], { stdin: newKey })).code).toBe(0);
  const ends = await Promise.all([tick(), tick(), tick()]);
  expect(ends.map(({ code }) => code).filter((code) => code !== 0 && code !== 6)).toEqual([]);
  const verified = await world.run(["audit", "verify", "demo", "--json"]);
  expect(lastJson(verified.stdout)).toMatchObject({ ok: true });
  const listed = jsonLines((await world.run(["audit", "list", "demo", "--json"])).stdout);
  expect(listed.filter(({ type }) => type === "opened")).toHaveLength(1);
  expect(listed.filter(({ type, action }) => type === "intent" && action === "write")).toHaveLength(1);

  const restarts = async () =>
    (
      (await kube.must("GET", `${apps}/deployments/api`)) as {
        readonly metadata: { readonly generation: number };
      }
    ).metadata.generation;
  const before = await restarts();
  const back = await world.run(["rollback", "demo", "--yes", "--no-input", "--json"]);
  expect([back.code, lastJson(back.stdout)], back.stderr).toMatchObject([
    3,
    { workloads: [{ state: "done" }] },
  ]);
  expect(await restarts()).toBe(before + 1);
  expect((await dataOf("imkit-secrets"))["api-key"]).toBe(base64(world.sandbox.firstKey()));
});
