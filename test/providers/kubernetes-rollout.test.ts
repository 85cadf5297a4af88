import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import kubernetes, { openWorkloads } from "../../providers/rollouts/kubernetes.ts";
import { type Kind, standingOf } from "../../providers/rollouts/kubernetes-standing.ts";
import { ProviderError } from "../../src/core/errors.ts";
import type { RolloutOp } from "../../src/ports.ts";
import { type FakeKube, kubeServer } from "../kit/kube-server.ts";
import { tempDir, toolsIn } from "../kit/provider-tools.ts";

const VENDOR = "vendor-words-that-nobody-may-see";
const soon = () => AbortSignal.timeout(10_000);
const op = (rotation = "rotation-1"): RolloutOp => ({
  app: "chat-prod",
  rotation,
  opId: "0".repeat(32),
  fingerprint: "00112233445566aa",
});
type Json = Record<string, unknown>;

let kube: FakeKube;
let dir: string;
let remove: () => Promise<void>;
let now = 0;
beforeEach(async () => {
  ({ dir, remove } = await tempDir());
  kube = await kubeServer();
  now = 0;
  await writeFile(join(dir, "kubeconfig"), kube.kubeconfig());
});
afterEach(async () => {
  await kube.close();
  await remove();
});

const open = (workloads: readonly string[], timeout = "5m") =>
  openWorkloads(
    { kubeconfig: "kubeconfig", namespace: "chat", workloads: [...workloads], timeout },
    toolsIn(dir).tools,
    () => now,
  );
const full = { observedGeneration: 1, replicas: 4, updatedReplicas: 4, availableReplicas: 4 };
const deployment = (spec: Json = {}, status: Json = full): void =>
  kube.set("deployments", "chat/api", { spec: { replicas: 4, template: {}, ...spec }, status });
const status = (next: Json) => kube.set("deployments", "chat/api", { status: next });
const template = (name = "deployments/chat/api") =>
  (kube.others.get(name) as { readonly spec: { readonly template: { readonly metadata: Json } } }).spec
    .template.metadata;
const patches = () => kube.requests.filter(({ method, dryRun }) => method === "PATCH" && !dryRun).length;

