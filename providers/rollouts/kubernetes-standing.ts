import type { RolloutState } from "../../src/ports.ts";
import { field } from "../kubernetes.ts";

export type Kind = "deployment" | "statefulset" | "daemonset";
/** `path` is its address at the API server. */
export type Workload = { readonly kind: Kind; readonly name: string; readonly path: string };
export type Standing = Pick<RolloutState, "state" | "reason">;

/** Set in the pod template: another value there makes another generation of pods. */
export const ROTATION = "imkit-rotator/rotation";

/**
 * How far a workload has come, by what the API server says of it. A look right after a change shows the counts of before, which look
 * finished: so nothing counts before the controller has seen the newest generation.
 * @param object as the API server gives it
 * @param rotation the value that the pod template's annotation must have
 */
export const standingOf = (kind: Kind, object: unknown, rotation: string): Standing => {
  const [metadata, spec, status] = ["metadata", "spec", "status"].map((name) => field(object, name));
  if (field(metadata, "deletionTimestamp") !== undefined) return failed("it is being deleted");
  if (rotationIn(object) !== rotation)
    return failed("its pods are not of this restart: it was undone, or never made");
  const counts = COUNTS[kind](spec, status);
  if (counts.wanted === 0)
    return held(
      kind === "daemonset" ? "no node is to run it" : "it has no replicas, so nothing was restarted",
    );
  const generation = count(metadata, "generation");
  if (!(generation > 0 && count(status, "observedGeneration") >= generation))
    return { state: "rolling", reason: "its controller has not looked at it yet" };
  const { wanted, total, fresh, available, ending, isSettled } = counts;
  if (fresh === wanted && total === wanted && available === wanted && ending === 0 && isSettled)
    return { state: "done", reason: "" };
  const left = Number.isNaN(total) ? "" : total > fresh ? `, ${total - fresh} old` : "";
  const gone = ending > 0 ? `, ${ending} ending` : "";
  const said = `${shown(fresh)} of ${shown(wanted)} pods new, ${shown(available)} available${left}${gone}`;
  const bar = barOf(kind, spec);
  if (bar !== null && bar.stops(fresh, wanted)) return held(`${bar.words}; ${said}`);
  if (kind === "deployment" && conditionOf(status, "Progressing")("False", "ProgressDeadlineExceeded"))
    return failed(`it made no progress within its progressDeadlineSeconds; ${said}`);
  const refused = conditionOf(status, "ReplicaFailure")("True") ? "; the cluster makes no pods for it" : "";
  return { state: "rolling", reason: `${said}${refused}` };
};

/** What the pod template says that it was restarted for; null = nothing. */
export const rotationIn = (object: unknown): string | null => {
  const template = field(field(field(object, "spec"), "template"), "metadata");
  const value = field(field(template, "annotations"), ROTATION);
  return typeof value === "string" ? value : null;
};

/** What keeps a restart from reaching every pod by itself, in our words; null = nothing does. */
export const barOf = (kind: Kind, spec: unknown): Bar | null => {
  if (kind === "deployment")
    return field(spec, "paused") === true ? { id: "paused", words: "it is paused", stops: () => true } : null;
  const strategy = field(spec, "updateStrategy");
  if (field(strategy, "type") === "OnDelete") {
    const words = "its updateStrategy is OnDelete: its old pods have to be deleted by hand";
    return { id: "on-delete", words, stops: (fresh, wanted) => fresh !== wanted };
  }
  const partition = kind === "statefulset" ? count(field(strategy, "rollingUpdate"), "partition") : 0;
  if (partition === 0) return null;
  const words = `its partition keeps pods below number ${shown(partition)} as they are`;
  return { id: "partition", words, stops: (fresh, wanted) => fresh !== wanted };
};
type Bar = {
  readonly id: "paused" | "on-delete" | "partition";
  readonly words: string;
  readonly stops: (fresh: number, wanted: number) => boolean;
};

/** Zero where nothing would be restarted. */
export const wantedOf = (kind: Kind, object: unknown): number =>
  COUNTS[kind](field(object, "spec"), field(object, "status")).wanted;

/** A count that is no count is NaN, which equals nothing. */
type Counts = {
  readonly wanted: number;
  readonly total: number;
  readonly fresh: number;
  readonly available: number;
  /** Pods in their last seconds, where the API server counts them. */
  readonly ending: number;
  readonly isSettled: boolean;
};

const COUNTS: Readonly<Record<Kind, (spec: unknown, status: unknown) => Counts>> = {
  deployment: (spec, status) => ({
    wanted: count(spec, "replicas", 1),
    total: count(status, "replicas"),
    fresh: count(status, "updatedReplicas"),
    available: count(status, "availableReplicas"),
    ending: count(status, "terminatingReplicas"),
    isSettled: count(status, "unavailableReplicas") === 0,
  }),
  statefulset: (spec, status) => ({
    wanted: count(spec, "replicas", 1),
    total: count(status, "replicas"),
    fresh: count(status, "updatedReplicas"),
    available: count(status, "availableReplicas"),
    ending: 0,
    // With OnDelete the controller leaves currentRevision as it was for ever.
    isSettled:
      field(field(spec, "updateStrategy"), "type") === "OnDelete" ||
      (typeof field(status, "updateRevision") === "string" &&
        field(status, "updateRevision") === field(status, "currentRevision")),
  }),
  daemonset: (_, status) => ({
    wanted: count(status, "desiredNumberScheduled"),
    total: count(status, "currentNumberScheduled"),
    fresh: count(status, "updatedNumberScheduled"),
    available: count(status, "numberAvailable"),
    ending: 0,
    // Pods on nodes that are not to run it are of before.
    isSettled: count(status, "numberUnavailable") === 0 && count(status, "numberMisscheduled") === 0,
  }),
};

/** The API server leaves zeros out. */
const count = (value: unknown, name: string, absent = 0): number => {
  const found = field(value, name) ?? absent;
  return typeof found === "number" && Number.isSafeInteger(found) && found >= 0 ? found : Number.NaN;
};

const conditionOf =
  (status: unknown, type: string) =>
  (value: "True" | "False", reason?: string): boolean => {
    const listed = field(status, "conditions");
    return (Array.isArray(listed) ? listed : []).some(
      (one) =>
        field(one, "type") === type &&
        field(one, "status") === value &&
        (reason === undefined || field(one, "reason") === reason),
    );
  };

const shown = (n: number): string => (Number.isNaN(n) ? "?" : String(n));
const failed = (reason: string): Standing => ({ state: "failed", reason });
const held = (reason: string): Standing => ({ state: "held", reason });
