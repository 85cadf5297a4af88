import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import kubernetesRollout from "../../providers/rollouts/kubernetes.ts";
import type { Rollout, RolloutOp, RolloutState } from "../../src/ports.ts";
import { tempDir, toolsIn } from "../kit/provider-tools.ts";
import { eventually, kubernetes } from "./kubernetes.ts";
import { bind, ROLLOUT, type Rule, rightsOf } from "./kubernetes-role.ts";

/** Real controllers and scheduler; the pods are kwok's. Each world is a namespace, and an identity with the shipped role alone. */
const kube = kubernetes(inject("kubernetes"));
const soon = () => AbortSignal.timeout(30_000);
type Json = Record<string, unknown>;

let dir: string;
let remove: () => Promise<void>;
beforeAll(async () => void ({ dir, remove } = await tempDir()));
afterAll(async () => await remove());

const op = (rotation = "rotation-1"): RolloutOp => ({
  app: "chat-prod",
  rotation,
  opId: "0".repeat(32),
  fingerprint: "00112233445566aa",
});

const place = async (rules?: readonly Rule[]) => {
  const namespace = await kube.namespace();
  await bind(kube, namespace, ROLLOUT, rules);
  const kubeconfig = `${namespace}.json`;
  await writeFile(join(dir, kubeconfig), kube.kubeconfig({ token: await kube.tokenOf(namespace) }));
  const apps = `/apis/apps/v1/namespaces/${namespace}`;
  const template = (labels: Json = {}, annotations: Json = {}) => ({
    metadata: { labels: { app: "api", ...labels }, annotations },
    spec: { containers: [{ name: "main", image: "chat:1" }], terminationGracePeriodSeconds: 1 },
  });
  const make = async (kind: string, name: string, spec: Json) => {
    const selector = { matchLabels: { app: "api" } };
    await kube.must("POST", `${apps}/${kind}s`, {
      metadata: { name },
      spec: { selector, template: template(), ...spec },
    });
  };
  const get = async (kind: string, name: string) =>
    (await kube.must("GET", `${apps}/${kind}s/${name}`)) as {
      readonly spec: Json;
      readonly status: Json;
      readonly metadata: Json;
    };
  /** Which restart each pod that is there is of, as its own annotation says; the API server's own view, not the rollout's. */
  const pods = async () => {
    const { items } = (await kube.must("GET", `/api/v1/namespaces/${namespace}/pods`)) as {
      readonly items: readonly {
        readonly metadata: {
          readonly annotations?: Readonly<Record<string, string>>;
          readonly deletionTimestamp?: string;
        };
      }[];
    };
    return items.map(({ metadata }) => metadata.annotations?.["imkit-rotator/rotation"] ?? "old");
  };
  const open = (workloads: readonly string[], timeout = "1m"): Rollout =>
    kubernetesRollout.open({ kubeconfig, namespace, workloads: [...workloads], timeout }, toolsIn(dir).tools);
  return { namespace, apps, make, get, pods, open, template };
};

/** Polls fast, and looks at the pods after each answer that says done. */
const toEnd = async (
  rollout: Rollout,
  first: RolloutState,
  rotation: RolloutOp,
): Promise<readonly RolloutState[]> => {
  const seen = [first];
  const end = performance.now() + 50_000;
  for (let now = first; now.state === "rolling"; ) {
    if (performance.now() > end) throw new Error(`still rolling: ${now.reason}`);
    await sleep(20);
    now = (await rollout.watch?.(rotation, soon())) ?? now;
    seen.push(now);
  }
  return seen;
};
const settled = async (here: Awaited<ReturnType<typeof place>>, kind: string, name: string, count: number) =>
  await eventually(`${count} pods of ${name}`, async () => {
    const { status } = await here.get(kind, name);
    return (
      (status["availableReplicas"] ?? status["numberAvailable"]) === count &&
      status["observedGeneration"] === 1
    );
  });

