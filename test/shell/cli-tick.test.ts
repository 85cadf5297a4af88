import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { madeKey } from "../kit/leak.ts";
import type { Ran } from "../kit/program.ts";
import { jsonLines, lastJson, makeWorld, NO_RESTART, type World, type WorldOptions } from "../kit/world.ts";

/** The tests of a file run side by side, each in a world of its own. */
const worlds: World[] = [];
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
