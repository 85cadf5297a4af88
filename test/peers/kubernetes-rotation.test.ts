import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, inject, test } from "vitest";
import { findKey } from "../kit/leak.ts";
import { lastJson, makeWorld, type World } from "../kit/world.ts";
import { kubernetes } from "./kubernetes.ts";
import { bind, ROLE } from "./kubernetes-role.ts";

const kube = kubernetes(inject("kubernetes"));
const base64 = (text: string) => Buffer.from(text).toString("base64");
type Shape = {
  readonly data: Record<string, string>;
  readonly metadata: { readonly annotations: Record<string, string> };
};

let world: World;
let path: string;
const held = async () => (await kube.must("GET", path)) as unknown as Shape;

beforeEach(async () => {
  const namespace = await kube.namespace();
  await bind(kube, namespace, ROLE);
  world = await makeWorld();
  path = `/api/v1/namespaces/${namespace}/secrets/imkit-secrets`;
  await kube.must("POST", `/api/v1/namespaces/${namespace}/secrets`, {
    metadata: { name: "imkit-secrets" },
    data: { "api-key": base64(world.sandbox.firstKey()), other: "a2VwdA==" },
  });
  writeFileSync(join(world.dir, "kubeconfig"), kube.kubeconfig({ token: await kube.tokenOf(namespace) }));
  const store = `      - { name: k8s, type: kubernetes-secret, kubeconfig: ./kubeconfig, context: peers, namespace: ${namespace} }\n`;
  const config = readFileSync(world.configFile, "utf8").replace("    stores:\n", `    stores:\n${store}`);
  writeFileSync(world.configFile, config);
});
afterEach(async () => await world.close());

test("the built program takes a key through a Secret and a file, to the old key's proven end; its witness guards the ledger", async () => {
  const oldKey = world.sandbox.firstKey();
  const doctor = await world.run(["doctor", "demo", "--json"]);
  expect(JSON.parse(doctor.stdout)).toMatchObject({ ok: true });
  const newKey = world.sandbox.issue();
  expect((await world.run(["stage", "demo", "--from-stdin"], { stdin: newKey })).code).toBe(0);
  const rotated = await world.run(["rotate", "demo", "--json"]);
  expect(lastJson(rotated.stdout)).toMatchObject({
    status: "waiting",
    stores: expect.arrayContaining([{ name: "k8s", state: "written", code: null }]),
  });
  const { data, metadata } = await held();
  expect(data).toEqual({ "api-key": base64(newKey), other: "a2VwdA==" });
  expect(world.value()).toBe(newKey);
  world.sandbox.revoke(oldKey);
  const confirmed = await world.run(["confirm-revoked", "demo", "--json"]);
  expect(confirmed.code).toBe(0);

  const [ledger = "", seq = "", h16 = ""] = metadata.annotations["imkit-rotator/ledger"]?.split(" ") ?? [];
  const entry = readFileSync(join(world.ledgerDir, `${seq.padStart(8, "0")}.json`), "utf8");
  expect(JSON.parse(entry)).toMatchObject({ h: expect.stringMatching(new RegExp(`^${h16}`)), r: { ledger } });
  expect((await world.run(["audit", "verify", "demo", "--stores", "--json"])).code).toBe(0);
  await kube.must("PATCH", path, {
    metadata: { annotations: { "imkit-rotator/ledger": `${ledger} 999 ${h16}` } },
  });
  expect((await world.run(["stage", "demo", "--from-stdin"], { stdin: world.sandbox.issue() })).code).toBe(0);
  const behind = await world.run(["rotate", "demo", "--json"]);
  expect([behind.code, JSON.stringify(lastJson(behind.stdout))]).toEqual([
    5,
    expect.stringContaining("LEDGER_BEHIND"),
  ]);
  expect((await held()).data["api-key"]).toBe(base64(newKey));
  for (const key of [oldKey, newKey]) expect(findKey(world.printed(), key)).toEqual([]);
});

test("one character of drift between the stores is seen by status", async () => {
  const key = world.sandbox.firstKey();
  await kube.must("PATCH", path, {
    data: { "api-key": base64(`${key.slice(0, 34)}${key[34] === "p" ? "F" : "p"}${key.slice(35)}`) },
  });
  const status = await world.run(["status", "demo", "--json"]);
  const { apps } = JSON.parse(status.stdout) as {
    readonly apps: readonly [
      { readonly stores: readonly { readonly name: string; readonly state: string }[] },
    ];
  };
  expect(apps[0].stores.map(({ name, state }) => `${name} ${state}`)).toEqual(["k8s drift", "env drift"]);
  expect(findKey(world.printed(), key)).toEqual([]);
});

test("without the right to patch the rotation stops before any store is written, exit 4", async () => {
  const namespace = path.split("/")[4] ?? "";
  const role = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}/roles/${ROLE.role.metadata.name}`;
  await kube.must("PATCH", role, { rules: [{ ...ROLE.role.rules[0], verbs: ["get"] }] });
  const oldKey = world.sandbox.firstKey();
  expect((await world.run(["stage", "demo", "--from-stdin"], { stdin: world.sandbox.issue() })).code).toBe(0);
  const rotated = await world.run(["rotate", "demo", "--json"]);
  expect(rotated.code).toBe(4);
  expect(world.value()).toBe(oldKey);
  expect((await held()).data["api-key"]).toBe(base64(oldKey));
});
