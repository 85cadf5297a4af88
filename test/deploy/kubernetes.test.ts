import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, test } from "vitest";
import { rolloutKinds, schemaOf, storeKinds } from "../../providers/index.ts";
import { CODES } from "../../src/core/errors.ts";
import { type Config, loadConfig } from "../../src/io/config.ts";
import { parse } from "../../src/shell/args.ts";
import {
  DEPLOY,
  documentsOf,
  filesOf,
  kustomize,
  type Manifest,
  OVERLAYS,
  type Overlay,
  overlayDir,
  rightsIn,
  rotatorOf,
} from "./manifests.ts";

const output = new Map<Overlay, readonly Manifest[]>(OVERLAYS.map((o) => [o, kustomize(overlayDir(o))]));
const of = (overlay: Overlay): readonly Manifest[] => output.get(overlay) ?? [];
const names = (all: readonly Manifest[]) =>
  all
    .map(
      ({ kind, metadata: { name, namespace } }) =>
        `${kind} ${namespace === undefined ? "" : `${namespace}/`}${name}`,
    )
    .toSorted();

test.each(filesOf(".yaml"))("%s is YAML without doubt", (file) => {
  expect(documentsOf(readFileSync(join(DEPLOY, file), "utf8")).length).toBeGreaterThan(0);
});

const BASE = [
  "ConfigMap imkit-rotator/imkit-rotator-config",
  "Namespace imkit-ledger",
  "Namespace imkit-rotator",
  "NetworkPolicy imkit-rotator/imkit-rotator",
  "Role chat/imkit-rotator-inbox",
  "Role chat/imkit-rotator-rollout",
  "Role chat/imkit-rotator-secret",
  "Role imkit-ledger/imkit-rotator-ledger",
  "Role imkit-rotator/imkit-rotator-escrow",
  "RoleBinding chat/imkit-rotator-inbox",
  "RoleBinding chat/imkit-rotator-rollout",
  "RoleBinding chat/imkit-rotator-secret",
  "RoleBinding imkit-ledger/imkit-rotator-ledger",
  "RoleBinding imkit-rotator/imkit-rotator-escrow",
  "Secret chat/imkit-key-inbox",
  "Secret imkit-rotator/imkit-rotator-escrow-chat-prod",
  "ServiceAccount imkit-rotator/imkit-rotator",
];
const OWN: Readonly<Record<Overlay, readonly string[]>> = {
  cronjob: ["CronJob imkit-rotator/imkit-rotator"],
  daemon: [
    "Deployment imkit-rotator/imkit-rotator",
    "NetworkPolicy imkit-rotator/imkit-rotator-metrics",
    "Service imkit-rotator/imkit-rotator",
  ],
  emergency: ["Job imkit-rotator/imkit-rotator-emergency"],
};
/** All that the rotator may do. */
const RIGHTS = [
  "create configmaps in imkit-ledger",
  "get configmaps in imkit-ledger",
  "get deployments/api in chat",
  "get secrets/imkit-key-inbox in chat",
  "get secrets/imkit-rotator-escrow-chat-prod in imkit-rotator",
  "get secrets/imkit-secrets in chat",
  "patch deployments/api in chat",
  "patch secrets/imkit-key-inbox in chat",
  "patch secrets/imkit-rotator-escrow-chat-prod in imkit-rotator",
  "patch secrets/imkit-secrets in chat",
];

