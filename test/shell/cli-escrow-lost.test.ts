import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { jsonLines, lastJson, makeWorld, type World, type WorldOptions } from "../kit/world.ts";

/** The tests of a file run side by side, each in a world of its own. */
const worlds: World[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));
const world = async (options?: WorldOptions): Promise<World> => {
  const made = await makeWorld(options);
  worlds.push(made);
  return made;
};
type Json = Record<string, unknown>;
const stage = (w: World, key: string, ...more: string[]) =>
  w.run(["stage", "demo", "--from-stdin", "--json", ...more], { stdin: key });
const json = async (w: World, args: readonly string[], stdin = "") => {
  const { code, stdout } = await w.run([...args, "--json"], { stdin });
  return { code, end: lastJson(stdout), answer: jsonLines(stdout)[0] ?? {} };
};
const paste = (w: World, line: unknown, stdin = "") => json(w, String(line).split(" ").slice(1), stdin);
const doctor = async (w: World): Promise<Json[]> =>
  ((await json(w, ["doctor", "demo"])).answer["checks"] as Json[]).filter((c) =>
    String(c["id"]).startsWith("escrow"),
  );
const fpOf = async (w: World, key: string): Promise<string> =>
  (await w.run(["fingerprint", "demo"], { stdin: key })).stdout.trim();
const escrowDir = (w: World): string => join(w.ledgerDir, "..", "escrow");
const identity = (w: World): string => join(w.dir, "home", ".config", "imkit-rotator", "escrow-identity.txt");
const staged = async (w: World): Promise<string> => {
  const key = w.sandbox.issue();
  expect((await stage(w, key)).code).toBe(0);
  return key;
};
const toGate = async (w: World): Promise<string> => {
  const key = await staged(w);
  expect((await w.run(["rotate", "demo"])).code).toBe(3);
  return key;
};

describe.concurrent("escrow is lost", { timeout: 90_000 }, () => {
  it("at the gate rotate names the old key that nobody can prove dead, with the ways that are left", async () => {
    const w = await world();
    await toGate(w);
    rmSync(escrowDir(w), { recursive: true });
    const old = await fpOf(w, w.sandbox.firstKey());
    const { code, end } = await json(w, ["rotate", "demo"]);
    expect(code).toBe(3);
    const next = end["next"] as { readonly text: string; readonly command: string | null }[];
    expect(next[0]?.text).toContain("revoke the API Key");
    expect(next[1]?.text).toContain(`Nobody here has the old key ${old}`);
    expect(next.map(({ command }) => command)).toEqual([
      null,
      "imkit-rotator confirm-revoked demo --key-from-stdin",
      'imkit-rotator confirm-revoked demo --waive --reason "revoked in the Dashboard"',
    ]);
    const waiting = await w.run(["rotate", "demo", "--wait=60s"], {
      signalAfter: { text: /--waive/, signal: "SIGTERM" },
    });
    expect(waiting.stderr).toContain("--key-from-stdin");
    expect(waiting.stderr).not.toContain("proves it by itself");
    w.sandbox.revoke(1);
    expect((await paste(w, next[1]?.command, w.sandbox.firstKey())).code).toBe(0);
  });

  it("after the stores were written: the new key is read back from one, the old key is given once more", async () => {
    const w = await world({ stores: ["one", "two"] });
    const key = await toGate(w);
    rmSync(escrowDir(w), { recursive: true });
    const old = await fpOf(w, w.sandbox.firstKey());
    const found = await doctor(w);
    expect(found.filter((c) => c["status"] === "fail")).toMatchObject([
      { id: "escrow.old-key", message: expect.stringContaining(old) },
    ]);
    w.sandbox.revoke(1);
    expect((await json(w, ["confirm-revoked", "demo"])).code).toBe(1);
    const fix = found.find((c) => c["status"] === "fail")?.["fix"];
    expect((await paste(w, fix, w.sandbox.issue())).code).toBe(2);
    const proved = await paste(w, fix, w.sandbox.firstKey());
    expect(proved).toMatchObject({ code: 0, answer: { verdict: "rejected" } });
    expect([w.value("one"), w.value("two")]).toEqual([key, key]);
    expect(w.escrow()).toEqual([]);
  });

  it("half-way: what one store holds is enough to write the others", async () => {
    const w = await world({ stores: ["one", "two"] });
    const key = await staged(w);
    const two = readFileSync(join(w.dir, "two.env"));
    rmSync(join(w.dir, "two.env"));
    expect((await w.run(["rotate", "demo"])).code).toBe(1);
    writeFileSync(join(w.dir, "two.env"), two, { mode: 0o600 });
    // Somebody put it into one of them by hand, and then the disk with the state folder lost escrow.
    w.setValue("one", key);
    rmSync(escrowDir(w), { recursive: true });
    expect((await w.run(["rotate", "demo"])).code).toBe(3);
    expect(w.value("two")).toBe(key);
  });

  it("before the first write: nobody holds the new key; given once more it goes on, and so does another one", async () => {
    for (const way of ["same", "other"]) {
      const w = await world();
      const key = await staged(w);
      rmSync(escrowDir(w), { recursive: true });
      const stopped = await json(w, ["rotate", "demo"]);
      expect(stopped).toMatchObject({ code: 1, end: { code: "ESCROW_LOST" } });
      expect(w.value()).toBe(w.sandbox.firstKey());
      const [fix] = (await doctor(w)).filter((c) => c["id"] === "escrow.new-key");
      expect(fix?.["fix"]).toBe("imkit-rotator stage demo");
      const again = way === "same" ? key : w.sandbox.issue();
      expect((await stage(w, again, ...(way === "same" ? [] : ["--replace"]))).code).toBe(0);
      expect((await w.run(["rotate", "demo"])).code).toBe(3);
      expect(w.value()).toBe(again);
    }
  });
});

