import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, inject, it, test } from "vitest";
import { type Sandbox, startSandbox } from "../../src/shell/sandbox/server.ts";
import {
  DEPLOY,
  documentsOf,
  kustomize,
  type Manifest,
  OVERLAYS,
  type Overlay,
  overlayDir,
  podOf,
  rotatorOf,
} from "../deploy/manifests.ts";
import { findKey } from "../kit/leak.ts";
import { programRoot } from "../kit/program.ts";
import { jsonLines, lastJson } from "../kit/world.ts";
import { eventually, kubernetes } from "./kubernetes.ts";

/**
 * deploy/kubernetes as it is, applied by kubectl to the real API server. What its pods would run is run as a process: the manifest's arguments and
 * variables, its mounts as folders, its user where we are root, and the token of its ServiceAccount.
 */
const kube = kubernetes(inject("kubernetes"));
const base64 = (text: string) => Buffer.from(text).toString("base64");

let dir = "";
let sandbox: Sandbox;
const printed: string[] = [];
const issued: string[] = [];
const started = new Set<ChildProcess>();
const issue = (): string => {
  const key = sandbox.issue();
  issued.push(key);
  return key;
};

/** `input` comes through a pipe, as from a shell: `/dev/stdin` can be opened then. */
const kubectl = (args: readonly string[], input = "") => {
  const line = ["-c", 'cat | "$@"', "sh", "kubectl", "--kubeconfig", join(dir, "admin"), ...args];
  const { status, stdout, stderr } = spawnSync("sh", line, {
    encoding: "utf8",
    input,
    maxBuffer: 256 * 1024 * 1024,
  });
  return { status, said: stdout + stderr, stdout };
};
const must = (args: readonly string[], input?: string): string => {
  const { status, said, stdout } = kubectl(args, input);
  if (status !== 0) throw new Error(`kubectl ${args.join(" ")}: ${said}`);
  return stdout;
};
const apply = (overlay: Overlay): string => must(["apply", "-k", overlayDir(overlay)]);
const dataOf = async (namespace: string, name: string) =>
  (
    (await kube.must("GET", `/api/v1/namespaces/${namespace}/secrets/${name}`)) as {
      readonly data?: Readonly<Record<string, string>>;
    }
  ).data ?? {};

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "imkit-rotator-deploy-"));
  chmodSync(dir, 0o755);
  writeFileSync(join(dir, "admin"), kube.kubeconfig({ token: kube.adminToken }));
  sandbox = await startSandbox({ app: "chat-prod" });
  // What is there before: a namespace with the key and with what reads it.
  must(["create", "namespace", "chat"]);
  must([
    "-n",
    "chat",
    "create",
    "secret",
    "generic",
    "imkit-secrets",
    `--from-literal=api-key=${sandbox.firstKey()}`,
  ]);
  const deployment = {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: "api", namespace: "chat" },
    spec: {
      replicas: 4,
      selector: { matchLabels: { app: "api" } },
      template: {
        metadata: { labels: { app: "api" } },
        spec: { containers: [{ name: "main", image: "chat:1" }], terminationGracePeriodSeconds: 1 },
      },
    },
  };
  must(["apply", "-f", "-"], JSON.stringify(deployment));
  for (const overlay of OVERLAYS) printed.push(apply(overlay));
  must(["-n", "chat", "rollout", "status", "deployment/api", "--timeout=60s"]);
  await eventually(
    "the rights",
    async () =>
      kubectl([
        "auth",
        "can-i",
        "get",
        "secrets/imkit-secrets",
        "-n",
        "chat",
        "--as=system:serviceaccount:imkit-rotator:imkit-rotator",
      ]).status === 0,
  );
});
afterAll(async () => {
  for (const child of started) child.kill("SIGKILL");
  for (const overlay of OVERLAYS)
    kubectl(["delete", "-k", overlayDir(overlay), "--ignore-not-found", "--wait=false"]);
  kubectl(["delete", "namespace", "chat", "--wait=false"]);
  await sandbox.close();
  rmSync(dir, { recursive: true, force: true });
});

