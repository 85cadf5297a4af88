import { afterAll, expect, test } from "vitest";
import { argsOf, prepare } from "./point.ts";
import { race } from "./race.ts";
import { closeWorlds, makeWorld } from "./world.ts";

afterAll(closeWorlds);

test("two rotators, 50 races: exactly one acts, the other exits 6 or finds nothing to do", async () => {
  const world = await makeWorld();
  await prepare(world, "overlap");
  const wrong: string[] = [];
  for (let n = 0; n < 50; n++) {
    // From a dead heat to one that comes when the other is nearly through.
    const lagMs = (n % 25) * 12;
    for (const one of await race(world, lagMs)) wrong.push(`race ${n}, ${lagMs} ms apart: ${one}`);
    if ((await world.run(["audit", "verify", "--json"])).code !== 0) wrong.push(`race ${n}: audit verify`);
    world.imkit.accept(world.newKey);
    const confirmed = await world.run(argsOf("confirm-revoked"));
    if (confirmed.code !== 0) wrong.push(`race ${n}: confirm-revoked then ends ${confirmed.code}`);
  }
  expect(wrong).toEqual([]);
});
