import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
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

/** One `rotate --all` over 200 apps, between the two halves of 200 times `rotate` of one of them; processor time of the processes, ms. */
export const allApps = async (folder: string, bin: string, base: NodeJS.ProcessEnv) => {
  const sandbox = await startSandbox({ limit: 1_000_000 });
  const fresh = sandbox.issue();
  const [together, alone] = [join(folder, "apps-together"), join(folder, "apps-alone")];
  await prepare(together, base, sandbox, fresh);
  cpSync(together, alone, { recursive: true });
  const rotate = (dir: string, what: string) =>
    runChild([bin, "rotate", what], { cwd: dir, env: base, input: "", expect: WAITS_FOR_REVOCATION });
  const each = async (some: readonly string[]): Promise<void> => {
    for (const name of some) await rotate(alone, name);
  };
  const first = await costOf(() => each(names.slice(0, APPS / 2)));
  const ours = await costOf(() => rotate(together, "--all"));
  const floor = first + (await costOf(() => each(names.slice(APPS / 2))));
  await sandbox.close();
  for (const dir of [together, alone])
    for (const name of names)
      if (!readFileSync(envOf(dir, name), "utf8").includes(fresh))
        throw new Error(`${name} in ${dir} was not rotated`);
  return {
    name: `one rotate --all over ${APPS} dotenv apps / ${APPS} times rotate, processor time`,
    ours: [ours],
    floor: [floor],
    target: 1 / TIMES_LESS,
    note: `${(floor / ours).toFixed(1)} times less, wanted ${TIMES_LESS}; ${(ours / APPS).toFixed(1)} ms an app together, ${(floor / APPS).toFixed(1)} ms alone`,
  };
};
