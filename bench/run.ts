/**
 * `npm run bench [-- idle|all-apps|four-stores|kubernetes]`: each figure is a ratio against a floor measured in the same run, the two taken in turns. Loopback only; stops by itself.
 */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { seal } from "../src/core/chain.ts";
import { fileLedger } from "../src/io/ledger/file.ts";
import { startSandbox } from "../src/shell/sandbox/server.ts";
import { allApps } from "./all-apps.ts";
import { blackout } from "./blackout.ts";
import { runChild } from "./child.ts";
import { idleMemory } from "./idle.ts";
import { kubernetesAppend } from "./kubernetes.ts";
import { fourStores, missingPeers } from "./four-stores.ts";

const root = join(import.meta.dirname, "..");
const bin = join(root, "bin", "imkit-rotator.cjs");
const folder = mkdtempSync(join(tmpdir(), "imkit-rotator-bench-"));
const env = {
  ...process.env,
  XDG_CONFIG_HOME: join(folder, "config"),
  XDG_STATE_HOME: join(folder, "state"),
  NO_COLOR: "1",
  NODE_OPTIONS: "",
};

const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
};
const timed = (work: () => void): number => {
  const start = performance.now();
  work();
  return performance.now() - start;
};

type Row = {
  readonly name: string;
  readonly ours: number;
  readonly floor: number;
  readonly target: number | null;
  /** Default: ms. */
  readonly unit?: string;
  readonly note: string;
};
const rows: Row[] = [];

const config = (url: string, dir: string): string => `schemaVersion: 1
apps:
  demo:
    baseUrl: ${url}
    stores:
      - { name: env, type: dotenv, path: ${JSON.stringify(join(dir, ".env"))}, key: IMKIT_API_KEY }
    rollouts:
      - { name: none, type: none, reason: "nothing reads it here" }
    revoke: { probes: 3, every: 0s }
`;

/** Cold, whole process, as a shell sees it. */
const coldStatus = (dir: string): void => {
  const run = (args: readonly string[]): number =>
    timed(() => {
      const { status } = spawnSync(process.execPath, args, { cwd: dir, env, stdio: "ignore" });
      if (status !== 0) throw new Error(`exit ${status}`);
    });
  const [ours, bare, version]: [number[], number[], number[]] = [[], [], []];
  for (let i = 0; i < 45; i++) {
    const all = [run([bin, "status"]), run(["-e", "0"]), run([bin, "--version"])];
    if (i < 5) continue;
    ours.push(all[0] ?? 0);
    bare.push(all[1] ?? 0);
    version.push(all[2] ?? 0);
  }
  rows.push({
    name: "status, dotenv app / bare Node (cold process)",
    ours: median(ours),
    floor: median(bare),
    target: 2.5,
    note: `of it --version alone ${(median(version) / median(bare)).toFixed(2)}x: start and arguments; the rest is config, ledger, store (bench/README.md)`,
  });
};

/** What one durable entry costs against the same system calls without us. */
const ledgerAppend = async (): Promise<void> => {
  const dir = join(folder, "ledger");
  const raw = join(folder, "raw");
  mkdirSync(raw);
  const ledger = fileLedger(dir);
  const line = (seq: number): Uint8Array =>
    seal({
      v: 1,
      ledger: "bench",
      seq,
      prev: seq === 0 ? null : "0".repeat(64),
      ts: new Date(0).toISOString(),
      inst: "bench",
      actor: { kind: "person", id: "bench" },
      events:
        seq === 0
          ? [{ type: "genesis", app: "bench", salt: "0".repeat(64) }]
          : [{ type: "renewed", inst: "bench" }],
    }).line;
  const floor = (seq: number, bytes: Uint8Array): void => {
    const temp = join(raw, `.tmp-${seq}`);
    const file = openSync(temp, "wx", 0o600);
    writeSync(file, bytes);
    fsyncSync(file);
    closeSync(file);
    linkSync(temp, join(raw, `${String(seq).padStart(8, "0")}.json`));
    unlinkSync(temp);
    const directory = openSync(raw, "r");
    fsyncSync(directory);
    closeSync(directory);
  };
  const [ours, theirs]: [number[], number[]] = [[], []];
  for (let seq = 0; seq < 300; seq++) {
    const start = performance.now();
    await ledger.create(seq, line(seq));
    const between = performance.now();
    floor(seq, line(seq));
    const end = performance.now();
    if (seq < 20) continue;
    ours.push(between - start);
    theirs.push(end - between);
  }
  rows.push({
    name: "ledger append / raw write + fsync + link + fsync of the folder",
    ours: median(ours),
    floor: median(theirs),
    target: 1.3,
    note: "ours waits for its fsyncs in the thread pool, the floor blocks",
  });
};