describe("a Deployment of four", () => {
  test("rolls to the last pod; the stale look after the patch is not done, and done is said when no old pod is there", async () => {
    const here = await place();
    await here.make("deployment", "api", { replicas: 4 });
    await settled(here, "deployment", "api", 4);
    const rollout = here.open(["deployment/api"]);
    expect((await rollout.preflight(soon())).map(({ status }) => status)).toEqual(["ok", "ok", "ok", "ok"]);
    const first = await rollout.trigger(op(), soon());
    expect(first.state).toBe("rolling");
    const seen = await toEnd(rollout, first, op());
    expect(seen.at(-1)).toEqual({ state: "done", proof: 1, reason: "" });
    expect(await here.pods()).toEqual(Array.from({ length: 4 }, () => "rotation-1"));
    expect(seen.length).toBeGreaterThan(2);

    const { metadata } = await here.get("deployment", "api");
    expect(await rollout.trigger(op(), soon())).toMatchObject({ state: "done" });
    expect((await here.get("deployment", "api")).metadata["generation"]).toBe(metadata["generation"]);

    // The way back has another name: the template is another one, and all pods are made again.
    const back = await rollout.trigger(op("rotation-1-1"), soon());
    expect(back.state).toBe("rolling");
    await toEnd(rollout, back, op("rotation-1-1"));
    expect(await here.pods()).toEqual(Array.from({ length: 4 }, () => "rotation-1-1"));
  });

  test("paused: held, preflight says so; resumed by a person it rolls, and the next run finds it done", async () => {
    const here = await place();
    await here.make("deployment", "api", { replicas: 2, paused: false });
    await settled(here, "deployment", "api", 2);
    await kube.must("PATCH", `${here.apps}/deployments/api`, { spec: { paused: true } });
    const rollout = here.open(["deployment/api"]);
    expect((await rollout.preflight(soon())).find(({ id }) => id === "workload")).toMatchObject({
      status: "fail",
      fix: `kubectl -n ${here.namespace} rollout resume deployment/api`,
    });
    const held = (await toEnd(rollout, await rollout.trigger(op(), soon()), op())).at(-1);
    expect(held).toMatchObject({
      state: "held",
      reason: expect.stringContaining("it is paused; 0 of 2 pods new"),
    });
    await kube.must("PATCH", `${here.apps}/deployments/api`, { spec: { paused: false } });
    expect((await toEnd(rollout, await rollout.trigger(op(), soon()), op())).at(-1)?.state).toBe("done");
    expect(await here.pods()).toEqual(["rotation-1", "rotation-1"]);
  });

  test("new pods that never become ready: failed in time, by its own limit or by ours, while the old ones serve", async () => {
    const stuck = async (progressDeadlineSeconds: number, timeout: string) => {
      const here = await place();
      await here.make("deployment", "api", { replicas: 4, progressDeadlineSeconds });
      await settled(here, "deployment", "api", 4);
      const rollout = here.open(["deployment/api"], timeout);
      await kube.must("PATCH", `${here.apps}/deployments/api`, { spec: { paused: true } });
      const never = { "peers/never-ready": "1" };
      await kube.must("PATCH", `${here.apps}/deployments/api`, {
        spec: { template: { metadata: { labels: never } } },
      });
      await rollout.trigger(op(), soon());
      await kube.must("PATCH", `${here.apps}/deployments/api`, { spec: { paused: false } });
      const end = (await toEnd(rollout, await rollout.trigger(op(), soon()), op())).at(-1);
      expect((await here.pods()).filter((of) => of === "old").length).toBeGreaterThanOrEqual(3);
      return end;
    };
    const [own, ours] = await Promise.all([stuck(6, "1m"), stuck(600, "3s")]);
    expect(own).toMatchObject({
      state: "failed",
      reason: expect.stringContaining("progressDeadlineSeconds"),
    });
    expect(ours).toMatchObject({
      state: "failed",
      reason: expect.stringMatching(/^not done within 3s: deployment\/api: 2 of 4 pods new, 3 available/),
    });
  });

  test("no replicas: held", async () => {
    const here = await place();
    await here.make("deployment", "api", { replicas: 0 });
    const rollout = here.open(["deployment/api"]);
    expect((await rollout.preflight(soon())).find(({ id }) => id === "workload")?.status).toBe("warn");
    expect((await toEnd(rollout, await rollout.trigger(op(), soon()), op())).at(-1)?.state).toBe("held");
  });
});

