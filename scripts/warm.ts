/**
 * Part of the build: `warm.cjs <dist> <scratch folder>` takes a key through a whole rotation, against the sandbox, with the program in this
 * process, then lays what V8 compiled on the way beside each script, for the launcher to start from. No key of anybody is near.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { basename, join } from "node:path";
import { Script } from "node:vm";
import { startSandbox } from "../src/shell/sandbox/server.ts";

const [dist = "", folder = ""] = process.argv.slice(2);
const requireNode = createRequire(join(dist, "cli.cjs"));

/** What the launcher starts, to the letter. */
type Run = (
  exports: object,
  require: (id: string) => unknown,
  module: object,
  file: string,
  dir: string,
  importAny: (name: string) => Promise<unknown>,
) => void;
const scripts = new Map<string, Script>();
/** Another name makes other scripts: those of the prelude must leave no trace in the caches. */
let suffix = "#prelude";
const scriptOf = (file: string): Script => {
  const known = scripts.get(file);
  if (known !== undefined) return known;
  const text = `(function (exports, require, module, __filename, __dirname, __import) { ${readFileSync(file, "latin1")}\n});`;
  const script = new Script(text, { filename: `${file}${suffix}` });
  scripts.set(file, script);
  return script;
};
const load = (file: string): unknown => {
  const module = { exports: {} };
  const run = scriptOf(file).runInThisContext() as Run;
  run(module.exports, requireOurs, module, file, dist, (name) => import(name));
  return module.exports;
};
const requireOurs = (id: string): unknown => (id.startsWith("./") ? load(join(dist, id)) : requireNode(id));

const leave = process.exit.bind(process);
/** Runs one command, with modules of its own; all runs share what is compiled. @returns its exit status */
const run = (argv: readonly string[]): Promise<number> =>
  new Promise((resolve) => {
    process.argv = [process.execPath, "imkit-rotator", ...argv];
    process.exit = (code) => resolve(Number(code)) as never;
    load(join(dist, "cli.cjs"));
  });

/** Lays down all that was compiled until now, of one script or of all. */
const keep = (kind: "look" | "work", only: string | null = null): void => {
  for (const [file, script] of scripts) {
    if (only !== null && basename(file) !== only) continue;
    const cache = `${file}.${kind}.${process.version}-${process.arch}.cache`;
    writeFileSync(`${cache}.tmp`, script.createCachedData());
    renameSync(`${cache}.tmp`, cache);
  }
};

const config = (url: string): string => `schemaVersion: 1
state: { dir: ./state }
defaults: { timezone: Asia/Taipei, rotateEvery: 90d, schedule: "0 10 * * 1-5", remindBefore: [14d, 3d, 0d] }
apps:
  demo: # one of everything
    baseUrl: ${url}
    owners: [may@example.com]
    stores:
      - { name: env, type: dotenv, path: .env, key: IMKIT_API_KEY }
    rollouts:
      - name: none
        type: none
        reason: 'reads the file on each call'
    soak: 0s
    revoke: { probes: 1, every: 0s, control: true, escalateAfter: 4h }
`;

/** Has each cloud's library make a call, of which only AWS's is answered. Their caches are one for all commands: who needs them needs them whole. */
const warmClouds = async (key: string): Promise<void> => {
  const answer = {
    VersionId: "v".repeat(32),
    SecretString: key,
    VersionStages: ["AWSCURRENT"],
    CreatedDate: 1,
  };
  const aws = createServer((_, response) => response.end(JSON.stringify(answer)));
  await new Promise<void>((resolve) => aws.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${(aws.address() as AddressInfo).port}`;
  const login = { AWS_ACCESS_KEY_ID: "AKIAEXAMPLE", AWS_SECRET_ACCESS_KEY: "example", WARM_TOKEN: "none" };
  Object.assign(process.env, login);
  const cluster = { name: "warm", cluster: { server: "https://127.0.0.1:9" } };
  const context = { name: "warm", context: { cluster: "warm", user: "warm" } };
  const users = [{ name: "warm", user: { token: "none" } }];
  writeFileSync(
    "kubeconfig",
    JSON.stringify({ clusters: [cluster], contexts: [context], users, "current-context": "warm" }),
  );
  const vault =
    'type: azure-key-vault, vaultUrl: "https://127.0.0.1:9", secret: warm, verifyChallengeResource: false';
  const stores = {
    aws: `{ name: aws, type: aws-secrets-manager, region: us-east-1, secretId: warm, endpoint: "${endpoint}" }`,
    azure: `{ name: azure, ${vault}, token: { valueFrom: { env: WARM_TOKEN } } }`,
    identity: `{ name: azure, ${vault} }`,
    kubernetes: "{ name: k8s, type: kubernetes-secret, kubeconfig: ./kubeconfig, namespace: warm }",
  };
  for (const [name, store] of Object.entries(stores)) {
    const text = config("http://127.0.0.1:9").replace(/\{ name: env.*\}/, store);
    writeFileSync(`${name}.config.yaml`, text.replaceAll("demo", "warm"));
    await run(["status", "--config", `${name}.config.yaml`]);
  }
  for (const kind of ["look", "work"] as const)
    for (const file of ["aws", "azure-secrets", "azure-identity", "kubernetes"]) keep(kind, `${file}.cjs`);
  aws.close();
};

const main = async (): Promise<void> => {
  // The launcher starts nothing in a Node as old as this.
  if (Number.parseInt(process.versions.node, 10) < 22) leave(0);
  process.chdir(folder);
  mkdirSync(join(folder, "state"));
  const sandbox = await startSandbox();
  writeFileSync(".env", `IMKIT_API_KEY=${sandbox.firstKey()}\n`);
  writeFileSync("imkit-rotator.config.yaml", config(sandbox.url));
  await run(["adopt", "demo"]);
  scripts.clear();
  suffix = "";

  // What only looks at one app is started most often, and starts the faster, the less is laid down for it.
  for (const argv of [["status"], ["status", "--json"], ["--version"]]) await run(argv);
  keep("look");
  await run(["doctor"]);
  writeFileSync("key", sandbox.issue());
  await run(["stage", "demo", "--from-file", "key"]);
  await run(["rotate", "demo"]);
  sandbox.revoke(1);
  const ended = await run(["confirm-revoked", "demo"]);
  keep("work");
  await warmClouds(sandbox.firstKey() ?? "");
  leave(ended);
};
void main();
