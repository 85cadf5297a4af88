import { spawn } from "node:child_process";
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { madeKey } from "../kit/leak.ts";
import { cleanEnv, programFile, type Ran, runProgram } from "../kit/program.ts";

/** How IMKIT stands when `rotate` begins: old key works, is dead already, or there was none. */
export type Mode = "overlap" | "replace" | "first";

type Imkit = {
  readonly url: string;
  /** From now on exactly these keys work. Unlike the sandbox this one can take a revocation back, so that a state can be played again. */
  readonly accept: (...keys: readonly string[]) => void;
  readonly close: () => void;
};

const startImkit = async (): Promise<Imkit> => {
  let accepted = new Set<string>();
  const server = createServer((request, response) => {
    const key = request.headers["im-api-key"];
    const known = typeof key === "string" && accepted.has(key);
    const result = request.url?.startsWith("/admin/stats")
      ? { clientKey: "client-key-of-demo" }
      : { count: 128 };
    response.writeHead(known ? 200 : 401, { "content-type": "application/json" });
    response.end(
      JSON.stringify(
        known ? { RC: 0, RM: "OK", result } : { error: "INVALID_API_KEY", message: "Invalid API key" },
      ),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return {
    url: `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`,
    accept: (...keys) => {
      accepted = new Set(keys);
    },
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
};

/** A folder with config, env file and state that can be put back to a saved moment, and an IMKIT that plays along. */
export type World = {
  /** Working directory of the program. */
  readonly dir: string;
  readonly oldKey: string;
  readonly newKey: string;
  readonly imkit: Imkit;
  readonly ledgerDir: string;
  readonly escrowDir: string;
  readonly run: (args: readonly string[], stdin?: string) => Promise<Ran>;
  /** Under strace, with one libuv thread so that the order of the file operations is always the same. */
  readonly trace: (args: readonly string[], faults: Faults, stdin?: string) => Promise<Traced>;
  readonly startTraced: (
    args: readonly string[],
    faults: Faults,
    stdin?: string,
  ) => Started & { readonly log: () => readonly string[] };
  /** The launcher as a process to play with. */
  readonly start: (args: readonly string[], stdin?: string) => Promise<Started>;
  /** Where the output of a traced process goes. */
  readonly outputs: { readonly out: string; readonly err: string };
  readonly env: (key: string | null) => string;
  readonly envNow: () => string;
  readonly triggers: () => number;
  readonly events: () => readonly (Record<string, unknown> & { readonly inst: string })[];
  readonly save: (name: string) => void;
  readonly restore: (name: string) => void;
  readonly close: () => void;
};

export type Faults = {
  /** Values of `-e inject=`. */
  readonly inject: readonly string[];
  /** Syscalls to write down; those to inject must be among them. */
  readonly watch: readonly string[];
  /** Only syscalls on these paths. */
  readonly paths?: readonly string[];
};
export type Traced = Ran & { readonly log: readonly string[] };
export type Started = {
  readonly pid: number;
  readonly kill: (signal: NodeJS.Signals) => void;
  readonly ended: Promise<Ran>;
  /** What it has printed so far. */
  readonly stdout: () => string;
};

const STRACE = "/usr/bin/strace";
/** Comments, quotes, another key after ours, no line feed at the end: all of it has to stay. */
const envText = (key: string | null): string =>
  `# keys of the chat\nPORT=8080\n${key === null ? "" : `export IMKIT_API_KEY="${key}" # rotated\n`}OTHER='a b'`;
const config = (url: string, rollouts: string): string => `schemaVersion: 1
state: { dir: ./state }
apps:
  demo:
    baseUrl: ${url}
    stores:
      - { name: env, type: dotenv, path: ./.env, key: IMKIT_API_KEY }
    rollouts:
      - ${rollouts}
    revoke: { probes: 3, every: 10ms }
`;
/** Each trigger is one byte in a file. */
export const COUNTED = '{ name: api, type: exec, command: [sh, -c, "printf x >> triggers"], timeout: 10s }';

const open = new Set<World>();
/** For `afterAll`: what a failed test has left goes, too. */
export const closeWorlds = (): void => {
  for (const world of open) world.close();
};

export const makeWorld = async (mode: Mode = "overlap", rollouts: string = COUNTED): Promise<World> => {
  const top = mkdtempSync(join(tmpdir(), "imkit-rotator-crash-"));
  const dir = join(top, "work");
  const imkit = await startImkit();
  const oldKey = madeKey();
  let newKey = madeKey();
  // They differ from their first character on, so that no write of a part can be taken for a whole one.
  while (newKey[0] === oldKey[0]) newKey = madeKey();
  mkdirSync(join(dir, "home"), { recursive: true });
  writeFileSync(join(dir, "imkit-rotator.config.yaml"), config(imkit.url, rollouts));
  writeFileSync(join(dir, ".env"), envText(mode === "first" ? null : oldKey), { mode: 0o640 });
  const file = await programFile();
  const ledgerDir = join(dir, "state", "demo", "ledger");
  const outputs = { out: join(top, "out"), err: join(top, "err") };

  const launch = (
    command: string,
    args: readonly string[],
    extra: Record<string, string>,
    stdin = "",
    tag = "",
  ): Started => {
    const [outFile, errFile] = [`${outputs.out}${tag}`, `${outputs.err}${tag}`];
    const [out, err] = [openSync(outFile, "w"), openSync(errFile, "w")];
    const child = spawn(command, args, { cwd: dir, env: cleanEnv(dir, extra), stdio: ["pipe", out, err] });
    closeSync(out);
    closeSync(err);
    child.stdin?.on("error", () => {});
    child.stdin?.end(stdin);
    const ended = new Promise<Ran>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, signal) =>
        resolve({
          code,
          signal,
          stdout: readFileSync(outFile, "utf8"),
          stderr: readFileSync(errFile, "utf8"),
        }),
      );
    });
    return {
      pid: child.pid ?? 0,
      kill: (signal) => void child.kill(signal),
      ended,
      stdout: () => readFileSync(outFile, "utf8"),
    };
  };

  const startTraced: World["startTraced"] = (args, { inject, watch, paths = [] }, stdin) => {
    const log = join(top, "strace");
    rmSync(log, { force: true });
    const argv = [
      "-f",
      "-qq",
      "-y",
      "-s0",
      `-o${log}`,
      `-etrace=${watch.join(",")}`,
      ...inject.flatMap((fault) => ["-e", `inject=${fault}`]),
      ...paths.flatMap((path) => ["-P", path]),
      process.execPath,
      file,
      ...args,
    ];
    const child = launch(STRACE, argv, { UV_THREADPOOL_SIZE: "1", NODE_DISABLE_COMPILE_CACHE: "1" }, stdin);
    return {
      ...child,
      log: () => {
        if (!existsSync(log)) throw new Error("strace did not start");
        return readFileSync(log, "utf8")
          .split("\n")
          .filter((line) => line !== "");
      },
    };
  };

  let started = 0;
  const world: World = {
    dir,
    oldKey,
    newKey,
    imkit,
    ledgerDir,
    escrowDir: join(dir, "state", "demo", "escrow"),
    run: (args, stdin = "") => runProgram(args, { cwd: dir, stdin }),
    outputs,
    start: async (args, stdin) => launch(process.execPath, [file, ...args], {}, stdin, `-${started++}`),
    startTraced,
    trace: async (args, faults, stdin) => {
      const traced = startTraced(args, faults, stdin);
      const ran = await traced.ended;
      return { ...ran, log: traced.log() };
    },
    env: envText,
    envNow: () => readFileSync(join(dir, ".env"), "utf8"),
    triggers: () =>
      existsSync(join(dir, "triggers")) ? readFileSync(join(dir, "triggers"), "utf8").length : 0,
    events: () =>
      entriesIn(ledgerDir).flatMap((name) => {
        const { r } = JSON.parse(readFileSync(join(ledgerDir, name), "utf8")) as {
          r: { inst: string; events: Record<string, unknown>[] };
        };
        return r.events.map((event) => ({ ...event, inst: r.inst }));
      }),
    save: (name) => cpSync(dir, join(top, name), { recursive: true, preserveTimestamps: true }),
    restore: (name) => {
      rmSync(dir, { recursive: true, force: true });
      cpSync(join(top, name), dir, { recursive: true, preserveTimestamps: true });
    },
    close: () => {
      open.delete(world);
      imkit.close();
      rmSync(top, { recursive: true, force: true });
    },
  };
  open.add(world);
  return world;
};

/** File names of ledger entries, in order. */
export const entriesIn = (dir: string): readonly string[] =>
  namesIn(dir).filter((name) => /^\d{8}\.json$/.test(name));

export const namesIn = (dir: string): readonly string[] => (existsSync(dir) ? readdirSync(dir).sort() : []);

/** Every file below the working directory that the program may have left in the middle of a write. */
export const temporaries = (world: World): readonly string[] =>
  readdirSync(world.dir, { recursive: true, encoding: "utf8" })
    .filter((path) => /^\.tmp-|\.imkit-rotator\.tmp$/.test(basename(path)))
    .sort();
