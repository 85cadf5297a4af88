import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { madeKey } from "../kit/leak.ts";
import type { Ran } from "../kit/program.ts";
import { jsonLines, lastJson, makeWorld, type World, type WorldOptions } from "../kit/world.ts";

/** The tests of a file run side by side, each in a world of its own. */
const worlds: World[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));

/** A world in which the new key is written everywhere. */
const rotated = async (options?: WorldOptions): Promise<World> => {
  const w = await makeWorld(options);
  worlds.push(w);
  expect((await w.run(["stage", "demo", "--from-stdin"], { stdin: w.sandbox.issue() })).code).toBe(0);
  expect((await w.run(["rotate", "demo"])).code).toBe(3);
  return w;
};
const confirm = (w: World, ...flags: string[]): Promise<Ran> =>
  w.run(["confirm-revoked", "demo", "--json", ...flags]);
/** The answer, which is the only line of one that did not fail. */
const answerOf = ({ stdout }: Ran): Record<string, unknown> => {
  expect(jsonLines(stdout)).toHaveLength(1);
  return lastJson(stdout);
};

describe.concurrent("confirm-revoked --json", () => {
  it("still accepted 3, then dead 0 and closed, then nothing to confirm 0 with the recorded proof", async () => {
    const w = await rotated();
    const alive = await confirm(w);
    expect(alive.code).toBe(3);
    expect(answerOf(alive)).toMatchObject({
      app: "demo",
      verdict: "accepted",
      proofs: [{ fingerprint: expect.stringMatching(/^[0-9a-f]{8}$/), verdict: "accepted" }],
      next: [{ who: "you", command: null }, { command: "imkit-rotator confirm-revoked demo" }],
      exitCode: 3,
    });
    w.sandbox.revoke(1);
    const dead = await confirm(w);
    expect(dead.code).toBe(0);
    expect(answerOf(dead)).toMatchObject({
      verdict: "rejected",
      proofs: [{ verdict: "rejected", kind: "proved" }],
      next: [],
      exitCode: 0,
    });
    const proof = w.events().find((e) => e["type"] === "proof");
    expect(proof).toMatchObject({ control: true });
    expect(proof?.["triads"]).toHaveLength(3);
    expect(w.events().some((e) => e["type"] === "done")).toBe(true);
    expect(w.escrow()).toEqual([]);
    const again = await confirm(w);
    expect(again.code).toBe(0);
    expect(answerOf(again)).toMatchObject({ verdict: null, proofs: [{ kind: "proved" }], exitCode: 0 });
  });

  it("on an app that nothing was ever done for: nothing to confirm, and no ledger is begun", async () => {
    const w = await makeWorld();
    worlds.push(w);
    const ran = await confirm(w);
    expect(ran.code).toBe(0);
    expect(answerOf(ran)).toMatchObject({ verdict: null, proofs: [], next: [], exitCode: 0 });
    expect(w.ledgerFiles()).toEqual([]);
  });

  it("a restart is missing: rejected, exit 3, and next is to say that it was done", async () => {
    const w = await rotated({ rollouts: null });
    w.sandbox.revoke(1);
    const ran = await confirm(w);
    expect(ran.code).toBe(3);
    const answer = answerOf(ran);
    expect(answer).toMatchObject({ verdict: "rejected", exitCode: 3 });
    expect(JSON.stringify(answer["next"])).toContain("imkit-rotator rotate demo --restarted");
    const ended = await w.run(["rotate", "demo", "--restarted", "--json"]);
    expect(ended.code).toBe(0);
    expect(lastJson(ended.stdout)).toMatchObject({ status: "done" });
  });

  it("an old key that is not clearly rejected is no proof: exit 1, the answer first, the error last", async () => {
    const w = await rotated();
    const kinds = ["html", "down", "403", "500", "missing", "odd-401", "contradiction", "truncated"] as const;
    for (const kind of kinds) {
      const over = w.sandbox.fault({ kind, key: 1, count: Number.POSITIVE_INFINITY });
      const { code, stdout } = await confirm(w);
      over();
      expect({ kind, code, lines: jsonLines(stdout) }).toMatchObject({
        code: 1,
        lines: [
          { app: "demo", verdict: "unclear", exitCode: 1 },
          { type: "error", code: "IMKIT_UNCLEAR", exitCode: 1, why: expect.stringContaining("the old key") },
        ],
      });
    }
    expect(w.events().some((e) => e["type"] === "proof")).toBe(false);
  });

  it("429: exit 1, with the time in next", async () => {
    const w = await rotated();
    w.sandbox.fault({ kind: "429", count: Number.POSITIVE_INFINITY, retryAfter: 120 });
    const ran = await confirm(w);
    expect(ran.code).toBe(1);
    expect(JSON.stringify(jsonLines(ran.stdout)[0]?.["next"])).toMatch(
      /wait until \d\d:\d\d, 1[12]\d s from now/,
    );
  });

  it("a base URL that rejects every key proves nothing either", async () => {
    const w = await rotated();
    w.sandbox.fault({ kind: "reject-all", count: Number.POSITIVE_INFINITY });
    const ran = await confirm(w);
    expect(ran.code).toBe(1);
    expect(w.events().some((e) => e["type"] === "proof")).toBe(false);
  });

  it("--waive is refused (3) while the key is accepted; of one that cannot be asked it is recorded as attested", async () => {
    const w = await rotated();
    const refused = await confirm(w, "--waive", "--reason", "we think it is dead");
    expect(refused.code).toBe(3);
    expect(answerOf(refused)).toMatchObject({ verdict: "accepted", exitCode: 3 });
    expect(refused.stderr).toContain("cannot be waived");
    expect(w.events().some((e) => e["type"] === "waived")).toBe(false);
    w.sandbox.fault({ kind: "403", key: 1, count: Number.POSITIVE_INFINITY });
    const waived = await confirm(w, "--waive", "--reason", "the old host is gone");
    expect(waived.code).toBe(0);
    expect(answerOf(waived)).toMatchObject({ proofs: [{ kind: "attested" }], exitCode: 0 });
    expect(w.events().find((e) => e["type"] === "waived")).toMatchObject({ reason: "the old host is gone" });
    expect(w.events().some((e) => e["type"] === "proof")).toBe(false);
    const status = await w.run(["status", "--json"]);
    expect(lastJson(status.stdout)).toMatchObject({
      apps: [{ state: "idle", oldKeys: [{ state: "attested" }] }],
    });
    expect((await w.run(["status"])).stdout).toContain("attested by a person, not proved");
    expect((await w.run(["confirm-revoked", "demo"])).stdout).toContain("attested by a person, not proved");
  });

  it("a rotation that ends on a waiver says so in its last line", async () => {
    const w = await rotated({ rollouts: null });
    w.sandbox.fault({ kind: "403", key: 1, count: Number.POSITIVE_INFINITY });
    expect((await confirm(w, "--waive", "--reason", "the old host is gone")).code).toBe(3);
    const ran = await w.run(["rotate", "demo", "--restarted"]);
    expect(ran.code).toBe(0);
    expect(ran.stdout).toMatch(/^Done: [^]*attested by a person, NOT proved: [0-9a-f]{8}/);
    expect(ran.stdout).not.toContain("proved dead");
  });

  it("--key-from-stdin: for an old key that escrow has lost; another key is refused (2) and not stored", async () => {
    const w = await rotated();
    const old = w.sandbox.firstKey();
    w.sandbox.revoke(1);
    const folder = join(w.dir, "state", "demo", "escrow");
    const [opened] = w.events().filter((e) => e["type"] === "opened");
    rmSync(join(folder, `${String(opened?.["current"])}.age`));
    const lost = await confirm(w);
    expect(lost.code).toBe(1);
    const before = readdirSync(folder);
    const other = await w.run(["confirm-revoked", "demo", "--json", "--key-from-stdin"], {
      stdin: madeKey(),
    });
    expect(other.code).toBe(2);
    expect(lastJson(other.stdout)).toMatchObject({ type: "error", code: "USAGE" });
    expect(readdirSync(folder)).toEqual(before);
    const given = await w.run(["confirm-revoked", "demo", "--json", "--key-from-stdin"], {
      stdin: `${old}\n`,
    });
    expect(given.code).toBe(0);
    expect(answerOf(given)).toMatchObject({ verdict: "rejected", exitCode: 0 });
  });

  it("the new key revoked instead: 4, rollback", async () => {
    const w = await rotated();
    w.sandbox.revoke(2);
    await w.run(["rotate", "demo"]);
    const ran = await confirm(w);
    expect(ran.code).toBe(4);
    expect(jsonLines(ran.stdout)).toMatchObject([
      { exitCode: 4 },
      { type: "error", code: "WRONG_KEY_REVOKED", exitCode: 4 },
    ]);
  });
});

