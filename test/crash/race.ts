import type { Ran } from "../kit/program.ts";
import { argsOf, intents, rewind } from "./point.ts";
import type { World } from "./world.ts";

/**
 * Two rotators on one staged key, the second one `lagMs` after the first.
 * @returns what is wrong; empty = one acted, the other was turned away or found nothing to do.
 */
export const race = async (world: World, lagMs: number): Promise<string[]> => {
  rewind(world, "rotate", "overlap");
  const first = await world.start(argsOf("rotate"));
  if (lagMs > 0) await new Promise((resolve) => setTimeout(resolve, lagMs));
  const second = await world.start(argsOf("rotate"));
  const ends = await Promise.all([first.ended, second.ended]);
  const wrong: string[] = [];
  const codes = ends.map((ran) => ran.code);
  if (!codes.includes(3) || codes.some((code) => code !== 3 && code !== 6))
    wrong.push(`exits ${codes.join(" and ")}`);
  for (const ran of ends) wrong.push(...saysWhy(ran));
  const acting = new Set(world.events().flatMap((event) => (event["type"] === "intent" ? [event.inst] : [])));
  if (acting.size !== 1) wrong.push(`${acting.size} rotators acted`);
  const counts = [intents(world, "write"), intents(world, "roll"), world.triggers()];
  if (counts.join() !== "1,1,1") wrong.push(`writes, rolls, triggers: ${counts.join()}`);
  if (world.events().filter((event) => event["type"] === "opened").length !== 1) wrong.push("opened twice");
  if (world.envNow() !== world.env(world.newKey)) wrong.push("the env file does not hold the new key");
  return wrong;
};

const saysWhy = ({ code, stdout, stderr }: Ran): string[] => {
  const last = stdout.split("\n").findLast((line) => line !== "") ?? "";
  if (code === 6 && !last.includes('"code":"LOCKED"')) return [`exit 6 without LOCKED: ${last.slice(0, 80)}`];
  if (code === 3 && !stdout.includes('"status":"waiting"')) return ["exit 3 without its result"];
  return /\n\s+at /.test(stderr) ? ["a stack trace"] : [];
};
