import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { madeKey } from "../kit/leak.ts";
import type { Ran } from "../kit/program.ts";
import { hookReceiver } from "../kit/receiver.ts";
import { jsonLines, lastJson, makeWorld, NO_RESTART, type World, type WorldOptions } from "../kit/world.ts";

/** The tests of a file run side by side, each in a world of its own. */
const worlds: { readonly close: () => Promise<void> }[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));

/** More apps beside `demo`, each on a dotenv file of its own. */
const withApps = async (names: readonly string[], options: WorldOptions = {}): Promise<World> => {
  const w = await makeWorld(options);
  worlds.push(w);
  for (const name of names) w.setValue(name, w.sandbox.firstKey());
  const apps = names.map(
    (name) => `  ${name}:
    baseUrl: ${w.sandbox.url}
    stores: [{ name: env, type: dotenv, path: ./${name}.env, key: IMKIT_API_KEY }]
    rollouts: ${NO_RESTART}
    revoke: { probes: 3, every: 10ms }
`,
  );
  writeFileSync(w.configFile, readFileSync(w.configFile, "utf8") + apps.join(""));
  return w;
};
const tick = (w: World, ...args: string[]): Promise<Ran> => w.run(["rotate", ...args, "--json"]);
const stage = async (w: World, app: string, key = w.sandbox.issue()): Promise<void> => {
  expect((await w.run(["stage", app, "--from-stdin"], { stdin: key })).code).toBe(0);
};
const results = ({ stdout }: Ran) => jsonLines(stdout).filter((l) => l["type"] === "result");

describe.concurrent("rotate --due, the tick", () => {
  it("nothing to do, then a staged key is written, then only a person is missing: exit 0 each time", async () => {
    const w = await withApps([]);
    const idle = await tick(w, "demo", "--due");
    expect(idle.code).toBe(0);
    expect(lastJson(idle.stdout)).toMatchObject({ status: "nothing", exitCode: 0 });
    await stage(w, "demo");
    const wrote = await tick(w, "demo", "--due");
    expect(wrote.code).toBe(0);
    expect(lastJson(wrote.stdout)).toMatchObject({
      status: "waiting",
      exitCode: 0,
      stores: [{ state: "written" }],
    });
    const before = w.ledgerFiles().length;
    const again = await tick(w, "demo", "--due");
    expect(again.code).toBe(0);
    expect(lastJson(again.stdout)).toMatchObject({ status: "waiting", exitCode: 0 });
    expect(w.ledgerFiles().length).toBe(before);
    w.sandbox.revoke(1);
    const done = await tick(w, "demo", "--due");
    expect(done.code).toBe(0);
    expect(lastJson(done.stdout)).toMatchObject({ status: "done", exitCode: 0 });
  });

  it("due and no key staged: waiting, exit 0, and it says what the person has to do", async () => {
    const w = await withApps([], { app: "    rotateEvery: 0d" });
    const ran = await tick(w, "demo", "--due");
    expect(ran.code).toBe(0);
    expect(lastJson(ran.stdout)).toMatchObject({
      status: "waiting",
      exitCode: 0,
      next: [{ who: "you" }, { command: "imkit-rotator stage demo" }],
    });
  });

  it("a failure is a failure for a tick too", async () => {
    const w = await withApps([]);
    await stage(w, "demo");
    w.setValue("env", madeKey());
    const ran = await tick(w, "demo", "--due");
    expect(ran.code).toBe(4);
    expect(lastJson(ran.stdout)).toMatchObject({ type: "error", code: "STORE_CONFLICT" });
  });
});

const withHook = async (app = "") => {
  const hook = await hookReceiver();
  worlds.push(hook);
  return { hook, w: await withApps([], { app, more: hook.config }) };
};
const INBOX = "    intake: [{ type: dotenv, path: ./inbox.env, key: NEW_KEY }]";