describe.concurrent("--wait", () => {
  const waits: readonly (readonly [string, readonly string[]])[] = [
    ["confirm-revoked", ["confirm-revoked", "demo", "--wait=1m"]],
    ["rotate", ["rotate", "demo", "--wait"]],
  ];
  it.each(waits)("%s goes on by itself when the person has revoked", async (_, args) => {
    const w = await makeWorld();
    try {
      await w.run(["stage", "demo", "--from-stdin"], { stdin: w.sandbox.issue() });
      await w.run(["rotate", "demo"]);
      const revoke = setTimeout(() => w.sandbox.revoke(1), 1_000);
      const ran = await w.run([...args, "--json"]);
      clearTimeout(revoke);
      expect(ran.code).toBe(0);
      const last = lastJson(ran.stdout);
      expect(last["exitCode"]).toBe(0);
    } finally {
      await w.close();
    }
  });

  it("rotate waits for the key too, when one is due", async () => {
    const w = await makeWorld({ app: "    rotateEvery: 0d" });
    try {
      await w.run(["adopt", "demo"]);
      const waiting = w.run(["rotate", "demo", "--wait=1m", "--json"], {
        onOutput: (text) => {
          if (!text.includes("waiting-key") || given) return;
          given = true;
          void w
            .run(["stage", "demo", "--from-stdin"], { stdin: w.sandbox.issue() })
            .then(() => w.sandbox.revoke(1));
        },
      });
      let given = false;
      const ran = await waiting;
      expect(ran.code).toBe(0);
      expect(lastJson(ran.stdout)).toMatchObject({ type: "result", status: "done" });
    } finally {
      await w.close();
    }
  });

  it("--wait=0s is no wait", async () => {
    const w = await makeWorld();
    try {
      await w.run(["stage", "demo", "--from-stdin"], { stdin: w.sandbox.issue() });
      const rotate = await w.run(["rotate", "demo", "--wait=0s"]);
      const proof = await w.run(["confirm-revoked", "--wait", "0m", "demo"]);
      expect([rotate.code, proof.code]).toEqual([3, 3]);
    } finally {
      await w.close();
    }
  });
});

