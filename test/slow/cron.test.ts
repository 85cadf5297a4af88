import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { expect, it } from "vitest";
import { startTimer } from "../../src/shell/daemon/timer.ts";
import { FAST, startDaemon, until } from "../kit/daemon.ts";
import { makeWorld, NO_RESTART } from "../kit/world.ts";

const MINUTE = 60_000;
const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

it("the real node-cron, every second for a minute, with passes of any length: never two at once, none lost that could run, nothing after the end", async () => {
  let [now, most, passes, skips] = [0, 0, 0, 0];
  const lengths = [0, 10, 400, 1_700, 2_600];
  const timer = await startTimer({
    cron: "*/1 * * * * *",
    onSkip: () => void skips++,
    log,
    pass: async () => {
      most = Math.max(most, ++now);
      await pause(lengths[passes++ % lengths.length] ?? 0);
      now--;
      if (passes % 7 === 0) throw new Error("a pass that fails stops no other");
    },
  });
  await pause(MINUTE);
  expect(await timer.stop(10_000)).toBe(true);
  const atEnd = passes;
  await pause(2_500);
  expect([most, now]).toEqual([1, 0]);
  expect(passes).toBe(atEnd);
  expect(passes).toBeGreaterThan(25);
  // Every instant either ran or was left out; the first pass is before the first instant.
  expect(passes + skips).toBeGreaterThanOrEqual(56);
  expect(passes + skips).toBeLessThanOrEqual(64);
});

it("a pass that does not end in time is told of, and the stop does not wait for it", async () => {
  const over = Promise.withResolvers<void>();
  const timer = await startTimer({ cron: "0 0 0 * * *", onSkip: () => {}, log, pass: () => over.promise });
  expect(await timer.stop(50)).toBe(false);
  over.resolve();
});

it("the daemon, a tick of four apps every second for a minute: no handle and no memory is left behind", async () => {
  const names = ["a", "b", "c"];
  const w = await makeWorld({ more: FAST, stores: ["env", ...names] });
  const apps = names.map(
    (name) =>
      `  ${name}:\n    baseUrl: ${w.sandbox.url}\n    stores: [{ name: env, type: dotenv, path: ./${name}.env, key: IMKIT_API_KEY }]\n    rollouts: ${NO_RESTART}\n`,
  );
  const { writeFileSync } = await import("node:fs");
  const config = readFileSync(w.configFile, "utf8").replace(/^ {6}- \{ name: [abc], .*\n/gm, "");
  writeFileSync(w.configFile, config.replace("apps:\n", `apps:\n${apps.join("")}`));
  const d = await startDaemon(w.dir);
  try {
    const ticks = async () => (await d.metric("imkit_rotator_tick_duration_seconds_count")) ?? 0;
    const seen = () => ({
      handles: readdirSync(`/proc/${d.pid}/fd`).length,
      threads: readdirSync(`/proc/${d.pid}/task`).length,
      rss: Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${d.pid}/status`, "utf8"))?.[1]) / 1_024,
    });
    await until("it is warm", async () => (await ticks()) >= 20);
    const before = seen();
    await until("a minute is over", async () => (await ticks()) >= 80, 120_000);
    const after = seen();
    expect(after.handles).toBeLessThanOrEqual(before.handles + 3);
    expect(after.threads).toBeLessThanOrEqual(before.threads + 1);
    expect(after.rss).toBeLessThan(before.rss + 15);
    expect(d.lines().filter(({ level }) => level === "error" || level === "warn")).toEqual([]);
  } finally {
    d.signal("SIGTERM");
    expect((await d.ended).code).toBe(143);
    await w.close();
  }
});
