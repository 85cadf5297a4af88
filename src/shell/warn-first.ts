import type { Code } from "../core/errors.ts";
import { plan } from "../flow/plan.ts";
import type { Io } from "./io.ts";
import { paint } from "./print.ts";
import type { Wired } from "./wire.ts";

/** What the key that is about to be given mends. */
const CURED: ReadonlySet<Code> = new Set(["KEY_REJECTED", "ESCROW_LOST"]);

/** Before a person is asked for a new key: what a rotation with it would stop at, so that none is issued in vain. */
export const warnFirst = async (io: Io, wired: Wired): Promise<void> => {
  const { problem } = await plan(await wired.hands());
  if (problem === null || CURED.has(problem.code)) return;
  io.warn(
    `  ${paint(io, "yellow", "!")} A rotation would stop now: ${problem.what} ${problem.why}`.trimEnd(),
  );
  for (const line of problem.do) io.warn(`       ${io.paste(line)}`);
};
