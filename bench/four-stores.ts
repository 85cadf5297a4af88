import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startSandbox } from "../src/shell/sandbox/server.ts";
import { rawAws } from "../test/kit/aws-secrets.ts";
import { startVault } from "../test/kit/azure/server.ts";
import { bind, ROLE } from "../test/peers/kubernetes-role.ts";
import { kubernetes } from "../test/peers/kubernetes.ts";
import type { KubernetesPeer } from "../test/peers/up/kubernetes.ts";
import { answers, cacheDir, freePort, pythonWith, runToEnd, startPeer } from "../test/peers/up/peer.ts";

const MOTO = "5.2.5";
const AWS_CLI = "1.46.3";
const REGION = "us-east-1";
const ROUNDS = 7;
const SCRIPT = join(import.meta.dirname, "..", "test", "peers", "up", "kubernetes.sh");

export type Row = {
  readonly name: string;
  readonly ours: readonly number[];
  readonly floor: readonly number[];
  readonly target: number | null;
  readonly note: string;
};

/** Null when the peers stand ready from a run of `npm test -- peers`; else what is missing. */
export const missingPeers = (): string | null => {
  const built = join(cacheDir(), "kubernetes");
  const isBuilt =
    existsSync(built) && readdirSync(built).some((name) => existsSync(join(built, name, ".done")));
  const lacks = [
    ...(existsSync(join(cacheDir(), `moto-${MOTO}`, "installed")) ? [] : ["moto"]),
    ...(isBuilt ? [] : ["Kubernetes"]),
  ];
  return lacks.length === 0 ? null : lacks.join(" and ");
};

/** What a process cost. */
type Cost = {
  readonly ms: number;
  /** Of the processors, which others on the machine change little. */
  readonly cpuMs: number;
  /** The most memory that it held. */
  readonly mib: number;
};

/** A cold process to its end. */
const cold = async (
  python: string,
  command: readonly string[],
  options: {
    readonly cwd: string;
    readonly env: NodeJS.ProcessEnv;
    readonly input?: string;
    readonly expect?: number;
  },
): Promise<Cost> => {
  const { cwd, env, input = "", expect = 0 } = options;
  // It starts the process and looks at what the kernel counted; its own start is not in the figure.
  const measure = `import json, resource, subprocess, sys, time
t = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdin=sys.stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
ms = (time.perf_counter() - t) * 1000
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, ms, (used.ru_utime + used.ru_stime) * 1000, used.ru_maxrss / 1024]))`;
  const child = spawn(python, ["-S", "-c", measure, ...command], {
    cwd,
    env,
    stdio: ["pipe", "pipe", "inherit"],
  });
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (said += text));
  await once(child, "close");
  const [code, ms, cpuMs, mib] = JSON.parse(said) as [number, number, number, number];
  if (code !== expect) throw new Error(`${command.slice(1, 5).join(" ")}: exit ${code}, not ${expect}`);
  return { ms, cpuMs, mib };
};

const BOTO3 = `import boto3, os
boto3.client("secretsmanager", region_name="${REGION}", endpoint_url=os.environ["ENDPOINT"]).put_secret_value(
    SecretId=os.environ["SECRET"], SecretString=open("value").read())`;

/**
 * A rotation over moto, the Key Vault stand-in, a real API server and a file, each command a cold process, in turns with one cold call of
 * AWS's own tool and one of its library, which write one value to the same moto.
 */
