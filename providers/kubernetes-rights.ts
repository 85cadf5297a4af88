import type { Check } from "../src/ports.ts";
import { field, type Kube, kubeProblem } from "./kubernetes.ts";

/** Of a target's config: what says which API server it is. */
export type KubePlace = { readonly context?: string | undefined; readonly kubeconfig?: string | undefined };

/** `[context/]rest`, for addresses. */
export const kubePlace = ({ context }: KubePlace, rest: string): string =>
  `${context === undefined ? "" : `${context}/`}${rest}`;

/** How a person speaks to that namespace, to paste. */
export const kubectl = ({ context, namespace }: KubePlace & { readonly namespace: string }): string =>
  `kubectl ${context === undefined ? "" : `--context '${context.replaceAll("'", "'\\''")}' `}-n ${namespace}`;

/** Gives one right to whoever runs the rotator, to paste. */
export const granting = (place: KubePlace, { group, resource, verb, namespace, name }: Right): string => {
  const at = kubectl({ ...place, namespace });
  const role = `imkit-rotator-${verb}-${name ?? resource}`;
  const kind = group === "" ? resource : `${resource}.${group}`;
  const only = name === undefined ? "" : ` --resource-name=${name}`;
  const who = `--serviceaccount=${namespace}:imkit-rotator   # or --user=NAME`;
  return `${at} create role ${role} --verb=${verb} --resource=${kind}${only} && ${at} create rolebinding ${role} --role=${role} ${who}`;
};

/** One thing that somebody may do. Without `name` (a right to create cannot be bound to one) it is asked of the whole namespace. */
export type Right = {
  readonly group: string;
  readonly resource: string;
  readonly verb: string;
  readonly namespace: string;
  readonly name?: string;
};

/**
 * Asks the API server whether this identity has a right: the check `may-<verb>`.
 * @throws ProviderError when it cannot be asked
 */
export const mayI = async (
  place: KubePlace & { readonly kube: Kube },
  { group, resource, verb, namespace, name }: Right,
  signal: AbortSignal,
): Promise<Check> => {
  const resourceAttributes = { group, resource, verb, namespace, ...(name === undefined ? {} : { name }) };
  const body = {
    apiVersion: "authorization.k8s.io/v1",
    kind: "SelfSubjectAccessReview",
    spec: { resourceAttributes },
  };
  const path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
  const answer = await place.kube.call({ method: "POST", path, body }, signal);
  const allowed = answer.status === 201 ? field(field(answer.body, "status"), "allowed") : null;
  const id = `may-${verb}`;
  const what = `${verb} ${name === undefined ? `${resource} in ${namespace}` : `${resource}/${name} in ${namespace}`}`;
  if (allowed === true) return { id, status: "ok", message: `this identity may ${what}` };
  if (allowed === false) {
    const fix = granting(place, {
      group,
      resource,
      verb,
      namespace,
      ...(name === undefined ? {} : { name }),
    });
    return { id, status: "fail", message: `this identity may not ${what}`, fix, code: "AUTHZ" };
  }
  const problem = kubeProblem(answer, false);
  if (problem.code !== "AUTHZ") throw problem;
  return { id, status: "unproved", message: `the API server does not say whether this identity may ${what}` };
};
