import { execFile } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { madeKey } from "../kit/leak.ts";
import { cleanEnv, type Ran } from "../kit/program.ts";
import { jsonLines, lastJson, makeWorld, type World, type WorldOptions } from "../kit/world.ts";

/** The tests of a file run side by side, each in a world of its own. */
const worlds: World[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));

const world = async (options?: WorldOptions): Promise<World> => {
  const made = await makeWorld(options);
  worlds.push(made);
  return made;
};
const rotate = (w: World, ...flags: string[]): Promise<Ran> => w.run(["rotate", "demo", "--json", ...flags]);
const staged = async (options?: WorldOptions): Promise<World> => {
  const w = await world(options);
  const { code } = await w.run(["stage", "demo", "--from-stdin"], { stdin: w.sandbox.issue() });
  expect(code).toBe(0);
  return w;
};
/** The one line of type `result`; the error of a failed run stands after it. */
const resultOf = ({ stdout }: Ran): Record<string, unknown> => {
  const lines = jsonLines(stdout).filter((l) => l["type"] === "result");
  expect(lines).toHaveLength(1);
  return lines[0] ?? {};
};
const edit = (w: World, from: string | RegExp, to: string): void =>
  writeFileSync(w.configFile, readFileSync(w.configFile, "utf8").replace(from, to));

const FIELDS = [
  "type",
  "schemaVersion",
  "status",
  "exitCode",
  "app",
  "rotation",
  "mode",
  "sameApp",
  "oldFingerprint",
  "oldFingerprints",
  "newFingerprint",
  "attested",
  "exposureMs",
  "blackoutMs",
  "exposure",
  "blackout",
  "stores",
  "workloads",
  "report",
  "head",
  "next",
];
const HEAD = /^\d+:[0-9a-f]{16}$/;
const FP = /^[0-9a-f]{8}$/;

