// The simulation by itself:
//   node test/simulation/run.ts --seeds 20000      that many worlds, each from its seed
//   node test/simulation/run.ts --seed 42          one world, with its trace
//   node test/simulation/run.ts --bugs --seeds 4000  plants every bug of bugs.ts and looks for it in at most that many worlds
import { parseArgs } from "node:util";
import { loadAsIs, makeCopies } from "./copy.ts";
import { BUGS } from "./bugs.ts";
import { hunt } from "./hunt.ts";
import { simulate } from "./simulate.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: process.env["SIM_SEEDS"] ?? "2000" },
    from: { type: "string", default: "1" },
    seed: { type: "string" },
    bugs: { type: "boolean", default: false },
    bug: { type: "string" },
  },
});
const asIs = await loadAsIs();
const copies = makeCopies();
process.on("exit", copies.remove);
const quick = await copies.load([]);
/** One world of twenty runs the very files of the product; the others a copy that reads each ledger line once. */
const productOf = (seed: number) => (seed % 20 === 0 ? asIs : quick);

if (values.seed !== undefined) {
  const outcome = await simulate(Number(values.seed), {
    product: productOf(Number(values.seed)),
    traced: true,
  });
  console.log(outcome.trace.join("\n"));
  console.log(outcome.violations.length === 0 ? "no violation" : outcome.violations.join("\n"));
  process.exit(outcome.violations.length === 0 ? 0 : 1);
}

const from = Number(values.from);
const count = Number(values.seeds);
if (values.bugs || values.bug !== undefined) {
  const began = performance.now();
  const found = await hunt(
    copies,
    BUGS.filter((b) => values.bug === undefined || b.name === values.bug),
    from,
    count,
  );
  for (const { name, seeds, violation } of found) {
    console.log(
      seeds === null ? `NOT FOUND  ${name}` : `${String(seeds).padStart(6)} worlds  ${name}: ${violation}`,
    );
  }
  const missed = found.filter((f) => f.seeds === null).length;
  console.log(
    `${found.length - missed} of ${found.length} planted bugs found in ${((performance.now() - began) / 1_000).toFixed(1)} s`,
  );
  process.exit(missed === 0 ? 0 : 1);
}
const began = performance.now();
const cpu = process.cpuUsage();
let steps = 0;
let entries = 0;
const bad: string[] = [];
for (let seed = from; seed < from + count && bad.length < 10; seed++) {
  const outcome = await simulate(seed, { product: productOf(seed) });
  steps += outcome.steps;
  entries += outcome.entries;
  if (outcome.violations.length > 0) bad.push(`seed ${seed}: ${outcome.violations.join("; ")}`);
}
const seconds = (performance.now() - began) / 1_000;
const busy = process.cpuUsage(cpu);
const cpuSeconds = (busy.user + busy.system) / 1e6;
console.log(
  `${count} schedules in ${seconds.toFixed(1)} s: ${(count / seconds).toFixed(0)} schedules/s (${(count / cpuSeconds).toFixed(0)} per CPU second), ${(steps / count).toFixed(0)} steps and ${(entries / count).toFixed(1)} entries each`,
);
for (const line of bad) console.log(line);
process.exit(bad.length === 0 ? 0 : 1);
