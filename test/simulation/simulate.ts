import { createHash } from "node:crypto";
import { colleague, cron, type End, operator, strangers } from "./world/people.ts";
import { wrongTurns } from "./world/leak.ts";
import type { Product } from "./world/product.ts";
import type { Scenario } from "./world/scenario.ts";
import { makeWorld } from "./world/world.ts";

export type Outcome = {
  readonly seed: number;
  readonly violations: readonly string[];
  readonly end: End | null;
  readonly steps: number;
  readonly entries: number;
  readonly trace: readonly string[];
  readonly hash: string;
};

export type SimulateOptions = {
  readonly product: Product;
  readonly sound?: Product;
  readonly traced?: boolean;
  readonly change?: (drawn: Scenario) => Scenario;
};

const MOST_STEPS = 60_000;

/** One world from its seed to its end. */
export const simulate = async (seed: number, options: SimulateOptions): Promise<Outcome> => {
  const { product, sound = product, traced = false, change } = options;
  const world = makeWorld({ product, sound, seed, traced, ...(change === undefined ? {} : { change }) });
  let end: End | null = null;
  const story = operator(world).then((ended) => {
    end = ended;
  });
  story.catch((error: unknown) => world.violated(`the person fails: ${String(error)}`));
  void cron(world, () => end !== null);
  void colleague(world);
  strangers(world);
  wrongTurns(world, () => end !== null);
  const steps = await world.time.run(() => end !== null || world.violations().length > 0, MOST_STEPS);
  const ended = end as End | null;
  if (world.violations().length === 0) {
    if (ended === null) world.violated(`no end after ${steps} steps`);
    else if (ended.how === "stuck") world.violated(`no end after ${ended.rounds} rounds: ${ended.last}`);
    else world.checks.atEnd();
  }
  return {
    seed,
    violations: world.violations(),
    end: ended,
    steps,
    entries: world.ledger.lines.length,
    trace: world.log,
    hash: createHash("sha256").update(world.log.join("\n")).digest("hex").slice(0, 16),
  };
};
