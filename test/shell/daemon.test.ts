import { inspect } from "node:util";
import { describe, expect, it, test } from "vitest";
import { cronOfEvery } from "../../src/core/every.ts";
import { RotatorError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import { openLog } from "../../src/shell/daemon/log.ts";
import { openMetrics } from "../../src/shell/daemon/metrics.ts";
import { stepsClock } from "../../src/shell/daemon/steps-clock.ts";
import type { View } from "../../src/shell/daemon/view.ts";
import { findKey, madeKey } from "../kit/leak.ts";

const logOf = async (globals = {}) => {
  const lines: string[] = [];
  const log = await openLog({ out: (line) => void lines.push(line) }, { verbose: true, ...globals });
  return { log, lines, last: () => JSON.parse(lines.at(-1) ?? "{}") as Record<string, unknown> };
};

describe("the log cannot print a key", () => {
  const key = madeKey();
  class Sneaky {
    toJSON = () => key;
    toString = () => key;
    [inspect.custom] = () => key;
    key = key;
  }
  const withKey = Object.assign(new Error(`cannot parse ${key}`), {
    name: "BadError",
    key,
    cause: new Error(key),
  });
  const places: readonly (readonly [string, unknown])[] = [
    ["a secret", new Secret(key)],
    ["an error with the key in its text, its fields and its cause", withKey],
    ["an error that is named by it", Object.assign(new Error("x"), { name: key })],
    ["a text", key],
    ["inside a sentence", `the value "${key}" was refused`],
    ["a header", `IM-API-KEY: ${key}`],
    ["a line of an env file", `IMKIT_API_KEY=${key}`],
    ["a URL", `https://example.com/?key=${key}&a=1`],
    ["a path", `/srv/a/${key}/b`],
    ["in Base64 of an environment", `x=1&y=${key}=z`],
    ["JSON in a text", JSON.stringify({ a: { key } })],
    ["a long piece of it", key.slice(5, 45)],
    ["an object of a class with methods that show it", new Sneaky()],
    ["bytes", Buffer.from(key)],
    ["a map", new Map([[key, key]])],
    ["a function", () => key],
    ["a symbol", Symbol(key)],
    ["a name of a field", { [key]: 1 }],
    ["deep inside", { a: { b: { c: [{ d: new Secret(key), e: key }] } } }],
    ["too deep to be looked at", { a: { a: { a: { a: { a: { a: { a: key } } } } } } }],
    [
      "behind a getter of a class",
      Object.create({
        get key() {
          return key;
        },
      }),
    ],
    ["a RotatorError that was given it by mistake", new RotatorError("INTERNAL", { what: key, why: key })],
  ];
  test.each(places)("%s", async (_, value) => {
    const { log, lines } = await logOf();
    for (const write of [log.debug, log.info, log.warn, log.error]) write("said", { value });
    expect(lines).toHaveLength(4);
    expect(findKey(lines.join("\n"), key).filter((how) => how !== "raw, any case")).toEqual([]);
  });

  it("nor in the message, nor as what a %s stands for", async () => {
    const { log, lines } = await logOf();
    log.info(`it is ${key} %s %o`, { a: key });
    expect(findKey(lines.join("\n"), key)).toEqual([]);
    expect(lines.join("")).toContain("%s %o");
  });

  it("the test can fail: without the room between, pino prints it", async () => {
    const lines: string[] = [];
    const { pino } = await import("pino");
    pino({}, { write: (line: string) => void lines.push(line) }).info({ value: withKey, text: key }, "said");
    expect(findKey(lines.join("\n"), key)).not.toEqual([]);
  });

  it("what is no key is shown as it is", async () => {
    const { log, last } = await logOf();
    const fields = {
      head: "12:4f0c9b7e55aa10d3",
      fp: "7c2e91aa",
      opId: "0123456789abcdef0123456789abcdef",
      where: "dotenv:/srv/chat-prod/services/api/.env#IMKIT_API_KEY",
      arn: "aws:eu-central-1/prod/chat/imkit#IMKIT_API_KEY",
      command: "imkit-rotator confirm-revoked chat-prod",
      n: 1,
      no: null,
      list: ["a", { b: true }],
    };
    log.info("tick", fields);
    expect(last()).toMatchObject({ level: "info", msg: "tick", ...fields });
    expect(Date.parse(String(last()["time"]))).toBeGreaterThan(0);
    log.info("tick", { level: "fatal", msg: "other", time: "never" });
    expect(last()).toMatchObject({ level: "info", msg: "tick" });
    expect(last()["time"]).not.toBe("never");
  });

  it("-q leaves only trouble, without -v steps are left out", async () => {
    const quiet = await logOf({ verbose: false, quiet: true });
    const plain = await logOf({ verbose: false });
    for (const { log } of [quiet, plain]) {
      log.debug("a");
      log.info("b");
      log.warn("c");
      log.error("d");
    }
    const said = (lines: readonly string[]) => lines.map((line) => (JSON.parse(line) as { msg: string }).msg);
    expect(said(quiet.lines)).toEqual(["c", "d"]);
    expect(said(plain.lines)).toEqual(["b", "c", "d"]);
  });
});

test.each([
  [1_000, "*/1 * * * * *"],
  [10_000, "*/10 * * * * *"],
  [60_000, "0 */1 * * * *"],
  [600_000, "0 */10 * * * *"],
  [3_600_000, "0 0 */1 * * *"],
  [86_400_000, "0 0 0 * * *"],
  [7_000, null],
  [420_000, null],
  [90_000, null],
  [500, null],
  [0, null],
  [172_800_000, null],
])("every %i ms is the cron line %s", (ms, line) => expect(cronOfEvery(ms)).toBe(line));

test("a step lasts from its intent to its result, each by its own", () => {
  let now = 0;
  const took: unknown[] = [];
  const hear = stepsClock(
    (action, seconds) => took.push([action, seconds]),
    () => now,
  );
  hear(4, { type: "run-started" });
  hear(4, { type: "intent", action: "write" });
  hear(4, { type: "intent", action: "roll" });
  now = 1_500;
  hear(5, { type: "result", intent: "4.1" });
  hear(5, { type: "result", intent: "3.0" });
  now = 4_000;
  hear(6, { type: "result", intent: "4.2" });
  hear(7, { type: "result", intent: "4.2" });
  expect(took).toEqual([
    ["write", 1.5],
    ["roll", 4],
  ]);
});

describe("metrics", () => {
  const view = (more: Partial<View> = {}): View => ({
    phase: "idle",
    ended: null,
    freshMs: 0,
    dueMs: 90_000,
    waitingMs: null,
    entries: 7,
    stores: new Map([["env", true]]),
    isOldAccepted: false,
    verifiedMs: 1_000,
    usage: null,
    ...more,
  });
  const made = async () => {
    const clock = { now: 1_000 };
    const metrics = await openMetrics(["demo"], "1.2.3", () => clock.now);
    const get = async (sample: string) => {
      const line = (await metrics.text()).body.split("\n").find((one) => one.startsWith(`${sample} `));
      return line === undefined ? null : Number(line.slice(sample.length + 1));
    };
    return { clock, metrics, get };
  };

  it("age and waiting are of the moment in which they are asked", async () => {
    const { clock, metrics, get } = await made();
    metrics.set("demo", view({ waitingMs: 500 }));
    clock.now = 10_000;
    expect(await get('imkit_rotator_key_age_seconds{app="demo"}')).toBe(10);
    expect(await get('imkit_rotator_waiting_for_human_seconds{app="demo"}')).toBe(9.5);
    clock.now = -5_000;
    expect(await get('imkit_rotator_key_age_seconds{app="demo"}')).toBe(0);
  });

  it("a rotation counts once, and not when it ended before this daemon began", async () => {
    const { metrics, get } = await made();
    const done = 'imkit_rotator_rotations_total{app="demo",result="done"}';
    const failed = 'imkit_rotator_rotations_total{app="demo",result="failed"}';
    metrics.set("demo", view({ ended: { id: "r1", how: "done", atMs: 10 } }));
    expect(await get(done)).toBe(0);
    for (let i = 0; i < 3; i++) metrics.set("demo", view({ ended: { id: "r2", how: "done", atMs: 2_000 } }));
    expect(await get(done)).toBe(1);
    for (const phase of ["failed", "failed", "rotating", "failed"] as const)
      metrics.set("demo", view({ phase }));
    expect(await get(failed)).toBe(2);
    const later = await made();
    later.metrics.set("demo", view({ ended: { id: "r3", how: "done", atMs: 1_001 } }));
    expect(await later.get(done)).toBe(1);
  });

  it("an app is in one state; a ledger that cannot be read is said, and the last numbers stay", async () => {
    const { metrics, get } = await made();
    metrics.set("demo", view());
    metrics.set("demo", null);
    const { body } = await metrics.text();
    const on = body.split("\n").filter((line) => /^imkit_rotator_rotation_state.* 1$/.test(line));
    expect(on).toEqual(['imkit_rotator_rotation_state{app="demo",state="failed"} 1']);
    expect(await get('imkit_rotator_ledger_readable{app="demo"}')).toBe(0);
    expect(await get('imkit_rotator_ledger_entries_total{app="demo"}')).toBe(7);
  });

  it("counts of IMKIT that are not to be had are not there, and not 0", async () => {
    const { metrics, get } = await made();
    const counts = { users: 3, rooms: null, totalRooms: 5, messages: 0, peakConnections: null };
    metrics.set("demo", view({ usage: { counts, atMs: 0 } }));
    expect(await get('imkit_rotator_usage{app="demo",count="total_rooms"}')).toBe(5);
    expect(await get('imkit_rotator_usage{app="demo",count="messages"}')).toBe(0);
    expect(await get('imkit_rotator_usage{app="demo",count="rooms"}')).toBeNull();
    metrics.set("demo", view());
    expect(await get('imkit_rotator_usage{app="demo",count="total_rooms"}')).toBeNull();
  });
});
