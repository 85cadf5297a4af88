import { afterAll, describe, expect, it, vi } from "vitest";
import { jsonLines, makeWorld, type World } from "../kit/world.ts";

const worlds: World[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));

const times = (text: string, what: string): number => text.split(what).length - 1;

/** A rotation that waits for a restart, in a process of its own. */
const waiting = async (...more: readonly string[]) => {
  const w = await makeWorld({ rollouts: null });
  worlds.push(w);
  await w.run(["stage", "demo", "--from-stdin"], { stdin: w.sandbox.issue() });
  let all = "";
  const running = w.run(["rotate", "demo", "--wait=60s", ...more], {
    onOutput: (text) => {
      all = text;
    },
  });
  const saw = (what: string, n = 1) => vi.waitUntil(() => times(all, what) >= n, { timeout: 30_000 });
  await saw("is waiting-restart");
  const ended = async () => {
    w.sandbox.revoke(1);
    await w.run(["rotate", "demo", "--restarted"]);
    return running;
  };
  return { w, saw, ended };
};

describe.concurrent("a leak that is called out in a second shell", () => {
  it("is said by the one that waits, with what is to be done now; and again when the order changes", async () => {
    const { w, saw, ended } = await waiting();
    const call = (order: string) => w.run(["rotate", "demo", "--emergency", "--order", order]);
    await call("revoke-first");
    await saw("is waiting-restart", 2);
    await call("revoke-first");
    await call("replace-first");
    await saw("is waiting-restart", 3);
    const { code, stderr } = await ended();
    expect(code).toBe(0);
    const fp = String(w.events().find((e) => e["type"] === "emergency-requested")?.["leaked"]).slice(0, 8);
    const said = (order: string): string =>
      `EMERGENCY: the key ${fp} leaked (${order}), said by another process`;
    expect(
      [said("revoke-first"), said("replace-first"), "EMERGENCY"].map((text) => times(stderr, text)),
    ).toEqual([1, 1, 2]);
    expect(times(stderr, "to stop the leak now, revoke")).toBe(1);
    expect(times(stderr, "is waiting-restart")).toBe(3);
  });

  it("is a line of NDJSON too", async () => {
    const { w, saw, ended } = await waiting("--json");
    await w.run(["rotate", "demo", "--emergency"]);
    await saw("EMERGENCY");
    const heard = jsonLines((await ended()).stdout).filter((line) => line["foreign"] === true);
    expect(heard).toMatchObject([
      { type: "event", app: "demo", event: { type: "emergency-requested", order: "revoke-first" } },
    ]);
  });
});
