import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cleanEnv, programFile, type Ran } from "../kit/program.ts";
import { jsonLines, lastJson, makeWorld, type World } from "../kit/world.ts";

/** One app with a finished rotation, and folders beside it to spoil. */
let w: World;
beforeAll(async () => {
  w = await makeWorld();
  await w.run(["stage", "demo", "--from-stdin"], { stdin: w.sandbox.issue() });
  await w.run(["rotate", "demo"]);
  w.sandbox.revoke(1);
  if ((await w.run(["rotate", "demo"])).code !== 0) throw new Error("the rotation did not end");
});
afterAll(() => w.close());

const joined = (): Buffer =>
  Buffer.concat(w.ledgerFiles().map((name) => readFileSync(join(w.ledgerDir, name))));
const verify = (args: readonly string[], stdin: string | Uint8Array = "", cwd = w.dir): Promise<Ran> =>
  w.run(["audit", "verify", ...args, "--json"], { stdin, cwd });

describe("audit export and list", () => {
  it("export is the entry files joined, byte for byte, and verifies", async () => {
    const { code, stdout } = await w.run(["audit", "export", "demo"]);
    expect(code).toBe(0);
    expect(stdout).toBe(joined().toString("utf8"));
    for (const line of stdout.trimEnd().split("\n")) {
      const [, h, r = ""] = /^\{"h":"([0-9a-f]{64})","r":(.*)\}$/.exec(line) ?? [];
      expect(createHash("sha256").update(`imkit-rotator/ledger/v1\0${r}`).digest("hex")).toBe(h);
    }
    const checked = await verify(["-"], stdout, tmpdir());
    expect(checked.code).toBe(0);
    expect(lastJson(checked.stdout)).toMatchObject({ ok: true, entries: w.ledgerFiles().length });
  });

  it("list --json is one event a line, all of them, in order", async () => {
    const { code, stdout } = await w.run(["audit", "list", "--json"]);
    expect(code).toBe(0);
    const types = jsonLines(stdout).map((e) => e["type"]);
    expect(types).toEqual(w.events().map((e) => e["type"]));
    expect(types.slice(0, 3)).toEqual(["genesis", "adopted", "staged"]);
    expect(types).toContain("done");
    const words = await w.run(["audit", "list"]);
    expect(words.stdout.trimEnd().split("\n")).toHaveLength(types.length);
  });

  it("| head -1 ends without a word", async () => {
    const line = `"${process.execPath}" "${await programFile()}" audit list demo | head -n 1; echo "\${PIPESTATUS[0]}"`;
    const child = spawn("bash", ["-c", line], { cwd: w.dir, env: cleanEnv(w.dir) });
    let out = "";
    let err = "";
    child.stdout.on("data", (d: Buffer) => (out += d.toString()));
    child.stderr.on("data", (d: Buffer) => (err += d.toString()));
    await new Promise((resolve) => child.on("close", resolve));
    expect(err).toBe("");
    expect(out.split("\n")).toHaveLength(3);
    expect(out).toMatch(/genesis[^]*\n0\n$/);
  });

  it("of an app without a ledger: exit 2", async () => {
    const fresh = await makeWorld();
    for (const args of [
      ["audit", "list"],
      ["audit", "export"],
      ["audit", "verify"],
      ["audit", "verify", "demo"],
    ]) {
      const ran = await fresh.run([...args, "--json"]);
      expect({ args, code: ran.code }).toEqual({ args, code: 2 });
      expect(lastJson(ran.stdout)).toMatchObject({ type: "error", code: "INPUT_MISSING" });
    }
    await fresh.close();
  });
});