describe.each(OVERLAYS)("overlay %s", (overlay) => {
  const all = of(overlay);
  const { owner, pod, container } = rotatorOf(all);

  it("holds these things, and no others", () => {
    expect(names(all)).toEqual([...BASE, ...OWN[overlay]].toSorted());
  });

  it("gives the rotator these rights, and nobody any other", () => {
    expect(rightsIn(all, "imkit-rotator/imkit-rotator")).toEqual(RIGHTS);
    const bound = all.filter((m) => m.kind.endsWith("Binding")).flatMap((m) => m.subjects ?? []);
    expect(new Set(bound.map((s) => `${s.kind} ${s.namespace}/${s.name}`))).toEqual(
      new Set(["ServiceAccount imkit-rotator/imkit-rotator"]),
    );
    expect(all.filter((m) => m.kind.startsWith("Cluster"))).toEqual([]);
    expect(
      all
        .flatMap((m) => m.rules ?? [])
        .flatMap((r) => r.verbs)
        .filter((v) => ["list", "watch", "delete", "update", "*"].includes(v)),
    ).toEqual([]);
  });

  it("is a pod that the restricted standard lets in, and stricter", () => {
    expect(pod.securityContext).toMatchObject({
      runAsNonRoot: true,
      runAsUser: 65532,
      seccompProfile: { type: "RuntimeDefault" },
    });
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    });
    for (const key of ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"])
      expect(pod).not.toHaveProperty(key);
    for (const volume of pod.volumes)
      expect(Object.keys(volume)).toEqual(["name", expect.stringMatching(/^(configMap|emptyDir|secret)$/)]);
    expect(container.resources.limits).toHaveProperty("memory");
    expect(pod.terminationGracePeriodSeconds).toBeGreaterThan(60);
    expect(pod.serviceAccountName).toBe("imkit-rotator");
    for (const m of all.filter(({ kind }) => kind === "Namespace"))
      expect(m.metadata.labels).toMatchObject({ "pod-security.kubernetes.io/enforce": "restricted" });
  });

  it("runs a command that the program has, with an image by digest", () => {
    expect(container).not.toHaveProperty("command");
    expect(parse(container.args).job).not.toBeNull();
    expect(container.image).toMatch(/^imkit-rotator@sha256:[0-9a-f]{64}$/);
    expect(container.args).not.toContain("--env-file");
    expect(owner.metadata.namespace).toBe("imkit-rotator");
  });

  it("mounts what it reads and writes, and nothing that is not there", () => {
    expect(container.volumeMounts.map((m) => m.name).toSorted()).toEqual(
      pod.volumes.map((v) => String(v["name"])).toSorted(),
    );
    const file = container.env.find(({ name }) => name === "IMKIT_ROTATOR_CONFIG")?.value ?? "";
    const config = all.find((m) => m.kind === "ConfigMap");
    const mount = container.volumeMounts.find((m) => m.name === "config");
    expect(mount?.readOnly).toBe(true);
    expect(Object.keys(config?.data ?? {}).map((name) => `${mount?.mountPath ?? ""}/${name}`)).toEqual([
      file,
    ]);
    expect(pod.volumes.find((v) => v["name"] === "config")).toMatchObject({
      configMap: { name: config?.metadata.name },
    });
  });

  it("seals keys in escrow with an identity that it mounts, that is in no manifest, and that it may not read by the API", async () => {
    const { escrowIdentity } = await configOf(configTextOf(all));
    expect(escrowIdentity).toEqual({ valueFrom: { credential: "escrow-identity" } });
    const mount = container.volumeMounts.find((m) => m.name === "identity");
    expect(container.env).toContainEqual({ name: "CREDENTIALS_DIRECTORY", value: mount?.mountPath });
    expect(mount?.readOnly).toBe(true);
    const volume = pod.volumes.find((v) => v["name"] === "identity");
    expect(volume).toEqual({ name: "identity", secret: { secretName: IDENTITY, defaultMode: 0o440 } });
    expect(pod.securityContext).toMatchObject({ fsGroup: pod.securityContext["runAsGroup"] });
    expect(names(all).filter((name) => name.endsWith(IDENTITY))).toEqual([]);
    expect(rightsIn(all, "imkit-rotator/imkit-rotator").filter((right) => right.includes(IDENTITY))).toEqual(
      [],
    );
  });
});

const IDENTITY = "imkit-rotator-identity";
const configTextOf = (all: readonly Manifest[]): string =>
  all.find((m) => m.kind === "ConfigMap")?.data?.["imkit-rotator.config.yaml"] ?? "";
