import { afterAll, expect, test } from "vitest";
import type { Ran } from "../kit/program.ts";
import { afterCrash, argsOf, goOn, prepare, rewind } from "./point.ts";
import { closeWorlds, entriesIn, makeWorld, type Started, type World } from "./world.ts";

afterAll(closeWorlds);

const SLOW = '{ name: api, type: exec, command: [sh, -c, "printf x >> triggers; sleep 0.4"], timeout: 10s }';
/** After so many entries of the rotator at work the leak is called out. */
const MOMENTS = [1, 2, 3, 4, 5, 6, 7, 8];

/** @returns false when the process was over before */
const until = async (what: () => boolean, child: Started): Promise<boolean> => {
  const run = { over: false };
  void child.ended.finally(() => {
    run.over = true;
  });
  while (!what() && !run.over) await new Promise((resolve) => setImmediate(resolve));
  return what();
};

const isCalled = (world: World): boolean =>
  world.events().some((event) => event["type"] === "emergency-requested");

/** Who does something holds the claim. */
const actsAlone = (world: World): readonly string[] => {
  let holder = "";
  return world.events().flatMap((event) => {
    if (event["type"] === "claimed") holder = event.inst;
    return event["type"] === "intent" && event.inst !== holder ? ["an intent without the claim"] : [];
  });
};

test.each(["who works", "who called"] as const)(
  "a leak is called out beside a rotator at work, and %s is killed: the other one brings it to the end",
  async (victim) => {
    const world = await makeWorld("overlap", SLOW);
    await prepare(world, "overlap");
    const wrong: string[] = [];
    let met = 0;
    for (const n of MOMENTS) {
      rewind(world, "emergency", "overlap");
      const wanted = entriesIn(world.ledgerDir).length + n;
      const holder = await world.start(argsOf("rotate"));
      await until(() => entriesIn(world.ledgerDir).length >= wanted, holder);
      const caller = await world.start(argsOf("emergency"));
      const called = await until(() => isCalled(world), caller);
      if (!called) wrong.push(`entry ${n}: the leak is not on record`);
      const [dead, left] = victim === "who works" ? [holder, caller] : [caller, holder];
      dead.kill("SIGKILL");
      const [killed, ran]: [Ran, Ran] = [await dead.ended, await left.ended];
      if (killed.signal === "SIGKILL") met++;
      if (ran.code !== 3) wrong.push(`entry ${n}: the other one ends ${ran.code}`);
      const found = [
        ...actsAlone(world),
        ...afterCrash(world, "overlap", "emergency"),
        ...(await goOn(world, "overlap", "escalation", ran, n % 2 === 0)),
      ];
      for (const one of found) wrong.push(`entry ${n}: ${one}`);
    }
    expect(wrong).toEqual([]);
    expect(met).toBeGreaterThan(3);
  },
);
