import { afterAll, expect, test } from "vitest";
import { prepare } from "../crash/point.ts";
import { race } from "../crash/race.ts";
import { closeWorlds, makeWorld } from "../crash/world.ts";

afterAll(closeWorlds);

// Fifty of them run with the crash suite.
test("two rotators at once: exactly one acts, the other exits 6 or finds nothing to do", async () => {
  const world = await makeWorld();
  await prepare(world, "overlap");
  const wrong: string[] = [];
  for (const lagMs of [0, 0, 10, 20, 40, 60, 90, 120, 160, 220]) {
    for (const one of await race(world, lagMs)) wrong.push(`${lagMs} ms apart: ${one}`);
  }
  expect((await world.run(["audit", "verify", "--json"])).code).toBe(0);
  expect(wrong).toEqual([]);
});
