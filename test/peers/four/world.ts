import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
  closeSync,
  cpSync,
  existsSync,
  type FSWatcher,
  openSync,
  readFileSync,
  rmSync,
  watch,
  writeFileSync,
} from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { KEYS } from "../../kit/aws-place.ts";
import { rawAws } from "../../kit/aws-secrets.ts";
import type { VaultServer } from "../../kit/azure/server.ts";
import { findKey } from "../../kit/leak.ts";
import { cleanEnv, programFile, type Ran } from "../../kit/program.ts";
import { makeWorld, NO_RESTART, type World, type WorldOptions } from "../../kit/world.ts";
import type { Kubernetes } from "../kubernetes.ts";
import { bind, ROLE } from "../kubernetes-role.ts";
import { type Gate, gateTo } from "./gate.ts";

export const STORES = ["aws", "azure", "k8s", "env"] as const;
export type StoreName = (typeof STORES)[number];
export type Peers = { readonly moto: string; readonly kube: Kubernetes; readonly vault: VaultServer };
export type Started = { readonly pid: number; readonly ended: Promise<Ran>; readonly log: () => string };

/** The program, an IMKIT and one key in four places: moto, the Key Vault stand-in, a real API server, a file. */
export type Four = Omit<World, "run"> & {
  readonly run: (args: readonly string[], stdin?: string) => Promise<Ran>;
  /** Under strace, one file thread, so that the order of the file operations is always the same. */
  readonly traced: (args: readonly string[], strace: readonly string[], stdin?: string) => Promise<Started>;
  readonly start: (args: readonly string[], stdin?: string) => Promise<Started>;
  readonly aws: Gate;
  readonly k8s: Gate;
  /** Name of the secret in the vault. */
  readonly azure: string;
  /** What each place holds. */
  readonly values: () => Promise<Record<StoreName, string>>;
  /** How often each place was changed since the beginning. */
  readonly changes: () => Promise<Record<StoreName, number>>;
  /** Versions and labels of the AWS secret. */
  readonly labels: () => Promise<Record<string, readonly string[]>>;
  /** Write intents of each store. */
  readonly intents: () => Record<StoreName, number>;
  /** Who claimed the ledger last. */
  readonly claim: () => { readonly pid: number; readonly inst: string };
  /** Stores of which that process said that it came too late. */
  readonly lateEffects: (inst: string) => readonly unknown[];
  /** `status --json --exit-code`; asked again where a busy machine kept a store from an answer within its 5 s. */
  readonly status: () => Promise<Ran>;
  /** Of one store, by the answer of `status --json`. */
  readonly stateOf: (status: Ran, store: StoreName) => string | undefined;
  /** Leaves only these stores in the config, with a state folder of that name. */
  readonly only: (stores: readonly StoreName[], state?: string) => void;
  readonly copyState: (name: string) => string;
  /** Keys that stand in what was printed or in the ledger. */
  readonly leaks: () => readonly string[];
};

const REGION = "us-east-1";
const AZURE_TOKEN = "VAULT_TOKEN";

