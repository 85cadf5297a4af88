/**
 * How long nothing works: from the moment a staged key was accepted to the last store written, against the write of the slowest store alone.
 * Four stores whose writes take 0.2, 0.5, 1 and 2 seconds; real processes, times as the ledger has them.
 */
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startSandbox } from "../src/shell/sandbox/server.ts";
import { runChild } from "./child.ts";

const LATENCIES_MS = [200, 500, 1_000, 2_000];

/** A store whose write takes its time; everything else is quick. */
const SLOW_STORE = `import { readFile, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
export default ({ z, Secret, defineStore }) =>
  defineStore({
    kind: "slow",
    schema: z.strictObject({ path: z.string(), ms: z.number() }),
    open: ({ path, ms }) => {
      const text = () => readFile(path, "utf8");
      return {
        where: "slow:" + path,
        caps: { staging: false, compareAndSwap: false, witness: false, retire: false },
        preflight: async () => [],
        read: async () => ({ secret: new Secret(await text()), revision: "r", createdAt: null, witness: null }),
        write: async (next) => {
          await sleep(ms);
          await writeFile(path, next.reveal());
          return "r";
        },
      };
    },
  });
`;

type Line = { readonly r: { readonly ts: string; readonly events: readonly Record<string, unknown>[] } };

const ledgerOf = (dir: string): readonly Line[] => {
  const folder = join(dir, "state", "demo", "ledger");
  const files = readdirSync(folder).filter((name) => !name.startsWith("."));
  return files.sort().map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")) as Line);
};
const has = (line: Line, change: Readonly<Record<string, unknown>>): boolean =>
  line.r.events.some((e) => Object.entries(change).every(([key, value]) => e[key] === value));

/** From the accepted key to the last store written, in ms. */
const blackoutOf = (dir: string): number => {
  const lines = ledgerOf(dir);
  const accepted = lines.find((line) => has(line, { type: "staged", verdict: "accepted" }));
  const written = lines.filter((line) => has(line, { type: "result", outcome: "ok", changed: true })).at(-1);
  if (accepted === undefined || written === undefined)
    throw new Error("the ledger lacks the staged key or a write");
  return Date.parse(written.r.ts) - Date.parse(accepted.r.ts);
};

type Place = { readonly dir: string; readonly env: NodeJS.ProcessEnv; readonly bin: string };

const prepare = (place: Place, url: string, key: string): void => {
  mkdirSync(place.dir);
  writeFileSync(join(place.dir, "slow.store.js"), SLOW_STORE);
  const stores = LATENCIES_MS.map((ms) => {
    const path = join(place.dir, `key-${ms}`);
    writeFileSync(path, key);
    return `      - { name: s${ms}, type: ./slow.store.js, path: ${JSON.stringify(path)}, ms: ${ms} }`;
  });
  writeFileSync(
    join(place.dir, "imkit-rotator.config.yaml"),
    `schemaVersion: 1
state: { dir: ${JSON.stringify(join(place.dir, "state"))} }
apps:
  demo:
    baseUrl: ${url}
    stores:
${stores.join("\n")}
    rollouts:
      - { name: none, type: none, reason: "nothing reads it here" }
    revoke: { probes: 3, every: 0s }
`,
  );
};

/** The old key dies as the new one is issued: stage, then rotate. */
const replaceMode = async (place: Place): Promise<number> => {
  const sandbox = await startSandbox({ mode: "replace" });
  prepare(place, sandbox.url, sandbox.firstKey());
  const run = (args: readonly string[], input = "") =>
    runChild([place.bin, ...args], { cwd: place.dir, env: place.env, input, expect: 0 });
  await run(["adopt", "demo"]);
  await run(["stage", "demo", "--from-stdin"], sandbox.issue());
  await run(["rotate", "demo"]);
  await sandbox.close();
  return blackoutOf(place.dir);
};

/** An emergency is waiting, the leaked key is revoked, then the new one comes. */
const revokeFirst = async (place: Place): Promise<number> => {
  const sandbox = await startSandbox();
  prepare(place, sandbox.url, sandbox.firstKey());
  const run = (args: readonly string[], input = "") =>
    runChild([place.bin, ...args], { cwd: place.dir, env: place.env, input, expect: 0 });
  await run(["adopt", "demo"]);
  const waiting = run(["rotate", "demo", "--emergency", "--wait=1m"]);
  for (
    let look = 0;
    look < 200 && !ledgerOf(place.dir).some((l) => has(l, { type: "waiting", for: "key" }));
    look++
  )
    await sleep(50);
  sandbox.revoke(1);
  await run(["stage", "demo", "--from-stdin"], sandbox.issue());
  await waiting;
  await sandbox.close();
  return blackoutOf(place.dir);
};

/** The slowest store alone, without us. */
const slowestAlone = async (dir: string): Promise<number> => {
  const start = performance.now();
  await sleep(Math.max(...LATENCIES_MS));
  writeFileSync(join(dir, "alone"), "x");
  return performance.now() - start;
};

/** @returns ms of each run, the floor measured between them. */
export const blackout = async (
  folder: string,
  bin: string,
  env: NodeJS.ProcessEnv,
): Promise<
  readonly { readonly name: string; readonly ours: readonly number[]; readonly floor: readonly number[] }[]
> => {
  const kinds = [
    ["replace", replaceMode],
    ["revoke-first", revokeFirst],
  ] as const;
  const rows = [];
  for (const [name, run] of kinds) {
    const [ours, floor]: [number[], number[]] = [[], []];
    for (let i = 0; i < 5; i++) {
      ours.push(await run({ dir: join(folder, `${name}-${i}`), env, bin }));
      floor.push(await slowestAlone(folder));
    }
    rows.push({ name: `blackout, ${name}, four stores (0.2-2 s) / the slowest store alone`, ours, floor });
  }
  return rows;
};