describe.concurrent("rotate --json, to the end", () => {
  it("waiting, then done, then nothing: NDJSON events, the result last, with the exact fields", async () => {
    const w = await staged({ stores: ["one", "two"] });
    const first = await rotate(w);
    expect(first.code).toBe(3);
    const lines = jsonLines(first.stdout);
    expect(lines.slice(0, -1).every((l) => l["type"] === "event" || l["type"] === "note")).toBe(true);
    expect(lines.filter((l) => l["type"] === "event").length).toBeGreaterThan(5);
    const waiting = lines.at(-1) ?? {};
    expect(Object.keys(waiting)).toEqual(FIELDS);
    expect(waiting).toMatchObject({
      type: "result",
      status: "waiting",
      exitCode: 3,
      app: "demo",
      mode: "overlap",
      sameApp: "proved",
      oldFingerprint: expect.stringMatching(FP),
      newFingerprint: expect.stringMatching(FP),
      exposureMs: null,
      blackoutMs: 0,
      stores: [
        { name: "one", state: "written", code: null },
        { name: "two", state: "written", code: null },
      ],
      workloads: [{ name: "none", state: "done" }],
      head: expect.stringMatching(HEAD),
      next: [
        { who: "you", text: expect.stringContaining("not the one you just made"), command: null },
        { who: "you", command: "imkit-rotator confirm-revoked demo" },
      ],
    });
    expect(waiting["oldFingerprints"]).toEqual([waiting["oldFingerprint"]]);

    w.sandbox.revoke(1);
    const second = await rotate(w);
    expect(second.code).toBe(0);
    const done = lastJson(second.stdout);
    expect(Object.keys(done)).toEqual(FIELDS);
    expect(done).toMatchObject({
      status: "done",
      exitCode: 0,
      rotation: waiting["rotation"],
      oldFingerprints: waiting["oldFingerprints"],
      newFingerprint: waiting["newFingerprint"],
      next: [],
    });
    expect(w.escrow()).toEqual([]);

    const third = await rotate(w);
    expect(third.code).toBe(0);
    expect(lastJson(third.stdout)).toMatchObject({
      status: "nothing",
      exitCode: 0,
      rotation: null,
      mode: null,
    });
    // Shown are 8 digits, everywhere; the ledger has 16.
    const shown = [...`${first.stdout}${second.stdout}`.matchAll(/"(?:fp|current|new)":"([0-9a-f]+)"/g)];
    expect(shown.length).toBeGreaterThan(4);
    expect(shown.every(([, fp = ""]) => fp.length === 8)).toBe(true);
    expect(w.events().find((e) => e["type"] === "opened")?.["new"]).toMatch(/^[0-9a-f]{16}$/);
    expect(w.printed()).not.toContain((w.value("one") ?? "").slice(0, 12));
  });

  it("replace mode: old key dead already, so one run is enough", async () => {
    const w = await staged({ sandbox: { mode: "replace" } });
    const ran = await rotate(w);
    expect(ran.code).toBe(0);
    expect(lastJson(ran.stdout)).toMatchObject({ status: "done", mode: "replace" });
    expect(lastJson(ran.stdout)["blackoutMs"]).toBeGreaterThanOrEqual(0);
  });

  it("first mode: nothing to revoke", async () => {
    const w = await staged({ holds: { env: null } });
    const ran = await rotate(w, "--reason", "first key", "--ticket=OPS-1");
    expect(ran.code).toBe(0);
    expect(w.events().find((e) => e["type"] === "opened")).toMatchObject({
      reason: "first key",
      ticket: "OPS-1",
    });
    expect(lastJson(ran.stdout)).toMatchObject({
      status: "done",
      mode: "first",
      oldFingerprints: [],
      oldFingerprint: null,
    });
  });

  it("nothing staged: adopts, exit 0 nothing; due: exit 3 waiting with how to go on", async () => {
    const w = await world();
    const ran = await rotate(w);
    expect(ran.code).toBe(0);
    expect(lastJson(ran.stdout)).toMatchObject({ status: "nothing", exitCode: 0 });
    edit(w, "    revoke:", "    rotateEvery: 0d\n    revoke:");
    const due = await rotate(w);
    expect(due.code).toBe(3);
    expect(lastJson(due.stdout)).toMatchObject({
      type: "result",
      status: "waiting",
      exitCode: 3,
      next: [{ who: "you" }, { who: "you", command: "imkit-rotator stage demo" }],
    });
    const words = await w.run(["rotate", "demo"]);
    expect(words.code).toBe(3);
    expect(words.stdout).toContain("Waiting for you: demo is due.");
  });

  it("a workload that a person restarts: waiting-restart, --restarted, then the revocation", async () => {
    const w = await staged({ rollouts: null });
    const first = await rotate(w);
    expect(first.code).toBe(3);
    expect(lastJson(first.stdout)).toMatchObject({
      status: "waiting",
      workloads: [{ name: "manual", state: "manual", proof: null }],
      next: [{ who: "you" }, { who: "you", command: "imkit-rotator rotate demo --restarted" }],
    });
    expect(JSON.stringify(lastJson(first.stdout)["next"])).not.toContain("revoke");
    const again = await rotate(w);
    expect(again.code).toBe(3);
    expect(lastJson(again.stdout)["workloads"]).toMatchObject([{ state: "manual" }]);
    const restarted = await rotate(w, "--restarted");
    expect(restarted.code).toBe(3);
    expect(lastJson(restarted.stdout)).toMatchObject({ workloads: [{ state: "done", proof: 0 }] });
    expect(JSON.stringify(lastJson(restarted.stdout)["next"])).toContain("confirm-revoked demo");
    w.sandbox.revoke(1);
    expect((await rotate(w)).code).toBe(0);
  });
});

