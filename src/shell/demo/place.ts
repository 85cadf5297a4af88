import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RotatorError } from "../../core/errors.ts";
import type { Env } from "../../io/config-find.ts";
import { selfCommand } from "../myself.ts";
import { type Sandbox, startSandbox } from "../sandbox/server.ts";
import { type Service, startService } from "../sandbox/supervisor.ts";
import { openProgram, type Program } from "./program.ts";

export const APP = "chat";
export const RATE = 20;
export const PROBES = 3;

/** Everything that the demo runs on. It is all below one temporary folder, and all of it ends with `close`. */
export type Place = {
  readonly sandbox: Sandbox;
  readonly program: Program;
  readonly folder: string;
  readonly envFile: string;
  readonly envText: (key: string) => string;
  /** What the chat service writes a line into for each request; only in a careless place. */
  readonly logFile: string;
  /** Starts the chat service; it shows fingerprints under `salt`. */
  readonly startService: (salt: string) => Promise<Service>;
  readonly close: () => Promise<void>;
};

/** A socket's path may have about 100 bytes, so a very long TMPDIR cannot be used. */
const baseFolder = (): string => (Buffer.byteLength(tmpdir()) > 60 ? "/tmp" : tmpdir());

/** Nothing of the user's own setting gets in: no config, no state, no key, no Node flags. */
const cleanEnv = (folder: string, env: Env): Record<string, string> => ({
  PATH: env["PATH"] ?? "/usr/local/bin:/usr/bin:/bin",
  HOME: join(folder, "home"),
  XDG_CONFIG_HOME: join(folder, "home", ".config"),
  XDG_STATE_HOME: join(folder, "home", ".local", "state"),
  TMPDIR: folder,
  LANG: env["LANG"] ?? "C.UTF-8",
});

const configText = (url: string, envFile: string, restart: readonly string[]): string => `schemaVersion: 1
state: { dir: ./state }
apps:
  ${APP}:
    baseUrl: ${url}
    stores:
      - { name: env, type: dotenv, path: ${JSON.stringify(envFile)}, key: IMKIT_API_KEY }
    rollouts:
      - { name: chat-service, type: exec, command: ${JSON.stringify(restart)}, timeout: 45s }
    revoke: { probes: ${PROBES}, every: 1s }
`;

/** A service that keeps a log, and writes its key there: what `demo --leak` begins with. */
const CARELESS = "DEBUG=1\n";

/**
 * Makes the folder, a local IMKIT and the way to run the program, which is `command`.
 * @throws RotatorError STATE_UNUSABLE when there is no place for temporary files
 */
export const openPlace = async (
  env: Env,
  signal: AbortSignal,
  command: readonly string[] = selfCommand(),
  isCareless = false,
): Promise<Place> => {
  const folder = makeFolder();
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  // Also on a second Ctrl-C, which waits for nothing.
  process.on("exit", remove);
  const socket = join(folder, "s");
  const envFile = join(folder, ".env");
  const logFile = join(folder, "chat.log");
  const program = openProgram({ command, cwd: folder, env: cleanEnv(folder, env), signal });
  let service: Service | null = null;
  let sandbox: Sandbox | null = null;
  const close = async (): Promise<void> => {
    await program.stop();
    await service?.stop();
    await sandbox?.close();
    process.off("exit", remove);
    remove();
  };
  try {
    // 20 requests a second are more than IMKIT's 1,000 a minute.
    sandbox = await startSandbox({ app: APP, limit: 1_000_000 });
    const { url } = sandbox;
    const envText = (key: string): string =>
      `# The chat service reads this file once, when it starts.\nIMKIT_API_KEY="${key}"\nIMKIT_BASE_URL=${url}\nGREETING='hello'\n`;
    mkdirSync(join(folder, "home"));
    writeFileSync(envFile, `${envText(sandbox.firstKey())}${isCareless ? CARELESS : ""}`, { mode: 0o600 });
    const restart = [...command, "demo", "--internal-restart", socket];
    writeFileSync(join(folder, "imkit-rotator.config.yaml"), configText(url, envFile, restart));
    return {
      sandbox,
      folder,
      envFile,
      envText,
      logFile,
      program,
      startService: async (salt) => {
        const args = ["demo", "--internal-service", envFile, "--", "--rate", String(RATE), "--salt", salt];
        const log = isCareless ? ["--log", logFile] : [];
        try {
          service = await startService({ command: [...command, ...args, ...log], socket });
        } catch {
          throw new RotatorError("INTERNAL", { why: "The chat service did not come up." });
        }
        return service;
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
};

const makeFolder = (): string => {
  try {
    return mkdtempSync(join(baseFolder(), "imkit-rotator-demo-"));
  } catch {
    throw new RotatorError("STATE_UNUSABLE", {
      what: "The demo needs a folder for temporary files.",
      why: `Nothing can be made in ${baseFolder()}.`,
      do: ["Set TMPDIR to a folder that you may write, and run the demo again."],
    });
  }
};
