import { readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { type Answer, closeJourneys, type Journey, startJourney } from "../../kit/journey.ts";
import { hasTerminal } from "../../kit/terminal.ts";

afterAll(closeJourneys);

const EMERGENCY = "imkit-rotator rotate --emergency";
const ROTATE = "imkit-rotator rotate demo";
const twice = { rollouts: null, stores: ["one", "two"] };
const bothNew = { one: "new1", two: "new1" };
const stage = (j: Journey, key = j.issue()): Promise<Answer> =>
  j.say("imkit-rotator stage demo", 0, { piped: true, paste: [key] });
/** What a person does another time, or cannot do. */
const LATER = /^Put .* back from a backup|^Set escrow\.identity in the config/;
const identity = (j: Journey): string =>
  join(j.dir, "home", ".config", "imkit-rotator", "escrow-identity.txt");

describe.skipIf(!hasTerminal).concurrent("what is lost", { timeout: 120_000 }, () => {
  it("the staged key's blob: the same key is given once more", async () => {
    const j = await startJourney({ stores: ["one", "two"] });
    await j.try(await stage(j));
    rmSync(join(j.stateDir, "escrow"), { recursive: true });
    const lost = await j.say(ROTATE, 1);
    expect(lost.error).toMatchObject({ code: "ESCROW_LOST" });
    const again = await j.take(lost, { paste: [j.key("new1")] });
    const gate = await j.take(again);
    expect(j.holds()).toEqual(bothNew);
    expect(await j.take(gate)).toMatchObject({ code: 0 });
    await j.end({ calls: 100 });
  });

  it("the staged key's blob, and nobody has that key: another one, and the lost one is vouched for", async () => {
    const j = await startJourney(twice);
    const first = await j.say(EMERGENCY, 3);
    await j.take(first, { piped: true, idle: /--wait=4h/ }).then((staged) => j.try(staged));
    rmSync(join(j.stateDir, "escrow"), { recursive: true });
    const lost = await j.say(EMERGENCY, 1);
    expect(lost.error).toMatchObject({ code: "ESCROW_LOST" });
    const staged = await j.take(lost, { piped: true, choose: /--replace/ });
    const written = await j.take(staged);
    expect(j.holds()).toEqual({ one: "new2", two: "new2" });
    const gate = await j.take(written);
    expect(gate).toMatchObject({ code: 3 });
    const unclear = await j.take(gate, {
      choose: /revoke every API Key|confirm-revoked demo$/,
      exits: { "confirm-revoked demo": 1 },
      paste: [j.key("new1")],
    });
    expect(unclear).toMatchObject({ code: 1, error: { code: "IMKIT_UNCLEAR" } });
    const done = await j.take(unclear, {
      choose: /--waive/,
      exits: { "confirm-revoked demo": 1, "confirm-revoked demo --key-from-stdin": 0, "doctor demo": 5 },
      paste: [j.key("new1")],
    });
    expect(done).toMatchObject({ code: 0 });
    await j.end({ calls: 190, reports: 1 });
  });

  it("the identity of the escrow: put back, it goes on; nothing was written meanwhile", async () => {
    const j = await startJourney({ stores: ["one", "two"] });
    await j.try(await stage(j));
    renameSync(identity(j), `${identity(j)}.away`);
    const closed = await j.say(ROTATE, 1);
    expect(closed.error).toMatchObject({ code: "ESCROW_FAILED" });
    expect(j.holds()).toEqual({ one: "old", two: "old" });
    expect(closed.steps.length).toBeGreaterThan(0);
    renameSync(`${identity(j)}.away`, identity(j));
    await j.take(closed, { idle: LATER, exits: {} });
    const gate = await j.say(ROTATE, 3);
    expect(j.holds()).toEqual(bothNew);
    expect(await j.take(gate)).toMatchObject({ code: 0 });
    await j.end({ calls: 90 });
  });

  it("the identity for good: the closed blobs are moved away as it says, and the new key is given once more", async () => {
    const j = await startJourney({ stores: ["one", "two"] });
    await j.try(await stage(j));
    rmSync(identity(j));
    const closed = await j.say(ROTATE, 1);
    expect(closed.error).toMatchObject({ code: "ESCROW_FAILED" });
    const found = await j.take(closed, { idle: LATER, exits: { doctor: 5 } });
    const checks = found.result["checks"] as readonly { readonly id: string; readonly fix: string | null }[];
    const fix = checks.find(({ id }) => id === "escrow.new-key")?.fix ?? "none";
    const refused = await j.say(fix, 1, { piped: true, paste: [j.key("new1")] });
    expect(refused.error).toMatchObject({ code: "ESCROW_FAILED" });
    const moved = await j.take(refused, { idle: LATER });
    expect(moved).toMatchObject({ line: expect.stringMatching(/^mv /), code: 0 });
    const staged = await j.say(fix, 0, { piped: true, paste: [j.key("new1")] });
    const end = await j.take(staged);
    expect(end).toMatchObject({ line: ROTATE, code: 3 });
    expect(j.holds()).toEqual(bothNew);
    expect(await j.take(end)).toMatchObject({ code: 0 });
    await j.end({ calls: 110 });
  });

  it("the ledger is broken in an emergency: another one, and then the emergency again", async () => {
    const j = await startJourney(twice);
    const first = await j.say(EMERGENCY, 3);
    await j.try(first);
    writeFileSync(join(j.stateDir, "ledger", "00000002.json"), "{}\n");
    const broken = await j.say(EMERGENCY, 5);
    expect(broken.error).toMatchObject({ code: "LEDGER_BROKEN" });
    expect(j.holds()).toEqual({ one: "old", two: "old" });
    const adopted = await j.take(broken, {
      idle: /^Restore/,
      exits: { "audit verify demo": 5 },
    });
    expect(adopted).toMatchObject({ line: "imkit-rotator adopt demo --new-ledger", code: 0 });
    const done = await j.say(EMERGENCY, 0, { terminal: true });
    expect(done.result).toMatchObject({ status: "done" });
    expect([j.holds(), j.runsOn()]).toEqual([bothNew, bothNew]);
    await j.end({ calls: 90, reports: 2 });
  });

  it("the ledger is gone while a rotation waits: the stores speak for themselves", async () => {
    const j = await startJourney(twice);
    await j.try(await stage(j));
    await j.try(await j.say(ROTATE, 3));
    rmSync(join(j.stateDir, "ledger"), { recursive: true });
    const adopted = await j.say("imkit-rotator adopt demo --new-ledger", 0);
    expect(adopted.result).toMatchObject({ state: "adopted", current: j.fp("new1") });
    expect(j.holds()).toEqual(bothNew);
    const end = await j.take(adopted);
    expect(end).toMatchObject({ code: 0 });
    expect(j.sandbox.keys()[0]?.revokedAt).not.toBeNull();
    const staged = await stage(j);
    const gate = await j.take(await j.take(staged));
    expect(j.holds()).toEqual({ one: "new2", two: "new2" });
    expect(await j.take(gate)).toMatchObject({ code: 0 });
    await j.end({ calls: 160 });
  });

  it("two stores with two keys that work: a person says which is current, by the line that is given", async () => {
    const j = await startJourney({ stores: ["one", "two"] });
    const other = j.issue();
    j.put("two", "new1");
    const staged = await stage(j);
    expect(staged.said).toContain("not adopted yet");
    expect(other).toBe(j.key("new1"));
    const stopped = await j.say(ROTATE, 4);
    await j.try(staged, { exits: { "rotate demo": 4 } });
    expect(stopped.error).toMatchObject({ code: "ADOPTION_REFUSED" });
    const line = `imkit-rotator adopt demo --current ${j.fp("old")}`;
    expect(stopped.steps.map(({ command }) => command)).toContain(line);
    const adopted = await j.take(stopped, { choose: new RegExp(`--current ${j.fp("old")}`) });
    expect(adopted).toMatchObject({ line, code: 0, result: { current: j.fp("old"), old: [j.fp("new1")] } });
    const gate = await j.take(adopted);
    expect(gate).toMatchObject({ code: 3 });
    expect(j.holds()).toEqual({ one: "new2", two: "new2" });
    expect(await j.take(gate)).toMatchObject({ code: 0 });
    expect(j.sandbox.keys().map(({ revokedAt }) => revokedAt === null)).toEqual([false, false, true]);
    expect(readdirSync(j.stateDir)).not.toContain("reports");
    await j.end({ calls: 120 });
  });
});
