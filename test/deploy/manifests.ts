import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parse, parseAllDocuments } from "yaml";

/** What deploy/ holds, read as text and YAML; nothing is run. */
export const DEPLOY = join(import.meta.dirname, "../../deploy");
export const OVERLAYS = ["cronjob", "daemon", "emergency"] as const;
export type Overlay = (typeof OVERLAYS)[number];
export const overlayDir = (overlay: Overlay): string => join(DEPLOY, "kubernetes/overlays", overlay);

export type Rule = {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
};
export type Container = {
  readonly name: string;
  readonly image: string;
  readonly args: readonly string[];
  readonly command?: readonly string[];
  readonly env: readonly { readonly name: string; readonly value: string }[];
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly volumeMounts: readonly {
    readonly name: string;
    readonly mountPath: string;
    readonly readOnly?: boolean;
  }[];
  readonly resources: { readonly limits: Readonly<Record<string, string>> };
};
export type PodSpec = {
  readonly serviceAccountName: string;
  readonly restartPolicy: string;
  readonly terminationGracePeriodSeconds: number;
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly containers: readonly Container[];
  readonly volumes: readonly Readonly<Record<string, unknown>>[];
};
export type Manifest = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly spec?: Readonly<Record<string, unknown>>;
  readonly rules?: readonly Rule[];
  readonly roleRef?: { readonly kind: string; readonly name: string };
  readonly subjects?: readonly { readonly kind: string; readonly name: string; readonly namespace: string }[];
  readonly data?: Readonly<Record<string, string>>;
};

type Kustomization = {
  readonly resources?: readonly string[];
  readonly configMapGenerator?: readonly {
    readonly name: string;
    readonly namespace: string;
    readonly files: readonly string[];
  }[];
  readonly images?: readonly { readonly name: string; readonly newName: string; readonly digest: string }[];
  readonly patches?: readonly {
    readonly target: { readonly kind: string; readonly name: string; readonly namespace: string };
    readonly patch: string;
  }[];
};
type Operation = { readonly op: string; readonly path: string; readonly value: unknown };

const read = (...path: readonly string[]): string => readFileSync(join(...path), "utf8");
export const documentsOf = (text: string): readonly Manifest[] =>
  parseAllDocuments(text).map((document) => {
    const [error] = document.errors;
    if (error !== undefined) throw new Error(error.message);
    return document.toJS() as Manifest;
  });

/** As much of kustomize as deploy/ uses; the peers suite compares it with kubectl's. */
export const kustomize = (dir: string): readonly Manifest[] => {
  const k = parse(read(dir, "kustomization.yaml")) as Kustomization;
  const all = (k.resources ?? []).flatMap((path) =>
    path.endsWith(".yaml") ? documentsOf(read(dir, path)) : kustomize(join(dir, path)),
  );
  for (const { name, namespace, files } of k.configMapGenerator ?? []) {
    const data = Object.fromEntries(files.map((file) => [file, read(dir, file)]));
    all.push({ apiVersion: "v1", kind: "ConfigMap", metadata: { name, namespace }, data });
  }
  for (const { target, patch } of k.patches ?? []) {
    const found = all.filter(
      (m) =>
        m.kind === target.kind &&
        m.metadata.name === target.name &&
        m.metadata.namespace === target.namespace,
    );
    if (found.length !== 1)
      throw new Error(`a patch has ${found.length} targets: ${target.kind} ${target.name}`);
    for (const operation of parse(patch) as readonly Operation[]) replace(found[0], operation);
  }
  for (const { name, newName, digest } of k.images ?? [])
    for (const container of all.flatMap((m) => podOf(m)?.containers ?? []))
      if (container.image === name) Object.assign(container, { image: `${newName}@${digest}` });
  return all;
};

const replace = (at: unknown, { op, path, value }: Operation): void => {
  const steps = path.split("/").slice(1);
  const last = steps.pop() ?? "";
  const place = steps.reduce<unknown>((one, step) => (one as Record<string, unknown>)[step], at) as Record<
    string,
    unknown
  >;
  if (op !== "replace" || !(last in place)) throw new Error(`no such patch here: ${op} ${path}`);
  place[last] = value;
};

/** The pods that a manifest makes; null = it makes none. */
export const podOf = ({ kind, spec }: Manifest): PodSpec | null => {
  const at = (from: unknown, ...path: readonly string[]): unknown =>
    path.reduce<unknown>((one, step) => (one as Record<string, unknown>)[step], from);
  if (kind === "CronJob") return at(spec, "jobTemplate", "spec", "template", "spec") as PodSpec;
  return kind === "Job" || kind === "Deployment" ? (at(spec, "template", "spec") as PodSpec) : null;
};

/** The one container that an overlay runs, with its pod and what makes it. */
export const rotatorOf = (all: readonly Manifest[]) => {
  const [owner, ...others] = all.filter((m) => podOf(m) !== null);
  if (owner === undefined || others.length > 0) throw new Error("an overlay runs one thing");
  const pod = podOf(owner) as PodSpec;
  const [container, ...more] = pod.containers;
  if (container === undefined || more.length > 0) throw new Error("a pod has one container");
  return { owner, pod, container };
};

/** `verb resource/name in namespace` of all that a ServiceAccount may do by these manifests. */
export const rightsIn = (all: readonly Manifest[], account: string): readonly string[] =>
  all
    .filter(
      (m) => m.kind === "RoleBinding" && m.subjects?.some((s) => `${s.namespace}/${s.name}` === account),
    )
    .flatMap(({ roleRef, metadata: { namespace } }) => {
      const role = all.find(
        (m) =>
          m.kind === roleRef?.kind && m.metadata.name === roleRef.name && m.metadata.namespace === namespace,
      );
      if (role?.rules === undefined) throw new Error(`no role ${roleRef?.name ?? ""}`);
      return role.rules.flatMap(({ resources, verbs, resourceNames = [""] }) =>
        resources.flatMap((resource) =>
          verbs.flatMap((verb) =>
            resourceNames.map(
              (name) => `${verb} ${resource}${name === "" ? "" : `/${name}`} in ${namespace ?? ""}`,
            ),
          ),
        ),
      );
    })
    .toSorted();

/** All files below deploy/ with that ending, with their path. */
export const filesOf = (ending: string): readonly string[] =>
  readdirSync(DEPLOY, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(ending))
    .toSorted();