/** Started as the pod of an overlay. Paths of the pod are looked for in a folder of this machine. */
const asPod = async (overlay: Overlay) => {
  const { pod, container } = rotatorOf(documentsOf(must(["kustomize", overlayDir(overlay)])));
  const place = mkdtempSync(join(dir, `${overlay}-`));
  chmodSync(place, 0o755);
  const at = (path: string) => join(place, path);
  for (const { mountPath, name, readOnly } of container.volumeMounts) {
    mkdirSync(at(mountPath), { recursive: true });
    const volume = pod.volumes.find((v) => v["name"] === name) as {
      readonly configMap?: { readonly name: string };
    };
    if (volume.configMap !== undefined) {
      const path = `/api/v1/namespaces/imkit-rotator/configmaps/${volume.configMap.name}`;
      const { data } = (await kube.must("GET", path)) as { readonly data: Readonly<Record<string, string>> };
      for (const [file, text] of Object.entries(data))
        writeFileSync(
          at(join(mountPath, file)),
          text
            .replace("https://your-app.imkit.io", sandbox.url)
            .replace("/var/lib/imkit-rotator", at("/var/lib/imkit-rotator"))
            .replace("0.0.0.0:7333", "127.0.0.1:0"),
        );
    }
    if (readOnly === true) chmodSync(at(mountPath), 0o555);
    else chmodSync(at(mountPath), 0o777);
  }
  const login = join(place, "token");
  writeFileSync(
    login,
    kube.kubeconfig({ token: await kube.tokenOf("imkit-rotator", pod.serviceAccountName) }),
  );
  // A process of another user must reach all of it: the server's certificate, this Node and the program.
  const ca = join(place, "ca.crt");
  cpSync(kube.caFile, ca);
  writeFileSync(login, readFileSync(login, "utf8").replace(kube.caFile, ca));
  for (const file of [ca, login]) chmodSync(file, 0o644);
  const variables = Object.fromEntries(container.env.map(({ name, value }) => [name, at(value)]));
  const env = { PATH: "/usr/bin:/bin", NODE_ENV: "production", KUBECONFIG: login, ...variables };
  const { runAsUser, runAsGroup } = pod.securityContext as {
    readonly runAsUser: number;
    readonly runAsGroup: number;
  };
  const isRoot = process.getuid?.() === 0;
  const run = async (
    more: { readonly on?: RegExp; readonly signal?: NodeJS.Signals; readonly args?: readonly string[] } = {},
  ) => {
    const { node, program } = await image();
    const child = spawn(node, [program, ...(more.args ?? container.args)], {
      cwd: place,
      env,
      stdio: ["ignore", "pipe", "pipe"],
      ...(isRoot ? { uid: runAsUser, gid: runAsGroup } : {}),
    });
    started.add(child);
    let [stdout, stderr, isSignalled] = ["", "", false];
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => {
        if (stream === child.stdout) stdout += text;
        else stderr += text;
        if (isSignalled || !more.on?.test(stdout + stderr)) return;
        isSignalled = true;
        child.kill(more.signal ?? "SIGTERM");
      });
    const [code] = (await once(child, "close")) as [number];
    started.delete(child);
    printed.push(stdout, stderr);
    return { code, stdout, stderr };
  };
  return { run, place };
};

const resultsOf = (stdout: string) => jsonLines(stdout).filter(({ type }) => type === "result");
/** Lays a key into the inbox with the line that the page shows. */
const lay = (key: string): string => {
  const page = readFileSync(join(DEPLOY, "first-rotation.md"), "utf8");
  const line = /^kubectl (-n chat patch secret .*)$/m.exec(page)?.[1] ?? "";
  return must(line.split(" "), `{"stringData":{"api-key":"${key}"}}`);
};

let made: { readonly node: string; readonly program: string } | null = null;
/** Program and Node where any user can read them, and only root write. */
const image = async () => {
  if (made !== null) return made;
  const app = join(dir, "app");
  const root = await programRoot();
  mkdirSync(app);
  for (const part of ["bin", "dist", "package.json"])
    cpSync(join(root, part), join(app, part), { recursive: true });
  const node = join(dir, "node");
  cpSync(process.execPath, node, { dereference: true });
  for (const path of [
    app,
    ...readdirSync(app, { recursive: true, encoding: "utf8" }).map((p) => join(app, p)),
  ])
    chmodSync(path, 0o755);
  chmodSync(node, 0o755);
  made = { node, program: join(app, "bin/imkit-rotator.cjs") };
  return made;
};

