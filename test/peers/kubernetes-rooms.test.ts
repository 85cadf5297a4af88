import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { kubernetesEscrow } from "../../src/io/escrow/kubernetes.ts";
import { kubernetesLedger } from "../../src/io/ledger/kubernetes.ts";
import { kubernetesPredecessor } from "../../src/io/ledger/kubernetes-successor.ts";
import type { Check } from "../../src/ports.ts";
import { escrowContract } from "../contract/escrow.ts";
import { ledgerContract } from "../contract/ledger.ts";
import { chainOf, STORY } from "../kit/ledger-story.ts";
import { madeKey } from "../kit/leak.ts";
import { tempDir } from "../kit/provider-tools.ts";
import { eventually, kubernetes } from "./kubernetes.ts";
import { bind, ESCROW, LEDGER, type Policy, type Rule, rightsOf } from "./kubernetes-role.ts";

/** Ledger and escrow on a real API server, as an identity that has the shipped role and nothing else. */
const kube = kubernetes(inject("kubernetes"));
const soon = () => AbortSignal.timeout(30_000);
const lines = chainOf(STORY);
const line = (seq: number): Uint8Array => lines[seq] ?? new Uint8Array();
const SECRET = "imkit-rotator-escrow-chat-prod";

let dir: string;
let remove: () => Promise<void>;
beforeAll(async () => void ({ dir, remove } = await tempDir()));
afterAll(async () => await remove());

const place = async (policy: Policy, rules?: readonly Rule[]) => {
  const namespace = await kube.namespace();
  await bind(kube, namespace, policy, rules);
  const kubeconfig = `${namespace}.json`;
  await writeFile(join(dir, kubeconfig), kube.kubeconfig({ token: await kube.tokenOf(namespace) }));
  if (policy === ESCROW)
    await kube.must("POST", `/api/v1/namespaces/${namespace}/secrets`, { metadata: { name: SECRET } });
  const tools = { configDir: dir, env: { HOME: dir } };
  return { kubeconfig, namespace, app: "chat-prod", tools };
};
const without = (rules: readonly Rule[], verb: string): readonly Rule[] =>
  rules.map((rule) => ({ ...rule, verbs: rule.verbs.filter((one) => one !== verb) }));
const failing = (checks: readonly Check[] | undefined) =>
  (checks ?? [])
    .filter(({ status }) => status === "fail" || status === "unproved")
    .map(({ id, status, code }) => `${id} ${status} ${code}`);

ledgerContract("ConfigMaps of a real API server", async () => {
  const here = await place(LEDGER);
  return { open: () => kubernetesLedger(here) };
});

escrowContract("a Secret of a real API server", async () => {
  const here = await place(ESCROW);
  const path = `/api/v1/namespaces/${here.namespace}/secrets/${SECRET}`;
  const open = () => kubernetesEscrow({ ...here, identity: null });
  return {
    escrow: open(),
    again: open,
    damage: async (fp) => {
      const { data } = (await kube.must("GET", path)) as { readonly data: Readonly<Record<string, string>> };
      const bytes = Buffer.from(data[fp] ?? "", "base64");
      bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
      await kube.must("PATCH", path, { data: { [fp]: bytes.toString("base64") } });
    },
  };
});

