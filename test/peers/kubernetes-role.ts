import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { eventually, type Kubernetes } from "./kubernetes.ts";

export type Rule = {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
};
export type Role = {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly rules: readonly Rule[];
};
export type Binding = { readonly kind: string; readonly metadata: { readonly name: string } } & Record<
  string,
  unknown
>;
export type Policy = { readonly role: Role; readonly binding: Binding };

/** A Role and its binding, as they are shipped. */
export const policyOf = (name: string): Policy => {
  const text = readFileSync(join(import.meta.dirname, "../../deploy/policies", name), "utf8");
  const [role, binding, ...rest] = parseAllDocuments(text).map((document) => document.toJS() as unknown);
  if (rest.length > 0) throw new Error(`${name} holds more than a Role and its binding`);
  return { role: role as Role, binding: binding as Binding };
};
export const ROLE = policyOf("kubernetes-role.yaml");
export const ROLE_CREATE = policyOf("kubernetes-role-create.yaml");
export const ROLLOUT = policyOf("kubernetes-rollout.yaml");
export const LEDGER = policyOf("kubernetes-ledger.yaml");
export const ESCROW = policyOf("kubernetes-escrow.yaml");

/** Grants `policy` in `namespace`, with `rules` in place of its own, and waits until it is in force. */
export const bind = async (
  kube: Kubernetes,
  namespace: string,
  { role, binding }: Policy,
  rules: readonly Rule[] = role.rules,
): Promise<void> => {
  const rbac = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}`;
  const metadata = { name: role.metadata.name };
  await kube.must("POST", `${rbac}/roles`, { ...role, metadata, rules });
  const subjects = [{ kind: "ServiceAccount", name: "imkit-rotator", namespace }];
  await kube.must("POST", `${rbac}/rolebindings`, { ...binding, metadata, subjects });
  const token = await kube.tokenOf(namespace);
  await eventually(`the rights of ${metadata.name}`, async () => {
    const granted = await rightsOf(
      kube,
      namespace,
      token,
      rules.flatMap(({ resources }) => resources),
    );
    return rules.every(({ verbs, resources, resourceNames }) =>
      verbs.every((verb) =>
        resources.every((resource) =>
          granted.includes(`${verb} ${resource}${resourceNames === undefined ? "" : `/${resourceNames[0]}`}`),
        ),
      ),
    );
  });
};

/** `verb resource[/name]` of all that this identity may do with those kinds. */
export const rightsOf = async (
  kube: Kubernetes,
  namespace: string,
  token: string,
  kinds: readonly string[] = ["secrets"],
): Promise<readonly string[]> => {
  const path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
  const { body } = await kube.api("POST", path, { spec: { namespace } }, { token });
  const { resourceRules } = body["status"] as { readonly resourceRules: readonly Rule[] };
  return resourceRules
    .flatMap(({ verbs, resources, resourceNames = [""] }) =>
      resources
        .filter((one) => one === "*" || kinds.includes(one))
        .flatMap((one) =>
          verbs.flatMap((verb) =>
            resourceNames.map((name) => `${verb} ${one}${name === "" ? "" : `/${name}`}`),
          ),
        ),
    )
    .toSorted();
};