describe("the manifests", () => {
  it.each(OVERLAYS)("%s: kubectl makes of it what our own reading does", (overlay) => {
    const theirs = documentsOf(must(["kustomize", overlayDir(overlay)]));
    const hash = /^imkit-rotator-config-[0-9a-z]{10}$/;
    const plain = (m: Manifest): unknown => {
      const { labels, name, ...metadata } = m.metadata;
      const { "app.kubernetes.io/part-of": _, ...others } = labels ?? {};
      const text = JSON.stringify({
        ...m,
        metadata: {
          ...metadata,
          name: name.replace(hash, "imkit-rotator-config"),
          ...(Object.keys(others).length > 0 ? { labels: others } : {}),
        },
      });
      return JSON.parse(text.replaceAll(/imkit-rotator-config-[0-9a-z]{10}/g, "imkit-rotator-config"));
    };
    const sorted = (all: readonly Manifest[]) =>
      all
        .map(plain)
        .toSorted((a, b) =>
          JSON.stringify([
            (a as Manifest).kind,
            (a as Manifest).metadata.namespace,
            (a as Manifest).metadata.name,
          ]) <
          JSON.stringify([
            (b as Manifest).kind,
            (b as Manifest).metadata.namespace,
            (b as Manifest).metadata.name,
          ])
            ? -1
            : 1,
        );
    expect(sorted(theirs)).toEqual(sorted(kustomize(overlayDir(overlay))));
  });

  it("are let in without a warning, and are the same when they are applied again; a pod that is laxer is not", () => {
    const said = printed.join("");
    expect(said).not.toMatch(/warning/i);
    for (const overlay of OVERLAYS)
      expect(
        apply(overlay)
          .split("\n")
          .filter((line) => line !== "" && !line.endsWith(" unchanged")),
      ).toEqual([]);
    const pod = podOf(
      documentsOf(must(["kustomize", overlayDir("emergency")])).find(
        ({ kind }) => kind === "Job",
      ) as Manifest,
    );
    const lax = {
      ...pod,
      containers: pod?.containers.map((c) => ({
        ...c,
        securityContext: { ...c.securityContext, allowPrivilegeEscalation: true },
      })),
    };
    const one = (name: string, spec: unknown) =>
      JSON.stringify({ apiVersion: "v1", kind: "Pod", metadata: { name, namespace: "imkit-rotator" }, spec });
    expect(kubectl(["apply", "--dry-run=server", "-f", "-"], one("as-it-is", pod)).status).toBe(0);
    expect(kubectl(["apply", "--dry-run=server", "-f", "-"], one("lax", lax))).toMatchObject({
      status: 1,
      said: expect.stringContaining("violates PodSecurity"),
    });
  });

  it("the rotator may do this, and nothing else", () => {
    const as = "--as=system:serviceaccount:imkit-rotator:imkit-rotator";
    const list = (namespace: string) =>
      must(["auth", "can-i", "--list", "-n", namespace, as])
        .split("\n")
        .filter((line) => /^(secrets|configmaps|deployments|pods|jobs|namespaces|roles|\*)/.test(line))
        .map((line) => line.replaceAll(/\s+/g, " ").trim())
        .toSorted();
    expect(list("chat")).toEqual([
      "deployments.apps [] [api] [get patch]",
      "secrets [] [imkit-key-inbox] [get patch]",
      "secrets [] [imkit-secrets] [get patch]",
    ]);
    expect(list("imkit-rotator")).toEqual(["secrets [] [imkit-rotator-escrow-chat-prod] [get patch]"]);
    expect(list("imkit-ledger")).toEqual(["configmaps [] [] [create get]"]);
    expect(list("default")).toEqual([]);
  });
});

