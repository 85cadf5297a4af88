import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
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
const stage = (w: World, key: string, ...flags: string[]): Promise<Ran> =>
  w.run(["stage", "demo", "--from-stdin", "--json", ...flags], { stdin: key });
const base64 = (bytes: string | Uint8Array): string => Buffer.from(bytes as string).toString("base64");

describe.concurrent("stage, by verdict", () => {
  it("accepted: exit 0, one answer with the exact fields, the key in escrow, a ledger of 16-digit fingerprints", async () => {
    const w = await world();
    const key = w.sandbox.issue();
    const { code, stdout, stderr } = await stage(w, `  ${key}\n`);
    expect(code).toBe(0);
    expect(stderr).toContain("White space around the key was removed.");
    expect(jsonLines(stdout)).toHaveLength(1);
    const answer = lastJson(stdout);
    expect(answer).toMatchObject({
      app: "demo",
      fingerprint: expect.stringMatching(/^[0-9a-f]{8}$/),
      verdict: "accepted",
      durable: true,
      mode: "overlap",
      sameApp: "proved",
      next: [{ who: "tool", text: expect.any(String), command: "imkit-rotator rotate demo" }],
    });
    const [blob = ""] = w.escrow();
    expect(blob).toMatch(/^[0-9a-f]{16}\.age$/);
    expect(blob.startsWith(String(answer["fingerprint"]))).toBe(true);
    expect(w.events().find((e) => e["type"] === "staged")).toMatchObject({
      fp: blob.slice(0, 16),
      verdict: "accepted",
      source: "stdin",
    });
    expect(w.value()).toBe(w.sandbox.firstKey());
  });

  it("unclear: exit 1, durable; rejected: exit 4, durable; the key is kept in both", async () => {
    const [down, wrong] = await Promise.all([world(), world()]);
    down.sandbox.fault({ kind: "html", count: Number.POSITIVE_INFINITY });
    const [unclear, rejected] = await Promise.all([
      stage(down, down.sandbox.issue()),
      stage(wrong, madeKey()),
    ]);
    expect(unclear.code).toBe(1);
    expect(jsonLines(unclear.stdout)).toMatchObject([
      { app: "demo", verdict: "unclear", durable: true, mode: null },
      {
        type: "error",
        code: "IMKIT_UNCLEAR",
        exitCode: 1,
        what: expect.any(String),
        undo: [expect.any(String)],
      },
    ]);
    expect(rejected.code).toBe(4);
    expect(jsonLines(rejected.stdout)).toMatchObject([
      { app: "demo", verdict: "rejected", durable: true },
      { type: "error", code: "KEY_REJECTED", exitCode: 4 },
    ]);
    expect([down.escrow().length, wrong.escrow().length]).toEqual([1, 1]);
    expect(rejected.stderr).toMatch(/State +The key [0-9a-f]{8} is saved in escrow/);
    const again = await wrong.run(["rotate", "demo", "--json"]);
    expect(jsonLines(again.stdout).at(-1)).toMatchObject({
      code: "KEY_REJECTED",
      why: expect.stringMatching(/\S/) as string,
    });
    const dropped = await wrong.run(["stage", "demo", "--discard", "--forget"]);
    expect(dropped.stdout).toMatch(/^Discarded [0-9a-f]{8}\. IMKIT rejected it when it was last asked\.$/m);
  });

  it("a base URL that accepts a made-up key too proves nothing: unclear", async () => {
    const w = await world();
    w.sandbox.fault({ kind: "accept-all", count: Number.POSITIVE_INFINITY });
    const { code, stdout } = await stage(w, w.sandbox.issue());
    expect(code).toBe(1);
    expect(jsonLines(stdout)[0]).toMatchObject({ verdict: "unclear", durable: true });
  });

  it("a key of another app: exit 4, kept, and the way out is told", async () => {
    const [w, other] = await Promise.all([world(), world()]);
    const key = other.sandbox.issue();
    // As after a slip in the config: the base URL is another app's now.
    await w.run(["adopt", "demo"]);
    writeFileSync(w.configFile, readFileSync(w.configFile, "utf8").replace(w.sandbox.url, other.sandbox.url));
    const { code, stdout } = await stage(w, key);
    expect(code).toBe(4);
    const [answer, error] = jsonLines(stdout);
    expect(answer).toMatchObject({ verdict: "accepted", durable: true, sameApp: "different" });
    expect(error).toMatchObject({ code: "WRONG_APP", exitCode: 4 });
    expect(JSON.stringify(answer)).toMatch(/--accept-app [0-9a-f]{8}/);
    expect(w.escrow()).toHaveLength(1);
    const dropped = await w.run(["stage", "demo", "--discard", "--forget", "--json"]);
    expect(dropped.code).toBe(0);
    expect(w.escrow()).toEqual([]);
  });

  it("replace mode (the old key died): says that services are failing now", async () => {
    const w = await world({ sandbox: { mode: "replace" } });
    const { code, stdout, stderr } = await stage(w, w.sandbox.issue());
    expect(code).toBe(0);
    expect(lastJson(stdout)).toMatchObject({ mode: "replace" });
    expect(stderr).toContain("services are failing NOW");
  });

  it("first mode: no store holds a key", async () => {
    const w = await world({ holds: { env: null } });
    const { code, stdout } = await stage(w, w.sandbox.issue());
    expect(code).toBe(0);
    expect(lastJson(stdout)).toMatchObject({ mode: "first", verdict: "accepted" });
  });

  it("never fails because of adoption: two live keys in the stores are a person's choice later", async () => {
    const w = await world({ stores: ["one", "two"] });
    w.setValue("two", w.sandbox.issue());
    const staged = await stage(w, w.sandbox.issue());
    expect(staged.code).toBe(0);
    expect(staged.stderr).toContain("not adopted yet");
    const refused = await w.run(["rotate", "demo", "--json"]);
    expect(refused.code).toBe(4);
    const [result, error] = jsonLines(refused.stdout).slice(-2);
    expect(result).toMatchObject({ type: "result", status: "refused", exitCode: 4 });
    expect(JSON.stringify(result?.["next"])).toMatch(/imkit-rotator adopt demo --current [0-9a-f]{8}"/);
    expect(error).toMatchObject({ type: "error", code: "ADOPTION_REFUSED" });
    const line = /imkit-rotator (adopt demo --current [0-9a-f]{8})/.exec(refused.stdout)?.[1] ?? "";
    expect((await w.run(line.split(" "))).code).toBe(0);
  });
});

describe.concurrent("stage refuses what is no new API Key: exit 2, nothing stored", () => {
  const published = base64(
    base64(Buffer.from("db66296070da4252109434af54b08b2e8d8c3f315f566f63629c70dafb81ae69", "hex")),
  );
  const key = madeKey();
  const half = Math.floor(key.length / 2);
  const jwt = [{ alg: "HS256" }, { apiKey: "x", clientId: "y" }].map((p) =>
    base64(JSON.stringify(p)).replace(/=+$/, ""),
  );
  const cases: readonly (readonly [string, string])[] = [
    ["empty", ""],
    ["white space alone", " \n\t\n"],
    ["NAME=value", `IMKIT_API_KEY=${key}`],
    ["export NAME=value", `export IMKIT_API_KEY="${key}"`],
    ["a header", `IM-API-KEY: ${key}`],
    ["inner white space", `${key.slice(0, half)} ${key.slice(half)}`],
    ["two lines", `${key.slice(0, half)}\n${key.slice(half)}`],
    ["a byte outside Base64", `${key.slice(0, -2)}!=`],
    ["a no-break space at the end", `${key}\u00a0`],
    ["under 16 bytes", base64("fifteen bytes..").slice(0, 20)],
    ["a JWT, as the Client Key is", `${jwt.join(".")}.c2lnbmF0dXJl`],
    ["pasted twice", key + key],
    ["the published sample", published],
    ["over 64 KiB", "A".repeat(70_000)],
  ];
  it("whatever it is", async () => {
    const w = await world();
    for (const some of [cases.slice(0, 7), cases.slice(7)]) {
      const refused = await Promise.all(some.map(([, text]) => stage(w, text)));
      for (const [i, { code, stdout, stderr }] of refused.entries()) {
        const [name, text] = some[i] ?? ["", ""];
        const answers = jsonLines(stdout);
        expect({ name, code, answers }).toMatchObject({
          code: 2,
          answers: [{ type: "error", code: "KEY_MALFORMED", exitCode: 2 }],
        });
        expect(`${stdout}${stderr}`).not.toContain(text.slice(20, 32).padEnd(12, "\0"));
      }
    }
    expect(w.escrow()).toEqual([]);
    expect(w.ledgerFiles()).toEqual([]);
  });

  it("the current key, on a fresh ledger and on an adopted one", async () => {
    const w = await world();
    for (let i = 0; i < 2; i++) {
      const { code, stdout } = await stage(w, w.sandbox.firstKey());
      expect(code).toBe(2);
      expect(lastJson(stdout)).toMatchObject({ type: "error", code: "KEY_DEAD", exitCode: 2 });
      expect(w.escrow()).toEqual([]);
    }
    expect(w.events().filter((e) => e["type"] === "staged")).toEqual([]);
  });

  it("a key that this ledger saw die", async () => {
    const w = await world();
    const old = w.sandbox.firstKey();
    await stage(w, w.sandbox.issue());
    expect((await w.run(["rotate", "demo"])).code).toBe(3);
    w.sandbox.revoke(1);
    expect((await w.run(["rotate", "demo"])).code).toBe(0);
    const { code, stdout } = await stage(w, old);
    expect(code).toBe(2);
    expect(lastJson(stdout)).toMatchObject({ code: "KEY_DEAD" });
    expect(w.escrow()).toEqual([]);
  });

  it("a length that is not the sample's is a warning only", async () => {
    const w = await world();
    const { code, stderr } = await stage(w, base64(new Uint8Array(40).map((_, i) => i * 7 + 3)));
    expect(code).toBe(4);
    expect(stderr).toMatch(/56 characters long/);
  });
});

describe.concurrent("stage, a second time", () => {
  it("same key 0, other key 4 and not stored, --replace takes it and the first joins the old set", async () => {
    const w = await world();
    const [first, second] = [w.sandbox.issue(), w.sandbox.issue()];
    expect((await stage(w, first)).code).toBe(0);
    const before = w.ledgerFiles().length;
    const again = await stage(w, first);
    expect(again.code).toBe(0);
    expect(lastJson(again.stdout)).toMatchObject({ verdict: "accepted", durable: true });
    expect(w.ledgerFiles()).toHaveLength(before);
    const other = await stage(w, second);
    expect(other.code).toBe(4);
    expect(jsonLines(other.stdout)).toMatchObject([
      { type: "error", code: "KEY_STAGED_ALREADY", exitCode: 4 },
    ]);
    expect(w.escrow()).toHaveLength(1);
    const replaced = await stage(w, second, "--replace");
    expect(replaced.code).toBe(0);
    expect(w.escrow()).toHaveLength(2);
    const rotated = await w.run(["rotate", "demo", "--json"]);
    expect(rotated.code).toBe(3);
    expect(lastJson(rotated.stdout)["oldFingerprints"]).toHaveLength(2);
    expect(w.value()).toBe(second);
  });

  it("--discard: kept, waits for its revocation (exit 3), and is proved dead by confirm-revoked", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    const gone = await w.run(["stage", "demo", "--discard", "--json"]);
    expect(gone.code).toBe(3);
    expect(lastJson(gone.stdout)).toMatchObject({ app: "demo", discarded: true, forgotten: false });
    expect(w.escrow()).toHaveLength(1);
    const [status, rotated] = await Promise.all([
      w.run(["status", "--json"]),
      w.run(["rotate", "demo", "--json"]),
    ]);
    expect(lastJson(status.stdout)).toMatchObject({ apps: [{ state: "waiting-revoke" }] });
    expect(rotated.code).toBe(3);
    expect(lastJson(rotated.stdout)).toMatchObject({ type: "result", status: "waiting", exitCode: 3 });
    expect((await w.run(["confirm-revoked", "demo"])).code).toBe(3);
    w.sandbox.revoke(2);
    const dead = await w.run(["confirm-revoked", "demo", "--json"]);
    expect(dead.code).toBe(0);
    expect(lastJson(dead.stdout)).toMatchObject({ verdict: "rejected", exitCode: 0 });
    expect(w.escrow()).toEqual([]);
    expect((await w.run(["rotate", "demo"])).code).toBe(0);
    expect(w.value()).toBe(w.sandbox.firstKey());
  });

  it("--discard --forget: gone at once, status says so, nothing waits for it", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    const gone = await w.run(["stage", "demo", "--discard", "--forget", "--json"]);
    expect(gone.code).toBe(0);
    expect(lastJson(gone.stdout)).toMatchObject({ discarded: true, forgotten: true });
    expect(w.escrow()).toEqual([]);
    const { stdout } = await w.run(["status"]);
    expect(stdout).toMatch(/discarded [0-9a-f]{8}, still accepted/);
    expect((await w.run(["rotate", "demo"])).code).toBe(0);
    const nothing = await w.run(["stage", "demo", "--discard", "--json"]);
    expect(nothing.code).toBe(0);
    expect(lastJson(nothing.stdout)).toMatchObject({ fingerprint: null, discarded: false });
  });

  it("--discard after the first store write: exit 4, and rollback is named", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    await w.run(["rotate", "demo"]);
    const { code, stdout } = await w.run(["stage", "demo", "--discard", "--json"]);
    expect(code).toBe(4);
    expect(lastJson(stdout)).toMatchObject({ code: "TOO_LATE", undo: ["imkit-rotator rollback demo"] });
  });
});