describe.concurrent("the identity is lost", { timeout: 90_000 }, () => {
  it("no other one is made over keys that it sealed; what is said works, and each key has its way back", async () => {
    const w = await world();
    const key = await toGate(w);
    rmSync(identity(w));
    const [old, fresh] = [await fpOf(w, w.sandbox.firstKey()), await fpOf(w, key)];
    const found = await doctor(w);
    expect(found.map((c) => [c["id"], c["status"]])).toEqual(
      expect.arrayContaining([
        ["escrow", "fail"],
        ["escrow.new-key", "warn"],
        ["escrow.old-key", "fail"],
      ]),
    );
    const messageOf = (id: string): unknown => found.find((c) => c["id"] === id)?.["message"];
    expect(messageOf("escrow.new-key")).toContain(fresh);
    expect(messageOf("escrow.old-key")).toContain(old);
    w.sandbox.revoke(1);
    expect((await json(w, ["confirm-revoked", "demo"])).code).toBe(1);
    const fix = found.find((c) => c["id"] === "escrow.old-key")?.["fix"];
    const refused = await paste(w, fix, w.sandbox.firstKey());
    expect(refused).toMatchObject({ code: 1, end: { code: "ESCROW_FAILED" } });
    expect(refused.end["why"]).toContain(escrowDir(w));
    expect(existsSync(identity(w))).toBe(false);
    const lines = refused.end["do"] as string[];
    const [mv = ""] = lines.filter((line) => line.startsWith("mv "));
    execFileSync("sh", ["-c", mv]);
    expect(readdirSync(`${escrowDir(w)}.lost`)).toHaveLength(2);
    expect(await paste(w, fix, w.sandbox.firstKey())).toMatchObject({
      code: 0,
      answer: { verdict: "rejected" },
    });
    expect(w.value()).toBe(key);
  });

  it("put back, all is as it was", async () => {
    const w = await world();
    const key = await staged(w);
    renameSync(identity(w), `${identity(w)}.away`);
    const stopped = await json(w, ["rotate", "demo"]);
    expect(stopped).toMatchObject({ code: 1, end: { code: "ESCROW_FAILED" } });
    expect(stopped.end["state"]).toBe("The stores hold what they held; the keys in escrow stay closed.");
    expect((stopped.end["do"] as string[])[0]).toBe(`Put ${identity(w)} back from a backup.`);
    expect((await stage(w, w.sandbox.issue(), "--replace")).code).toBe(1);
    expect(existsSync(identity(w))).toBe(false);
    renameSync(`${identity(w)}.away`, identity(w));
    expect((await w.run(["rotate", "demo"])).code).toBe(3);
    expect(w.value()).toBe(key);
  });

  it("keys of another app under the same identity count too", async () => {
    const w = await world({
      more: `  other:
    baseUrl: http://127.0.0.1:9
    stores: [{ name: env, type: dotenv, path: ./other.env, key: IMKIT_API_KEY }]
`,
    });
    await staged(w);
    rmSync(identity(w));
    writeFileSync(join(w.dir, "other.env"), "IMKIT_API_KEY=\n");
    const { code, stdout } = await w.run(["stage", "other", "--from-stdin", "--json"], {
      stdin: w.sandbox.issue(),
    });
    expect(code).toBe(1);
    expect(lastJson(stdout)).toMatchObject({ code: "ESCROW_FAILED" });
    expect(existsSync(identity(w))).toBe(false);
  });

  it("another identity in its place: a key that is given once more takes the place of the one that stays closed", async () => {
    const w = await world();
    const key = await staged(w);
    const other = await world();
    await staged(other);
    writeFileSync(identity(w), readFileSync(identity(other)), { mode: 0o600 });
    expect((await doctor(w)).filter((c) => c["id"] === "escrow.new-key")).toMatchObject([
      { status: "fail", fix: "imkit-rotator stage demo" },
    ]);
    expect((await stage(w, key)).code).toBe(0);
    expect((await w.run(["rotate", "demo"])).code).toBe(3);
    expect(w.value()).toBe(key);
  });
});
