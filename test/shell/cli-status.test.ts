import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { madeKey } from "../kit/leak.ts";
import type { Ran } from "../kit/program.ts";
import { jsonLines, lastJson, makeWorld, type World, type WorldOptions } from "../kit/world.ts";

/** The tests of a file run side by side, each in a world of its own. */
const worlds: World[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));

const world = async (options?: WorldOptions): Promise<World> => {
  const made = await makeWorld(options);
  worlds.push(made);
  return made;
};
const stage = (w: World, key: string): Promise<Ran> =>
  w.run(["stage", "demo", "--from-stdin"], { stdin: key });

type Shown = {
  readonly state: string;
  readonly fingerprint: string | null;
  readonly stores: readonly {
    readonly state: string;
    readonly fingerprint: string | null;
    readonly code: string | null;
  }[];
} & Record<string, unknown>;
const appOf = ({ stdout }: Ran): Shown => {
  expect(jsonLines(stdout)).toHaveLength(1);
  return (lastJson(stdout)["apps"] as Shown[])[0] as Shown;
};
const status = async (w: World): Promise<Shown> => {
  const ran = await w.run(["status", "demo", "--json"]);
  expect(ran.code).toBe(0);
  return appOf(ran);
};
/** Exit of `status --exit-code`, which says no more on stdout than without it. */
const exitCode = async (w: World): Promise<number | null> => {
  const ran = await w.run(["status", "--json", "--exit-code"]);
  expect(jsonLines(ran.stdout)).toHaveLength(1);
  return ran.code;
};
const states = (app: Shown): readonly string[] => app.stores.map((s) => s.state);

describe.concurrent("status --json before adoption: app new, fingerprints null", () => {
  it.each([
    { holds: ["same", "same"], gives: ["in-sync", "in-sync"] },
    { holds: ["same", null], gives: ["in-sync", "absent"] },
    { holds: [null, null], gives: ["absent", "absent"] },
    { holds: ["same", "other"], gives: ["drift", "drift"] },
  ])("$holds", async ({ holds, gives }) => {
    const w = await world({ stores: ["one", "two"] });
    const keys: Record<string, string> = { same: w.sandbox.firstKey(), other: madeKey() };
    for (const [i, held] of holds.entries())
      w.setValue(i === 0 ? "one" : "two", held === null ? null : (keys[held] ?? ""));
    const app = await status(w);
    expect(app).toMatchObject({
      state: "new",
      fingerprint: null,
      ageDays: null,
      dueAt: null,
      overdue: false,
      lastVerdict: null,
    });
    expect(states(app)).toEqual(gives);
    expect(app.stores.every((s) => s.fingerprint === null)).toBe(true);
    expect(await exitCode(w)).toBe(gives.includes("drift") ? 5 : 0);
    expect(w.ledgerFiles()).toEqual([]);
  });
});