/** The next four build on one another: one app's life in a cluster, with kubectl as the only tool of a person. */
describe("what the pods run", () => {
  it("the CronJob's tick: adopts, and with nothing to do exits 0; doctor finds all rights", async () => {
    const pod = await asPod("cronjob");
    const first = await pod.run();
    expect([first.code, lastJson(first.stdout)], first.stderr).toMatchObject([
      0,
      { type: "summary", exitCode: 0, apps: [{ app: "chat-prod", status: "nothing" }] },
    ]);
    const doctor = await pod.run({ args: ["doctor", "--json"] });
    expect([doctor.code, JSON.parse(doctor.stdout)], doctor.stdout).toMatchObject([0, { ok: true }]);
    expect(await dataOf("imkit-rotator", "imkit-rotator-escrow-chat-prod")).toEqual({});
  });

  it("a key laid into the inbox with kubectl, as the page says: the tick takes it, four pods are made again; the wait for a person ends in exit 0", async () => {
    const key = issue();
    lay(key);
    const tick = await (await asPod("cronjob")).run();
    const [result] = resultsOf(tick.stdout);
    expect([tick.code, result], tick.stderr).toMatchObject([
      0,
      {
        status: "waiting",
        stores: [{ state: "written" }],
        workloads: [{ name: "api", state: "done", proof: 1 }],
      },
    ]);
    expect((await dataOf("chat", "imkit-secrets"))["api-key"]).toBe(base64(key));
    expect(await dataOf("chat", "imkit-key-inbox")).toEqual({});
    const { items } = JSON.parse(must(["-n", "chat", "get", "pods", "-o", "json"])) as {
      readonly items: readonly {
        readonly metadata: { readonly annotations?: Readonly<Record<string, string>> };
      }[];
    };
    expect(
      items.filter(
        ({ metadata }) => metadata.annotations?.["imkit-rotator/rotation"] === result?.["rotation"],
      ),
    ).toHaveLength(4);
  }, 240_000);

  it("the daemon: once the old key is revoked it proves it dead and closes; SIGTERM ends it with 143", async () => {
    sandbox.revoke(1);
    const daemon = await (await asPod("daemon")).run({ on: /"msg":"done"[^]*\n/ });
    expect([daemon.code, daemon.stderr]).toEqual([143, ""]);
    expect(await dataOf("imkit-rotator", "imkit-rotator-escrow-chat-prod")).toEqual({});
  });

  it("the emergency Job: stopped while it waits it ends with 143; the next one goes on, takes the key from the inbox, and ends with 0", async () => {
    const stopped = await (await asPod("emergency")).run({ on: /waiting/ });
    expect(stopped.code, stopped.stderr).toBe(143);
    const fresh = issue();
    lay(fresh);
    sandbox.revoke(2);
    const pod = await asPod("emergency");
    const ended = await pod.run();
    const result = resultsOf(ended.stdout).at(-1);
    expect([ended.code, result], ended.stderr).toMatchObject([0, { status: "done", exitCode: 0 }]);
    expect(existsSync(String(result?.["report"]))).toBe(true);
    expect(dirname(String(result?.["report"]))).toContain("/var/lib/imkit-rotator/");
    expect((await dataOf("chat", "imkit-secrets"))["api-key"]).toBe(base64(fresh));
  }, 120_000);

  it("the emergency Job once more: nobody comes, 3; a store that cannot be written, 1; that mended, 0", async () => {
    const pod = await asPod("emergency");
    const { container } = rotatorOf(kustomize(overlayDir("emergency")));
    const current = lastJson((await pod.run({ args: ["status", "--json"] })).stdout)["apps"] as readonly [
      { readonly fingerprint: string },
    ];
    const job = container.args.map((word) => (word === "--wait=4h" ? "--wait=2s" : word));
    const alone = await pod.run({ args: [...job, "--leaked", current[0].fingerprint] });
    expect(alone.code, alone.stderr).toBe(3);
    must(["-n", "chat", "delete", "secret", "imkit-secrets"]);
    const fresh = issue();
    lay(fresh);
    sandbox.revoke(3);
    const failed = await pod.run({ args: job });
    expect([failed.code, resultsOf(failed.stdout).at(-1)], failed.stderr).toMatchObject([
      1,
      { stores: [{ state: "failed", code: "NOT_FOUND" }] },
    ]);
    must(["-n", "chat", "create", "secret", "generic", "imkit-secrets"]);
    const mended = await pod.run();
    expect([mended.code, resultsOf(mended.stdout).at(-1)], mended.stderr).toMatchObject([
      0,
      { status: "done" },
    ]);
    expect((await dataOf("chat", "imkit-secrets"))["api-key"]).toBe(base64(fresh));
  }, 240_000);

  test("no key is in anything that was printed, nor in an object of the cluster that is no Secret", () => {
    const all =
      printed.join("") +
      must(["get", "configmaps,deployments,pods,events,jobs,cronjobs", "-A", "-o", "json"]);
    for (const key of [sandbox.firstKey(), ...issued]) expect(findKey(all, key)).toEqual([]);
  });
});