describe.concurrent("interrupted while it waits", () => {
  const cases = [
    { args: ["rotate", "demo", "--wait=1m"], signal: "SIGINT", exit: 130 },
    { args: ["rotate", "demo", "--wait=1m"], signal: "SIGTERM", exit: 143 },
    { args: ["confirm-revoked", "demo", "--wait=1m"], signal: "SIGTERM", exit: 143 },
  ] as const;
  it.each(cases)(
    "$args.0 by $signal: exit $exit, and the same command goes on",
    async ({ args, signal, exit }) => {
      const w = await rotated();
      const text = args[0] === "rotate" ? /Your turn/ : /: released/;
      const ran = await w.run([...args, "--json", "-v"], { signalAfter: { text, signal } });
      expect(ran).toMatchObject({ code: exit, signal: null });
      expect(ran.stderr).toContain("Nothing is lost");
      expect(lastJson(ran.stdout)["exitCode"]).toBe(exit);
      w.sandbox.revoke(1);
      expect((await w.run([args[0], "demo"])).code).toBe(0);
    },
  );

  it("reading the key: exit 130, nothing stored", async () => {
    const w = await makeWorld();
    worlds.push(w);
    const { spawn } = await import("node:child_process");
    const { cleanEnv, programFile } = await import("../kit/program.ts");
    const child = spawn(process.execPath, [await programFile(), "stage", "demo", "--from-stdin"], {
      cwd: w.dir,
      env: cleanEnv(w.dir),
      stdio: ["pipe", "ignore", "ignore"],
    });
    const ended = new Promise((resolve) => child.on("close", resolve));
    child.stdin.write("half a key");
    const timer = setInterval(() => child.kill("SIGINT"), 400);
    expect(await ended).toBe(130);
    clearInterval(timer);
    expect(w.ledgerFiles()).toEqual([]);
  });
});
