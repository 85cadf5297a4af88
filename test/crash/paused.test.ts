import { linkSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { madeKey } from "../kit/leak.ts";
import type { Ran } from "../kit/program.ts";
import { argsOf, intents, prepare, rewind } from "./point.ts";
import { closeWorlds, makeWorld, type Started, temporaries, type World } from "./world.ts";

afterAll(closeWorlds);

// A rotator that is silent for 90 s counts as dead, and nothing shortens that: these take about two minutes, side by side.
const ROTATE = argsOf("rotate");
const TEMPORARY = "..env.imkit-rotator.tmp";

const until = async (what: () => boolean, limitMs: number): Promise<void> => {
  const end = performance.now() + limitMs;
  while (!what()) {
    if (performance.now() > end) throw new Error(`not in ${limitMs} ms: ${String(what)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

const claimant = (world: World): { readonly pid: number; readonly inst: string } => {
  const claim = world.events().findLast((event) => event["type"] === "claimed");
  if (claim === undefined) throw new Error("nobody has claimed");
  return { pid: Number(claim["pid"]), inst: claim.inst };
};
const isStopped = (pid: number): boolean =>
  /^State:\s+[Tt]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));

const staged = async (rollout?: string): Promise<World> => {
  const world = await makeWorld("overlap", rollout);
  await prepare(world, "overlap");
  rewind(world, "rotate", "overlap");
  return world;
};

/** The other rotator: turned away at first, with --wait it takes over after 90 s and ends its part. */
const takeOver = async (world: World): Promise<void> => {
  const away = await world.run(ROTATE);
  expect([away.code, away.stdout.includes('"code":"LOCKED"')]).toEqual([6, true]);
  const began = performance.now();
  const over = await world.run([...ROTATE, "--wait=93s"]);
  expect(over).toMatchObject({ code: 3 });
  expect(performance.now() - began).toBeGreaterThan(80_000);
};

const finish = async (world: World): Promise<void> => {
  world.imkit.accept(world.newKey);
  expect((await world.run(argsOf("confirm-revoked"))).code).toBe(0);
};

const nextRotation = async (world: World): Promise<string> => {
  const third = madeKey();
  world.imkit.accept(world.newKey, third);
  expect((await world.run(argsOf("stage"), third)).code).toBe(0);
  expect((await world.run(ROTATE)).code).toBe(3);
  expect(world.envNow()).toBe(world.env(third));
  return third;
};

const isLocked = (ran: Ran): void => {
  expect(ran).toMatchObject({ code: 6 });
  expect(
    ran.stdout
      .split("\n")
      .filter((line) => line !== "")
      .at(-1),
  ).toContain('"code":"LOCKED"');
};
const lateEffects = (world: World, inst: string): readonly Record<string, unknown>[] =>
  world.events().filter((event) => event["type"] === "late-effect" && event.inst === inst);

const isSound = async (world: World): Promise<void> => {
  const verified = await world.run(["audit", "verify", "--json"]);
  expect(verified).toMatchObject({ code: 0 });
};
const storeState = async (
  world: World,
): Promise<{ readonly exit: number | null; readonly state: string | undefined }> => {
  const ran = await world.run(["status", "--json", "--exit-code"]);
  const status = JSON.parse(ran.stdout.split("\n")[0] ?? "") as { apps: { stores: { state: string }[] }[] };
  return { exit: ran.code, state: status.apps[0]?.stores[0]?.state };
};

test.concurrent("stopped right before its write: it wakes, is too late, writes nothing, says so and exits 6", async () => {
  const world = await staged();
  // The third look at the temporary file is the last thing before the rename.
  const paused = world.startTraced(ROTATE, {
    inject: ["statx:signal=SIGSTOP:when=3"],
    watch: ["statx"],
    paths: [join(world.dir, TEMPORARY)],
  });
  await until(() => temporaries(world).includes(TEMPORARY) && isStopped(claimant(world).pid), 30_000);
  const { pid, inst } = claimant(world);
  await takeOver(world);
  await finish(world);
  const third = await nextRotation(world);
  process.kill(pid, "SIGCONT");
  isLocked(await paused.ended);
  expect(world.envNow(), "the late write went through").toBe(world.env(third));
  expect(lateEffects(world, inst)).toHaveLength(1);
  expect(temporaries(world)).not.toContain(TEMPORARY);
  await isSound(world);
  world.imkit.accept(third);
  expect((await world.run(argsOf("confirm-revoked"))).code).toBe(0);
  expect(await storeState(world)).toEqual({ exit: 0, state: "in-sync" });
});

test.concurrent("stopped in the very system call that writes: it lands late, is recorded, shown as drift, and mended", async () => {
  const world = await staged();
  // Two names: such a file is written in place.
  linkSync(join(world.dir, ".env"), join(world.dir, "second-name"));
  const paused = world.startTraced(ROTATE, {
    inject: ["pwrite64:delay_enter=125s:when=1"],
    watch: ["pwrite64"],
    paths: [join(world.dir, ".env")],
  });
  await until(
    () => intents(world, "write") === 1 && paused.log().some((line) => line.includes("pwrite64(")),
    30_000,
  );
  const { pid, inst } = claimant(world);
  process.kill(pid, "SIGSTOP");
  await takeOver(world);
  await finish(world);
  const third = await nextRotation(world);
  await until(() => world.envNow() === world.env(world.newKey), 60_000);
  expect(await storeState(world)).toEqual({ exit: 5, state: "drift" });
  // The person revokes all the same: the rotation must not end while a store holds a dead key.
  world.imkit.accept(third);
  await world.run(argsOf("confirm-revoked"));
  const ended = world.events().filter((event) => event["type"] === "done").length;
  expect(ended === 1 || world.envNow() === world.env(third)).toBe(true);
  process.kill(pid, "SIGCONT");
  isLocked(await paused.ended);
  const late = lateEffects(world, inst);
  expect(late.map((event) => event["target"])).toEqual(["env"]);
  await isSound(world);
  await world.run(ROTATE);
  await world.run(argsOf("confirm-revoked"));
  expect(world.envNow()).toBe(world.env(third));
  expect(await storeState(world)).toEqual({ exit: 0, state: "in-sync" });
  expect(world.events().filter((event) => event["type"] === "done")).toHaveLength(2);
});

test.concurrent("stopped in the very rename: its temporary file is gone when it wakes, and nothing lands", async () => {
  const world = await staged();
  const paused = world.startTraced(ROTATE, {
    inject: ["rename:delay_enter=125s:when=1"],
    watch: ["rename"],
    paths: [join(world.dir, TEMPORARY)],
  });
  await until(
    () => intents(world, "write") === 1 && paused.log().some((line) => line.includes("rename(")),
    30_000,
  );
  const { pid, inst } = claimant(world);
  process.kill(pid, "SIGSTOP");
  await takeOver(world);
  await finish(world);
  const third = await nextRotation(world);
  await until(() => paused.log().some((line) => line.includes("ENOENT")), 60_000);
  expect(world.envNow()).toBe(world.env(third));
  process.kill(pid, "SIGCONT");
  isLocked(await paused.ended);
  expect(lateEffects(world, inst)).toHaveLength(1);
  await isSound(world);
  world.imkit.accept(third);
  expect((await world.run(argsOf("confirm-revoked"))).code).toBe(0);
  expect(await storeState(world)).toEqual({ exit: 0, state: "in-sync" });
});

test.concurrent("stopped in a rollout: it is triggered again under an intent of its own, and the late one says so", async () => {
  const world = await staged(
    '{ name: api, type: exec, command: [sh, -c, "printf x >> triggers; sleep 1"], timeout: 10s }',
  );
  const paused: Started = await world.start(ROTATE);
  await until(() => world.triggers() === 1, 30_000);
  const { pid, inst } = claimant(world);
  process.kill(pid, "SIGSTOP");
  await takeOver(world);
  expect([world.triggers(), intents(world, "roll")]).toEqual([2, 2]);
  process.kill(pid, "SIGCONT");
  isLocked(await paused.ended);
  expect(lateEffects(world, inst).map((event) => event["target"])).toEqual(["api"]);
  expect(world.triggers()).toBe(2);
  await isSound(world);
  await finish(world);
  expect(await storeState(world)).toEqual({ exit: 0, state: "in-sync" });
});
