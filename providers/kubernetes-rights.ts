import type { Check } from "../src/ports.ts";
import { check } from "./kit.ts";
import type { KubePlace } from "./kubernetes-login.ts";
import { field, type Kube, type KubeAnswer, kubeProblem } from "./kubernetes.ts";

export type { KubePlace };

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
  /** The object, to a person. Unset = by resource, name and namespace. */
  readonly called?: string;
};

/**
 * Asks the API server whether this identity has a right: the check `may-<verb>`.
 * @throws ProviderError when it cannot be asked
 */
export const mayI = async (
  place: KubePlace & { readonly kube: Kube },
  right: Right,
  signal: AbortSignal,
): Promise<Check> => {
  const { called, ...resourceAttributes } = right;
  const { resource, verb, namespace, name } = right;
  const body = {
    apiVersion: "authorization.k8s.io/v1",
    kind: "SelfSubjectAccessReview",
    spec: { resourceAttributes: { ...resourceAttributes, version: "v1" } },
  };
  const path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
  const answer = await place.kube.call({ method: "POST", path, body }, signal);
  const allowed = answer.status === 201 ? field(field(answer.body, "status"), "allowed") : null;
  const id = `may-${verb}`;
  const what = `${verb} ${called ?? `${resource}${name === undefined ? "" : `/${name}`} in ${namespace}`}`;
  if (allowed === true) return check.ok(id, `this identity may ${what}`);
  if (allowed === false)
    return check.fail(id, `this identity may not ${what}`, granting(place, right), "AUTHZ");
  const problem = kubeProblem(answer, false);
  if (problem.code !== "AUTHZ") throw problem;
  return check.unproved(id, `the API server does not say whether this identity may ${what}`);
};

/**
 * What the answer to a dry run means: the check `dry-run`.
 * @param who would take it, `what`, or would not; the message begins so
 */
export const rehearsal = (
  answer: KubeAnswer,
  who: string,
  what: string,
  fixOf: (code: string) => string,
): Check => {
  if (answer.status === 200) return check.ok("dry-run", `${who} would take ${what}`);
  const { code, hint } = kubeProblem(answer, false);
  const message = `${who} would not take ${what}: ${hint}`;
  // Not every admission webhook can rehearse, and one that fails now may work later.
  if (["CONFIG", "CONFLICT", "UNAVAILABLE"].includes(code)) return check.warn("dry-run", message);
  return check.fail("dry-run", message, fixOf(code), code);
};
