import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { makeClientKey } from "../../../src/shell/sandbox/admin.ts";
import { type Sandbox, startSandbox } from "../../../src/shell/sandbox/server.ts";
import { type Answer, closeJourneys, type Journey, startJourney } from "../../kit/journey.ts";
import { madeKey } from "../../kit/leak.ts";
import { hasTerminal } from "../../kit/terminal.ts";

const closing: (() => unknown)[] = [];
afterAll(async () => {
  await Promise.all(closing.map((close) => close()));
  await closeJourneys();
});

const EMERGENCY = "imkit-rotator rotate --emergency";
const ROTATE = "imkit-rotator rotate demo";
const twice = { rollouts: null, stores: ["one", "two"] };
const bothOld = { one: "old", two: "old" };
const bothNew = { one: "new1", two: "new1" };
const stage = (j: Journey, key = j.issue()): Promise<Answer> =>
  j.say("imkit-rotator stage demo", 0, { piped: true, paste: [key] });
/** All stores hold `new1`, and the services have not taken it up yet. */
const written = async (j: Journey): Promise<Answer> => {
  await j.try(await stage(j));
  return j.say(ROTATE, 3);
};

describe.skipIf(!hasTerminal).concurrent("a wrong turn", { timeout: 120_000 }, () => {
  it("one store cannot be written: the other one is, and the rest follows when it is mended", async () => {
    const j = await startJourney(twice);
    const first = await j.say(EMERGENCY, 3);
    await j.try(await j.take(first, { piped: true, idle: /--wait=4h/ }));
    renameSync(join(j.dir, "two.env"), join(j.dir, "two.away"));
    const failed = await j.say(EMERGENCY, 1);
    expect(failed.error).toMatchObject({ code: "STORE_FAILED", what: expect.stringContaining("two") });
    expect(failed.result["stores"]).toMatchObject([{ state: "written" }, { state: "failed" }]);
    expect(j.holds()).toEqual({ one: "new1" });
    await j.try(failed, { exits: { "doctor demo": 5, "rotate demo": 1 } });
    renameSync(join(j.dir, "two.away"), join(j.dir, "two.env"));
    const done = await j.take(await j.say(EMERGENCY, 3));
    expect(done).toMatchObject({ code: 0, result: { status: "done" } });
    expect([j.holds(), j.runsOn()]).toEqual([bothNew, bothNew]);
    await j.end({ calls: 150, reports: 1 });
  });

  it("the new key is revoked in place of the old one: back to the old one", async () => {
    const j = await startJourney(twice);
    const restarted = await j.take(await written(j));
    j.revoke("new1");
    await j.try(restarted, { exits: { "confirm-revoked demo": 4 } });
    const told = await j.say("imkit-rotator confirm-revoked demo", 4);
    expect(told.error).toMatchObject({ code: "WRONG_KEY_REVOKED" });
    await j.try(told);
    const wrong = await j.say(ROTATE, 4);
    expect(wrong.error).toMatchObject({ code: "WRONG_KEY_REVOKED" });
    const back = await j.take(wrong);
    expect(back).toMatchObject({ line: "imkit-rotator rollback demo", code: 3 });
    expect(j.holds()).toEqual(bothOld);
    const done = await j.take(back);
    expect(done).toMatchObject({ code: 0, result: { status: "done", mode: expect.any(String) } });
    expect(j.runsOn()).toEqual(bothOld);
    expect(j.saw("old").rejected).toBe(0);
    await j.end({ calls: 180 });
  });

  it("the new key is revoked in an emergency: there is no way back, a third key is", async () => {
    const j = await startJourney(twice);
    await j.try(await stage(j));
    const first = await j.say(`${EMERGENCY} --order replace-first`, 3);
    j.revoke("new1");
    await j.try(first, { exits: { "rotate demo --restarted": 4 } });
    const wrong = await j.say(ROTATE, 4);
    expect(wrong.error).toMatchObject({ code: "WRONG_KEY_REVOKED" });
    const next = await j.take(wrong);
    expect(next.code).toBe(3);
    expect(j.holds()).toEqual({ one: "new2", two: "new2" });
    const done = await j.take(await j.take(next));
    expect(done.code).toBe(0);
    expect(j.sandbox.keys().map(({ revokedAt }) => revokedAt === null)).toEqual([false, false, true]);
    await j.end({ calls: 180, reports: 1 });
  });

  it("revoked before anything was written, and before the restart: seen, and gone on with", async () => {
    const j = await startJourney(twice);
    await j.try(await stage(j));
    j.revoke("old");
    const late = await j.say(ROTATE, 3);
    expect(late.result).toMatchObject({ mode: "replace" });
    expect(j.holds()).toEqual(bothNew);
    const done = await j.take(late);
    expect(done).toMatchObject({ code: 0, result: { status: "done" } });
    await j.end({ calls: 60 });
    const k = await startJourney(twice);
    const waiting = await written(k);
    k.revoke("old");
    const missing = await k.say("imkit-rotator confirm-revoked demo", 3);
    expect(missing.result).toMatchObject({ verdict: "rejected" });
    await k.try(missing);
    expect(await k.take(waiting)).toMatchObject({ code: 0, result: { status: "done", mode: "overlap" } });
    expect(k.runsOn()).toEqual(bothNew);
    await k.end({ calls: 90 });
  });

  it("both keys are revoked: a third one, without --replace, in the same rotation", async () => {
    const j = await startJourney(twice);
    const first = await written(j);
    await j.try(first);
    j.revoke("old");
    j.revoke("new1");
    const dark = await j.say(ROTATE, 3);
    expect((await j.say("imkit-rotator status demo", 0)).result).toMatchObject({
      apps: [{ state: "blackout" }],
    });
    const back = await j.take(dark, { piped: true });
    expect(back).toMatchObject({ line: ROTATE, code: 3 });
    expect(back.result["rotation"]).toBe(first.result["rotation"]);
    expect(j.holds()).toEqual({ one: "new2", two: "new2" });
    expect(await j.take(back)).toMatchObject({
      code: 0,
      result: { status: "done", blackoutMs: expect.any(Number) },
    });
    await j.end({ calls: 160 });
  });

  it("a key that this app's IMKIT rejects, pasted in an emergency: the right one takes its place", async () => {
    const j = await startJourney(twice);
    j.name("stranger", madeKey());
    const first = await j.say(EMERGENCY, 3);
    await j
      .take(first, { paste: [j.key("stranger")], idle: /--wait=4h/, exits: { "stage demo": 4 } })
      .then((refused) =>
        j.take(refused, { exits: { "rotate demo": 4, "stage demo --discard": 0 }, choose: /--replace/ }),
      );
    expect(j.holds()).toEqual(bothNew);
    expect(j.runsOn()).toEqual(bothNew);
    await j.end({ calls: 120, reports: 1 });
  });

  it("a key of another app that answers on this address: another key, or its name", async () => {
    const j = await startJourney({ stores: ["one", "two"] });
    const other = await startSandbox({ app: "other" });
    j.name("stranger", other.issue());
    j.edit(j.sandbox.url, await oneAddress(j.sandbox, other, j.key("stranger")));
    await j.say("imkit-rotator adopt demo", 0);
    const refused = await j.say("imkit-rotator stage demo", 4, { paste: [j.key("stranger")] });
    expect(refused.error).toMatchObject({ code: "WRONG_APP" });
    const stopped = await j.say(ROTATE, 4);
    expect(stopped.error).toMatchObject({ code: "WRONG_APP" });
    expect(j.holds()).toEqual(bothOld);
    await j.try(stopped);
    const exits = { "stage demo --discard": 0 };
    const right = await j.take(refused, { exits, choose: /--replace/ });
    expect(right).toMatchObject({ code: 0, result: { verdict: "accepted", sameApp: "proved" } });
    const asked = await j.take(right);
    expect(j.holds()).toEqual(bothNew);
    expect(await j.take(asked)).toMatchObject({ code: 0 });
    await j.end({ calls: 180 });
  });

  it("a key of another app that is meant: --accept-app, as it is printed", async () => {
    const j = await startJourney({ stores: ["one", "two"] });
    const other = await startSandbox({ app: "other" });
    j.name("stranger", other.issue());
    j.edit(j.sandbox.url, await oneAddress(j.sandbox, other, j.key("stranger")));
    await j.say("imkit-rotator adopt demo", 0);
    const refused = await j.say("imkit-rotator stage demo", 4, { paste: [j.key("stranger")] });
    const asked = await j.take(refused, { choose: /--accept-app/ });
    expect(asked).toMatchObject({ code: 3, result: { sameApp: "different" } });
    expect(j.holds()).toEqual({ one: "stranger", two: "stranger" });
    expect(await j.take(asked)).toMatchObject({ code: 0 });
    await j.end({ calls: 120 });
  });

  it("the Client Key at the prompt, then the right key", async () => {
    const j = await startJourney(twice);
    j.name("client", makeClientKey());
    const { said, result } = await j.say(EMERGENCY, 0, { terminal: true, paste: [j.key("client")] });
    expect(said).toMatch(/KEY_MALFORMED[^]*Client Key[^]*New API Key of demo/);
    expect(result).toMatchObject({ status: "done" });
    expect([j.holds(), j.runsOn()]).toEqual([bothNew, bothNew]);
    const once = await j.say("imkit-rotator stage demo", 2, { paste: [j.key("client")] });
    expect(once.error).toMatchObject({ code: "KEY_MALFORMED" });
    await j.try(once);
    await j.end({ calls: 70, reports: 1 });
  });

  it("IMKIT rejects the new key for some seconds: on the terminal it goes on by itself", async () => {
    const j = await startJourney({ ...twice, sandbox: { activationLagMs: 2_500 } });
    const { said, result } = await j.say(EMERGENCY, 0, { terminal: true });
    expect(said).toMatch(/asked again in 5 s/);
    expect(result).toMatchObject({ status: "done", newFingerprint: j.fp("new1") });
    expect([j.holds(), j.runsOn()]).toEqual([bothNew, bothNew]);
    await j.end({ calls: 60, reports: 1 });
  });

  it("a key staged twice: the same, another, and another in its place", async () => {
    const j = await startJourney({ stores: ["one", "two"] });
    await j.try(await stage(j));
    await j.try(await stage(j, j.key("new1")));
    const two = await j.say("imkit-rotator stage demo", 4, { paste: [j.issue()] });
    expect(two.error).toMatchObject({ code: "KEY_STAGED_ALREADY" });
    expect(j.escrow()).toHaveLength(1);
    const staged = await j.take(two, { paste: [j.key("new2")], choose: /--replace/ });
    expect(staged.code).toBe(0);
    const asked = await j.take(staged);
    expect(j.holds()).toEqual({ one: "new2", two: "new2" });
    expect(asked.steps[0]?.text).toMatch(/revoke every API Key/);
    expect(await j.take(asked)).toMatchObject({ code: 0 });
    expect(j.sandbox.keys().map(({ revokedAt }) => revokedAt === null)).toEqual([
      false,
      false,
      true,
      ...j.sandbox
        .keys()
        .slice(3)
        .map(() => true),
    ]);
    await j.end({ calls: 170 });
  });

  it("a store is changed by hand in the middle: a dead value and one that works", async () => {
    const j = await startJourney({ stores: ["one", "two"] });
    await j.try(await stage(j));
    j.name("dead", madeKey());
    j.put("two", "dead");
    const stopped = await j.say(ROTATE, 4);
    expect(stopped.error).toMatchObject({ code: "STORE_CONFLICT" });
    expect(j.holds()).toEqual({ one: "old", two: "dead" });
    const back = await j.take(stopped);
    expect(back).toMatchObject({ line: ROTATE, code: 3 });
    expect(j.holds()).toEqual(bothNew);
    expect(await j.take(back)).toMatchObject({ code: 0 });
    await j.end({ calls: 90 });
  });

  it("the same in an emergency: a dead value is overwritten, one that works is not", async () => {
    const j = await startJourney({ rollouts: null, stores: ["one", "two", "three"] });
    const first = await j.say(EMERGENCY, 3);
    await j.try(await j.take(first, { piped: true, idle: /--wait=4h/ }));
    j.name("dead", madeKey());
    j.name("live", j.sandbox.issue());
    j.put("one", "dead");
    j.put("two", "live");
    const failed = await j.say(EMERGENCY, 1);
    expect(failed.error).toMatchObject({ code: "STORE_FAILED", what: expect.stringContaining("two") });
    expect(j.holds()).toEqual({ one: "new1", two: "live", three: "new1" });
    await j.try(failed, { exits: { "doctor demo": 5, "rotate demo": 1 } });
    j.revoke("live");
    const again = await j.say(ROTATE, 3);
    expect(j.holds()).toEqual({ one: "new1", two: "new1", three: "new1" });
    expect(await j.take(again)).toMatchObject({ code: 0, result: { status: "done", mode: "replace" } });
    await j.end({ calls: 140, reports: 1 });
  });

  it("one store is taken out of the config in the middle, and another one is added", async () => {
    const j = await startJourney({ ...twice, stores: ["one", "two"] });
    await j.try(await written(j), { exits: {} });
    j.edit(/\n.*name: two.*\n/, "\n");
    const stopped = await j.say(ROTATE, 2);
    expect(stopped.error).toMatchObject({ code: "PLAN_CHANGED" });
    const dropped = await j.take(stopped, { idle: /^Put the target back/ });
    expect(dropped).toMatchObject({ line: `${ROTATE} --drop two`, code: 3 });
    writeFileSync(
      join(j.dir, "three.env"),
      readFileSync(join(j.dir, "one.env"), "utf8").replace(j.key("new1"), j.key("old")),
    );
    j.edit(
      /(\n.*)name: one(.*)one\.env(.*\n)/,
      "$1name: one$2one.env$3      - { name: three, type: dotenv, path: ./three.env, key: IMKIT_API_KEY }\n",
    );
    await j.try(dropped);
    const more = await j.say(ROTATE, 3);
    expect(more.result["stores"]).toMatchObject([
      { name: "one", state: "written" },
      { name: "two", state: "dropped" },
      { name: "three", state: "written" },
    ]);
    const asked = await j.take(more);
    expect(asked).toMatchObject({ code: 3 });
    expect(await j.take(asked)).toMatchObject({ code: 0 });
    expect(j.holds()).toMatchObject({ one: "new1", three: "new1" });
    rmSync(join(j.dir, "two.env"));
    await j.end({ calls: 140 });
  });

  it("the service is restarted by hand: too early it does not count, and the right one has only to be said", async () => {
    const j = await startJourney(twice);
    await j.try(await stage(j));
    j.restart();
    const early = await j.say(`${ROTATE} --restarted`, 3);
    expect(early.said).toContain("no restart is being waited for");
    expect(j.holds()).toEqual(bothNew);
    expect(j.runsOn()).toEqual(bothOld);
    expect(early.steps[0]?.text).toMatch(/^Restart every service/);
    j.restart();
    const asked = await j.take(early, { idle: /^Restart/ });
    expect(asked).toMatchObject({ code: 3 });
    expect(await j.take(asked)).toMatchObject({ code: 0 });
    expect(j.runsOn()).toEqual(bothNew);
    await j.end({ calls: 80 });
  });
});

/** One address for two apps, as IMKIT could have: each key is asked about where it was issued. */
const oneAddress = async (first: Sandbox, other: Sandbox, key: string): Promise<string> => {
  const server = createServer((from, to) => {
    const { url } = from.headers["im-api-key"] === key ? other : first;
    const headers = { ...from.headers, host: new URL(url).host };
    const asked = request(new URL(from.url ?? "/", url), { method: from.method, headers }, (answer) => {
      to.writeHead(answer.statusCode ?? 500, answer.headers);
      answer.pipe(to);
    });
    asked.on("error", () => to.destroy());
    from.pipe(asked);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closing.push(other.close, () => (server.closeAllConnections(), server.close()));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
};