/** `holds`: what is in the stores at first; default the sandbox's first key. */
export const makeFour = async (peers: Peers, options: WorldOptions = {}): Promise<Four> => {
  const { moto, kube, vault } = peers;
  const world = await makeWorld(options);
  const oldKey = world.sandbox.firstKey();
  const issued = [oldKey];
  const sandbox = {
    ...world.sandbox,
    issue: () => {
      const key = world.sandbox.issue();
      issued.push(key);
      return key;
    },
  };
  const id = randomUUID();
  const [secretId, azure, namespace] = [`four/${id}`, `four-${id}`, await kube.namespace()];
  const [aws, k8s] = await Promise.all([gateTo(moto), gateTo(kube.server, readFileSync(kube.caFile))]);
  const ask = (call: string, body: Record<string, unknown>) =>
    rawAws(moto, REGION, call, { SecretId: secretId, ...body });
  const secrets = `/api/v1/namespaces/${namespace}/secrets`;
  vault.vault.put(azure, oldKey, { tags: { team: "chat" } });
  await Promise.all([
    ask("CreateSecret", { Name: secretId, ClientRequestToken: randomUUID(), SecretString: holding(oldKey) }),
    bind(kube, namespace, ROLE),
    kube.must("POST", secrets, {
      metadata: { name: "imkit-secrets" },
      data: { "api-key": base64(oldKey), other: "a2VwdA==" },
    }),
  ]);
  const token = await kube.tokenOf(namespace);
  const cluster = { server: k8s.url, "insecure-skip-tls-verify": true };
  writeFileSync(join(world.dir, "kubeconfig"), kube.kubeconfig({ token }, cluster));

  const lines: Record<StoreName, string> = {
    aws: `{ name: aws, type: aws-secrets-manager, region: ${REGION}, secretId: ${secretId}, jsonKey: IMKIT_API_KEY, endpoint: "${aws.url}" }`,
    azure: `{ name: azure, type: azure-key-vault, vaultUrl: "${vault.url}", secret: ${azure}, caFile: ${vault.caFile}, verifyChallengeResource: false, token: { valueFrom: { env: ${AZURE_TOKEN} } } }`,
    k8s: `{ name: k8s, type: kubernetes-secret, kubeconfig: ./kubeconfig, context: peers, namespace: ${namespace} }`,
    env: "{ name: env, type: dotenv, path: ./env.env, key: IMKIT_API_KEY }",
  };
  const only: Four["only"] = (stores, state = "state") =>
    writeFileSync(
      world.configFile,
      `schemaVersion: 1
state: { dir: ./${state} }
apps:
  demo:
    baseUrl: ${sandbox.url}
    stores:
${stores.map((name) => `      - ${lines[name]}`).join("\n")}
    rollouts: ${options.rollouts ?? NO_RESTART}
    revoke: { probes: 3, every: 10ms }
`,
    );
  only(STORES);

  const env = {
    AWS_ACCESS_KEY_ID: KEYS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: KEYS.secretAccessKey,
    [AZURE_TOKEN]: vault.token,
  };
  let said = "";
  let started = 0;
  const launch = async (
    before: readonly string[],
    args: readonly string[],
    more: Record<string, string>,
    stdin: string,
  ): Promise<Started> => {
    const file = await programFile();
    const [out, err, log] = ["out", "err", "strace"].map((name) => join(world.dir, `${name}-${started}`)) as [
      string,
      string,
      string,
    ];
    started += 1;
    const [outFd, errFd] = [openSync(out, "w"), openSync(err, "w")];
    const own = [process.execPath, file, ...args];
    const [program = "", ...rest] = before.length === 0 ? own : [...before, `-o${log}`, ...own];
    const child = spawn(program, rest, {
      cwd: world.dir,
      env: cleanEnv(world.dir, { ...env, ...more }),
      stdio: ["pipe", outFd, errFd],
    });
    for (const fd of [outFd, errFd]) closeSync(fd);
    child.stdin?.on("error", () => {});
    child.stdin?.end(stdin);
    const ended = new Promise<Ran>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, signal) => {
        const ran = { code, signal, stdout: readFileSync(out, "utf8"), stderr: readFileSync(err, "utf8") };
        said += ran.stdout + ran.stderr;
        resolve(ran);
      });
    });
    return { pid: child.pid ?? 0, ended, log: () => (existsSync(log) ? readFileSync(log, "utf8") : "") };
  };

  const events = (): readonly (Record<string, unknown> & { readonly inst: string })[] =>
    world.ledgerFiles().flatMap((name) => {
      const { r } = JSON.parse(readFileSync(join(world.ledgerDir, name), "utf8")) as {
        readonly r: { readonly inst: string; readonly events: readonly Record<string, unknown>[] };
      };
      return r.events.map((event) => ({ ...event, inst: r.inst }));
    });
  const run: Four["run"] = async (args, stdin) => {
    const ran = await world.run(args, { env, ...(stdin === undefined ? {} : { stdin }) });
    said += ran.stdout + ran.stderr;
    return ran;
  };
  const renames = countRenames(world.dir, "env.env");
  const labels: Four["labels"] = async () =>
    (await ask("DescribeSecret", {}))["VersionIdsToStages"] as Record<string, string[]>;
  return {
    ...world,
    sandbox,
    aws,
    k8s,
    azure,
    only,
    labels,
    run,
    start: (args, stdin = "") => launch([], args, {}, stdin),
    traced: (args, strace, stdin = "") =>
      launch(
        ["strace", "-f", "-qq", "-y", "-s0", ...strace],
        args,
        { UV_THREADPOOL_SIZE: "1", NODE_DISABLE_COMPILE_CACHE: "1" },
        stdin,
      ),
    values: async () => {
      const [got, secret] = await Promise.all([
        ask("GetSecretValue", { VersionStage: "AWSCURRENT" }),
        kube.must("GET", `${secrets}/imkit-secrets`),
      ]);
      const data = secret["data"] as Record<string, string>;
      const whole = String(got["SecretString"]);
      const key = (JSON.parse(whole) as Record<string, string>)["IMKIT_API_KEY"] ?? "";
      return {
        aws: whole === holding(key) ? key : "a neighbour was changed",
        azure: vault.vault.versions(azure).at(-1)?.value ?? "",
        k8s: data["other"] === "a2VwdA==" ? unbase64(data["api-key"]) : "a neighbour was changed",
        env: world.value() ?? "",
      };
    },
    changes: async () => ({
      aws: aws.seen.filter((one) => movesCurrent(one) && one.status === 200).length,
      azure: vault.vault.versions(azure).length - 1,
      k8s: (await patchesOf(kube, namespace)).length,
      env: renames.count(),
    }),
    intents: () => {
      const count = Object.fromEntries(STORES.map((name) => [name, 0])) as Record<StoreName, number>;
      for (const { type, action, target } of world.events())
        if (type === "intent" && action === "write") count[target as StoreName] += 1;
      return count;
    },
    claim: () => {
      const last = events().findLast(({ type }) => type === "claimed");
      if (last === undefined) throw new Error("nobody has claimed");
      return { pid: Number(last["pid"]), inst: last.inst };
    },
    lateEffects: (inst) =>
      events()
        .filter((event) => event["type"] === "late-effect" && event.inst === inst)
        .map(({ target }) => target),
    status: async () => {
      for (let tries = 1; ; tries++) {
        const ran = await run(["status", "demo", "--json", "--exit-code"]);
        if (!ran.stdout.includes('"code":"TIMEOUT"') || tries === 10) return ran;
      }
    },
    stateOf: ({ stdout }, store) => {
      const { apps } = JSON.parse(stdout.split("\n")[0] ?? "") as {
        readonly apps: readonly {
          readonly stores: readonly { readonly name: string; readonly state: string }[];
        }[];
      };
      return apps[0]?.stores.find(({ name }) => name === store)?.state;
    },
    copyState: (name) => {
      cpSync(join(world.dir, "state"), join(world.dir, name), { recursive: true, preserveTimestamps: true });
      return join(world.dir, name, "demo", "ledger");
    },
    leaks: () => {
      const text = [
        said,
        ...world.ledgerFiles().map((name) => readFileSync(join(world.ledgerDir, name), "latin1")),
      ];
      return issued.flatMap((key) => findKey(text.join("\n"), key));
    },
    close: async () => {
      renames.close();
      await Promise.all([aws.close(), k8s.close(), world.close()]);
      rmSync(world.dir, { recursive: true, force: true });
    },
  };
};