describe.concurrent("what a tick takes in, and whom it tells", () => {
  it("a whole rotation without a command of a person: key into the inbox, ticks, revocation, ticks", async () => {
    const { w, hook } = await withHook(INBOX);
    const inbox = join(w.dir, "inbox.env");
    const key = w.sandbox.issue();
    writeFileSync(inbox, `# lay the new key down here\nNEW_KEY=${key}\n`);
    const first = await tick(w, "demo", "--due");
    expect([first.code, w.value()]).toEqual([0, key]);
    expect(lastJson(first.stdout)).toMatchObject({
      status: "waiting",
      inbox: [{ state: "taken", removed: true }],
      drift: [],
    });
    expect(readFileSync(inbox, "utf8")).toBe("# lay the new key down here\nNEW_KEY=\n");
    w.sandbox.revoke(1);
    const last = await tick(w, "demo", "--due");
    expect(last.code).toBe(0);
    expect(lastJson(last.stdout)).toMatchObject({ status: "done", exitCode: 0 });
    await tick(w, "demo", "--due");
    expect(hook.types()).toEqual(["waiting-revoke", "done"]);
    const told = hook.got[0]?.data;
    expect(told).toMatchObject({
      app: "demo",
      state: "waiting-revoke",
      head: expect.stringMatching(/^\d+:/),
    });
    expect(JSON.stringify(told)).toContain("imkit-rotator confirm-revoked demo");
    expect(`${hook.bodies.join("")}${w.printed()}`).not.toContain(key);
  });

  it("two ticks side by side as processes, again and again: one rotation, each notification once", async () => {
    const { w, hook } = await withHook(INBOX);
    writeFileSync(join(w.dir, "inbox.env"), `NEW_KEY=${w.sandbox.issue()}\n`);
    const both = async (): Promise<void> => {
      const ran = await Promise.all([tick(w, "demo", "--due"), tick(w, "demo", "--due")]);
      for (const { code, stderr } of ran) expect([0, 6], stderr).toContain(code);
    };
    await both();
    await both();
    w.sandbox.revoke(1);
    await both();
    await both();
    expect(hook.types()).toEqual(["waiting-revoke", "done"]);
    expect(new Set(hook.got.map((one) => one.id)).size).toBe(2);
    expect(w.events().filter((e) => e["type"] === "opened" || e["type"] === "staged").length).toBe(2);
    expect((await w.run(["audit", "verify", "demo"])).code).toBe(0);
  });

  it("an emergency Job takes the key from the inbox while it waits, and tells that it waits", async () => {
    const { w, hook } = await withHook(INBOX);
    const key = w.sandbox.issue();
    let laid = false;
    const ran = await w.run(["rotate", "demo", "--emergency", "--wait=1m", "--json"], {
      onOutput: (text) => {
        if (laid || !text.includes("Your turn: demo is waiting-key")) return;
        laid = true;
        w.sandbox.revoke(1);
        writeFileSync(join(w.dir, "inbox.env"), `NEW_KEY=${key}\n`);
      },
    });
    expect([ran.code, w.value()]).toEqual([0, key]);
    expect(hook.types().sort()).toEqual(["done", "emergency", "waiting-key"]);
    expect(w.printed()).not.toContain(key);
  });

  it("a bad value stays in the inbox, is told once, and is in no output", async () => {
    const { w, hook } = await withHook(INBOX);
    const bad = "eyJhbGciOiJIUzI1NiJ9.eyJhcGlLZXkiOiJ4In0.c2ln";
    writeFileSync(join(w.dir, "inbox.env"), `NEW_KEY=${bad}\n`);
    const first = await tick(w, "demo", "--due");
    expect(first.code).toBe(0);
    expect(first.stderr).toMatch(/inbox .* is not taken: It is a JWT/);
    const second = await tick(w, "demo", "--due");
    expect(second.stderr).not.toContain("is not taken");
    expect(hook.types()).toEqual(["inbox-rejected"]);
    expect(`${w.printed()}${hook.bodies.join("")}`).not.toContain(bad);
    expect(readFileSync(join(w.dir, "inbox.env"), "utf8")).toContain(bad);
  });

  it("an inbox that is a store of the app is a mistake in the config", async () => {
    const w = await withApps([], {
      app: "    intake: [{ type: dotenv, path: ./env.env, key: IMKIT_API_KEY }]",
    });
    const ran = await tick(w, "demo", "--due");
    expect(ran.code).toBe(2);
    expect(ran.stderr).toContain("the inbox is the same place as the store env");
  });

  it("drift of an idle app: in the result and told, and the exit is 0", async () => {
    const { w, hook } = await withHook();
    await tick(w, "demo", "--due");
    w.setValue("env", madeKey());
    for (let i = 0; i < 2; i++) {
      const ran = await tick(w, "demo", "--due");
      expect(ran.code).toBe(0);
      expect(lastJson(ran.stdout)).toMatchObject({
        status: "nothing",
        drift: [{ name: "env", state: "drift", fingerprint: expect.stringMatching(/^[0-9a-f]{8}$/) }],
      });
    }
    expect(hook.types()).toEqual(["drift"]);
  });

  it("a failing rotation is left alone for a minute by ticks, and stays a failure; a person is not held off", async () => {
    const { w, hook } = await withHook();
    await stage(w, "demo");
    w.setValue("env", madeKey());
    const runs = () => w.events().filter((e) => e["type"] === "run-started").length;
    expect((await tick(w, "demo", "--due")).code).toBe(4);
    const before = runs();
    const again = await tick(w, "demo", "--due");
    expect([again.code, runs()]).toEqual([4, before]);
    const result = results(again)[0];
    expect(result).toMatchObject({ status: "refused", held: "backoff" });
    expect(result?.["retryAt"]).toMatch(/^\d{4}-/);
    expect(hook.types()).toEqual(["refused"]);
    expect((await tick(w, "demo")).code).toBe(4);
    expect(runs()).toBe(before + 1);
    expect(hook.types()).toEqual(["refused"]);
  });

  it("a staged key waits for the schedule; a tick that is lost counts as always", async () => {
    const w = await withApps([], { app: '    schedule: "0 3 29 2 *"' });
    expect((await tick(w, "demo", "--due")).code).toBe(0);
    await stage(w, "demo");
    const held = await tick(w, "demo", "--due");
    expect(held.code).toBe(0);
    expect(lastJson(held.stdout)).toMatchObject({
      status: "waiting",
      exitCode: 0,
      held: "schedule",
      next: [{ who: "tool", command: "imkit-rotator rotate demo" }],
    });
    expect(w.value()).toBe(w.sandbox.firstKey());
    const file = join(w.dir, "state", "demo", "last-tick");
    writeFileSync(file, "2023-03-01T00:00:00.000Z\n");
    await tick(w, "demo", "--due");
    expect(w.value()).not.toBe(w.sandbox.firstKey());
    expect(readFileSync(file, "utf8")).toMatch(/^20(2[4-9]|[3-9]\d)-/);
  });

  it("rotate and confirm-revoked by hand tell how it ended too; a receiver that fails stops nothing", async () => {
    const { w, hook } = await withHook();
    hook.status = 404;
    await stage(w, "demo");
    const waits = await w.run(["rotate", "demo", "--json"]);
    expect(waits.code).toBe(3);
    w.sandbox.revoke(1);
    const done = await w.run(["confirm-revoked", "demo", "--json"]);
    expect(done.code).toBe(0);
    expect(done.stderr).toMatch(/webhook:127.0.0.1:\d+ could not be told \(done\): HTTP 404/);
    expect(w.events().at(-1)).toMatchObject({ type: "notified", ok: false });
    hook.status = 200;
    await stage(w, "demo");
    await w.run(["rotate", "demo", "--emergency", "--json"]);
    expect(hook.types()).toEqual(["emergency"]);
  });

  it("doctor looks at inboxes and receivers, and sends nothing", async () => {
    const { w, hook } = await withHook(INBOX);
    const ran = await w.run(["doctor", "demo", "--json"]);
    const { checks } = lastJson(ran.stdout) as { checks: Record<string, unknown>[] };
    expect(checks.filter((c) => ["notify", "intake"].includes(String(c["id"])))).toMatchObject([
      { id: "notify", status: "ok" },
      { id: "intake", app: "demo", status: "ok" },
    ]);
    expect(hook.bodies).toEqual([]);
    const text = readFileSync(w.configFile, "utf8");
    writeFileSync(
      w.configFile,
      text.replace(
        /^notify:\n?.*$/m,
        "notify: [{ type: slack, url: { valueFrom: { env: NOBODY_SET_IT } } }]",
      ),
    );
    const bad = await w.run(["doctor", "demo", "--json"]);
    const found = (lastJson(bad.stdout) as { checks: Record<string, unknown>[] }).checks;
    expect(found.find((c) => c["id"] === "notify")).toMatchObject({
      status: "fail",
      fix: expect.any(String) as string,
    });
  });
});