const configOf = async (text: string): Promise<Config> => {
  const dir = mkdtempSync(join(tmpdir(), "imkit-rotator-deploy-"));
  try {
    const file = join(dir, "imkit-rotator.config.yaml");
    writeFileSync(file, text);
    const kindsOf = (half: "store" | "rollout") => (half === "store" ? storeKinds : rolloutKinds);
    return await loadConfig(file, { env: {}, schemaOf, kindsOf });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
};

test("the config is sound, its state lies on the mount, and each of its places has its rights", async () => {
  const all = of("daemon");
  const config = await configOf(configTextOf(all));
  const { container } = rotatorOf(all);
  expect(container.volumeMounts.filter((m) => !m.readOnly).map((m) => m.mountPath)).toEqual([
    config.stateDir,
  ]);
  expect(config.serve).toMatchObject({ host: "0.0.0.0", port: 7333 });
  const wanted = [...config.apps.values()].flatMap((app) => {
    const secrets = [...app.stores, ...app.intake].map(
      ({ settings }) => settings as { namespace: string; secret: string },
    );
    const rollouts = app.rollouts.map(
      ({ settings }) => settings as { namespace: string; workloads: readonly string[] },
    );
    return [
      ...secrets.map(({ namespace, secret }) => `secrets/${secret} in ${namespace}`),
      ...rollouts.flatMap(({ namespace, workloads }) =>
        workloads.map((w) => `${w.replace("/", "s/")} in ${namespace}`),
      ),
      `secrets/imkit-rotator-escrow-${app.name} in ${config.escrow?.namespace ?? ""}`,
    ];
  });
  const expected = [
    ...wanted.flatMap((what) => [`get ${what}`, `patch ${what}`]),
    ...["create", "get"].map((verb) => `${verb} configmaps in ${config.ledger?.namespace ?? ""}`),
  ];
  expect(rightsIn(all, "imkit-rotator/imkit-rotator")).toEqual(expected.toSorted());
  const { args } = rotatorOf(of("emergency")).container;
  expect([...config.apps.keys()]).toContain(args[1]);
});

test("every Role that is shipped grants get, patch and create alone, by name wherever a name can be given", () => {
  const roles = filesOf(".yaml").flatMap((file) =>
    documentsOf(readFileSync(join(DEPLOY, file), "utf8"))
      .filter(({ rules }) => rules !== undefined)
      .map((role) => ({ file, kind: role.kind, rules: role.rules ?? [] })),
  );
  // What each verb is needed for is shown with a real API server: test/peers/kubernetes-*.test.ts and deploy.test.ts.
  expect(roles.map(({ file, kind }) => `${kind} ${file}`).toSorted()).toEqual([
    "Role kubernetes/base/inbox-role.yaml",
    "Role policies/kubernetes-escrow.yaml",
    "Role policies/kubernetes-ledger.yaml",
    "Role policies/kubernetes-role-create.yaml",
    "Role policies/kubernetes-role.yaml",
    "Role policies/kubernetes-rollout.yaml",
  ]);
  const rules = roles.flatMap((role) => role.rules.map((rule) => ({ file: role.file, ...rule })));
  expect(new Set(rules.flatMap(({ verbs }) => verbs))).toEqual(new Set(["get", "patch", "create"]));
  const unnamed = rules.filter(({ resourceNames }) => (resourceNames ?? []).length === 0);
  expect(unnamed.map(({ file, resources, verbs }) => [file, resources, verbs])).toEqual([
    ["policies/kubernetes-ledger.yaml", ["configmaps"], ["create", "get"]],
    ["policies/kubernetes-role-create.yaml", ["secrets"], ["create"]],
  ]);
});

test("a digest that is none is called one, and the page names every file that has one", () => {
  const files = filesOf("").filter((file) => !file.endsWith(".md") && statSync(join(DEPLOY, file)).isFile());
  const having = (text: string) =>
    files.filter((file) => readFileSync(join(DEPLOY, file), "utf8").includes(text));
  const page = readFileSync(join(DEPLOY, "install.md"), "utf8");
  const section =
    page.split(/^## /m).find((part) => part.startsWith("The digests here are placeholders")) ?? "";
  const named = [...section.matchAll(/^\| `deploy\/([^`]+)`/gm)].map(([, file = ""]) => file);
  expect(named.toSorted()).toEqual(having("0".repeat(64)));
  expect(having("PLACEHOLDER: the digest below is no image.")).toEqual(having("0".repeat(64)));
  expect(new Set(OVERLAYS.map((overlay) => rotatorOf(of(overlay)).container.image)).size).toBe(1);
});

test("Secrets are made empty and without data, so that to apply them again takes nothing out", () => {
  for (const secret of of("cronjob").filter((m) => m.kind === "Secret")) {
    expect(secret).not.toHaveProperty("data");
    expect(secret).not.toHaveProperty("stringData");
  }
});

test("the CronJob: every ten minutes, one at a time, and it watches for longer than a claim may be silent", () => {
  const { owner, container } = rotatorOf(of("cronjob"));
  expect(owner.spec).toMatchObject({
    schedule: "*/10 * * * *",
    timeZone: "Etc/UTC",
    concurrencyPolicy: "Forbid",
  });
  expect(container.args).toEqual(["rotate", "--all", "--due", "--wait=2m", "--no-input", "--json"]);
});

test("the daemon: one, replaced and never doubled; probed where it listens", () => {
  const { owner, container } = rotatorOf(of("daemon"));
  expect(owner.spec).toMatchObject({ replicas: 1, strategy: { type: "Recreate" } });
  expect(container).toMatchObject({
    args: ["serve"],
    ports: [{ name: "http", containerPort: 7333 }],
    livenessProbe: { httpGet: { path: "/healthz", port: "http" } },
    readinessProbe: { httpGet: { path: "/readyz", port: "http" } },
  });
});

test("the emergency Job: every exit of the program is either tried again or not, and a lost node is no failure", () => {
  const { owner, pod, container } = rotatorOf(of("emergency"));
  expect(pod.restartPolicy).toBe("Never");
  const { podFailurePolicy, backoffLimit, activeDeadlineSeconds } = owner.spec as {
    readonly podFailurePolicy: {
      readonly rules: readonly {
        readonly action: string;
        readonly onExitCodes?: { readonly containerName: string; readonly values: readonly number[] };
      }[];
    };
    readonly backoffLimit: number;
    readonly activeDeadlineSeconds: number;
  };
  expect(podFailurePolicy.rules[0]).toEqual({
    action: "Ignore",
    onPodConditions: [{ type: "DisruptionTarget", status: "True" }],
  });
  const named = podFailurePolicy.rules.flatMap(({ onExitCodes }) => onExitCodes?.values ?? []);
  const exits = new Set([...Object.values(CODES).map(({ exit }) => exit), 3, 130, 143]);
  expect(named.toSorted((a, b) => a - b)).toEqual(
    [...exits].filter((exit) => exit !== 0).toSorted((a, b) => a - b),
  );
  const action = (exit: number) =>
    podFailurePolicy.rules.find(({ onExitCodes }) => onExitCodes?.values.includes(exit))?.action;
  expect([1, 2, 3, 4, 5, 6, 143].map(action)).toEqual([
    "Count",
    "FailJob",
    "FailJob",
    "FailJob",
    "FailJob",
    "Count",
    "Count",
  ]);
  const containers = podFailurePolicy.rules.flatMap(({ onExitCodes }) => onExitCodes?.containerName ?? []);
  expect(new Set(containers)).toEqual(new Set([container.name]));
  expect(backoffLimit).toBeGreaterThan(0);
  expect(activeDeadlineSeconds).toBeGreaterThan(4 * 3_600);
});