describe.concurrent("rotate --json, refused or failed: the result, then the error as the last line", () => {
  const ended = (ran: Ran, status: string, exitCode: number, code: string): Record<string, unknown> => {
    expect(ran.code).toBe(exitCode);
    const result = resultOf(ran);
    expect(Object.keys(result)).toEqual(FIELDS);
    expect(result).toMatchObject({ status, exitCode });
    expect(lastJson(ran.stdout)).toMatchObject({ type: "error", code, exitCode });
    expect(Object.keys(lastJson(ran.stdout))).toEqual([
      "type",
      "code",
      "what",
      "why",
      "state",
      "do",
      "undo",
      "exitCode",
    ]);
    expect(ran.stderr).not.toMatch(/\n\s+at /);
    return result;
  };

  it("a value that nobody here knows: 4, and no store is written", async () => {
    const w = await staged({ stores: ["one", "two"] });
    w.setValue("two", madeKey());
    const result = ended(await rotate(w), "refused", 4, "STORE_CONFLICT");
    expect(result["stores"]).toMatchObject([
      { state: "pending" },
      { name: "two", state: "conflict", code: "CONFLICT" },
    ]);
    expect(w.value("one")).toBe(w.sandbox.firstKey());
  });

  it("stores that cannot be read before anything is known of them: each by name and code, in the words and in the result", async () => {
    const w = await world({ stores: ["one", "two", "three"] });
    for (const name of ["one", "three"]) rmSync(join(w.dir, `${name}.env`));
    const result = ended(await rotate(w), "failed", 1, "STORE_FAILED");
    expect(result["stores"]).toEqual([
      { name: "one", state: "failed", code: "NOT_FOUND" },
      { name: "two", state: "pending", code: null },
      { name: "three", state: "failed", code: "NOT_FOUND" },
    ]);
  });

  it("a duplicate entry: 4; a missing file: 1; put right, the same command goes on", async () => {
    const [twice, gone] = await Promise.all([staged(), staged()]);
    const file = join(twice.dir, "env.env");
    const good = readFileSync(file, "utf8");
    writeFileSync(file, `${good}IMKIT_API_KEY=again\n`);
    rmSync(join(gone.dir, "env.env"));
    const [a, b] = await Promise.all([rotate(twice), rotate(gone)]);
    ended(a, "refused", 4, "STORE_CONFLICT");
    expect(a.stderr).toMatch(
      /Why +CONFLICT at dotenv[^]*defined on lines 2 and 3[^]*Do +Keep one of the lines/,
    );
    ended(b, "failed", 1, "STORE_FAILED");
    expect(a.stderr).toMatch(/State +No store was written; they should hold the key [0-9a-f]{8}/);
    writeFileSync(file, good);
    gone.setValue("env", gone.sandbox.firstKey());
    const [c, d] = await Promise.all([rotate(twice), rotate(gone)]);
    expect([c.code, d.code]).toEqual([3, 3]);
  });

  it("one store stops all while services are failing: the first way out leaves that one alone, and says why", async () => {
    const w = await staged({ stores: ["one", "two"], sandbox: { mode: "replace" } });
    rmSync(join(w.dir, "two.env"));
    const ran = await rotate(w);
    ended(ran, "failed", 1, "STORE_FAILED");
    expect(w.value("one")).toBe(w.sandbox.firstKey());
    const first = "imkit-rotator rotate demo --emergency";
    expect(lastJson(ran.stdout)["do"]).toMatchObject([
      first,
      expect.anything(),
      expect.anything(),
      expect.anything(),
    ]);
    expect(resultOf(ran)["next"]).toMatchObject([
      {
        text: expect.stringMatching(/^Services are failing.*two holds up every other.*In an emergency/),
        command: first,
      },
      { command: "imkit-rotator doctor demo" },
      {},
    ]);
    expect(ran.stderr).toMatch(/Do +Services are failing[^]*rotate demo --emergency[^]*doctor demo/);
    const again = await rotate(w, "--emergency");
    ended(again, "failed", 1, "STORE_FAILED");
    expect(w.value("one")).not.toBe(w.sandbox.firstKey());
    expect(lastJson(again.stdout)["do"]).not.toContain(first);
  });

  it("the new key rejected: 4; IMKIT without a clear answer: 1", async () => {
    const [w, v] = await Promise.all([staged(), staged()]);
    w.sandbox.revoke(2);
    v.sandbox.fault({ kind: "500", count: Number.POSITIVE_INFINITY });
    const [a, b] = await Promise.all([rotate(w), rotate(v)]);
    ended(a, "refused", 4, "KEY_REJECTED");
    ended(b, "failed", 1, "IMKIT_UNCLEAR");
    expect(w.value()).toBe(w.sandbox.firstKey());
  });

  it("the wrong key revoked: 4, rollback is next; both dead: blackout, exit 3, stage another", async () => {
    const w = await staged();
    await rotate(w);
    w.sandbox.revoke(2);
    const wrong = ended(await rotate(w), "refused", 4, "WRONG_KEY_REVOKED");
    expect(JSON.stringify(wrong["next"])).toContain("imkit-rotator rollback demo");
    w.sandbox.revoke(1);
    const dark = await rotate(w);
    expect(dark.code).toBe(3);
    expect(lastJson(dark.stdout)).toMatchObject({ status: "waiting" });
    expect(JSON.stringify(lastJson(dark.stdout)["next"])).toContain("imkit-rotator stage demo");
    const third = await w.run(["stage", "demo", "--from-stdin"], { stdin: w.sandbox.issue() });
    expect(third.code).toBe(0);
    expect((await rotate(w)).code).toBe(0);
  });

  it("a rollout that fails: 1, and the stores' state is told", async () => {
    const w = await staged({ rollouts: '[{ name: api, type: exec, command: ["false"] }]' });
    const ran = await rotate(w);
    const result = ended(ran, "failed", 1, "ROLLOUT_FAILED");
    expect(result).toMatchObject({
      stores: [{ state: "written" }],
      workloads: [{ name: "api", state: "failed" }],
    });
    expect(ran.stderr).toMatch(
      /State +1 of 1 stores hold the new key [0-9a-f]{8}; old key [0-9a-f]{8} was accepted when IMKIT was last asked/,
    );
  });

  it("a target taken out of the config: 2 until restored, or dropped by name", async () => {
    const w = await staged({ rollouts: null, stores: ["one", "two"] });
    await rotate(w);
    const before = readFileSync(w.configFile, "utf8");
    edit(w, /\n.*name: two.*\n/, "\n");
    const ran = await rotate(w);
    ended(ran, "failed", 2, "PLAN_CHANGED");
    expect(lastJson(ran.stdout)["do"]).toContain("imkit-rotator rotate demo --drop two");
    const dry = await rotate(w, "--dry-run");
    expect(dry.code).toBe(2);
    const unknown = await rotate(w, "--drop", "one");
    ended(unknown, "failed", 2, "USAGE");
    const dropped = await rotate(w, "--drop", "two");
    expect(dropped.code).toBe(3);
    expect(lastJson(dropped.stdout)["stores"]).toMatchObject([
      { name: "one", state: "written" },
      { name: "two", state: "dropped" },
    ]);
    expect(w.events().find((e) => e["type"] === "waived")).toMatchObject({ target: "two" });
    writeFileSync(w.configFile, before);
  });

  it("a key of another app goes on only when that app is named", async () => {
    const [w, other] = await Promise.all([world(), world()]);
    await w.run(["adopt", "demo"]);
    const url = w.sandbox.url;
    edit(w, url, other.sandbox.url);
    const key = other.sandbox.issue();
    const answer = await w.run(["stage", "demo", "--from-stdin", "--json"], { stdin: key });
    expect(answer.code).toBe(4);
    ended(await rotate(w), "refused", 4, "WRONG_APP");
    const wrong = await rotate(w, "--accept-app", "00000000");
    const result = ended(wrong, "refused", 4, "WRONG_APP");
    expect(JSON.stringify(result["next"])).toMatch(/--accept-app [0-9a-f]{8}/);
    expect(wrong.stderr).toMatch(/00000000 is not the app of the new key: IMKIT shows [0-9a-f]{8}/);
    const fp = /--accept-app ([0-9a-f]{8})/.exec(answer.stdout)?.[1] ?? "";
    const ran = await rotate(w, "--accept-app", fp);
    expect(w.value()).toBe(key);
    expect(resultOf(ran)["sameApp"]).toBe("different");
  });

  it("429 for longer than 10 s: unclear, exit 1, and next says when", async () => {
    const w = await staged();
    w.sandbox.fault({ kind: "429", count: Number.POSITIVE_INFINITY, retryAfter: 90 });
    const began = performance.now();
    const ran = await rotate(w);
    expect(performance.now() - began).toBeLessThan(10_000);
    const result = ended(ran, "failed", 1, "IMKIT_UNCLEAR");
    expect(JSON.stringify(result["next"])).toMatch(/\d\d:\d\d|\b90 ?s|seconds/);
  });
});