describe.concurrent("rotate --all", () => {
  it("one result line per app in config order, then the summary; 0 when all is well", async () => {
    const w = await withApps(["alpha", "beta"]);
    await stage(w, "beta");
    const ran = await tick(w, "--all", "--due");
    expect(ran.code).toBe(0);
    expect(results(ran).map((r) => [r["app"], r["status"]])).toEqual([
      ["demo", "nothing"],
      ["alpha", "nothing"],
      ["beta", "waiting"],
    ]);
    expect(lastJson(ran.stdout)).toMatchObject({ type: "summary", exitCode: 0 });
    // Without --due the person who is missing shows.
    const plain = await tick(w, "--all");
    expect(plain.code).toBe(3);
    expect(lastJson(plain.stdout)).toMatchObject({ type: "summary", exitCode: 3 });
  });

  it("a broken ledger, a conflict, a missing file and a bad state of one app stop no other one", async () => {
    const w = await withApps(["broken", "conflict", "gone", "good"]);
    for (const app of ["broken", "conflict", "gone", "good"]) await stage(w, app);
    writeFileSync(join(w.dir, "state", "broken", "ledger", "00000001.json"), "not an entry\n");
    w.setValue("conflict", madeKey());
    writeFileSync(join(w.dir, "gone.env"), "");
    const { rmSync } = await import("node:fs");
    rmSync(join(w.dir, "gone.env"));
    writeFileSync(join(w.dir, "state", "demo"), "a file where the state of demo should be");
    const ran = await tick(w, "--all", "--due");
    expect(ran.code).toBe(5);
    expect(results(ran).map((r) => [r["app"], r["status"], r["exitCode"]])).toEqual([
      ["demo", "failed", 2],
      ["broken", "failed", 5],
      ["conflict", "refused", 4],
      ["gone", "failed", 1],
      ["good", "waiting", 0],
    ]);
    expect(w.value("good")).not.toBe(w.sandbox.firstKey());
    const [summary, error] = jsonLines(ran.stdout).slice(-2);
    expect(summary).toMatchObject({ type: "summary", exitCode: 5 });
    expect(error).toMatchObject({ type: "error", code: "LEDGER_BROKEN", exitCode: 5 });
    for (const code of ["STATE_UNUSABLE", "LEDGER_BROKEN", "STORE_CONFLICT", "STORE_FAILED"])
      expect(ran.stderr).toContain(code);
    expect(ran.stderr).not.toMatch(/\n\s+at /);
  });

  it("the exit is the first present of 5, 1, 4, 2, 6, 3, 0", async () => {
    const w = await withApps(["one", "four"]);
    for (const app of ["one", "four"]) await stage(w, app);
    w.setValue("four", madeKey());
    const four = await tick(w, "--all");
    expect(four.code).toBe(4);
    const { rmSync } = await import("node:fs");
    rmSync(join(w.dir, "one.env"));
    const one = await tick(w, "--all");
    expect(one.code).toBe(1);
  });

  it("apps work side by side, and each speaks in its turn", async () => {
    const names = ["a1", "a2", "a3", "a4", "a5"];
    const w = await withApps(names);
    for (const app of names) await stage(w, app);
    const ran = await w.run(["rotate", "--all", "--due"]);
    expect(ran.code).toBe(0);
    const speakers = ran.stdout
      .split("\n")
      .flatMap((line) => /^(?:Waiting for you: (a\d)|Nothing to do for (demo))/.exec(line) ?? []);
    expect(speakers.filter((one) => one !== undefined && !one.includes(" "))).toEqual(["demo", ...names]);
    for (const app of names) expect(w.value(app)).not.toBe(w.sandbox.firstKey());
    // What one app says stands together: between two heads of its ledger nobody else speaks.
    const opened = ran.stderr.split("\n").filter((line) => /Rotation r-|Ledger head/.test(line));
    expect(opened.map((line) => (line.includes("Rotation") ? "opened" : "head"))).toEqual([
      "head",
      ...names.flatMap(() => ["opened", "head"]),
    ]);
  });

  it("--dry-run is one plan line per app, and writes nothing", async () => {
    const w = await withApps(["alpha"]);
    await stage(w, "alpha");
    const before = w.value("alpha");
    const ran = await tick(w, "--all", "--dry-run");
    expect(ran.code).toBe(0);
    expect(jsonLines(ran.stdout)).toMatchObject([
      { type: "plan", app: "demo" },
      { type: "plan", app: "alpha", mode: "overlap" },
      { type: "summary", exitCode: 0 },
    ]);
    expect(w.value("alpha")).toBe(before);
  });

  it("with several apps a name is wanted, by rotate, list and export", async () => {
    const w = await withApps(["alpha"]);
    for (const args of [["rotate"], ["audit", "list"], ["audit", "export"], ["fingerprint"]]) {
      const ran = await w.run([...args, "--json"]);
      expect({ args, code: ran.code }).toEqual({ args, code: 2 });
      expect(lastJson(ran.stdout)).toMatchObject({
        code: "USAGE",
        what: "Which app?",
        why: "The config has demo, alpha.",
      });
    }
  });
});
