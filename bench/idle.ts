import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { startSandbox } from "../src/shell/sandbox/server.ts";

const LIMIT_MB = 90;
const SETTLE_MS = 20_000;
const rssOf = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1_024;

/** Memory of a daemon between two ticks, after a first tick over ten apps, and of a bare Node that waits; MB. */
export const idleMemory = async (folder: string, bin: string, env: NodeJS.ProcessEnv) => {
  const dir = join(folder, "idle");
  mkdirSync(dir);
  const sandbox = await startSandbox();
  const names = Array.from({ length: 10 }, (_, n) => `app-${n}`);
  for (const name of names)
    writeFileSync(join(dir, `${name}.env`), `IMKIT_API_KEY=${sandbox.firstKey()}\n`, { mode: 0o600 });
  const apps = names.map(
    (name) => `  ${name}:
    baseUrl: ${sandbox.url}
    stores: [{ name: env, type: dotenv, path: ./${name}.env, key: IMKIT_API_KEY }]
    rollouts: [{ name: none, type: none, reason: "nothing reads it here" }]
`,
  );
  const config = `schemaVersion: 1\nserve: { listen: "127.0.0.1:0", every: 10m }\napps:\n${apps.join("")}`;
  writeFileSync(join(dir, "imkit-rotator.config.yaml"), config);
  const options = { cwd: dir, env: { ...env, XDG_STATE_HOME: join(dir, "state") }, stdio: "ignore" } as const;
  const daemon = spawn(process.execPath, [bin, "serve"], options);
  const bare = spawn(process.execPath, ["-e", "setInterval(() => {}, 1e6)"], options);
  const ends = [once(daemon, "close"), once(bare, "close")];
  await pause(SETTLE_MS);
  const [ours, floor] = [rssOf(daemon.pid ?? 0), rssOf(bare.pid ?? 0)];
  for (const child of [daemon, bare]) child.kill("SIGTERM");
  await Promise.all(ends);
  await sandbox.close();
  return {
    name: "idle memory of serve, ten apps / a bare Node that waits",
    ours: [ours],
    floor: [floor],
    target: LIMIT_MB / floor,
    unit: "MB",
    note: `resident, ${SETTLE_MS / 1_000} s after the first tick; the target is ${LIMIT_MB} MB`,
  };
};