describe.concurrent("rotate --dry-run", () => {
  const FIELDS_OF_PLAN = ["type", "schemaVersion", "app", "mode", "steps", "people", "exitCode"];

  it("works with nothing staged and no ledger, and makes none", async () => {
    const w = await world({ rollouts: null });
    const { code, stdout } = await rotate(w, "--dry-run");
    expect(code).toBe(0);
    expect(jsonLines(stdout)).toHaveLength(1);
    expect(Object.keys(lastJson(stdout))).toEqual(FIELDS_OF_PLAN);
    expect(lastJson(stdout)).toMatchObject({
      type: "plan",
      app: "demo",
      mode: null,
      steps: [
        { target: "env", kind: "dotenv", action: "write", check: "ok" },
        { target: "manual", kind: "manual", action: "ask" },
      ],
      exitCode: 0,
    });
    expect(lastJson(stdout)["people"]).toHaveLength(3);
    expect(w.ledgerFiles()).toEqual([]);
  });

  it("with a staged key it knows the mode, and appends nothing", async () => {
    const w = await staged();
    const before = w.ledgerFiles();
    const { code, stdout } = await rotate(w, "--dry-run");
    expect(code).toBe(0);
    expect(lastJson(stdout)).toMatchObject({ type: "plan", mode: "overlap" });
    expect(w.ledgerFiles()).toEqual(before);
    expect(w.value()).toBe(w.sandbox.firstKey());
    const words = await w.run(["rotate", "demo", "--dry-run"]);
    expect(words.stdout).toContain("nothing was written");
  });

  it("ends as the preflight would: 4, 1, 5, with the plan first and the error last", async () => {
    const [conflict, missing, broken, two] = await Promise.all([
      staged(),
      staged(),
      staged(),
      world({ stores: ["one", "two"] }),
    ]);
    conflict.setValue("env", madeKey());
    rmSync(join(missing.dir, "env.env"));
    writeFileSync(join(broken.ledgerDir, "00000001.json"), "{}\n");
    two.setValue("two", two.sandbox.issue());
    const runs = await Promise.all([conflict, missing, two].map((w) => rotate(w, "--dry-run")));
    expect(runs.map((r) => r.code)).toEqual([4, 1, 4]);
    for (const { stdout } of runs)
      expect(jsonLines(stdout)).toMatchObject([{ type: "plan" }, { type: "error" }]);
    const bad = await rotate(broken, "--dry-run");
    expect(bad.code).toBe(5);
    expect(lastJson(bad.stdout)).toMatchObject({ type: "error", code: "LEDGER_BROKEN" });
  });
});