/** The write that counts: the one that makes another version the current one. */
export const movesCurrent = ({ headers, body }: Gate["seen"][number]): boolean =>
  headers["x-amz-target"] === "secretsmanager.UpdateSecretVersionStage" && body.includes('"AWSCURRENT"');

const holding = (key: string): string => `{"DB": "x", "IMKIT_API_KEY": "${key}"}`;
const base64 = (text: string): string => Buffer.from(text).toString("base64");
const unbase64 = (text = ""): string => Buffer.from(text, "base64").toString("utf8");

/** Changes of the namespace's Secret that took effect, by the API server's own log. */
const patchesOf = async ({ audit }: Kubernetes, namespace: string): Promise<readonly string[]> => {
  const path = `/api/v1/namespaces/${namespace}/secrets/`;
  return (await readFile(audit, "utf8"))
    .split("\n")
    .filter((line) => line.includes(path) && line.includes('"verb":"patch"'))
    .filter((line) => !line.includes("dryRun=All") && line.includes('"code":200'));
};

/** How often a file was replaced, by the kernel's word. */
const countRenames = (dir: string, name: string): { count: () => number; close: FSWatcher["close"] } => {
  let count = 0;
  const watcher = watch(dir, (event, file) => {
    if (event === "rename" && file === name) count += 1;
  });
  return { count: () => count, close: () => watcher.close() };
};
