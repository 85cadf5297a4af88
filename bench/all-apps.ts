import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { stage } from "../src/flow/stage.ts";
import { Secret } from "../src/core/secret.ts";
import { openIo } from "../src/shell/io.ts";
import { type Sandbox, startSandbox } from "../src/shell/sandbox/server.ts";
import { readConfig, wire } from "../src/shell/wire.ts";
import { runChild } from "./child.ts";

const APPS = 200;
const TIMES_LESS = 20;
const SIDE_BY_SIDE = 8;
const WAITS_FOR_REVOCATION = 3;
const REST_MS = 65_000;
const ROUNDS = 5;

/** Processor time of all children that ended so far, ms. */
const childrenMs = (): number => {
  const text = readFileSync("/proc/self/stat", "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  // A tick is 10 ms wherever Node runs on Linux.
  return (Number(fields[13]) + Number(fields[14])) * 10;
};

const costOf = async (work: () => Promise<void>): Promise<number> => {
  const before = childrenMs();
  await work();
  return childrenMs() - before;
};

const names = Array.from({ length: APPS }, (_, n) => `app-${n}`);
const envOf = (dir: string, name: string): string => join(dir, `${name}.env`);

/** A config with all apps, each with an env file of its own and a staged key. Staging is not measured, so it is done in this process. */
const prepare = async (dir: string, env: NodeJS.ProcessEnv, sandbox: Sandbox, fresh: string) => {
  mkdirSync(dir);
  for (const name of names)
    writeFileSync(envOf(dir, name), `IMKIT_API_KEY=${sandbox.firstKey()}\n`, { mode: 0o600 });
  const apps = names.map(
    (name) => `  ${name}:
    baseUrl: ${sandbox.url}
    stores: [{ name: env, type: dotenv, path: ./${name}.env, key: IMKIT_API_KEY }]
    rollouts: [{ name: none, type: none, reason: "nothing reads it here" }]
`,
  );
  const config = `schemaVersion: 1\nstate: { dir: ./state }\napps:\n${apps.join("")}`;
  writeFileSync(join(dir, "imkit-rotator.config.yaml"), config);
  const io = { ...openIo({ quiet: true }, new AbortController().signal), cwd: dir, env };
  const read = await readConfig(io, {});
  const left = [...read.apps.values()];
  const work = async (): Promise<void> => {
    for (let app = left.pop(); app !== undefined; app = left.pop()) {
      const hands = await (await wire(io, read, app)).hands();
      await stage({ ...hands, tell: () => {} }, new Secret(fresh), { source: "stdin", replace: false });
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, work));
};

/**
 * ext4 passes over every inode that was deleted in the last minute, one by one, whenever it makes a file (`recently_deleted` in
 * fs/ext4/ialloc.c). What other work deleted here is not measured: the disk is given that minute.
 */
const rest = async (): Promise<void> => {
  spawnSync("sync");
  await pause(REST_MS);
};

/**
 * `rotate --all` over 200 apps, five times, in turns with the fifths of 200 times `rotate` of one of them; processor time of the processes,
 * ms. Of both the least counts: what a guest's neighbours take of its processors is booked as the work of whoever ran.
 */
export const allApps = async (folder: string, bin: string, base: NodeJS.ProcessEnv) => {
  const sandbox = await startSandbox({ limit: 1_000_000 });
  const fresh = sandbox.issue();
  const alone = join(folder, "apps-alone");
  await prepare(alone, base, sandbox, fresh);
  const together = Array.from({ length: ROUNDS }, (_, n) => join(folder, `apps-together-${n}`));
  for (const dir of together) cpSync(alone, dir, { recursive: true });
  await rest();
  const rotate = (dir: string, what: string) =>
    runChild([bin, "rotate", what], { cwd: dir, env: base, input: "", expect: WAITS_FOR_REVOCATION });
  const ours: number[] = [];
  const floors: number[] = [];
  for (const [n, dir] of together.entries()) {
    const some = names.slice((n * APPS) / ROUNDS, ((n + 1) * APPS) / ROUNDS);
    const cost = await costOf(async () => {
      for (const name of some) await rotate(alone, name);
    });
    floors.push(cost * ROUNDS);
    ours.push(await costOf(() => rotate(dir, "--all")));
  }
  await sandbox.close();
  for (const dir of [alone, ...together])
    for (const name of names)
      if (!readFileSync(envOf(dir, name), "utf8").includes(fresh))
        throw new Error(`${name} in ${dir} was not rotated`);
  const [least, floor] = [Math.min(...ours), Math.min(...floors)];
  const each = (costs: readonly number[]): string => costs.map((ms) => (ms / APPS).toFixed(1)).join(", ");
  return {
    name: `one rotate --all over ${APPS} dotenv apps / ${APPS} times rotate, processor time, the least of ${ROUNDS}`,
    ours: [least],
    floor: [floor],
    target: 1 / TIMES_LESS,
    note: `${(floor / least).toFixed(1)} times less, wanted ${TIMES_LESS}; ms an app together: ${each(ours)}; alone: ${each(floors)}`,
  };
};