describe("a Deployment", () => {
  test("is restarted by one annotation; the look right after it shows the old counts, and is not done", async () => {
    deployment({ template: { metadata: { annotations: { note: "kept" } } } });
    const rollout = open(["deployment/api"]);
    expect(await rollout.trigger(op(), soon())).toMatchObject({ state: "rolling", proof: 0 });
    expect(template()["annotations"]).toEqual({
      note: "kept",
      "imkit-rotator/rotation": "rotation-1",
      "imkit-rotator/app": "chat-prod",
    });
    expect(await rollout.watch?.(op(), soon())).toMatchObject({ state: "rolling" });
    status({ observedGeneration: 2, replicas: 5, updatedReplicas: 2, availableReplicas: 3 });
    expect(await rollout.watch?.(op(), soon())).toEqual({
      state: "rolling",
      proof: 0,
      reason: "deployment/api: 2 of 4 pods new, 3 available, 3 old",
    });
    status({ replicas: 4, updatedReplicas: 4, availableReplicas: 4 });
    expect(await rollout.watch?.(op(), soon())).toEqual({ state: "done", proof: 1, reason: "" });
  });

  test("a repeat changes nothing; a way back, which has another name, restarts again", async () => {
    deployment();
    const rollout = open(["deployment/api"]);
    await rollout.trigger(op(), soon());
    status({ observedGeneration: 2 });
    expect(await rollout.trigger(op(), soon())).toMatchObject({ state: "done", proof: 1 });
    expect(patches()).toBe(1);
    expect(await rollout.trigger(op("rotation-1-1"), soon())).toMatchObject({ state: "rolling" });
    expect(patches()).toBe(2);
  });

  test.each([
    ["an old pod is left", { replicas: 5 }],
    ["one is not available", { availableReplicas: 3 }],
    ["one is not new", { updatedReplicas: 3 }],
    ["an old pod is ending", { terminatingReplicas: 1 }],
    ["a count is none", { availableReplicas: "4" }],
    ["the newest generation was not looked at", { observedGeneration: 1 }],
  ])("is not done while %s", async (_, odd) => {
    deployment();
    const rollout = open(["deployment/api"]);
    await rollout.trigger(op(), soon());
    status({ observedGeneration: 2, ...odd });
    expect(await rollout.watch?.(op(), soon())).toMatchObject({ state: "rolling", proof: 0 });
  });

  test("paused: held, and done once it was resumed and rolled", async () => {
    deployment({ paused: true });
    const rollout = open(["deployment/api"]);
    await rollout.trigger(op(), soon());
    status({ observedGeneration: 2, updatedReplicas: 0 });
    expect(await rollout.watch?.(op(), soon())).toEqual({
      state: "held",
      proof: 0,
      reason: "deployment/api: it is paused; 0 of 4 pods new, 4 available, 4 old",
    });
    kube.set("deployments", "chat/api", { spec: { paused: null } });
    status({ observedGeneration: 3, updatedReplicas: 4 });
    expect(await rollout.trigger(op(), soon())).toMatchObject({ state: "done" });
    expect(patches()).toBe(1);
  });

  test("no replicas: held", async () => {
    deployment({ replicas: 0 }, { observedGeneration: 1 });
    const held = await open(["deployment/api"]).trigger(op(), soon());
    expect(held).toMatchObject({ state: "held", reason: expect.stringContaining("no replicas") });
  });

  test("no progress within its own limit: failed, once the controller has looked at this restart", async () => {
    const stuck = [
      { type: "Progressing", status: "False", reason: "ProgressDeadlineExceeded", message: VENDOR },
    ];
    deployment({}, { ...full, conditions: stuck });
    const rollout = open(["deployment/api"]);
    expect(await rollout.trigger(op(), soon())).toMatchObject({ state: "rolling" });
    status({ observedGeneration: 2, updatedReplicas: 2, availableReplicas: 3 });
    const failed = await rollout.watch?.(op(), soon());
    expect(failed).toMatchObject({ state: "failed", proof: 0 });
    expect(JSON.stringify(failed)).not.toContain(VENDOR);
  });

  test("our own limit: failed with what is missing, in counts; a new try has the whole time again", async () => {
    deployment();
    const rollout = open(["deployment/api"], "1m");
    await rollout.trigger(op(), soon());
    status({ observedGeneration: 2, updatedReplicas: 1, availableReplicas: 3 });
    now = 59_000;
    expect(await rollout.watch?.(op(), soon())).toMatchObject({ state: "rolling" });
    now = 60_000;
    expect(await rollout.watch?.(op(), soon())).toEqual({
      state: "failed",
      proof: 0,
      reason: "not done within 1m: deployment/api: 1 of 4 pods new, 3 available, 3 old",
    });
    expect(await rollout.trigger(op(), soon())).toMatchObject({ state: "rolling" });
    expect(patches()).toBe(1);
  });

  test("undone by another hand, never restarted, or being deleted: never done", async () => {
    deployment();
    const rollout = open(["deployment/api"]);
    expect(await rollout.watch?.(op(), soon())).toMatchObject({ state: "failed" });
    await rollout.trigger(op(), soon());
    status({ observedGeneration: 2 });
    const gone = { "imkit-rotator/rotation": null };
    kube.set("deployments", "chat/api", { spec: { template: { metadata: { annotations: gone } } } });
    status({ observedGeneration: 3 });
    expect(await rollout.watch?.(op(), soon())).toMatchObject({ state: "failed" });
    deployment();
    await rollout.trigger(op(), soon());
    status({ observedGeneration: 9 });
    kube.set("deployments", "chat/api", { metadata: { deletionTimestamp: "2026-01-01T00:00:00Z" } });
    expect(await rollout.watch?.(op(), soon())).toMatchObject({ state: "failed" });
  });
});

