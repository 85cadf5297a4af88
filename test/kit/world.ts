import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { type Sandbox, type SandboxOptions, startSandbox } from "../../src/shell/sandbox/server.ts";
import { type Ran, type RunOptions, runProgram } from "./program.ts";

/** One `none` rollout: nothing has to be restarted. */
export const NO_RESTART = '[{ name: none, type: none, reason: "reads the file on each call" }]';

export type WorldOptions = {
  readonly sandbox?: SandboxOptions;
  /** Flow YAML of `rollouts`; default `NO_RESTART`. null = not written, so a person restarts. */
  readonly rollouts?: string | null;
  /** More lines of the app, indented by four. */
  readonly app?: string;
  /** More lines at the end of the config. */
  readonly more?: string;
  /** Names of dotenv stores, each a file `<name>.env`; default one, `env`. */
  readonly stores?: readonly string[];
  /** What each of them holds; default the sandbox's first key. null = an empty file. */
  readonly holds?: Readonly<Record<string, string | null>>;
};

/** Program, config, dotenv stores and a local IMKIT in a folder of its own. */
export type World = {
  readonly dir: string;
  readonly sandbox: Sandbox;
  readonly configFile: string;
  readonly run: (args: readonly string[], options?: Partial<RunOptions>) => Promise<Ran>;
  /** The value in `<name>.env`. */
  readonly value: (name?: string) => string | undefined;
  readonly setValue: (name: string, key: string | null) => void;
  /** File names in escrow. */
  readonly escrow: () => readonly string[];
  readonly ledgerDir: string;
  readonly ledgerFiles: () => readonly string[];
  readonly events: () => readonly Record<string, unknown>[];
  /** Everything that the program has printed so far. */
  readonly printed: () => string;
  readonly close: () => Promise<void>;
};

export const makeWorld = async (options: WorldOptions = {}): Promise<World> => {
  const sandbox = await startSandbox({ app: "demo", ...options.sandbox });
  const dir = mkdtempSync(join(tmpdir(), "imkit-rotator-world-"));
  mkdirSync(join(dir, "home"));
  const names = options.stores ?? ["env"];
  const setValue = (name: string, key: string | null): void =>
    writeFileSync(join(dir, `${name}.env`), key === null ? "OTHER=1\n" : `OTHER=1\nIMKIT_API_KEY=${key}\n`, {
      mode: 0o600,
    });
  for (const name of names) {
    const held = options.holds?.[name];
    setValue(name, held === undefined ? sandbox.firstKey() : held);
  }
  const configFile = join(dir, "imkit-rotator.config.yaml");
  const rollouts = options.rollouts === undefined ? NO_RESTART : options.rollouts;
  writeFileSync(
    configFile,
    `schemaVersion: 1
state: { dir: ./state }
apps:
  demo:
    baseUrl: ${sandbox.url}
    stores:
${names.map((n) => `      - { name: ${n}, type: dotenv, path: ./${n}.env, key: IMKIT_API_KEY }`).join("\n")}
${rollouts === null ? "" : `    rollouts: ${rollouts}`}
    revoke: { probes: 3, every: 10ms }
${options.app ?? ""}
${options.more ?? ""}`,
  );
  const ledgerDir = join(dir, "state", "demo", "ledger");
  const list = (folder: string): readonly string[] => {
    try {
      return readdirSync(folder)
        .filter((n) => !n.startsWith(".tmp-"))
        .sort();
    } catch {
      return [];
    }
  };
  let printed = "";
  return {
    dir,
    sandbox,
    configFile,
    setValue,
    ledgerDir,
    run: async (args, more = {}) => {
      const ran = await runProgram(args, { cwd: dir, ...more });
      printed += ran.stdout + ran.stderr;
      return ran;
    },
    value: (name = "env") => parseEnv(readFileSync(join(dir, `${name}.env`), "utf8"))["IMKIT_API_KEY"],
    escrow: () => list(join(dir, "state", "demo", "escrow")).filter((n) => n.endsWith(".age")),
    ledgerFiles: () => list(ledgerDir),
    events: () =>
      list(ledgerDir).flatMap((name) => {
        const { r } = JSON.parse(readFileSync(join(ledgerDir, name), "utf8")) as {
          r: { events: Record<string, unknown>[] };
        };
        return r.events;
      }),
    printed: () => printed,
    close: async () => {
      await sandbox.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
};

/** The lines of NDJSON; a line that is none is an error. */
export const jsonLines = (text: string): Record<string, unknown>[] =>
  text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
export const lastJson = (text: string): Record<string, unknown> => jsonLines(text).at(-1) ?? {};
