import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { type Answer, closeJourneys, type Journey, startJourney } from "../../kit/journey.ts";
import { hasTerminal } from "../../kit/terminal.ts";

afterAll(closeJourneys);

const EMERGENCY = "imkit-rotator rotate --emergency";
const ROTATE = "imkit-rotator rotate demo";
const ROLLBACK = "imkit-rotator rollback demo";
const twice = { rollouts: null, stores: ["one", "two"] };
const bothOld = { one: "old", two: "old" };
const bothNew = { one: "new1", two: "new1" };
const stage = (j: Journey, key = j.issue()): Promise<Answer> =>
  j.say("imkit-rotator stage demo", 0, { piped: true, paste: [key] });
const refused = async (
  j: Journey,
  why: RegExp,
  exits: Readonly<Record<string, number>> = {},
): Promise<Answer> => {
  const before = j.holds();
  const answer = await j.say(ROLLBACK, 4);
  expect(answer.error).toMatchObject({ code: "ROLLBACK_REFUSED", why: expect.stringMatching(why) });
  expect(j.holds()).toEqual(before);
  await j.try(answer, { exits });
  return answer;
};

describe.skipIf(!hasTerminal).concurrent("a way back", { timeout: 120_000 }, () => {
  it("rollback while both keys work: the old one comes back, and the new one is revoked", async () => {
    const j = await startJourney(twice);
    expect((await j.say(ROLLBACK, 0)).result).toMatchObject({ status: "nothing" });
    await j.try(await stage(j));
    const asked = await j.take(await j.say(ROTATE, 3));
    expect(j.runsOn()).toEqual(bothNew);
    await j.try(asked);
    const back = await j.say(ROLLBACK, 3);
    expect(j.holds()).toEqual(bothOld);
    const gate = await j.take(back);
    expect(gate.steps[0]?.text).toMatch(/the newer API Key/);
    const done = await j.take(gate);
    expect(done).toMatchObject({ code: 0, result: { verdict: "rejected", proofs: [{ kind: "proved" }] } });
    expect(j.sandbox.keys().map(({ revokedAt }) => revokedAt === null)).toEqual([true, false]);
    expect(j.saw("old").rejected).toBe(0);
    expect([j.holds(), j.runsOn()]).toEqual([bothOld, bothOld]);
    await j.end({ calls: 120 });
  });

  it("rollback on the terminal where it all happened: asked for, and gone through to the end", async () => {
    const j = await startJourney(twice);
    await j.try(await stage(j));
    await j.try(await j.say(ROTATE, 3));
    const { said, result } = await j.say(ROLLBACK, 0, { terminal: true });
    expect(said).toMatch(/again\?[^]*Restart every[^]*the newer API Key/);
    expect(result).toMatchObject({ status: "done", newFingerprint: j.fp("old") });
    expect([j.holds(), j.runsOn()]).toEqual([bothOld, bothOld]);
    await j.end({ calls: 80 });
  });

  it("refused: the old key is dead, and no answer about it; what is said instead works", async () => {
    const j = await startJourney(twice);
    await j.try(await stage(j));
    const written = await j.say(ROTATE, 3);
    await j.try(written);
    const over = j.sandbox.fault({ kind: "500", key: j.key("old"), count: Number.POSITIVE_INFINITY });
    await refused(j, /no clear answer on the old key/, { "rollback demo": 4 });
    over();
    j.revoke("old");
    const dead = await refused(j, /rejects the old key/);
    const done = await j.take(dead, { choose: /rotate/ });
    expect(done).toMatchObject({ code: 3 });
    expect(await j.take(done)).toMatchObject({ code: 0, result: { status: "done" } });
    await j.end({ calls: 150 });
  });

  it("refused: there was no key before", async () => {
    const j = await startJourney({ ...twice, holds: { one: null, two: null } });
    await j.try(await stage(j));
    const written = await j.say(ROTATE, 3);
    expect(written.result).toMatchObject({ mode: "first", oldFingerprint: null });
    await refused(j, /There was no key before/);
    expect(await j.take(written)).toMatchObject({ code: 0, result: { status: "done" } });
    expect([j.holds(), j.runsOn()]).toEqual([bothNew, bothNew]);
    expect(j.saw("old")).toMatchObject({ ok: 0, rejected: 0 });
    await j.end({ calls: 70 });
  });

  it("--discard before anything was written: the key waits for its revocation", async () => {
    const j = await startJourney(twice);
    await j.try(await stage(j));
    const discarded = await j.say("imkit-rotator stage demo --discard", 3);
    expect(discarded.result).toMatchObject({ discarded: true, forgotten: false });
    expect(j.escrow()).toHaveLength(1);
    const done = await j.take(discarded);
    expect(done).toMatchObject({ line: "imkit-rotator confirm-revoked demo", code: 0 });
    expect(j.sandbox.keys().map(({ revokedAt }) => revokedAt === null)).toEqual([true, false]);
    expect(j.holds()).toEqual(bothOld);
    await j.end({ calls: 50 });
  });

  it("--discard --forget: gone at once, and no proof of it is wanted; too late after a write", async () => {
    const j = await startJourney({ stores: ["one", "two"] });
    await j.try(await stage(j));
    const gone = await j.say("imkit-rotator stage demo --discard --forget", 0);
    expect(gone.result).toMatchObject({ discarded: true, forgotten: true });
    await j.try(gone);
    expect(j.escrow()).toEqual([]);
    const { said } = await j.say("imkit-rotator status demo", 0);
    expect(said).toContain(j.fp("new1"));
    const asked = j.saw("new1").ok;
    await j.try(await stage(j));
    const gate = await j.say(ROTATE, 3);
    expect(j.holds()).toEqual({ one: "new2", two: "new2" });
    const late = await j.say("imkit-rotator stage demo --discard", 4);
    expect(late.error).toMatchObject({ code: "TOO_LATE" });
    await j.try(late);
    expect(await j.take(gate)).toMatchObject({ code: 0 });
    expect(j.saw("new1").ok).toBe(asked);
    const status = await j.say("imkit-rotator status demo", 0);
    await j.try(status);
    await j.end({ calls: 110 });
  });

  it("--discard and --forget in an emergency: it waits for another key, and the discarded one is not lost sight of", async () => {
    const j = await startJourney(twice);
    const first = await j.say(EMERGENCY, 3);
    await j.take(first, { piped: true, idle: /--wait=4h/ }).then((staged) => j.try(staged));
    const discarded = await j.say("imkit-rotator stage demo --discard", 0);
    expect(discarded.result).toMatchObject({ discarded: true });
    expect(j.holds()).toEqual(bothOld);
    const forgotten = await j.say("imkit-rotator stage demo --discard --forget", 0);
    await j.try(forgotten);
    await j.take(discarded, { piped: true, idle: /--wait=4h/ }).then((staged) => j.try(staged));
    const written = await j.say(ROTATE, 3);
    expect(j.holds()).toEqual({ one: "new2", two: "new2" });
    const done = await j.take(written);
    expect(done).toMatchObject({ code: 0, result: { status: "done", newFingerprint: j.fp("new2") } });
    await j.end({ calls: 130, reports: 1 });
  });

  it("--waive: refused while the key works, recorded as attested where it cannot be asked", async () => {
    const j = await startJourney({ stores: ["one", "two"] });
    await j.try(await stage(j));
    const gate = await j.say(`${EMERGENCY} --order replace-first`, 3);
    await j.try(gate);
    const waive = 'imkit-rotator confirm-revoked demo --waive --reason "May revoked it"';
    const early = await j.say(waive, 3);
    expect(early.said).toMatch(/STILL_ACCEPTED/);
    await j.try(early);
    const over = j.sandbox.fault({ kind: "403", key: j.key("old"), count: Number.POSITIVE_INFINITY });
    const unclear = await j.say("imkit-rotator confirm-revoked demo", 1);
    expect(unclear.error).toMatchObject({ code: "IMKIT_UNCLEAR" });
    await j.try(unclear, { exits: { "confirm-revoked demo": 1 } });
    const done = await j.say(waive, 0);
    expect(done.result).toMatchObject({ proofs: [{ kind: "attested" }] });
    over();
    const { said } = await j.say("imkit-rotator status demo", 0);
    expect(said).toContain("attested");
    const files = await j.say("cat state/demo/reports/*.md", 0);
    expect(files.said).toMatch(/attested/i);
    expect(readFileSync(join(j.dir, "one.env"), "utf8")).toBe(`OTHER=1\nIMKIT_API_KEY=${j.key("new1")}\n`);
    await j.end({ calls: 120, reports: 1 });
  });
});
