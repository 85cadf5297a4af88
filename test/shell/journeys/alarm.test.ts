import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import {
  type Answer,
  closeJourneys,
  type Journey,
  startJourney,
  startWithNothing,
} from "../../kit/journey.ts";
import { hasTerminal } from "../../kit/terminal.ts";

afterAll(closeJourneys);

const EMERGENCY = "imkit-rotator rotate --emergency";
const twice = { rollouts: null, stores: ["one", "two"] };
const bothNew = { one: "new1", two: "new1" };
/** `stage` without a terminal. */
const stage = (j: Journey, key = j.issue()): Promise<Answer> =>
  j.say("imkit-rotator stage demo", 0, { piped: true, paste: [key] });
/** What was issued and revoked, in this order, by id. */
const dashboard = (j: Journey): string =>
  j.sandbox
    .log()
    .flatMap(({ type, id }) => (type === "issued" || type === "revoked" ? [`${type} ${id ?? "?"}`] : []))
    .join(", ");

describe.skipIf(!hasTerminal).concurrent("a key leaked", { timeout: 120_000 }, () => {
  it("revoke first, all on one terminal: it ends by itself", async () => {
    const j = await startJourney(twice);
    const { said, result } = await j.say(EMERGENCY, 0, { terminal: true });
    expect(said).toMatch(
      /1\. Stop the leak: [^]*2\. Issue [^]*New API Key of demo[^]*Restart every[^]*Incident report: /,
    );
    expect(result).toMatchObject({
      status: "done",
      mode: "replace",
      stores: [{ state: "written" }, { state: "written" }],
    });
    expect([j.holds(), j.runsOn()]).toEqual([bothNew, bothNew]);
    expect(dashboard(j)).toBe("issued 1, revoked 1, issued 2");
    expect(existsSync(String(result["report"]))).toBe(true);
    expect(j.saw("new1").rejected).toBe(0);
    expect(j.escrow()).toEqual([]);
    const again = await j.say(EMERGENCY, 0, { terminal: true });
    expect(again.said).toMatch(/This emergency is over/);
    expect(again.result).toMatchObject({ rotation: result["rotation"] });
    expect(j.holds()).toEqual(bothNew);
    await j.end({ calls: 45, reports: 1 });
  });

  it("the same in two terminals: the key is given in where it says so, and both end by themselves", async () => {
    const j = await startJourney(twice);
    const { result } = await j.say(EMERGENCY, 0, { terminal: true, second: /imkit-rotator stage/ });
    expect(result).toMatchObject({ status: "done", mode: "replace" });
    expect([j.holds(), j.runsOn()]).toEqual([bothNew, bothNew]);
    await j.end({ calls: 60, reports: 1 });
  });

  it("replace first: nothing fails, and the old key is revoked when it is asked for", async () => {
    const j = await startJourney(twice);
    const revoked: unknown[] = [];
    const when = [{ see: /is waiting-revoke/, act: () => revoked.push(j.holds(), j.saw("old").rejected) }];
    const { said, result } = await j.say(`${EMERGENCY} --order replace-first`, 0, { terminal: true, when });
    expect(said).toContain("Do not revoke the leaked key yet");
    expect(said).not.toContain("Stop the leak");
    expect(revoked).toEqual([bothNew, 0]);
    expect(result).toMatchObject({ status: "done", mode: "overlap", blackout: { state: "none" } });
    expect(j.runsOn()).toEqual(bothNew);
    await j.end({ calls: 45, reports: 1 });
  });

  it("--wait used up twice: nothing is lost, and a rerun goes on", async () => {
    const j = await startJourney(twice);
    const first = await j.say(`${EMERGENCY} --wait=1s`, 3, { idle: /./ });
    expect(first.result).toMatchObject({ status: "waiting", newFingerprint: null });
    const staged = await j.take(first, { piped: true, idle: /--wait=4h/ });
    expect(j.holds()).toEqual({ one: "old", two: "old" });
    await j.try(staged);
    const again = await j.say(`${EMERGENCY} --wait=1s`, 3, { idle: /./ });
    expect(again.result).toMatchObject({
      status: "waiting",
      stores: [{ state: "written" }, { state: "written" }],
    });
    expect(j.holds()).toEqual(bothNew);
    const done = await j.take(again);
    expect(done).toMatchObject({ line: "imkit-rotator rotate demo --restarted", code: 0 });
    expect(done.result).toMatchObject({ status: "done", mode: "replace" });
    await j.end({ calls: 90, reports: 1 });
  });

  it("every line as it is printed", async () => {
    const j = await startJourney(twice);
    const done = await j.take(await j.say(`${EMERGENCY} --wait=0s`, 3));
    // On its terminal `stage` had gone on to the end; the line after it must not begin anew.
    expect(done).toMatchObject({ line: "imkit-rotator rotate demo --wait=4h", code: 0 });
    expect(done.result).toMatchObject({ status: "nothing" });
    expect([j.holds(), j.runsOn()]).toEqual([bothNew, bothNew]);
    expect(dashboard(j)).toBe("issued 1, revoked 1, issued 2");
    await j.end({ calls: 40, reports: 1 });
  });

  it("every line as it is printed, without a terminal: the last one waits, and is ended from a second shell", async () => {
    const j = await startJourney(twice);
    const done = await j.take(await j.say(`${EMERGENCY} --wait=0s`, 3), { piped: true });
    expect(done).toMatchObject({ line: "imkit-rotator rotate demo --wait=4h", code: 0 });
    expect(done.result).toMatchObject({ status: "done", mode: "replace" });
    expect([j.holds(), j.runsOn()]).toEqual([bothNew, bothNew]);
    await j.end({ calls: 40, reports: 1 });
  });

  it("SIGTERM while it waits, and again in the middle of the writes", async () => {
    const j = await startJourney(twice);
    j.edit(
      "    stores:\n",
      `    stores:
      - { name: slow, type: exec, read: [cat, three.env.key], write: [sh, -c, "cat > three.env.key; touch began; [ -e go ] || exec sleep 50"] }
`,
    );
    writeFileSync(join(j.dir, "three.env.key"), j.key("old"));
    writeFileSync(join(j.dir, "go"), "");
    const stop = (see: RegExp) => [{ see, act: (end: (signal: NodeJS.Signals) => void) => end("SIGTERM") }];
    const first = await j.say(`${EMERGENCY} --wait=1h`, 143, { idle: /./, when: stop(/is waiting-key/) });
    expect(first.result).toMatchObject({ exitCode: 143, newFingerprint: null });
    expect(j.holds()).toEqual({ one: "old", two: "old" });
    await j.try(first);
    j.revoke("old");
    await j.try(await stage(j));
    rmSync(join(j.dir, "go"));
    const second = await j.say("imkit-rotator rotate demo --wait=1h", 143, {
      idle: /./,
      when: stop(/✔ one: written[^]*✔ two: written|✔ two: written[^]*✔ one: written/),
    });
    expect(second.result).toMatchObject({ exitCode: 143 });
    expect(j.holds()).toEqual(bothNew);
    writeFileSync(join(j.dir, "go"), "");
    await j.try(second);
    const third = await j.say(EMERGENCY, 3);
    expect(third.result["stores"]).toMatchObject([
      { name: "slow" },
      { state: "written" },
      { state: "written" },
    ]);
    const done = await j.take(third);
    expect(done).toMatchObject({ code: 0, result: { status: "done" } });
    expect(done.result["rotation"]).toBe(first.result["rotation"]);
    await j.end({ calls: 150, reports: 1 });
  });

  it("a plain rotation that waits for the revocation becomes an emergency: both end with its result", async () => {
    const j = await startJourney({ stores: ["one", "two"] });
    await j.try(await stage(j));
    const second: Promise<Answer>[] = [];
    const first = await j.say("imkit-rotator rotate --wait=1h", 0, {
      idle: /./,
      when: [
        {
          see: /is waiting-revoke/,
          act: () => second.push(j.say(`${EMERGENCY} --wait=1h`, 0, { idle: /confirm-revoked/ })),
        },
      ],
    });
    const [other] = await Promise.all(second);
    expect(first.result).toMatchObject({ status: "done", mode: "overlap" });
    expect(other?.result).toMatchObject({ status: "done", rotation: first.result["rotation"] });
    expect(j.holds()).toEqual(bothNew);
    await j.end({ calls: 60, reports: 1 });
  });

  it("a plain rotation that waits: what it shows is typed into a second shell, and both end", async () => {
    const j = await startJourney(twice);
    await j.try(await stage(j));
    const { result } = await j.say("imkit-rotator rotate --wait=1h", 0);
    expect(result).toMatchObject({ status: "done", mode: "overlap" });
    expect([j.holds(), j.runsOn()]).toEqual([bothNew, bothNew]);
    await j.end({ calls: 60 });
  });

  it("a plain rotation at work becomes one: the second command follows it to the same end", async () => {
    const j = await startJourney({
      stores: ["one", "two"],
      rollouts: `[{ name: api, type: exec, command: [sh, -c, "while [ ! -e go ]; do sleep 0.1; done"], timeout: 50s }]`,
    });
    writeFileSync(join(j.dir, "go"), "");
    await j.try(await stage(j));
    rmSync(join(j.dir, "go"));
    const second: Promise<Answer>[] = [];
    const go = {
      see: /goes on as an emergency, and this one follows/,
      act: () => writeFileSync(join(j.dir, "go"), ""),
    };
    const first = await j.say("imkit-rotator rotate --wait=1h", 0, {
      when: [
        {
          see: /… api: rolling out/,
          act: () => second.push(j.say(`${EMERGENCY} --wait=1h`, 0, { idle: /./, when: [go] })),
        },
      ],
    });
    const [other] = await Promise.all(second);
    expect(first.result).toMatchObject({ status: "done", mode: "overlap", workloads: [{ state: "done" }] });
    expect(other?.result).toMatchObject({ status: "done", rotation: first.result["rotation"] });
    expect(j.holds()).toEqual(bothNew);
    await j.end({ calls: 60, reports: 1 });
  });

  it("the staged key is the one that leaked: it has to die, and so does the old one that another one replaces", async () => {
    const j = await startJourney(twice);
    await j.try(await stage(j));
    const first = await j.say(`${EMERGENCY} --leaked ${j.fp("new1")}`, 3);
    expect(first.steps[0]?.text).toMatch(
      new RegExp(`revoke the API Key ${j.fp("new1")}, which is not the one that the services use$`),
    );
    // Nothing fails meanwhile: what the services run on lives.
    const staged = await j.take(first, { piped: true, idle: /--wait=4h/ });
    await j.try(staged);
    expect(j.holds()).toEqual({ one: "old", two: "old" });
    const written = await j.say("imkit-rotator rotate demo", 3);
    expect(j.holds()).toEqual({ one: "new2", two: "new2" });
    const asked = await j.take(written);
    expect(asked).toMatchObject({ code: 3, result: { status: "waiting", mode: "overlap" } });
    const done = await j.take(asked);
    expect(done).toMatchObject({ line: "imkit-rotator confirm-revoked demo", code: 0 });
    expect(dashboard(j)).toBe("issued 1, issued 2, revoked 2, issued 3, revoked 1");
    expect(j.runsOn()).toEqual({ one: "new2", two: "new2" });
    await j.end({ calls: 110, reports: 1 });
  });

  it("a false alarm before anything was written: nothing was done", async () => {
    const j = await startJourney(twice);
    const first = await j.say(EMERGENCY, 3);
    await j.try(first);
    const refused = await j.say("imkit-rotator rollback demo", 4);
    expect(refused.error).toMatchObject({ code: "ROLLBACK_REFUSED" });
    await j.try(refused);
    const back = await j.say("imkit-rotator rollback demo --accept-leaked", 0);
    expect(back.result).toMatchObject({ status: "nothing" });
    expect(j.holds()).toEqual({ one: "old", two: "old" });
    await j.end({ calls: 60, reports: 1 });
  });

  it("a false alarm after the stores were written: the old key comes back, and the new one has to die", async () => {
    const j = await startJourney(twice);
    await j.try(await stage(j));
    const first = await j.say(`${EMERGENCY} --order replace-first`, 3);
    expect(j.holds()).toEqual(bothNew);
    await j.try(first);
    const refused = await j.say("imkit-rotator rollback demo", 4);
    const back = await j.take(refused, { choose: /--accept-leaked/ });
    expect(back).toMatchObject({ code: 3 });
    expect(j.holds()).toEqual({ one: "old", two: "old" });
    const asked = await j.take(back);
    expect(asked.steps[0]?.text).toMatch(/revoke the newer API Key/);
    const done = await j.take(asked);
    expect(done).toMatchObject({ code: 0 });
    expect(dashboard(j)).toBe("issued 1, issued 2, revoked 2");
    expect(j.runsOn()).toEqual({ one: "old", two: "old" });
    await j.end({ calls: 130, reports: 1 });
  });

  it("from a folder with .env and nothing else: two lines, one pasted key, Enter", async () => {
    const j = await startWithNothing();
    const lines = ["imkit-rotator init --yes", "imkit-rotator rotate --emergency"];
    const made = await j.say(lines[0] ?? "", 0);
    await j.try(made);
    const { result, said } = await j.say(lines[1] ?? "", 0, { terminal: true });
    expect(said).not.toMatch(/Go on\?/);
    expect(result).toMatchObject({ status: "done", mode: "replace", app: "demo" });
    // The two lines with their Enter, and the Enter after the restart. The key is pasted.
    expect(lines.join("\n").length + 2).toBeLessThanOrEqual(60);
    expect([j.holds(), j.runsOn()]).toEqual([{ ".env": "new1" }, { ".env": "new1" }]);
    expect(readdirSync(j.dir).sort()).toEqual([".env", "bin", "home", "imkit-rotator.config.yaml"]);
    await j.end({ calls: 50, reports: 1 });
  });
});