describe.concurrent("status --json, state by state", () => {
  it("staged, waiting-restart, waiting-revoke, idle; the fields; nothing is written by looking", async () => {
    const w = await world({ rollouts: null });
    await stage(w, w.sandbox.issue());
    const staged = await status(w);
    expect(Object.keys(staged)).toEqual(
      expect.arrayContaining([
        "app",
        "state",
        "fingerprint",
        "ageDays",
        "dueAt",
        "overdue",
        "lastVerdict",
        "stores",
        "workloads",
        "next",
      ]),
    );
    expect(staged).toMatchObject({ app: "demo", state: "staged", ageDays: 0, overdue: false });
    expect(staged.fingerprint).toMatch(/^[0-9a-f]{8}$/);
    expect(staged.stores).toMatchObject([
      {
        name: "env",
        type: "dotenv",
        where: expect.stringContaining("env.env#IMKIT_API_KEY"),
        state: "in-sync",
        fingerprint: staged.fingerprint,
        code: null,
      },
    ]);
    await w.run(["rotate", "demo"]);
    const restart = await status(w);
    expect(restart).toMatchObject({
      state: "waiting-restart",
      workloads: [{ name: "manual", state: "manual" }],
    });
    expect(restart.fingerprint).not.toBe(staged.fingerprint);
    expect(states(restart)).toEqual(["in-sync"]);
    await w.run(["rotate", "demo", "--restarted"]);
    const before = w.ledgerFiles().length;
    expect(await status(w)).toMatchObject({
      state: "waiting-revoke",
      oldKeys: [{ fingerprint: staged.fingerprint, state: "open" }],
    });
    w.sandbox.revoke(1);
    expect(await status(w)).toMatchObject({ state: "waiting-revoke" });
    expect(w.ledgerFiles()).toHaveLength(before);
    await w.run(["rotate", "demo"]);
    expect(await status(w)).toMatchObject({
      state: "idle",
      oldKeys: [],
      lastVerdict: { verdict: "accepted" },
    });
    const probed = await w.run(["status", "--probe", "--json"]);
    expect(appOf(probed)).toMatchObject({
      lastVerdict: { verdict: "accepted", at: expect.stringMatching(/Z$/) },
    });
    expect(await exitCode(w)).toBe(0);
  });

  it("drift, absent and error after adoption, with exit 5 by --exit-code and 0 without", async () => {
    const w = await world({ stores: ["one", "two", "three", "four"] });
    await w.run(["adopt", "demo"]);
    w.setValue("two", madeKey());
    w.setValue("three", null);
    rmSync(join(w.dir, "four.env"));
    const app = await status(w);
    expect(states(app)).toEqual(["in-sync", "drift", "absent", "error"]);
    expect(app.stores[3]).toMatchObject({ code: "NOT_FOUND", fingerprint: null });
    expect(app.stores[1]?.fingerprint).not.toBe(app.fingerprint);
    expect(await exitCode(w)).toBe(5);
    const words = await w.run(["status"]);
    expect(words.stdout).toMatch(/! two {2}drift/);
    expect(words.stdout).toMatch(/! four {2}error {2}NOT_FOUND/);
    w.setValue("two", w.sandbox.firstKey());
    rmSync(join(w.dir, "three.env"));
    w.setValue("three", null);
    w.setValue("four", w.sandbox.firstKey());
    expect(await exitCode(w)).toBe(5);
    w.setValue("three", w.sandbox.firstKey());
    expect(await exitCode(w)).toBe(0);
  });

  it("overdue", async () => {
    const w = await world({ app: "    rotateEvery: 0d" });
    await w.run(["adopt", "demo"]);
    expect(await status(w)).toMatchObject({ state: "idle", overdue: true });
    expect((await w.run(["status"])).stdout).toMatch(/OVERDUE[^]*stage demo/);
  });

  it("failed, wrong-key-revoked, blackout", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    const good = readFileSync(join(w.dir, "env.env"), "utf8");
    rmSync(join(w.dir, "env.env"));
    await w.run(["rotate", "demo"]);
    expect(await status(w)).toMatchObject({ state: "failed" });
    writeFileSync(join(w.dir, "env.env"), good);
    await w.run(["rotate", "demo"]);
    w.sandbox.revoke(2);
    await w.run(["rotate", "demo"]);
    expect(await status(w)).toMatchObject({ state: "wrong-key-revoked" });
    w.sandbox.revoke(1);
    await w.run(["rotate", "demo"]);
    expect(await status(w)).toMatchObject({ state: "blackout" });
  });

  it("a ledger that cannot be read hides no other app, and is said last: exit 5", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    writeFileSync(join(w.ledgerDir, "00000001.json"), "{}\n");
    const other = `  other:\n    baseUrl: ${w.sandbox.url}\n    stores: [{ name: env, type: dotenv, path: ./env.env, key: IMKIT_API_KEY }]\n`;
    writeFileSync(w.configFile, readFileSync(w.configFile, "utf8") + other);
    const ran = await w.run(["status", "--json"]);
    expect(ran.code).toBe(5);
    const [answer, error] = jsonLines(ran.stdout);
    expect(answer).toMatchObject({
      apps: [
        { app: "demo", state: "failed" },
        { app: "other", state: "new", stores: [{ state: "in-sync" }] },
      ],
    });
    expect(error).toMatchObject({ type: "error", code: "LEDGER_BROKEN", exitCode: 5 });
  });
});