describe("StatefulSets and DaemonSets", () => {
  test("roll in order to the end", async () => {
    const here = await place();
    await here.make("statefulset", "worker", { replicas: 3, serviceName: "worker" });
    await settled(here, "statefulset", "worker", 3);
    const rollout = here.open(["statefulset/worker"]);
    const seen = await toEnd(rollout, await rollout.trigger(op(), soon()), op());
    expect(seen.map(({ state }) => state)).toEqual([...seen.slice(1).map(() => "rolling"), "done"]);
    expect(await here.pods()).toEqual(["rotation-1", "rotation-1", "rotation-1"]);
  });

  test("a partition: held, with what is new so far; without it the next run ends", async () => {
    const here = await place();
    const strategy = (partition: number) => ({
      updateStrategy: { type: "RollingUpdate", rollingUpdate: { partition } },
    });
    await here.make("statefulset", "worker", { replicas: 3, serviceName: "worker", ...strategy(2) });
    await settled(here, "statefulset", "worker", 3);
    const rollout = here.open(["statefulset/worker"]);
    const held = (await toEnd(rollout, await rollout.trigger(op(), soon()), op())).at(-1);
    expect(held).toMatchObject({ state: "held", reason: expect.stringContaining("partition") });
    await kube.must("PATCH", `${here.apps}/statefulsets/worker`, { spec: strategy(0) });
    expect((await toEnd(rollout, await rollout.trigger(op(), soon()), op())).at(-1)?.state).toBe("done");
    expect(await here.pods()).toEqual(["rotation-1", "rotation-1", "rotation-1"]);
  });

  test("OnDelete: held until a person has deleted each old pod", async () => {
    const here = await place();
    await here.make("statefulset", "worker", {
      replicas: 2,
      serviceName: "worker",
      updateStrategy: { type: "OnDelete" },
    });
    await settled(here, "statefulset", "worker", 2);
    const rollout = here.open(["statefulset/worker"]);
    const held = (await toEnd(rollout, await rollout.trigger(op(), soon()), op())).at(-1);
    expect(held).toMatchObject({ state: "held", reason: expect.stringContaining("OnDelete") });
    for (const name of ["worker-0", "worker-1"])
      await kube.must("DELETE", `/api/v1/namespaces/${here.namespace}/pods/${name}`);
    await eventually("pods of the new template", async () => {
      const again = (await toEnd(rollout, await rollout.trigger(op(), soon()), op())).at(-1);
      return again?.state === "done";
    });
    expect(await here.pods()).toEqual(["rotation-1", "rotation-1"]);
  });

  test("a DaemonSet on two nodes; one that no node runs is held", async () => {
    const here = await place();
    await here.make("daemonset", "agent", {});
    await settled(here, "daemonset", "agent", 2);
    const rollout = here.open(["daemonset/agent"]);
    expect((await toEnd(rollout, await rollout.trigger(op(), soon()), op())).at(-1)?.state).toBe("done");
    expect(await here.pods()).toEqual(["rotation-1", "rotation-1"]);
    const nowhere = { template: { spec: { nodeSelector: { none: "such" } } } };
    await kube.must("PATCH", `${here.apps}/daemonsets/agent`, { spec: nowhere });
    await eventually("no node", async () => (await rollout.watch?.(op(), soon()))?.state === "held");
  });
});

describe("rights", () => {
  const ALL = ["deployment/api", "statefulset/worker", "daemonset/agent"];
  const KINDS = ["deployments", "statefulsets", "daemonsets", "secrets", "pods"];
  const rules = ROLLOUT.role.rules;
  const made = async (given?: readonly Rule[]) => {
    const here = await place(given);
    await here.make("deployment", "api", { replicas: 1 });
    await here.make("statefulset", "worker", { replicas: 1, serviceName: "worker" });
    await here.make("daemonset", "agent", {});
    return here;
  };

  test("the shipped role is enough, names each workload, and grants nothing else", async () => {
    const here = await made();
    await eventually(
      "the DaemonSet's nodes",
      async () => (await here.get("daemonset", "agent")).status["desiredNumberScheduled"] === 2,
    );
    const rollout = here.open(ALL);
    expect((await rollout.preflight(soon())).filter(({ status }) => status !== "ok")).toEqual([]);
    expect((await toEnd(rollout, await rollout.trigger(op(), soon()), op())).at(-1)?.state).toBe("done");
    const token = await kube.tokenOf(here.namespace);
    expect(await rightsOf(kube, here.namespace, token, KINDS)).toEqual(
      ["get", "patch"].flatMap((verb) => [
        `${verb} daemonsets/agent`,
        `${verb} deployments/api`,
        `${verb} statefulsets/worker`,
      ]),
    );
  });

  const each = rules.flatMap(({ verbs, resources }, at) =>
    verbs.map((verb) => ({ verb, resource: resources[0] ?? "", at })),
  );
  test.each(each)("without $verb of $resource a named check fails", async ({ verb, resource, at }) => {
    const less = rules.map((rule, index) =>
      index === at ? { ...rule, verbs: rule.verbs.filter((one) => one !== verb) } : rule,
    );
    const here = await made(less);
    const bad = (await here.open(ALL).preflight(soon())).filter(({ status }) => status === "fail");
    expect(bad).toMatchObject([
      { id: `may-${verb}`, code: "AUTHZ", message: expect.stringContaining(resource) },
    ]);
  });
});
