import type { Io } from "../io.ts";
import { chatService, serviceIo } from "../sandbox/chat-service.ts";
import { askRestart } from "../sandbox/supervisor.ts";

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