describe.concurrent("doctor", () => {
  it("all well: ok, exit 0, exact fields, nothing written", async () => {
    const w = await world();
    const ran = await w.run(["doctor", "--json"]);
    expect(ran.code).toBe(0);
    const answer = lastJson(ran.stdout);
    expect(answer).toMatchObject({ ok: true });
    const checks = answer["checks"] as Record<string, unknown>[];
    for (const c of checks)
      expect(Object.keys(c)).toEqual(["id", "app", "target", "status", "message", "fix"]);
    const ids = checks.map((c) => String(c["id"]));
    for (const part of ["config", "ledger", "escrow", "imkit.control", "store.", "rollout."])
      expect(ids.some((id) => id.startsWith(part))).toBe(true);
    expect(w.ledgerFiles()).toEqual([]);
  });

  it("findings are no failure: exit 5, one answer, a fix for each that failed", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    rmSync(join(w.dir, "env.env"));
    w.sandbox.fault({ kind: "html", count: Number.POSITIVE_INFINITY });
    rmSync(join(w.dir, "home", ".config", "imkit-rotator", "escrow-identity.txt"));
    const ran = await w.run(["doctor", "--json"]);
    expect(ran.code).toBe(5);
    expect(jsonLines(ran.stdout)).toHaveLength(1);
    const checks = lastJson(ran.stdout)["checks"] as {
      id: string;
      status: string;
      message: string;
      fix: string | null;
    }[];
    const failed = checks.filter((c) => c.status === "fail");
    expect(failed.map((c) => c.id).some((id) => id.startsWith("store."))).toBe(true);
    expect(failed.map((c) => c.id)).toEqual(expect.arrayContaining(["escrow", "imkit.control"]));
    for (const c of failed)
      expect({ id: c.id, fix: c.fix }).toEqual({ id: c.id, fix: expect.stringMatching(/\S/) });
    const words = await w.run(["doctor"]);
    expect(words.code).toBe(5);
    expect(words.stdout).toContain("escrow-identity.txt is missing");
    expect(words.stdout).toContain("Problems found.");
  });
});

describe.concurrent("doctor and old keys", () => {
  const oldKeys = async (w: World) => {
    const { code, stdout } = await w.run(["doctor", "demo", "--json"]);
    const checks = lastJson(stdout)["checks"] as { id: string }[];
    return { code, found: checks.filter((c) => c.id === "imkit.old-key") };
  };
  const fix = expect.stringContaining("imkit-rotator confirm-revoked demo");

  it("IMKIT gives no clear answer on one: a warning with what to do", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    await w.run(["rotate", "demo"]);
    expect(await oldKeys(w)).toEqual({ code: 0, found: [] });
    w.sandbox.fault({ kind: "html", key: 1, count: Number.POSITIVE_INFINITY });
    const { code, found } = await oldKeys(w);
    expect(code).toBe(0);
    const message = expect.stringMatching(
      /^IMKIT gives no clear answer on the old key [0-9a-f]{8}: HTTP 502.*may still work/,
    );
    expect(found).toMatchObject([{ status: "warn", message, fix }]);
    expect((await w.run(["doctor", "demo"])).stdout).toMatch(
      /! demo {2}IMKIT gives no clear answer on the old key/,
    );
  });

  it("none when it was last asked either: the same, with what IMKIT says now", async () => {
    const w = await world();
    const key = w.sandbox.issue();
    const over = w.sandbox.fault({ kind: "500", key: 2, count: Number.POSITIVE_INFINITY });
    await stage(w, key);
    await w.run(["stage", "demo", "--discard"]);
    over();
    const accepted = expect.stringMatching(/^IMKIT accepts the old key [0-9a-f]{8} \(discarded\)/);
    expect((await oldKeys(w)).found).toMatchObject([{ status: "warn", message: accepted, fix }]);
    w.sandbox.revoke(2);
    const rejected = expect.stringMatching(
      /^IMKIT rejects the old key [0-9a-f]{8} \(discarded\).*not proved/,
    );
    expect((await oldKeys(w)).found).toMatchObject([{ status: "warn", message: rejected, fix }]);
  });
});