export const fourStores = async (
  folder: string,
  bin: string,
  base: NodeJS.ProcessEnv,
): Promise<readonly Row[]> => {
  const [python, cli] = [
    await pythonWith(`moto-${MOTO}`, `moto[server]==${MOTO}`),
    await pythonWith(`awscli-${AWS_CLI}`, `awscli==${AWS_CLI}`),
  ];
  const dir = join(folder, "four");
  const peers = join(folder, "peers");
  for (const one of [dir, peers]) mkdirSync(one);
  const port = await freePort();
  const endpoint = `http://127.0.0.1:${port}`;
  const command = [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", `${port}`];
  const moto = await startPeer("moto", peers, command, process.env, () =>
    answers(`${endpoint}/moto-api/data.json`),
  );
  const closing: (() => Promise<unknown>)[] = [moto.stop];
  try {
    const cluster = join(peers, "kubernetes");
    await runToEnd("bash", [SCRIPT, "start", cluster, "--owner", String(process.pid)]);
    closing.push(() => runToEnd("bash", [SCRIPT, "stop", cluster]));
    const kube = kubernetes(JSON.parse(readFileSync(join(cluster, "peer.json"), "utf8")) as KubernetesPeer);
    const vault = await startVault();
    closing.push(vault.close);
    const sandbox = await startSandbox({ limit: 1_000_000 });
    closing.push(sandbox.close);

    const first = sandbox.firstKey();
    const [secret, other, namespace] = [randomUUID(), randomUUID(), await kube.namespace()];
    for (const name of [secret, other])
      await rawAws(endpoint, REGION, "CreateSecret", {
        Name: name,
        ClientRequestToken: randomUUID(),
        SecretString: first,
      });
    vault.vault.put(secret, first, {});
    await bind(kube, namespace, ROLE);
    await kube.must("POST", `/api/v1/namespaces/${namespace}/secrets`, {
      metadata: { name: "imkit-secrets" },
      data: { "api-key": Buffer.from(first).toString("base64") },
    });
    writeFileSync(join(dir, ".env"), `IMKIT_API_KEY=${first}\n`, { mode: 0o600 });
    writeFileSync(join(dir, "kubeconfig"), kube.kubeconfig({ token: await kube.tokenOf(namespace) }));
    writeFileSync(join(dir, "value"), first);
    const stores = {
      dotenv: "{ name: env, type: dotenv, path: .env, key: IMKIT_API_KEY }",
      "kubernetes-secret": `{ name: k8s, type: kubernetes-secret, kubeconfig: kubeconfig, namespace: ${namespace} }`,
      "aws-secrets-manager": `{ name: aws, type: aws-secrets-manager, region: ${REGION}, secretId: ${secret}, endpoint: "${endpoint}" }`,
      "azure-key-vault": `{ name: azure, type: azure-key-vault, vaultUrl: "${vault.url}", secret: ${secret}, caFile: ${vault.caFile}, verifyChallengeResource: false, token: { valueFrom: { env: VAULT_TOKEN } } }`,
    };
    const config = (file: string, lines: readonly string[], state = "./state"): string => {
      const text = `schemaVersion: 1
state: { dir: ${state} }
apps:
  demo:
    baseUrl: ${sandbox.url}
    stores: [${lines.join(", ")}]
    rollouts: [{ name: none, type: none, reason: "nothing reads it here" }]
    revoke: { probes: 3, every: 0s }
`;
      writeFileSync(join(dir, file), text);
      return file;
    };
    config("imkit-rotator.config.yaml", Object.values(stores));
    const env = {
      ...base,
      AWS_ACCESS_KEY_ID: "AKIAEXAMPLE",
      AWS_SECRET_ACCESS_KEY: "example",
      AWS_EC2_METADATA_DISABLED: "true",
      VAULT_TOKEN: vault.token,
      ENDPOINT: endpoint,
      SECRET: other,
    };
    const node = (
      args: readonly string[],
      more: { readonly input?: string; readonly expect?: number } = {},
    ) => cold(python, [process.execPath, ...args], { cwd: dir, env, ...more });
    const put = [
      "secretsmanager",
      "put-secret-value",
      "--secret-id",
      other,
      "--secret-string",
      "file://value",
    ];
    const awsCli = () =>
      cold(cli, [cli, "-m", "awscli", ...put, "--region", REGION, "--endpoint-url", endpoint], {
        cwd: dir,
        env,
      });
    const library = () => cold(cli, [python, "-c", BOTO3], { cwd: dir, env });

    const [rotate, whole, aws, boto3, bare] = [1, 2, 3, 4, 5].map((): Cost[] => []) as [
      Cost[],
      Cost[],
      Cost[],
      Cost[],
      Cost[],
    ];
    const reads = Object.entries(stores).map(([kind, line]) => {
      const file = config(`${kind}.yaml`, [line], `./state-${kind}`);
      return { kind, file, costs: [] as Cost[] };
    });
    for (let round = 0; round <= ROUNDS; round++) {
      const key = sandbox.issue();
      const staged = await node([bin, "stage", "demo", "--from-stdin"], { input: key });
      const rotated = await node([bin, "rotate", "demo"], { expect: 3 });
      const byCli = await awsCli();
      sandbox.revoke(round + 1);
      const confirmed = await node([bin, "confirm-revoked", "demo"]);
      const byLibrary = await library();
      const nothing = await node(["-e", "0"]);
      const statuses = [];
      for (const { file } of reads) statuses.push(await node([bin, "status", "--config", file]));
      // The first round brings everything from the disk.
      if (round === 0) continue;
      rotate.push(rotated);
      whole.push(sum([staged, rotated, confirmed]));
      aws.push(byCli);
      boto3.push(byLibrary);
      bare.push(nothing);
      for (const [at, cost] of statuses.entries()) reads[at]?.costs.push(cost);
    }
    const row = (name: string, ours: readonly Cost[], floor: readonly Cost[], target: number | null): Row => {
      const note = [
        `processor time ${ratio(ours, floor, "cpuMs")}`,
        `peak memory ${ratio(ours, floor, "mib")}, ${middle(ours, "mib").toFixed(0)} / ${middle(floor, "mib").toFixed(0)} MiB`,
      ].join("; ");
      return { name, ours: ours.map(({ ms }) => ms), floor: floor.map(({ ms }) => ms), target, note };
    };
    return [
      row("rotate, four stores / one aws secretsmanager put-secret-value (cold)", rotate, aws, 0.5),
      row("rotate, four stores / one put by boto3 (cold)", rotate, boto3, null),
      row("stage + rotate + confirm, four stores / one aws put-secret-value", whole, aws, null),
      ...reads.map(({ kind, costs }) => row(`status, one ${kind} / bare Node (cold)`, costs, bare, null)),
    ];
  } finally {
    for (const close of closing.toReversed()) await close();
  }
};

const middle = (costs: readonly Cost[], of: keyof Cost): number =>
  costs.map((cost) => cost[of]).toSorted((a, b) => a - b)[Math.floor(costs.length / 2)] ?? Number.NaN;
const ratio = (ours: readonly Cost[], floor: readonly Cost[], of: keyof Cost): string =>
  `${(middle(ours, of) / middle(floor, of)).toFixed(2)}x`;
const sum = (costs: readonly Cost[]): Cost => ({
  ms: costs.reduce((all, { ms }) => all + ms, 0),
  cpuMs: costs.reduce((all, { cpuMs }) => all + cpuMs, 0),
  mib: Math.max(...costs.map(({ mib }) => mib)),
});
