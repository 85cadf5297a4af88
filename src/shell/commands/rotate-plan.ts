import { formatDuration } from "../../core/policy.ts";
import { plan } from "../../flow/plan.ts";
import { asRotatorError } from "../fault.ts";
import { exitOfError } from "../interrupt.ts";
import type { Io } from "../io.ts";
import type { Wired } from "../wire.ts";
import { type Outcome, statusOf } from "./rotate-result.ts";

/** `rotate --dry-run`: one plan line, and nothing else is written anywhere. Never rejects. */
export const dryRun = async (io: Io, wired: Wired, drop: readonly string[] = []): Promise<Outcome> => {
  try {
    return await show(io, wired, drop);
  } catch (thrown) {
    const error = asRotatorError(thrown);
    const exit = exitOfError(io, error);
    return { exit, status: statusOf(exit), error };
  }
};

const show = async (io: Io, wired: Wired, drop: readonly string[]): Promise<Outcome> => {
  const seen = await plan(await wired.hands(), drop);
  if (io.json) {
    const { mode, steps, people, exit: exitCode } = seen;
    io.out(
      JSON.stringify({ type: "plan", schemaVersion: 1, app: wired.name, mode, steps, people, exitCode }),
    );
  } else {
    io.out(`Plan for ${wired.name} (mode ${seen.mode ?? "not known yet"}); nothing was written.`);
    for (const step of seen.steps)
      io.out(`  ${step.action.padEnd(8)} ${step.target}  (${step.kind}): ${step.check}`);
    for (const person of seen.people) io.out(`  you      ${person}`);
    if (wired.app.soakMs > 0) io.out(`  soak     ${formatDuration(wired.app.soakMs)}`);
  }
  const { exit, problem } = seen;
  return { exit, status: problem === null ? "nothing" : statusOf(exit), error: problem };
};