describe.concurrent("doctor and a lost escrow", () => {
  it("names the key that the rotation needs and nobody holds", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    rmSync(join(w.ledgerDir, "..", "escrow"), { recursive: true });
    const ran = await w.run(["doctor", "--json"]);
    expect(ran.code).toBe(5);
    const checks = lastJson(ran.stdout)["checks"] as { id: string; status: string; fix: string | null }[];
    expect(checks.filter((c) => c.status === "fail")).toMatchObject([
      { id: "escrow.new-key", fix: "imkit-rotator stage demo" },
    ]);
  });
});

describe.concurrent("adopt and fingerprint", () => {
  it("adopts once, says what it found, and takes a choice by a fingerprint that it gave", async () => {
    const w = await world({ stores: ["one", "two"] });
    const second = w.sandbox.issue();
    w.setValue("two", second);
    const refused = await w.run(["adopt", "demo", "--json"]);
    expect(refused.code).toBe(4);
    const lines = lastJson(refused.stdout)["do"] as string[];
    expect(lines).toHaveLength(2);
    const { stdout } = await w.run(["fingerprint", "demo", "--json"], { stdin: second });
    const fp = String(lastJson(stdout)["fingerprint"]);
    expect(lines).toContain(`imkit-rotator adopt demo --current ${fp}`);
    const nobody = await w.run(["adopt", "demo", "--current", "00000000", "--json"]);
    expect(nobody.code).toBe(2);
    const adopted = await w.run(["adopt", "demo", "--current", fp, "--json"]);
    expect(adopted.code).toBe(0);
    expect(lastJson(adopted.stdout)).toMatchObject({
      app: "demo",
      current: fp,
      old: [expect.any(String)],
      stale: [],
    });
    expect((await w.run(["adopt", "demo"])).code).toBe(0);
    expect([w.value("one"), w.value("two")]).toEqual([w.sandbox.firstKey(), second]);
  });

  it("one accepted and one rejected value: no question, the rejected one is stale and overwritten", async () => {
    const w = await world({ stores: ["one", "two"] });
    w.setValue("two", madeKey());
    const adopted = await w.run(["adopt", "demo", "--json"]);
    expect(adopted.code).toBe(0);
    expect(lastJson(adopted.stdout)).toMatchObject({
      current: expect.any(String),
      old: [],
      stale: [expect.any(String)],
    });
  });

  it("IMKIT gives no answer: nothing is adopted where it would be a guess, exit 1", async () => {
    const w = await world({ stores: ["one", "two"] });
    w.setValue("two", madeKey());
    w.sandbox.fault({ kind: "500", count: Number.POSITIVE_INFINITY });
    const ran = await w.run(["adopt", "demo", "--json"]);
    expect(ran.code).toBe(1);
    expect(lastJson(ran.stdout)).toMatchObject({ code: "ADOPTION_UNCLEAR" });
    expect(w.events().some((e) => e["type"] === "adopted")).toBe(false);
  });

  it("fingerprint needs a ledger, and a key on stdin", async () => {
    const w = await world();
    const none = await w.run(["fingerprint", "demo", "--json"], { stdin: w.sandbox.firstKey() });
    expect(none.code).toBe(2);
    expect(lastJson(none.stdout)).toMatchObject({ do: ["imkit-rotator adopt demo"] });
    await w.run(["adopt", "demo"]);
    const ran = await w.run(["fingerprint"], { stdin: w.sandbox.firstKey() });
    expect(ran.code).toBe(0);
    expect(ran.stdout).toMatch(/^[0-9a-f]{8}\n$/);
    expect((await status(w)).fingerprint).toBe(ran.stdout.trim());
  });
});
