import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type FakeKube, kubeServer } from "../kit/kube-server.ts";
import { findKey } from "../kit/leak.ts";
import { jsonLines, lastJson, makeWorld, type World } from "../kit/world.ts";

/** Ledger and escrow in a cluster, seen from the command line. The cluster is the little one of `kube-server.ts`. */
const ESCROW = "imkit-rotator/imkit-rotator-escrow-demo";
let kube: FakeKube;
let world: World;
beforeEach(async () => {
  kube = await kubeServer();
  kube.denied.add("delete");
  kube.put(ESCROW, { data: {} });
  world = await makeWorld({
    more: `ledger: { type: kubernetes, namespace: imkit-ledger, kubeconfig: ./kubeconfig }
escrow: { type: kubernetes, namespace: imkit-rotator, kubeconfig: ./kubeconfig }
`,
  });
  writeFileSync(join(world.dir, "kubeconfig"), kube.kubeconfig());
});
afterEach(async () => {
  await world.close();
  await kube.close();
});

const entries = () => [...kube.others.keys()].filter((name) => name.startsWith("configmaps/imkit-ledger/"));
const escrowed = () => Object.keys((kube.secrets.get(ESCROW) as { readonly data: object }).data);
const doctor = async () => {
  const ran = await world.run(["doctor", "demo", "--json"]);
  const { checks } = JSON.parse(ran.stdout) as {
    readonly checks: readonly { readonly id: string; readonly status: string; readonly fix: string | null }[];
  };
  return { code: ran.code, checks };
};

test("a whole rotation leaves ledger and keys in the cluster, none in the state directory", async () => {
  const [oldKey, newKey] = [world.sandbox.firstKey(), world.sandbox.issue()];
  expect((await world.run(["audit", "verify"])).code).toBe(2);
  expect((await world.run(["stage", "demo", "--from-stdin"], { stdin: newKey })).code).toBe(0);
  expect(escrowed().length).toBeGreaterThan(0);
  expect((await world.run(["rotate", "demo", "--json"])).code).toBe(3);
  expect(world.value()).toBe(newKey);
  world.sandbox.revoke(oldKey);
  expect((await world.run(["confirm-revoked", "demo", "--json"])).code).toBe(0);
  expect(escrowed()).toEqual([]);
  expect(existsSync(world.ledgerDir)).toBe(false);
  expect(existsSync(join(world.dir, "state", "demo", "escrow"))).toBe(false);

  const status = await world.run(["status", "demo", "--json"]);
  expect(JSON.parse(status.stdout)).toMatchObject({
    apps: [{ state: "idle", stores: [{ state: "in-sync" }] }],
  });
  const verified = await world.run(["audit", "verify", "--json"]);
  expect(lastJson(verified.stdout)).toMatchObject({ ok: true, app: "demo", entries: entries().length });
  const listed = jsonLines((await world.run(["audit", "list", "demo", "--json"])).stdout);
  expect(listed.at(-1)).toMatchObject({ type: "released" });
  const exported = await world.run(["audit", "export", "demo"]);
  const file = join(world.dir, "export.jsonl");
  writeFileSync(file, exported.stdout);
  expect((await world.run(["audit", "verify", file])).code).toBe(0);
  for (const key of [oldKey, newKey]) {
    expect(findKey(world.printed(), key)).toEqual([]);
    expect(findKey(JSON.stringify([...kube.others]), key)).toEqual([]);
  }
});

test("doctor names each right that is missing, with a fix; a missing Secret too", async () => {
  expect((await doctor()).code).toBe(0);
  for (const [denied, id] of [
    ["create configmaps", "ledger.may-create"],
    ["get configmaps", "ledger.may-get"],
    ["get secrets", "escrow.may-get"],
    ["patch secrets", "escrow.may-patch"],
  ] as const) {
    kube.denied.add(denied);
    const { code, checks } = await doctor();
    expect([code, checks.find((check) => check.id === id)]).toMatchObject([
      5,
      { status: "fail", fix: expect.any(String) },
    ]);
    kube.denied.delete(denied);
  }
  kube.secrets.delete(ESCROW);
  const { code, checks } = await doctor();
  expect([code, checks.find(({ id }) => id === "escrow.secret")]).toMatchObject([
    5,
    { status: "fail", fix: "kubectl -n imkit-rotator create secret generic imkit-rotator-escrow-demo" },
  ]);
});

test("doctor warns of an inbox that cannot be emptied, before a key stays behind in it", async () => {
  const inbox =
    "{ type: kubernetes-secret, kubeconfig: ./kubeconfig, namespace: chat, secret: inbox, key: api-key }";
  const w = await makeWorld({ app: `    intake: [${inbox}]` });
  writeFileSync(join(w.dir, "kubeconfig"), kube.kubeconfig());
  const intake = async () => {
    const ran = await w.run(["doctor", "demo", "--json"]);
    const { checks } = JSON.parse(ran.stdout) as { readonly checks: readonly { readonly id: string }[] };
    return [ran.code, ...checks.filter(({ id }) => id.startsWith("intake"))];
  };
  const target = "kubernetes-secret:chat/inbox#api-key in ./kubeconfig";
  // Not there yet: nobody has anything to lay down.
  expect(await intake()).toMatchObject([0, { id: "intake", target, status: "ok" }]);
  kube.put("chat/inbox", { data: {} });
  expect(await intake()).toMatchObject([0, { id: "intake", target, status: "ok" }]);
  kube.denied.add("patch secrets");
  expect(await intake()).toMatchObject([
    0,
    { id: "intake", status: "ok" },
    {
      id: "intake.may-patch",
      target,
      status: "warn",
      message: expect.stringContaining("a key that was taken in will stay there"),
      fix: expect.stringContaining("create rolebinding"),
    },
  ]);
  kube.denied.add("get secrets");
  expect(await intake()).toMatchObject([5, { id: "intake", status: "fail" }]);
  await w.close();
});

test("no ledger, no effect: without the right to create nothing is written, exit 1, and the fix is named", async () => {
  kube.denied.add("create configmaps");
  const key = world.sandbox.firstKey();
  const staged = await world.run(["stage", "demo", "--from-stdin", "--json"], {
    stdin: world.sandbox.issue(),
  });
  expect([staged.code, lastJson(staged.stdout)]).toMatchObject([1, { code: "LEDGER_UNWRITABLE" }]);
  expect(world.value()).toBe(key);
  expect(staged.stdout).toContain("kubectl -n imkit-ledger create role");
});

test("a broken ledger stops it, and another one is begun beside it without deleting anything", async () => {
  expect((await world.run(["adopt", "demo"])).code).toBe(0);
  const before = entries();
  kube.set("configmaps", "imkit-ledger/imkit-ledger-demo-00000000", {
    binaryData: { "entry.json": Buffer.from('{"h":"","r":{}}\n').toString("base64") },
  });
  expect((await world.run(["audit", "verify", "demo", "--json"])).code).toBe(5);
  const refused = await world.run(["stage", "demo", "--from-stdin"], { stdin: world.sandbox.issue() });
  expect(refused.code).toBe(5);
  const begun = await world.run(["adopt", "demo", "--new-ledger", "--json"]);
  expect([begun.code, lastJson(begun.stdout)]).toMatchObject([
    0,
    { newLedger: { aside: "imkit-ledger/imkit-ledger-demo" } },
  ]);
  expect(entries()).toEqual(expect.arrayContaining(before));
  expect((await world.run(["audit", "verify", "demo", "--json"])).code).toBe(0);
  expect(readFileSync(world.configFile, "utf8")).toContain("imkit-ledger");
});
