import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Ran, RunOptions } from "../kit/program.ts";
import { makeWorld, type World } from "../kit/world.ts";

let w: World;
/** Makes a Node call itself too old, so that the launcher starts the program under the pinned one. */
let asOld: readonly string[];
beforeAll(async () => {
  w = await makeWorld();
  const file = join(w.dir, "old.cjs");
  writeFileSync(
    file,
    `if (process.env.IMKIT_ROTATOR_LAUNCHED !== "1")
       Object.defineProperty(process, "versions", { value: { ...process.versions, node: "20.0.0" } });`,
  );
  asOld = ["--require", file];
});
afterAll(() => w.close());

const TIMES = 40;
const AT_ONCE = 4;
const WAYS = [
  ["by itself", () => []],
  ["by the launcher", () => asOld],
] as const;

/** Says who it is, then waits for a signal, at most 20 s. */
const waiting = (signal: string): readonly string[] => {
  const name = signal.replace("SIG", "");
  const script = `trap "echo got; exit 9" ${name}; echo up $$; i=0; while [ $i -lt 400 ]; do sleep 0.05; i=$((i+1)); done; echo over`;
  return ["run", "demo", "--", "sh", "-c", script];
};
const pidOf = ({ stdout }: Ran): number => Number(/up (\d+)/.exec(stdout)?.[1]);

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};
const isGone = (pid: number): Promise<void> =>
  expect.poll(() => isAlive(pid), { timeout: 10_000, interval: 20 }).toBe(false);

const signalled = (signal: NodeJS.Signals, nodeArgs: readonly string[], more: Partial<RunOptions> = {}) =>
  w.run(waiting(signal), { nodeArgs, signalAfter: { text: /up \d+\n/, signal }, ...more });

describe.each(WAYS)("a command of `run`, started %s", (_way, nodeArgs) => {
  it("gets a signal that comes as it starts, each time, and is never left alone", {
    timeout: 240_000,
  }, async () => {
    let left = TIMES;
    const worker = async (): Promise<void> => {
      while (left-- > 0) {
        const ran = await signalled("SIGTERM", nodeArgs());
        expect(ran).toMatchObject({ code: 9, signal: null });
        expect(ran.stdout).toBe(`up ${pidOf(ran)}\ngot\n`);
        expect(isAlive(pidOf(ran))).toBe(false);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  });

  it.each(["SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const)("gets %s once", async (signal) => {
    const ran = await signalled(signal, nodeArgs());
    expect(ran).toMatchObject({ code: 9, stdout: `up ${pidOf(ran)}\ngot\n` });
  });
});

describe("the launcher", () => {
  it("killed, it takes the program and its command with it", async () => {
    const ran = await signalled("SIGTERM", asOld, { signalAfter: { text: /up \d+\n/, signal: "SIGKILL" } });
    expect(ran).toMatchObject({ signal: "SIGKILL", stdout: `up ${pidOf(ran)}\n` });
    await isGone(pidOf(ran));
  });

  it.each(WAYS)(
    "the whole group is told to stop once: a write under way ends (%s)",
    async (_way, nodeArgs) => {
      const own = await makeWorld();
      try {
        const key = own.sandbox.issue();
        const old = own.sandbox.firstKey();
        writeFileSync(join(own.dir, "held"), old);
        // Whoever takes that for two signals ends at the second one, long before the write does.
        const script = "cat > held.new; kill -s TERM -- -$(cat group); sleep 1; mv held.new held";
        writeFileSync(join(own.dir, "write.sh"), script);
        const store = "{ name: env, type: exec, read: [cat, held], write: [sh, write.sh] }";
        const config = readFileSync(own.configFile, "utf8");
        writeFileSync(own.configFile, config.replace(/\{ name: env, .*\}/, store));
        await own.run(["stage", "demo", "--from-stdin"], { stdin: key });
        const ran = await own.run(["rotate", "demo", "--json"], {
          nodeArgs: nodeArgs(),
          detached: true,
          onStart: (_kill, pid) => writeFileSync(join(own.dir, "group"), String(pid)),
        });
        expect(ran).toMatchObject({ code: 143, signal: null });
        expect(readFileSync(join(own.dir, "held"), "utf8")).toBe(key);
        expect(own.events()).toContainEqual(expect.objectContaining({ type: "result", outcome: "ok" }));
      } finally {
        await own.close();
      }
    },
  );
});

it("a signal that comes while the last thing is done, without a turn of the loop between, is heard before a result is told", () => {
  const io = JSON.stringify(join(import.meta.dirname, "../../src/shell/io.ts"));
  const program = `const { signalsHeard } = await import(${io});
const fs = await import("node:fs/promises");
let heard = 0;
process.on("SIGTERM", () => heard++);
const file = await fs.open(process.argv[1]);
await file.sync();
process.kill(process.pid, "SIGTERM");
await signalsHeard();
console.log(heard);
process.exit(0);`;
  for (let n = 0; n < 10; n++) {
    const args = ["--input-type=module", "-e", program, import.meta.filename];
    expect(spawnSync(process.execPath, args, { encoding: "utf8" }).stdout).toBe("1\n");
  }
});
