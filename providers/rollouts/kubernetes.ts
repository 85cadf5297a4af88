import * as z from "zod/mini";
import { ProviderError, RETRYABLE } from "../../src/core/errors.ts";
import type { Rollout, RolloutOp, RolloutState } from "../../src/ports.ts";
import { timeLimit } from "../config-keys.ts";
import { bounded, defineRollout, durationMs, monotonicMs, refused, type Tools } from "../kit.ts";
import { kubePlace } from "../kubernetes-rights.ts";
import { DNS_LABEL, isAbsent, kubeKeys, kubeProblem, openKube } from "../kubernetes.ts";
import { checkWorkload } from "./kubernetes-preflight.ts";
import {
  type Kind,
  ROTATION,
  rotationIn,
  type Standing,
  standingOf,
  type Workload,
} from "./kubernetes-standing.ts";

const WORKLOAD = /^(deployment|statefulset|daemonset)\/(?=.{1,253}$)[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/;

const schema = z.strictObject({
  ...kubeKeys,
  namespace: z.string().check(z.regex(DNS_LABEL), z.describe("Namespace of the workloads.")),
  workloads: z
    .array(
      z
        .string()
        .check(z.regex(WORKLOAD, "must be deployment/<name>, statefulset/<name> or daemonset/<name>")),
    )
    .check(
      z.minLength(1),
      z.maxLength(50),
      z.refine((all) => new Set(all).size === all.length, "names a workload twice"),
      z.describe("What is restarted, all at once: deployment/<name>, statefulset/<name>, daemonset/<name>."),
    ),
  timeout: timeLimit(
    "5m",
    { leastMs: 1_000, mostMs: 1_800_000, rule: "1s to 30m" },
    "How long all of them may take, 1s to 30m.",
  ),
});
type Config = z.infer<typeof schema>;

const LIMIT_MS = 30_000;

/**
 * Restarts Deployments, StatefulSets and DaemonSets by an annotation of their pod template whose value is the rotation, so that a repeat
 * changes nothing and a way back (which has another name) restarts again. Done is what the controllers count: every pod new and available,
 * and no old one left. A workload that cannot finish by itself (paused, OnDelete, a partition, no replicas) is `held`; its annotation is
 * set all the same, so that its next restart is this one.
 *
 * Known limits. The time limit begins anew when another process goes on. Old pods of a Deployment in their last seconds are seen only
 * where the API server counts them (terminatingReplicas, Kubernetes 1.35). One workload that reads the keys of two apps which rotate at
 * the same time is restarted for the one that comes last; the other one fails, and is restarted by its next run.
 */
export default defineRollout({
  kind: "kubernetes",
  schema,
  open: (config, tools) => openWorkloads(config, tools),
});

/** `now`: milliseconds of a clock that never jumps. */
export const openWorkloads = (config: Config, tools: Tools, now = monotonicMs): Rollout => {
  const { namespace, timeout } = config;
  const kube = openKube(config, tools);
  const workloads = config.workloads.map((text): Workload => {
    const [kind, name] = text.split("/") as [Kind, string];
    return { kind, name, path: `/apis/apps/v1/namespaces/${namespace}/${kind}s/${name}` };
  });
  const began = new Map<string, number>();

  const fetched = async ({ kind, name, path }: Workload, signal: AbortSignal): Promise<unknown> => {
    const answer = await kube.call({ method: "GET", path }, signal);
    if (isAbsent(answer, `${kind}s`, name)) throw refused("NOT_FOUND", `there is no ${kind}/${name}`);
    if (answer.status !== 200) throw kubeProblem(answer, false);
    return answer.body;
  };

  const restarted = async (
    workload: Workload,
    op: RolloutOp,
    signal: AbortSignal,
    commit: () => void,
  ): Promise<Standing> => {
    const object = await fetched(workload, signal);
    if (rotationIn(object) === op.rotation) return standingOf(workload.kind, object, op.rotation);
    const annotations = { [ROTATION]: op.rotation, "imkit-rotator/app": op.app };
    const body = { spec: { template: { metadata: { annotations } } } };
    const path = `${workload.path}?fieldManager=imkit-rotator`;
    const answer = await kube.call({ method: "PATCH", path, body }, signal, commit);
    if (answer.status !== 200) throw kubeProblem(answer, true);
    return standingOf(workload.kind, answer.body, op.rotation);
  };

  /** One after the other would make the whole last as long as the sum. */
  const all = async (
    op: RolloutOp,
    signal: AbortSignal,
    work: (workload: Workload, signal: AbortSignal, commit: () => void) => Promise<Standing>,
  ): Promise<RolloutState> => {
    const found = await bounded(signal, LIMIT_MS, async (both, commit) => {
      const ends = await Promise.allSettled(workloads.map((one) => work(one, both, commit)));
      const errors = ends.flatMap((end, at) =>
        end.status === "rejected" ? [named(end.reason, workloads[at]?.name ?? "")] : [],
      );
      // Of several the one that leaves the most open: what was sent may have been done.
      const worst = errors.find(({ outcome }) => outcome !== "not_applied") ?? errors[0];
      if (worst !== undefined) throw worst;
      return ends.flatMap((end) => (end.status === "fulfilled" ? [end.value] : []));
    });
    const { state, reason } = together(found, workloads);
    const late = now() - (began.get(op.rotation) ?? now()) >= durationMs(timeout);
    if (state === "rolling" && late) return answer("failed", `not done within ${timeout}: ${reason}`);
    return answer(state, reason);
  };

  return {
    where: `kubernetes:${kubePlace(config, namespace)}/${placeOf(config.workloads)}`,
    how: "auto",
    reason: "",
    preflight: async (signal) => {
      const place = { ...config, kube };
      return (await Promise.all(workloads.map((one) => checkWorkload(place, one, signal)))).flat();
    },
    trigger: async (op, signal) => {
      began.set(op.rotation, now());
      return await all(op, signal, (one, both, commit) => restarted(one, op, both, commit));
    },
    watch: async (op, signal) => {
      if (!began.has(op.rotation)) began.set(op.rotation, now());
      const look = async (one: Workload, both: AbortSignal): Promise<Standing> => {
        try {
          return standingOf(one.kind, await fetched(one, both), op.rotation);
        } catch (error) {
          // An API server that is away for a moment stops no rollout.
          if (both.aborted || !(error instanceof ProviderError) || !RETRYABLE.has(error.code)) throw error;
          return { state: "rolling", reason: "the API server does not answer" };
        }
      };
      return await all(op, signal, look);
    },
  };
};

/** The worst of them: what failed, what still moves, what waits for a person. */
const together = (found: readonly Standing[], workloads: readonly Workload[]): Standing => {
  const state = (["failed", "rolling", "held"] as const).find((one) =>
    found.some((each) => each.state === one),
  );
  if (state === undefined)
    return { state: found.length === workloads.length ? "done" : "failed", reason: "" };
  const told = found.flatMap((each, at) =>
    each.state === state ? [`${workloads[at]?.kind}/${workloads[at]?.name}: ${each.reason}`] : [],
  );
  const more = told.length > 3 ? `; and ${told.length - 3} more` : "";
  return { state, reason: `${told.slice(0, 3).join("; ")}${more}` };
};

const answer = (state: RolloutState["state"], reason: string): RolloutState => ({
  state,
  proof: state === "done" ? 1 : 0,
  reason: reason.slice(0, 600),
});

const placeOf = (workloads: readonly string[]): string => {
  const all = workloads.join(",");
  return all.length <= 100 ? all : `${(workloads[0] ?? "").slice(0, 80)} and ${workloads.length - 1} more`;
};

const named = (error: unknown, name: string): ProviderError => {
  if (!(error instanceof ProviderError)) return new ProviderError("UNAVAILABLE", "unknown", name);
  const { code, outcome, hint, retryAfterMs } = error;
  return new ProviderError(code, outcome, hint.includes(name) ? hint : `${name}: ${hint}`, retryAfterMs);
};
