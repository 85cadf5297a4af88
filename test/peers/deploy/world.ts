import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startSandbox } from "../../../src/shell/sandbox/server.ts";
import {
  DEPLOY,
  documentsOf,
  OVERLAYS,
  type Overlay,
  overlayDir,
  type PodSpec,
  rotatorOf,
} from "../../deploy/manifests.ts";
import { programRoot } from "../../kit/program.ts";
import { eventually, type Kubernetes } from "../kubernetes.ts";

/** How the API server calls the one identity that deploy/ makes. */
export const ROTATOR = "system:serviceaccount:imkit-rotator:imkit-rotator";
const DEPLOYMENT = {
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

/**
 * deploy/kubernetes as it is, applied by kubectl to the real API server. What its pods would run is run as a process: the manifest's arguments and
 * variables, its mounts as folders, its user where we are root, and the token of its ServiceAccount.
 */
export const openDeploy = async (kube: Kubernetes) => {
  const dir = mkdtempSync(join(tmpdir(), "imkit-rotator-deploy-"));
  chmodSync(dir, 0o755);
  writeFileSync(join(dir, "admin"), kube.kubeconfig({ token: kube.adminToken }));
  const sandbox = await startSandbox({ app: "chat-prod" });
  const printed: string[] = [];
  const issued: string[] = [];
  const started = new Set<ChildProcess>();

  /** `input` comes through a pipe, as from a shell: `/dev/stdin` can be opened then. */
  const kubectl = (args: readonly string[], input = "", cwd = join(DEPLOY, "..")) => {
    const line = ["-c", 'cat | "$@"', "sh", "kubectl", "--kubeconfig", join(dir, "admin"), ...args];
    const { status, stdout, stderr } = spawnSync("sh", line, {
      encoding: "utf8",
      input,
      cwd,
      maxBuffer: 256 * 1024 * 1024,
    });
    return { status, said: stdout + stderr, stdout };
  };
  const must = (args: readonly string[], input?: string, cwd?: string): string => {
    const { status, said, stdout } = kubectl(args, input, cwd);
    if (status !== 0) throw new Error(`kubectl ${args.join(" ")}: ${said}`);
    return stdout;
  };
  const apply = (overlay: Overlay): string => must(["apply", "-k", overlayDir(overlay)]);
  const mayRotator = (verb: string, what: string, namespace: string): boolean =>
    kubectl(["auth", "can-i", verb, what, "-n", namespace, `--as=${ROTATOR}`]).status === 0;
  const dataOf = async (namespace: string, name: string, kind = "secrets") =>
    (
      (await kube.must("GET", `/api/v1/namespaces/${namespace}/${kind}/${name}`)) as {
        readonly data?: Readonly<Record<string, string>>;
      }
    ).data ?? {};

  /** The files of one volume of a pod, as text; null = an empty folder. */
  const filesIn = async (volume: PodSpec["volumes"][number]) => {
    const { configMap, secret } = volume as {
      readonly configMap?: { readonly name: string };
      readonly secret?: { readonly secretName: string; readonly defaultMode: number };
    };
    if (configMap !== undefined)
      return { mode: 0o644, files: await dataOf("imkit-rotator", configMap.name, "configmaps") };
    if (secret === undefined) return null;
    const data = await dataOf("imkit-rotator", secret.secretName);
    const decoded = Object.entries(data).map(([file, text]) => [
      file,
      Buffer.from(text, "base64").toString(),
    ]);
    return {
      mode: secret.defaultMode,
      files: Object.fromEntries(decoded) as Readonly<Record<string, string>>,
    };
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

  /** Started as the pod of an overlay. Paths of the pod are looked for in a folder of this machine. */
  const asPod = async (overlay: Overlay) => {
    const { pod, container } = rotatorOf(documentsOf(must(["kustomize", overlayDir(overlay)])));
    const { runAsUser, runAsGroup, fsGroup } = pod.securityContext as Readonly<
      Record<"runAsUser" | "runAsGroup" | "fsGroup", number>
    >;
    const isRoot = process.getuid?.() === 0;
    const place = mkdtempSync(join(dir, `${overlay}-`));
    chmodSync(place, 0o755);
    const at = (path: string) => join(place, path);
    for (const { mountPath, name, readOnly } of container.volumeMounts) {
      mkdirSync(at(mountPath), { recursive: true });
      const filled = await filesIn(pod.volumes.find((v) => v["name"] === name) ?? {});
      for (const [file, text] of Object.entries(filled?.files ?? {})) {
        const path = at(join(mountPath, file));
        writeFileSync(
          path,
          text
            .replace("https://your-app.imkit.io", sandbox.url)
            .replace("/var/lib/imkit-rotator", at("/var/lib/imkit-rotator"))
            .replace("0.0.0.0:7333", "127.0.0.1:0"),
        );
        chmodSync(path, filled?.mode ?? 0);
        if (isRoot) chownSync(path, 0, fsGroup);
      }
      chmodSync(at(mountPath), readOnly === true ? 0o555 : 0o777);
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
    const run = async (
      more: {
        readonly on?: RegExp;
        readonly signal?: NodeJS.Signals;
        readonly args?: readonly string[];
      } = {},
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

  const page = (name: string): string => readFileSync(join(DEPLOY, name), "utf8");
  /** The arguments of the one line of a page that begins so. */
  const lineOf = (name: string, begins: string): readonly string[] => {
    const found = page(name)
      .split("\n")
      .map((line) => line.trim())
      .filter((line) => line.startsWith(begins));
    if (found.length !== 1) throw new Error(`${name} has ${found.length} lines: ${begins}`);
    return (found[0] ?? "").split(" ").slice(1);
  };

  // What is there before: a namespace with the key and with what reads it.
  must(["create", "namespace", "chat"]);
  const key = `--from-literal=api-key=${sandbox.firstKey()}`;
  must(["-n", "chat", "create", "secret", "generic", "imkit-secrets", key]);
  must(["apply", "-f", "-"], JSON.stringify(DEPLOYMENT));
  // What a person makes, as the page says; `age-keygen` writes just such a file.
  const { generateX25519Identity } = await import("age-encryption");
  const identity = await generateX25519Identity();
  writeFileSync(join(dir, "escrow-identity"), `# created: today\n${identity}\n`, { mode: 0o600 });
  must(lineOf("install.md", "kubectl apply -f"));
  must(lineOf("install.md", "kubectl -n imkit-rotator create secret"), "", dir);
  for (const overlay of OVERLAYS) printed.push(apply(overlay));
  must(["-n", "chat", "rollout", "status", "deployment/api", "--timeout=60s"]);
  await eventually("the rights", async () => mayRotator("get", "secrets/imkit-secrets", "chat"));

  return {
    sandbox,
    printed,
    issued,
    identity,
    kubectl,
    must,
    apply,
    mayRotator,
    dataOf,
    asPod,
    issue: (): string => {
      const fresh = sandbox.issue();
      issued.push(fresh);
      return fresh;
    },
    /** Lays a key into the inbox with the line that the page shows. */
    lay: (fresh: string): string =>
      must(
        lineOf("first-rotation.md", "kubectl -n chat patch secret"),
        `{"stringData":{"api-key":"${fresh}"}}`,
      ),
    close: async (): Promise<void> => {
      for (const child of started) child.kill("SIGKILL");
      for (const overlay of OVERLAYS)
        kubectl(["delete", "-k", overlayDir(overlay), "--ignore-not-found", "--wait=false"]);
      kubectl(["delete", "namespace", "chat", "--wait=false"]);
      await sandbox.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
};
export type Deploy = Awaited<ReturnType<typeof openDeploy>>;