describe("a StatefulSet and a DaemonSet", () => {
  const RESTARTED = { metadata: { annotations: { "imkit-rotator/rotation": "r" } } };
  const look = (kind: Kind, spec: Json, of: Json) =>
    standingOf(
      kind,
      {
        metadata: { generation: 2 },
        spec: { template: RESTARTED, ...spec },
        status: { observedGeneration: 2, ...of },
      },
      "r",
    );
  const three = {
    replicas: 3,
    updatedReplicas: 3,
    availableReplicas: 3,
    updateRevision: "b",
    currentRevision: "b",
  };
  const two = {
    desiredNumberScheduled: 2,
    currentNumberScheduled: 2,
    updatedNumberScheduled: 2,
    numberAvailable: 2,
  };
  const onDelete = { updateStrategy: { type: "OnDelete" } };
  const partition = { replicas: 3, updateStrategy: { rollingUpdate: { partition: 2 } } };

  test.each<[string, Kind, Json, Json, string]>([
    ["all new", "statefulset", { replicas: 3 }, three, "done"],
    ["two revisions", "statefulset", { replicas: 3 }, { ...three, currentRevision: "a" }, "rolling"],
    [
      "no revision",
      "statefulset",
      { replicas: 3 },
      { ...three, updateRevision: undefined, currentRevision: undefined },
      "rolling",
    ],
    ["one not available", "statefulset", { replicas: 3 }, { ...three, availableReplicas: 2 }, "rolling"],
    ["a partition", "statefulset", partition, { ...three, updatedReplicas: 1, currentRevision: "a" }, "held"],
    ["a partition, by hand done", "statefulset", partition, three, "done"],
    [
      "OnDelete",
      "statefulset",
      { replicas: 3, ...onDelete },
      { ...three, updatedReplicas: 1, currentRevision: "a" },
      "held",
    ],
    [
      "OnDelete, all deleted by hand",
      "statefulset",
      { replicas: 3, ...onDelete },
      { ...three, currentRevision: "a" },
      "done",
    ],
    [
      "OnDelete, the last one starting",
      "statefulset",
      { replicas: 3, ...onDelete },
      { ...three, availableReplicas: 2 },
      "rolling",
    ],
    ["no replicas", "statefulset", { replicas: 0 }, {}, "held"],
    ["all new", "daemonset", {}, two, "done"],
    ["one unavailable", "daemonset", {}, { ...two, numberAvailable: 1, numberUnavailable: 1 }, "rolling"],
    ["one old", "daemonset", {}, { ...two, updatedNumberScheduled: 1 }, "rolling"],
    ["one where it should not be", "daemonset", {}, { ...two, numberMisscheduled: 1 }, "rolling"],
    ["OnDelete", "daemonset", onDelete, { ...two, updatedNumberScheduled: 0 }, "held"],
    ["no node", "daemonset", {}, { desiredNumberScheduled: 0 }, "held"],
  ])("%s (%s)", (_, kind, spec, of, state) => {
    expect(look(kind, spec, of)).toMatchObject({ state });
  });

  test("done is never said unless every count is the wanted one, whatever else is there", () => {
    const odd = fc.oneof(fc.integer({ min: 0, max: 3 }), fc.constantFrom(undefined, null, -1, "3", 1.5));
    const small = fc.oneof({ weight: 9, arbitrary: fc.constant(2) }, { weight: 1, arbitrary: odd });
    const none = fc.oneof({ weight: 9, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: odd });
    let done = 0;
    const names = [
      "observedGeneration",
      "replicas",
      "updatedReplicas",
      "availableReplicas",
      "unavailableReplicas",
      "terminatingReplicas",
      "desiredNumberScheduled",
      "currentNumberScheduled",
      "updatedNumberScheduled",
      "numberAvailable",
      "numberUnavailable",
      "numberMisscheduled",
    ];
    const statuses = fc.record(
      Object.fromEntries(names.map((name) => [name, /^(un|ter)|Un|Mis/.test(name) ? none : small])),
    );
    const kinds = fc.constantFrom<Kind>("deployment", "statefulset", "daemonset");
    fc.assert(
      fc.property(kinds, statuses, small, (kind, of, replicas) => {
        const said = look(kind, { replicas }, { updateRevision: "b", currentRevision: "b", ...of });
        if (said.state !== "done") return;
        done += 1;
        const counts =
          kind === "daemonset"
            ? [of["updatedNumberScheduled"], of["numberAvailable"], of["currentNumberScheduled"]]
            : [of["updatedReplicas"], of["availableReplicas"], of["replicas"]];
        const wanted = kind === "daemonset" ? of["desiredNumberScheduled"] : (replicas ?? 1);
        expect(new Set([...counts, wanted]).size).toBe(1);
        expect(Number(of["observedGeneration"])).toBeGreaterThanOrEqual(2);
      }),
      { numRuns: 3_000 },
    );
    expect(done).toBeGreaterThan(100);
  });
});

