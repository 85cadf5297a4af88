import { ProviderError } from "../../src/core/errors.ts";
import type { Check } from "../../src/ports.ts";
import { bounded, check } from "../kit.ts";
import { type KubePlace, kubectl, mayI, rehearsal } from "../kubernetes-rights.ts";
import { field, isAbsent, type Kube, kubeProblem } from "../kubernetes.ts";
import { barOf, ROTATION, wantedOf, type Workload } from "./kubernetes-standing.ts";

type Place = KubePlace & { readonly kube: Kube; readonly namespace: string };

const LIMIT_MS = 30_000;

/**
 * May I restart it, and would it get to an end? Rights are asked of the API server on that very name, and the restart is rehearsed as its
 * dry run. Never rejects.
 */
export const checkWorkload = async (
  place: Place,
  workload: Workload,
  signal: AbortSignal,
): Promise<readonly Check[]> => {
  const { kind, name, path } = workload;
  const what = `${kind}/${name}`;
  const { kube, namespace } = place;
  try {
    return await bounded(signal, LIMIT_MS, async (both) => {
      const target = { group: "apps", resource: `${kind}s`, namespace, name };
      const rights = await Promise.all(
        ["get", "patch"].map((verb) => mayI(place, { ...target, verb }, both)),
      );
      const lacks = (verb: string) =>
        rights.some(({ id, status }) => id === `may-${verb}` && status === "fail");
      if (lacks("get")) return rights;
      const answer = await kube.call({ method: "GET", path }, both);
      if (isAbsent(answer, `${kind}s`, name)) {
        const message = `there is no ${what} in the namespace ${namespace}`;
        const fix = `Mend workloads or namespace; ${kubectl(place)} get ${kind}s shows what is there`;
        return [...rights, check.fail("workload", message, fix, "NOT_FOUND")];
      }
      if (answer.status !== 200) throw kubeProblem(answer, false);
      const standing = standingCheck(place, workload, answer.body);
      return [...rights, standing, ...(lacks("patch") ? [] : [await rehearsed(kube, workload, both)])];
    });
  } catch (error) {
    if (!(error instanceof ProviderError))
      return [check.unproved("api-server", `${what}: the API server cannot be asked`)];
    const { code, hint } = error;
    return [check.fail("api-server", `${what}: ${hint}`, fixOf(code), code)];
  }
};

/**
 * A paused Deployment is a `fail`: nothing at all would be restarted, and one command mends it. What a person has to see to at every
 * restart, or what runs nothing just now, is a `warn`.
 */
const standingCheck = (place: Place, { kind, name }: Workload, object: unknown): Check => {
  const what = `${kind}/${name}`;
  const at = `${kubectl(place)} `;
  const bar = barOf(kind, field(object, "spec"));
  if (bar?.id === "paused") {
    const fix = `${at}rollout resume ${what}`;
    return check.fail("workload", `${what} is paused: nothing would be restarted`, fix, "DISABLED");
  }
  if (wantedOf(kind, object) === 0) {
    const message = `${what} runs no pods, so its restart proves nothing and is held`;
    const fix = kind === "daemonset" ? "See why no node is to run it" : `${at}scale ${what} --replicas=1`;
    return check.warn("workload", message, fix);
  }
  if (bar !== null) {
    const fix =
      bar.id === "partition"
        ? `Set its partition to 0`
        : `After the rotation wrote the key: ${at}delete pod …`;
    return check.warn("workload", `${what} will be held: ${bar.words}`, fix);
  }
  return check.ok("workload", `${what} may be restarted`);
};

const rehearsed = async (kube: Kube, { kind, name, path }: Workload, signal: AbortSignal): Promise<Check> => {
  const annotations = { [ROTATION]: "rehearsal" };
  const body = { spec: { template: { metadata: { annotations } } } };
  const dryRun = `${path}?fieldManager=imkit-rotator&dryRun=All`;
  const answer = await kube.call({ method: "PATCH", path: dryRun, body }, signal);
  return rehearsal(answer, `${kind}/${name}: the API server`, "the restart", fixOf);
};

const fixOf = (code: string): string => FIXES[code] ?? "Mend what is named and run again.";
const FIXES: Readonly<Record<string, string>> = {
  AUTHN: "Log in again, or renew the token that the kubeconfig names.",
  AUTHZ: "Have those who run the cluster's admission policies let this identity restart this workload.",
  CONFIG: "Mend kubeconfig and context until kubectl works with them.",
};
