import * as z from "zod/mini";
import { ProviderError } from "../../src/core/errors.ts";
import type { RolloutOp, RolloutState } from "../../src/ports.ts";
import { timeLimit } from "../config-keys.ts";
import { CALL_LIMIT_MS, defineRollout, durationMs, refused } from "../kit.ts";
import { programCheck, runProgram } from "../program.ts";

const schema = z.strictObject({
  command: z
    .array(z.string())
    .check(
      z.minLength(1),
      z.describe(
        "Program and arguments, no shell. A relative path starts at the config file. Exit 0 = restarted. No key reaches it; " +
          "it gets IMKIT_ROTATOR_APP, IMKIT_ROTATOR_ROTATION and IMKIT_ROTATOR_FINGERPRINT.",
      ),
    ),
  timeout: timeLimit(
    "1m",
    { leastMs: 1, mostMs: 60_000, rule: "at most 1m" },
    "How long it may take, at most 1m. Then it is stopped, and what it did is not known.",
  ),
});

/** Any program restarts the workload. Its exit status is all that is looked at: its output is dropped, for it may hold anything. */
export default defineRollout({
  kind: "exec",
  schema,
  open: ({ command, timeout }, tools) => {
    const program = command[0] ?? "";
    const trigger = async (op: RolloutOp, signal: AbortSignal): Promise<RolloutState> => {
      if (signal.aborted) throw new ProviderError("TIMEOUT", "not_applied");
      const ended = await runProgram(command, tools, {
        signal,
        limitMs: Math.min(durationMs(timeout), CALL_LIMIT_MS),
        env: {
          IMKIT_ROTATOR_APP: op.app,
          IMKIT_ROTATOR_ROTATION: op.rotation,
          IMKIT_ROTATOR_FINGERPRINT: op.fingerprint,
        },
      });
      if (ended.how === "missing") throw refused("CONFIG", `no program ${program} to run; see command`);
      if (ended.how === "late")
        throw new ProviderError("TIMEOUT", "unknown", `${program} did not end in time`);
      if (ended.how !== "exit") return failed(`${program} was ended by a signal`);
      return ended.status === 0
        ? { state: "done", proof: 0, reason: "" }
        : failed(`exit status ${ended.status}`);
    };

    return {
      where: `exec:${program}`,
      how: "auto",
      reason: "",
      preflight: async () => [await programCheck("program", program, "command", tools)],
      trigger,
    };
  },
});

const failed = (reason: string): RolloutState => ({ state: "failed", proof: 0, reason });