describe("several workloads", () => {
  const two = ["deployment/api", "deployment/worker"];
  beforeEach(() => {
    deployment();
    kube.set("deployments", "chat/worker", { spec: { replicas: 4, template: {} }, status: full });
  });

  test("are restarted at once; the whole is as far as the last of them, and the worst is said", async () => {
    const rollout = open(two);
    expect(await rollout.trigger(op(), soon())).toMatchObject({ state: "rolling" });
    expect(patches()).toBe(2);
    status({ observedGeneration: 2 });
    expect(await rollout.watch?.(op(), soon())).toMatchObject({
      state: "rolling",
      reason: expect.stringMatching(/^deployment\/worker: [^;]*$/),
    });
    kube.set("deployments", "chat/worker", {
      spec: { paused: true },
      status: { observedGeneration: 3, updatedReplicas: 0 },
    });
    expect(await rollout.watch?.(op(), soon())).toMatchObject({ state: "held" });
    kube.set("deployments", "chat/worker", { status: full, spec: { paused: null } });
    kube.set("deployments", "chat/worker", { status: { observedGeneration: 9 } });
    expect(await rollout.watch?.(op(), soon())).toEqual({ state: "done", proof: 1, reason: "" });
  });

  test("one that is not there is an error that names it, and a repeat restarts the others no second time", async () => {
    const rollout = open([...two, "statefulset/gone"]);
    for (const _ of [1, 2]) {
      const error = await rollout.trigger(op(), soon()).catch((caught: unknown) => caught);
      expect(error).toMatchObject({ code: "NOT_FOUND", hint: "there is no statefulset/gone" });
    }
    expect(patches()).toBe(2);
  });
});

describe("trouble", () => {
  test("a lost answer is unknown, and the next look tells whether the restart was made", async () => {
    for (const when of ["before", "after"] as const) {
      deployment({ template: { metadata: null } });
      kube.fault = ({ method }) => (method === "PATCH" ? { kind: "drop", when } : null);
      const rollout = open(["deployment/api"]);
      const error = await rollout.trigger(op(when), soon()).catch((caught: unknown) => caught);
      expect(error).toMatchObject({ code: "UNAVAILABLE", outcome: "unknown" });
      kube.fault = () => null;
      const seen = await rollout.watch?.(op(when), soon());
      expect(seen?.state).toBe(when === "after" ? "rolling" : "failed");
    }
  });

  test("an API server that is away for a moment does not end a rollout; a right that was taken away does", async () => {
    deployment();
    const rollout = open(["deployment/api"]);
    await rollout.trigger(op(), soon());
    kube.fault = () => ({ kind: "answer", status: 503, body: { kind: "Status", message: VENDOR } });
    expect(await rollout.watch?.(op(), soon())).toMatchObject({ state: "rolling" });
    kube.fault = () => null;
    kube.denied.add("get");
    const error = await rollout.watch?.(op(), soon()).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(ProviderError);
    expect(error).toMatchObject({ code: "AUTHZ" });
    expect(inspect(error, { depth: 8, showHidden: true })).not.toContain(VENDOR);
  });
});