describe.concurrent("commands that are printed can be pasted", () => {
  it("into the same shell, also when the config was given by flag or variable", async () => {
    const w = await staged();
    const odd = join(w.dir, "an odd $name.yaml");
    writeFileSync(odd, readFileSync(w.configFile, "utf8").replaceAll("./", `${w.dir}/`));
    for (const way of [
      { args: ["-c", odd], env: {} },
      { args: [], env: { IMKIT_ROTATOR_CONFIG: odd } },
    ]) {
      const words = await w.run([...way.args, "status"], {
        cwd: tmpdir(),
        env: { ...way.env, HOME: join(w.dir, "home") },
      });
      const line = words.stdout.split("\n").find((l) => /rotate demo/.test(l)) ?? "";
      const pasted = await new Promise((resolve) => {
        const options = { cwd: tmpdir(), env: cleanEnv(w.dir, way.env) };
        execFile("sh", ["-c", `${line} --dry-run`], options, (error, _, stderr) =>
          resolve({ error, stderr }),
        );
      });
      expect(pasted).toEqual({ error: null, stderr: "" });
    }
    const { stdout } = await w.run(["-c", odd, "status", "--json"]);
    expect(stdout).toContain(`imkit-rotator rotate demo -c '${odd}'`);
    const told = (await w.run(["-c", odd, "status"])).stdout.split("\n");
    const commands = told.filter((line) => line.includes(" demo ") && line.includes(odd));
    expect(commands.map((line) => line.split(odd).length - 1)).toEqual(commands.map(() => 1));
    expect(commands.length).toBeGreaterThan(0);
  });
});