describe("audit verify", () => {
  it("an app, all apps, the folder, a file: the same sound answer with the exact fields", async () => {
    const file = join(w.dir, "ledger.jsonl");
    writeFileSync(file, joined());
    const ways = [["demo"], [], [w.ledgerDir], [file], ["./ledger.jsonl"], ["ledger.jsonl"]];
    const runs = await Promise.all(ways.map((args) => verify(args)));
    for (const { code, stdout } of runs) {
      expect(code).toBe(0);
      expect(jsonLines(stdout)).toHaveLength(1);
      expect(Object.keys(lastJson(stdout)).filter((k) => k !== "app")).toEqual([
        "schemaVersion",
        "ok",
        "ledger",
        "entries",
        "open",
        "partial",
        "head",
        "problems",
      ]);
      expect(lastJson(stdout)).toMatchObject({
        ok: true,
        open: 0,
        partial: false,
        head: { seq: w.ledgerFiles().length - 1, hash: expect.stringMatching(/^[0-9a-f]{64}$/) },
        problems: [],
      });
    }
  });

  it("a path needs no config and no state", async () => {
    const bare = join(w.dir, "bare");
    mkdirSync(bare);
    writeFileSync(join(bare, "ledger.jsonl"), joined());
    const env = { IMKIT_ROTATOR_CONFIG: "/nowhere.yaml" };
    const ran = await w.run(["audit", "verify", "ledger.jsonl", "--json"], { cwd: bare, env });
    expect(ran.code).toBe(0);
    const words = await w.run(["audit", "verify", "ledger.jsonl"], { cwd: bare, env });
    expect(words.stdout).toMatch(
      /^✔ ledger\.jsonl: \d+ entries, 0 open intent\(s\), head \d+:[0-9a-f]{16}\n$/,
    );
  });

  it("part of an export is partial, and no problem; of a folder it is one", async () => {
    const lines = joined()
      .toString("utf8")
      .split(/(?<=\n)/);
    const tail = await verify(["-"], lines.slice(2).join(""));
    expect(tail.code).toBe(0);
    expect(lastJson(tail.stdout)).toMatchObject({ ok: true, partial: true });
    const folder = join(w.dir, "cut");
    cpSync(w.ledgerDir, folder, { recursive: true });
    rmSync(join(folder, "00000000.json"));
    const cut = await verify([folder]);
    expect(cut.code).toBe(5);
    expect(lastJson(cut.stdout)).toMatchObject({ ok: false, partial: true, problems: [{ code: "BAD_SEQ" }] });
  });

  it("a broken one: exit 5, and no error line, for it is a finding", async () => {
    const good = joined().toString("utf8");
    const cases: readonly (readonly [string, string])[] = [
      ["BAD_HASH", good.replace('"type":"genesis"', '"type":"genesis","x":1')],
      [
        "BAD_SEQ",
        good
          .split(/(?<=\n)/)
          .toSpliced(3, 1)
          .join(""),
      ],
      ["UNREADABLE", good.slice(0, -10)],
      ["NOT_CANONICAL", good.replace('{"h":', '{ "h":')],
    ];
    for (const [code, text] of cases) {
      const ran = await verify(["-"], text);
      expect({ code, exit: ran.code }).toEqual({ code, exit: 5 });
      expect(jsonLines(ran.stdout)).toHaveLength(1);
      const { ok, problems } = lastJson(ran.stdout) as { ok: boolean; problems: { code: string }[] };
      expect(ok).toBe(false);
      expect(problems.map((p) => p.code)).toContain(code);
    }
  });

  it("--head: a head that was quoted elsewhere; a cut tail shows against it alone", async () => {
    const done = await w.run(["rotate", "demo", "--json"]);
    const head = String(lastJson(done.stdout)["head"]);
    expect((await verify(["demo", "--head", head])).code).toBe(0);
    const cut = joined()
      .toString("utf8")
      .split(/(?<=\n)/)
      .slice(0, -2)
      .join("");
    expect((await verify(["-"], cut)).code).toBe(0);
    const ran = await verify(["-", "--head", head], cut);
    expect(ran.code).toBe(5);
    expect(lastJson(ran.stdout)).toMatchObject({ problems: [{ code: "HEAD_MISMATCH" }] });
  });

  it("what is not there, cannot be opened or holds no entry: exit 2", async () => {
    mkdirSync(join(w.dir, "empty"));
    writeFileSync(join(w.dir, "empty.jsonl"), "");
    for (const args of [["./nope.jsonl"], ["nope"], ["./empty"], ["empty.jsonl"], ["/dev/null"], ["-"]]) {
      const ran = await verify(args);
      expect({ args, code: ran.code }).toEqual({ args, code: 2 });
      expect(lastJson(ran.stdout)).toMatchObject({ type: "error", exitCode: 2 });
    }
    expect((await verify(["./ledger.jsonl", "--stores"])).code).toBe(2);
    expect((await verify(["demo", "--stores"])).code).toBe(0);
  });

  it("without a name it takes all apps, and the worst exit is the exit", async () => {
    const other = `  other:\n    baseUrl: ${w.sandbox.url}\n    stores: [{ name: env, type: dotenv, path: ./env.env, key: IMKIT_API_KEY }]\n`;
    const before = readFileSync(w.configFile, "utf8");
    writeFileSync(w.configFile, before + other);
    expect((await verify([])).code).toBe(0);
    const folder = join(w.dir, "state", "other", "ledger");
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "00000000.json"), "{}\n");
    const ran = await verify([]);
    writeFileSync(w.configFile, before);
    expect(ran.code).toBe(5);
    expect(jsonLines(ran.stdout)).toMatchObject([
      { app: "demo", ok: true },
      { app: "other", ok: false },
    ]);
  });
});