describe.concurrent("where the key comes from", () => {
  it("a file, a pipe by its path, a variable", async () => {
    const w = await world();
    const key = w.sandbox.issue();
    writeFileSync(join(w.dir, "key.txt"), `${key}\n`);
    const ways = [
      { args: ["--from-file", "key.txt"] },
      { args: ["--from-env", "NEW_KEY"], env: { NEW_KEY: key } },
    ];
    for (const { args, env } of ways) {
      const { code } = await w.run(["stage", "demo", ...args], env === undefined ? {} : { env });
      expect(code).toBe(0);
    }
    const pipe = join(w.dir, "pipe");
    execFileSync("mkfifo", [pipe]);
    const [{ code }] = await Promise.all([
      w.run(["stage", "demo", "--from-file", pipe]),
      Promise.resolve().then(() =>
        execFileSync("sh", ["-c", `(cat key.txt > pipe) >/dev/null 2>&1 &`], { cwd: w.dir }),
      ),
    ]);
    expect(code).toBe(0);
    expect(w.events().filter((e) => e["type"] === "staged")).toHaveLength(1);
  });

  it("what cannot be read: exit 2, nothing stored", async () => {
    const w = await world();
    mkdirSync(join(w.dir, "folder"));
    const cases = [
      ["--from-file", "nope"],
      ["--from-file", "folder"],
      ["--from-env", "NOPE"],
    ];
    for (const args of cases) {
      const { code, stdout } = await w.run(["stage", "demo", "--json", ...args]);
      expect({ args, code }).toEqual({ args, code: 2 });
      expect(lastJson(stdout)).toMatchObject({ type: "error", code: "INPUT_MISSING" });
    }
    const none = await w.run(["stage", "demo", "--json"]);
    expect(none.code).toBe(2);
    expect(lastJson(none.stdout)).toMatchObject({ do: ["imkit-rotator stage demo --from-stdin < key.txt"] });
    const endless = await w.run(["stage", "demo", "--from-file", "/dev/zero", "--json"]);
    expect(endless.code).toBe(2);
    expect(w.escrow()).toEqual([]);
  });
});
