import { type Applied, ProviderError } from "../../src/core/errors.ts";
import type { Revision } from "../../src/ports.ts";
import { field } from "../kubernetes.ts";

export type Held = {
  readonly revision: Revision;
  /** Of our entry; null where it is absent or empty. */
  readonly value: Buffer | null;
  readonly immutable: boolean;
  /** Being deleted, and kept only by a finalizer. */
  readonly leaving: boolean;
  readonly owners: readonly unknown[];
  readonly labels: Readonly<Record<string, unknown>>;
  readonly annotations: Readonly<Record<string, unknown>>;
};

/** @throws ProviderError UNAVAILABLE, with `outcome`: no Secret as an API server writes it, such as a value that is not exactly base64 */
export const heldIn = (body: unknown, key: string, outcome: Applied): Held => {
  const unclear = new ProviderError(
    "UNAVAILABLE",
    outcome,
    "the answer is no Secret as an API server writes it",
  );
  const metadata = field(body, "metadata");
  const revision = field(metadata, "resourceVersion");
  if (field(body, "kind") !== "Secret" || typeof revision !== "string" || !/^[!-~]{1,200}$/.test(revision))
    throw unclear;
  const stored = field(field(body, "data"), key) ?? "";
  if (typeof stored !== "string") throw unclear;
  const value = Buffer.from(stored, "base64");
  // Node drops what is not base64: what does not come back the same was something else.
  if (value.toString("base64") !== stored) throw unclear;
  const owners = field(metadata, "ownerReferences");
  const map = (name: string) => (field(metadata, name) ?? {}) as Readonly<Record<string, unknown>>;
  return {
    revision: revision as Revision,
    value: value.length === 0 ? null : value,
    owners: Array.isArray(owners) ? owners : [],
    labels: map("labels"),
    annotations: map("annotations"),
    immutable: field(body, "immutable") === true,
    leaving: field(metadata, "deletionTimestamp") !== undefined,
  };
};

/** Labels and annotations, by name or by a prefix that ends in `/`, that a controller leaves on Secrets which it fills again and again. */
const SIGNS: readonly (readonly [owner: string, ...names: string[]])[] = [
  ["External Secrets", "reconcile.external-secrets.io/"],
  ["Argo CD", "argocd.argoproj.io/instance", "argocd.argoproj.io/tracking-id"],
  ["Helm", "meta.helm.sh/release-name"],
  ["Flux", "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/"],
  ["Sealed Secrets", "sealedsecrets.bitnami.com/"],
  ["Secrets Store CSI driver", "secrets-store.csi.k8s.io/"],
  ["Vault Secrets Operator", "secrets.hashicorp.com/"],
  ["Reflector", "reflector.v1.k8s.emberstack.com/reflects"],
  ["Replicator", "replicator.v1.mittwald.de/replicated-from-version"],
];

/** The controller that would undo a write, in our words; null = none is known. */
export const foreignOwner = ({ owners, labels, annotations }: Held): string | null => {
  if (owners.length > 0) return kindOf(owners[0]);
  const names = [...Object.keys(labels), ...Object.keys(annotations)];
  const sign = SIGNS.find(([, ...signs]) =>
    signs.some((one) => names.some((name) => (one.endsWith("/") ? name.startsWith(one) : name === one))),
  );
  if (sign !== undefined) return sign[0];
  return [labels["app.kubernetes.io/managed-by"], labels["heritage"]].includes("Helm") ? "Helm" : null;
};

const kindOf = (owner: unknown): string => {
  const kind = field(owner, "kind");
  return typeof kind === "string" && /^[A-Za-z]{1,63}$/.test(kind) ? `a ${kind}` : "another object";
};