/** stage + rotate + revoke + confirm, each a cold process, against as many bare Node starts. */
const rotation = async (): Promise<void> => {
  const [ours, bare]: [number[], number[]] = [[], []];
  for (let i = 0; i < 6; i++) {
    const dir = join(folder, `rotation-${i}`);
    mkdirSync(dir);
    const sandbox = await startSandbox();
    const isolated = { ...env, XDG_STATE_HOME: join(dir, "state") };
    writeFileSync(join(dir, ".env"), `IMKIT_API_KEY=${sandbox.firstKey()}\nIMKIT_BASE_URL=${sandbox.url}\n`, {
      mode: 0o600,
    });
    writeFileSync(join(dir, "imkit-rotator.config.yaml"), config(sandbox.url, dir));
    const start = performance.now();
    const fresh = sandbox.issue();
    await runChild([bin, "stage", "demo", "--from-stdin"], {
      cwd: dir,
      env: isolated,
      input: fresh,
      expect: 0,
    });
    await runChild([bin, "rotate", "demo"], { cwd: dir, env: isolated, input: "", expect: 3 });
    sandbox.revoke(1);
    await runChild([bin, "confirm-revoked", "demo"], { cwd: dir, env: isolated, input: "", expect: 0 });
    const end = performance.now();
    for (let n = 0; n < 3; n++)
      await runChild(["-e", "0"], { cwd: dir, env: isolated, input: "", expect: 0 });
    if (i > 0) {
      ours.push(end - start);
      bare.push(performance.now() - end);
    }
    await sandbox.close();
  }
  rows.push({
    name: "whole dotenv rotation (stage, rotate, confirm) / three bare Node starts",
    ours: median(ours),
    floor: median(bare),
    target: null,
    note: "3 triads at 0 s apart; about 17 durable entries, 12 probes",
  });
};

const oneStore = async (): Promise<void> => {
  const sandbox = await startSandbox();
  writeFileSync(
    join(folder, ".env"),
    `IMKIT_API_KEY=${sandbox.firstKey()}\nSEED=${randomBytes(4).toString("hex")}\n`,
    { mode: 0o600 },
  );
  writeFileSync(join(folder, "imkit-rotator.config.yaml"), config(sandbox.url, folder));
  await runChild([bin, "adopt", "demo"], { cwd: folder, env, input: "", expect: 0 });
  await sandbox.close();
  coldStatus(folder);
  await ledgerAppend();
  await rotation();
  for (const { name, ours, floor } of await blackout(folder, bin, env)) {
    const note = "from the entry that holds the accepted key to the one that holds the last write";
    rows.push({ name, ours: median(ours), floor: median(floor), target: 1.2, note });
  }
  await idle();
  await together();
};

const together = async (): Promise<void> => {
  const { ours, floor, ...row } = await allApps(folder, bin, env);
  rows.push({ ...row, ours: median(ours), floor: median(floor) });
};

const idle = async (): Promise<void> => {
  const { ours, floor, ...row } = await idleMemory(folder, bin, env);
  rows.push({ ...row, ours: median(ours), floor: median(floor) });
};

const leftOut: string[] = [];

try {
  if (process.argv[2] === undefined) await oneStore();
  if (process.argv[2] === "idle") await idle();
  if (process.argv[2] === "all-apps") await together();
  const missing = missingPeers();
  const wantsPeers = !["idle", "all-apps"].includes(process.argv[2] ?? "");
  if (wantsPeers && missing !== null)
    leftOut.push(`four stores and Kubernetes: ${missing} not installed yet; npm test -- peers does that`);
  if (wantsPeers && missing === null) {
    const four = process.argv[2] === "kubernetes" ? [] : await fourStores(folder, bin, env);
    const append = process.argv[2] === "four-stores" ? [] : [await kubernetesAppend(folder)];
    for (const { ours, floor, ...row } of [...four, ...append])
      rows.push({ ...row, ours: median(ours), floor: median(floor) });
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

const out = [`Node ${process.versions.node}, ${cpus().length} cores; medians, ours and floor in turns`];
for (const r of rows) {
  const ratio = r.ours / r.floor;
  const aim =
    r.target === null
      ? ""
      : `  target <= ${Number(r.target.toFixed(2))}x${ratio <= r.target ? "" : "  NOT REACHED"}`;
  out.push(
    `${ratio.toFixed(2)}x  ${r.name}: ${r.ours.toFixed(2)} ${r.unit ?? "ms"} / ${r.floor.toFixed(2)} ${r.unit ?? "ms"}${aim}`,
    `       ${r.note}`,
  );
}
for (const words of leftOut) out.push(`Left out: ${words}`);
process.stdout.write(`${out.join("\n")}\n`);