describe("preflight", () => {
  const found = async (workloads = ["deployment/api"]) =>
    (await open(workloads).preflight(soon()))
      .filter((check) => check.status !== "ok")
      .map(({ id, status: said, code = "" }) => `${id} ${said} ${code}`.trim());

  test.each([
    ["get", ["may-get fail AUTHZ"]],
    ["patch", ["may-patch fail AUTHZ"]],
  ])("without the right to %s", async (verb, checks) => {
    deployment();
    kube.denied.add(verb);
    expect(await found()).toEqual(checks);
  });

  test.each<[string, Json, readonly string[]]>([
    ["paused", { paused: true }, ["workload fail DISABLED"]],
    ["no replicas", { replicas: 0 }, ["workload warn"]],
    ["as it should be", {}, []],
  ])("a Deployment: %s", async (_, spec, checks) => {
    deployment(spec);
    expect(await found()).toEqual(checks);
    expect(patches()).toBe(0);
  });

  test("OnDelete and a partition are said before, and do not stop a rotation", async () => {
    const set = (updateStrategy: Json) =>
      kube.set("statefulsets", "chat/db", { spec: { replicas: 2, template: {}, updateStrategy } });
    set({ type: "OnDelete" });
    expect(await found(["statefulset/db"])).toEqual(["workload warn"]);
    set({ type: "RollingUpdate", rollingUpdate: { partition: 1 } });
    expect(await found(["statefulset/db"])).toEqual(["workload warn"]);
  });

  test("no such workload; an admission policy; no API server", async () => {
    expect(await found()).toEqual(["workload fail NOT_FOUND"]);
    deployment();
    const message = `admission webhook "x" denied the request: ${VENDOR}`;
    const body = { kind: "Status", reason: "Forbidden", message, details: {} };
    kube.fault = ({ dryRun }) => (dryRun ? { kind: "answer", status: 403, body } : null);
    expect(await found()).toEqual(["dry-run fail AUTHZ"]);
    expect(JSON.stringify(await open(["deployment/api"]).preflight(soon()))).not.toContain(VENDOR);
    await kube.close();
    expect(await found()).toEqual(["api-server fail UNAVAILABLE"]);
  });
});

test("the config: kinds, names, no workload twice, a limit of its time", () => {
  const base = { namespace: "chat", workloads: ["deployment/api"] };
  const isSound = (more: Json) => validate({ ...base, ...more });
  expect(isSound({})).toBe(true);
  expect(isSound({ workloads: ["statefulset/a.b-c", "daemonset/x"], timeout: "30m" })).toBe(true);
  for (const workloads of [
    [],
    ["api"],
    ["pod/api"],
    ["deployments/api"],
    ["deployment/Api"],
    ["deployment/a/b"],
  ])
    expect(isSound({ workloads }), workloads[0]).toBe(false);
  expect(isSound({ workloads: ["deployment/api", "deployment/api"] })).toBe(false);
  for (const timeout of ["31m", "0s", "5"]) expect(isSound({ timeout }), timeout).toBe(false);
  expect(isSound({ namespace: "../x" })).toBe(false);
});
const validate = (config: Json): boolean => {
  const result = (
    kubernetes.schema as unknown as {
      "~standard": { validate: (value: unknown) => { readonly issues?: readonly unknown[] } };
    }
  )["~standard"].validate(config);
  return result.issues === undefined;
};
