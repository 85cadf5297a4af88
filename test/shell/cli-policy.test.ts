import { writeFileSync } from "node:fs";
import { afterAll, expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import { lastJson, makeWorld, type World } from "../kit/world.ts";

const worlds: World[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));

const withStores = async (stores: string): Promise<World> => {
  const w = await makeWorld();
  worlds.push(w);
  writeFileSync(
    w.configFile,
    `schemaVersion: 1\napps:\n  demo:\n    baseUrl: ${w.sandbox.url}\n    stores:\n${stores}`,
  );
  return w;
};

it("doctor --print-policy: the least rights of each cloud store, with its own names in them, and nothing is asked", async () => {
  const w =
    await withStores(`      - { name: aws, type: aws-secrets-manager, region: ap-northeast-1, secretId: prod/chat/imkit, jsonKey: K }
      - { name: azure, type: azure-key-vault, vaultUrl: "https://kv-chat.vault.azure.net", secret: imkit-api-key }
      - { name: k8s, type: kubernetes-secret, namespace: chat-prod, secret: imkit-keys, key: api-key, create: true }
      - { name: env, type: dotenv, path: ./env.env, key: IMKIT_API_KEY }
`);
  const { code, stdout } = await w.run(["doctor", "demo", "--print-policy", "--json"]);
  expect(code).toBe(0);
  const { policies } = lastJson(stdout) as { policies: { target: string; policy: string; todo: string }[] };
  expect(policies.map((p) => p.target)).toEqual(["aws", "azure", "k8s"]);
  const [aws, azure, k8s] = policies;
  expect(JSON.parse(aws?.policy ?? "")).toMatchObject({
    Statement: [{ Resource: "arn:aws:secretsmanager:ap-northeast-1:ACCOUNT:secret:prod/chat/imkit-??????" }],
  });
  expect(azure?.todo).toContain("vaults/kv-chat/secrets/imkit-api-key");
  const roles = parseAllDocuments(k8s?.policy ?? "").map((d) => d.toJS() as Record<string, unknown>);
  expect(roles.map((r) => r["kind"])).toEqual(["Role", "RoleBinding", "Role", "RoleBinding"]);
  expect(roles[0]).toMatchObject({
    metadata: { namespace: "chat-prod" },
    rules: [{ resources: ["secrets"], resourceNames: ["imkit-keys"], verbs: ["get", "patch"] }],
  });
  expect(k8s?.policy).not.toMatch(/namespace: chat$/m);
});

it("a store that somebody else fills is only read; two in one namespace have a role each", async () => {
  const w =
    await withStores(`      - { name: aws, type: aws-secrets-manager, region: ap-northeast-1, secretId: prod/chat/imkit, write: false }
      - { name: azure, type: azure-key-vault, vaultUrl: "https://kv-chat.vault.azure.net", secret: imkit-api-key, write: false }
      - { name: own, type: kubernetes-secret, namespace: chat, secret: imkit-keys, key: api-key }
      - { name: copy, type: kubernetes-secret, namespace: chat, secret: imkit-copy, key: api-key, create: true, write: false }
`);
  const { stdout } = await w.run(["doctor", "--print-policy", "--json"]);
  const { policies } = lastJson(stdout) as { policies: { policy: string; todo: string }[] };
  const [aws, azure, own, copy] = policies;
  expect(aws?.policy).toContain("GetSecretValue");
  expect(aws?.policy).not.toMatch(/Put|Update/);
  expect(azure?.policy).toContain("getSecret");
  expect(azure?.policy).not.toMatch(/setSecret|update|recover/);
  expect(azure?.todo).toContain((JSON.parse(azure?.policy ?? "") as { Name: string }).Name);
  const roleIn = (text = ""): unknown =>
    parseAllDocuments(text)
      .map((d) => d.toJS() as { kind: string; metadata: object; rules: unknown })
      .filter(({ kind }) => kind === "Role")
      .map(({ metadata, rules }) => ({ ...metadata, rules }));
  const rule = (name: string, verbs: string[]) => ({
    rules: [{ apiGroups: [""], resources: ["secrets"], resourceNames: [name], verbs }],
  });
  expect(roleIn(own?.policy)).toEqual([
    { name: "imkit-rotator-secret-demo-own", namespace: "chat", ...rule("imkit-keys", ["get", "patch"]) },
  ]);
  expect(roleIn(copy?.policy)).toEqual([
    { name: "imkit-rotator-secret-demo-copy", namespace: "chat", ...rule("imkit-copy", ["get"]) },
  ]);
});

it("on a terminal the policy alone is on standard output", async () => {
  const w = await withStores(
    "      - { name: k8s, type: kubernetes-secret, namespace: n, secret: s, key: api-key }\n",
  );
  const { stdout, stderr } = await w.run(["doctor", "--print-policy"]);
  expect(parseAllDocuments(stdout)).toHaveLength(2);
  expect(stderr).toContain("demo/k8s");
});

it("rollouts, ledger and escrow in Kubernetes: a role for each, with the names of the config", async () => {
  const w = await withStores(`      - { name: env, type: dotenv, path: ./env.env, key: K }
    rollouts:
      - { name: api, type: kubernetes, namespace: chat-prod, workloads: [deployment/api, deployment/web, daemonset/agent] }
ledger: { type: kubernetes, namespace: keys-ledger }
escrow: { type: kubernetes, namespace: keys }
`);
  const { code, stdout } = await w.run(["doctor", "--print-policy", "--json"]);
  expect(code).toBe(0);
  const { policies } = lastJson(stdout) as { policies: { target: string; policy: string }[] };
  expect(policies.map((p) => p.target)).toEqual(["api", "ledger", "escrow"]);
  const [api, ledger, escrow] = policies.map(({ policy }) =>
    parseAllDocuments(policy).map((d) => d.toJS() as Record<string, unknown>),
  );
  const name = "imkit-rotator-rollout-demo-api";
  expect(api).toMatchObject([
    {
      kind: "Role",
      metadata: { name, namespace: "chat-prod" },
      rules: [
        { resources: ["deployments"], resourceNames: ["api", "web"], verbs: ["get", "patch"] },
        { resources: ["daemonsets"], resourceNames: ["agent"], verbs: ["get", "patch"] },
      ],
    },
    { kind: "RoleBinding", metadata: { name, namespace: "chat-prod" }, roleRef: { name } },
  ]);
  expect(api?.[0]?.["rules"]).toHaveLength(2);
  expect(ledger).toMatchObject([
    {
      metadata: { namespace: "keys-ledger" },
      rules: [{ resources: ["configmaps"], verbs: ["create", "get"] }],
    },
    { metadata: { namespace: "keys-ledger" } },
  ]);
  expect(escrow).toMatchObject([
    { metadata: { namespace: "keys" }, rules: [{ resourceNames: ["imkit-rotator-escrow-demo"] }] },
    { metadata: { namespace: "keys" }, subjects: [{ namespace: "imkit-rotator" }] },
  ]);
});
