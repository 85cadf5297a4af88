// The simulation by itself:
//   node test/simulation/run.ts --seeds 20000        that many worlds, each from its seed
//   node test/simulation/run.ts --seed 42            one world, with its trace
//   node test/simulation/run.ts --seeds 20 --hash    one hash over the traces; --as-is: without the quick copy
//   node test/simulation/run.ts --bugs --seeds 4000  plants every bug of bugs.ts and looks for it in at most that many worlds
import { createHash } from "node:crypto";
import { parseArgs } from "node:util";
import { BUGS } from "./bugs.ts";
import { loadAsIs, makeCopies } from "./copy.ts";
import { hunt } from "./hunt.ts";
import { type Outcome, simulate } from "./simulate.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: process.env["SIM_SEEDS"] ?? "2000" },
    from: { type: "string", default: "1" },
    seed: { type: "string" },
    hash: { type: "boolean", default: false },
    /** All worlds run the very files of the product. */
    "as-is": { type: "boolean", default: false },
    bugs: { type: "boolean", default: false },
    /** Only the bugs that are found soon. */
    soon: { type: "boolean", default: false },
    bug: { type: "string" },
  },
});
const from = Number(values.from);
const count = Number(values.seeds);
const began = performance.now();
const seconds = (): number => (performance.now() - began) / 1_000;

const asIs = await loadAsIs();
const copies = makeCopies();
process.on("exit", copies.remove);
const quick = await copies.load([]);
/** One world of fifty runs the very files of the product; the others a copy that reads each ledger line once. */
const run = (seed: number, traced: boolean): Promise<Outcome> =>
  simulate(seed, { product: values["as-is"] || seed % 50 === 0 ? asIs : quick, traced });

const one = async (seed: number): Promise<number> => {
  const { trace, violations } = await run(seed, true);
  console.log(trace.join("\n"));
  console.log(violations.length === 0 ? "no violation" : violations.join("\n"));
  return violations.length;
};

const hashes = async (): Promise<number> => {
  const all = createHash("sha256");
  for (let seed = from; seed < from + count; seed++) all.update((await run(seed, true)).hash);
  console.log(all.digest("hex"));
  return 0;
};

const plant = async (): Promise<number> => {
  const bugs = BUGS.filter((b) => (values.bug ?? b.name) === b.name && !(values.soon && b.isRare));
  const found = await hunt(copies, bugs, from, count);
  for (const { name, worlds, violation } of found) {
    console.log(
      worlds === null ? `NOT FOUND  ${name}` : `${String(worlds).padStart(6)} worlds  ${name}: ${violation}`,
    );
  }
  const missed = found.filter((f) => f.worlds === null).length;
  console.log(`${found.length - missed} of ${found.length} planted bugs found in ${seconds().toFixed(1)} s`);
  return missed;
};

const many = async (): Promise<number> => {
  const bad: Outcome[] = [];
  let [steps, entries, done] = [0, 0, 0];
  const cpu = process.cpuUsage();
  // The worlds make many errors and nobody reads where: a world with a violation is told once more, with stacks.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  const started = seconds();
  for (let seed = from; seed < from + count && bad.length < 10; seed++) {
    const outcome = await run(seed, false);
    done++;
    steps += outcome.steps;
    entries += outcome.entries;
    if (outcome.violations.length > 0) bad.push(outcome);
  }
  Error.stackTraceLimit = stackTraceLimit;
  const took = seconds() - started;
  const { user, system } = process.cpuUsage(cpu);
  const rate = `${(done / took).toFixed(0)} schedules/s, ${((done * 1e6) / (user + system)).toFixed(0)} in a CPU second`;
  const size = `${(steps / done).toFixed(0)} steps and ${(entries / done).toFixed(1)} entries each`;
  console.log(`${done} schedules in ${took.toFixed(1)} s (${rate}; ${size}), ${bad.length} with a violation`);
  for (const { seed, violations } of bad) console.log(`seed ${seed}: ${violations.join("; ")}`);
  if (bad[0] !== undefined) await one(bad[0].seed);
  return bad.length;
};

const work = async (): Promise<number> => {
  if (values.seed !== undefined) return one(Number(values.seed));
  if (values.hash) return hashes();
  return values.bugs || values.bug !== undefined ? plant() : many();
};

process.exitCode = (await work()) === 0 ? 0 : 1;
