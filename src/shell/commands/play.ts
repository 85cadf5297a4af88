import type { Io } from "../io.ts";
import { chatService, serviceIo } from "../sandbox/chat-service.ts";
import { askRestart } from "../sandbox/supervisor.ts";
import { runSandbox, type SandboxCommandOptions } from "./sandbox.ts";

type SandboxFlags = Omit<SandboxCommandOptions, "envFile" | "configFile"> & {
  readonly writeDotenv?: string;
  readonly writeConfig?: string;
};

export const sandboxCommand = (
  io: Io,
  { writeDotenv, writeConfig, ...flags }: SandboxFlags,
): Promise<number> => {
  const stopped = new Promise<"SIGINT" | "SIGTERM">((resolve) => {
    const end = (): void => resolve(io.signal.reason === "SIGTERM" ? "SIGTERM" : "SIGINT");
    if (io.signal.aborted) end();
    io.signal.addEventListener("abort", end, { once: true });
  });
  const options = {
    ...flags,
    ...(writeDotenv === undefined ? {} : { envFile: writeDotenv }),
    ...(writeConfig === undefined ? {} : { configFile: writeConfig }),
    json: io.json,
  };
  const line = (write: (text: string) => void) => (text: string) => write(text.replace(/\n$/, ""));
  return runSandbox(options, { out: line(io.out), err: line(io.say), stopped });
};

export const demoCommand = async (
  io: Io,
  flags: {
    readonly leak?: boolean;
    readonly internalService?: readonly string[];
    readonly internalRestart?: string;
  },
): Promise<number> => {
  if (flags.internalService !== undefined) {
    const at = process.argv.indexOf("--internal-service");
    return chatService(process.argv.slice(at + 1), serviceIo());
  }
  if (flags.internalRestart !== undefined) return askRestart(flags.internalRestart);
  return (await import("./demo.ts")).runDemo(io, flags.leak === true);
};
