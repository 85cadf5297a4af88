import * as z from "zod/mini";

/** What an editor shows when one points at the key. */
export const told = <S extends z.ZodMiniType>(schema: S, words: string): S => schema.check(z.describe(words));
export const text = z.string().check(z.minLength(1, "must not be empty"));

/**
 * Where ledger or escrow is. The namespace is wanted with `type: kubernetes`, and what names a cluster does not go with `file`:
 * `checkWhole` says so.
 */
export const room = {
  type: told(z._default(z.enum(["file", "kubernetes"]), "file"), "file: in the state directory."),
  namespace: z.optional(
    told(
      z.string().check(z.regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, "must be the name of a namespace")),
      "kubernetes: its namespace. A ledger should have one of its own.",
    ),
  ),
  context: z.optional(told(text, "kubernetes: context of the kubeconfig. Unset = its current one.")),
  kubeconfig: z.optional(
    told(text, "kubernetes: unset = $KUBECONFIG, else ~/.kube/config, else the ServiceAccount of the pod."),
  ),
};

/** A namespace of the cluster that the kubeconfig means. */
export type Cluster = {
  readonly namespace: string;
  readonly context?: string | undefined;
  readonly kubeconfig?: string | undefined;
};

type Room = { readonly type: "file" | "kubernetes"; readonly namespace?: string | undefined } & Omit<
  Cluster,
  "namespace"
>;

/** null = files in the state directory. */
export const clusterOf = ({ type, namespace, context, kubeconfig }: Room): Cluster | null =>
  type === "kubernetes" && namespace !== undefined ? { namespace, context, kubeconfig } : null;