describe("the ledger", () => {
  test("its role adds and reads, and nothing else; an entry cannot be changed even by an administrator", async () => {
    const here = await place(LEDGER);
    const ledger = kubernetesLedger(here);
    expect(failing(await ledger.preflight?.(soon()))).toEqual([]);
    expect(await ledger.read(0)).toEqual([]);
    await ledger.create(0, line(0));
    const token = await kube.tokenOf(here.namespace);
    expect(await rightsOf(kube, here.namespace, token, ["configmaps", "secrets", "pods"])).toEqual([
      "create configmaps",
      "get configmaps",
    ]);
    const path = `/api/v1/namespaces/${here.namespace}/configmaps/imkit-ledger-chat-prod-00000000`;
    expect((await kube.api("PATCH", path, {}, { token })).status).toBe(403);
    expect((await kube.api("DELETE", path, undefined, { token })).status).toBe(403);
    expect((await kube.api("GET", path.replace(/\/[^/]+$/, ""), undefined, { token })).status).toBe(403);
    const changed = { binaryData: { "entry.json": Buffer.from("{}\n").toString("base64") } };
    expect((await kube.api("PATCH", path, changed)).status).toBe(422);
  });

  test.each(["create", "get"])("without %s a named check fails, and nothing is done", async (verb) => {
    const here = await place(LEDGER, without(LEDGER.role.rules, verb));
    const ledger = kubernetesLedger({ ...here, pause: async () => {} });
    expect(failing(await ledger.preflight?.(soon()))).toEqual([`may-${verb} fail AUTHZ`]);
    await expect(ledger.create(0, line(0))).rejects.toMatchObject({ code: "LEDGER_UNWRITABLE" });
  });

  test("a quota that is used up, a namespace that is not there", async () => {
    const here = await place(LEDGER);
    const quotas = `/api/v1/namespaces/${here.namespace}/resourcequotas`;
    const hard = { "count/configmaps": "1" };
    await kube.must("POST", quotas, { metadata: { name: "few" }, spec: { hard } });
    await kube.must("PATCH", `${quotas}/few/status`, { status: { hard, used: hard } });
    const ledger = kubernetesLedger({ ...here, pause: async () => {} });
    await eventually("the quota", async () =>
      failing(await ledger.preflight?.(soon())).includes("api-server fail QUOTA"),
    );
    await expect(ledger.create(0, line(0))).rejects.toMatchObject({
      code: "LEDGER_UNWRITABLE",
      why: expect.stringContaining("QUOTA"),
    });
    await writeFile(join(dir, "admin.json"), kube.kubeconfig({ token: kube.adminToken }));
    const lost = kubernetesLedger({ ...here, kubeconfig: "admin.json", namespace: "not-there" });
    expect(failing(await lost.preflight?.(soon()))).toEqual(["api-server fail NOT_FOUND"]);
    expect((await lost.preflight?.(soon()))?.find(({ id }) => id === "api-server")?.fix).toContain(
      "kubectl create namespace not-there",
    );
  });

  test("another ledger is begun beside it with the same rights", async () => {
    const here = await place(LEDGER);
    await kubernetesLedger(here).create(0, line(0));
    const predecessor = kubernetesPredecessor(here);
    expect(await predecessor.look()).toMatchObject({ place: "here", seqs: [0] });
    await predecessor.setAside(null);
    await expect(kubernetesLedger(here).read(0)).rejects.toMatchObject({ code: "LEDGER_BROKEN" });
    await predecessor.ledger.create(0, line(0));
    expect(await kubernetesLedger(here).read(0)).toHaveLength(1);
  });
});

describe("the escrow", () => {
  test("its role reads and changes that one Secret; a sealed key comes back", async () => {
    const here = await place(ESCROW);
    const { generateX25519Identity } = await import("age-encryption");
    const identity = await generateX25519Identity();
    const escrow = kubernetesEscrow({ ...here, identity: async () => identity });
    expect(failing(await escrow.preflight?.(soon()))).toEqual([]);
    const key = new Secret(madeKey());
    const fp = randomBytes(8).toString("hex");
    await escrow.put(fp, key);
    expect((await escrow.get(fp))?.equals(key)).toBe(true);
    const token = await kube.tokenOf(here.namespace);
    expect(await rightsOf(kube, here.namespace, token, ["secrets", "configmaps"])).toEqual([
      `get secrets/${SECRET}`,
      `patch secrets/${SECRET}`,
    ]);
  });

  test.each(["get", "patch"])("without %s a named check fails, and no key is taken in", async (verb) => {
    const here = await place(ESCROW, without(ESCROW.role.rules, verb));
    const escrow = kubernetesEscrow({ ...here, identity: null, pause: async () => {} });
    expect(failing(await escrow.preflight?.(soon()))).toEqual([`may-${verb} fail AUTHZ`]);
    await expect(escrow.put(randomBytes(8).toString("hex"), new Secret(madeKey()))).rejects.toMatchObject({
      code: "ESCROW_FAILED",
    });
  });
});
