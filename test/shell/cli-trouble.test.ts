import { spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { openEntry, seal } from "../../src/core/chain.ts";
import type { LedgerEvent } from "../../src/core/events.ts";
import { cleanEnv, programFile, type Ran } from "../kit/program.ts";
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
  w.run(["stage", "demo", "--from-stdin", "--json"], { stdin: key });
const edit = (w: World, from: string | RegExp, to: string): void =>
  writeFileSync(w.configFile, readFileSync(w.configFile, "utf8").replace(from, to));
const errorOf = (ran: Ran): Record<string, unknown> => {
  expect(ran.stderr).not.toMatch(/\n\s+at |node:internal/);
  return lastJson(ran.stdout);
};

describe.concurrent("a ledger that is broken stops stage and rotate: exit 5, nothing written", () => {
  const spoil: readonly (readonly [string, (dir: string) => void])[] = [
    [
      "a flipped byte",
      (dir) => {
        const file = join(dir, "00000001.json");
        writeFileSync(file, readFileSync(file, "utf8").replace(/"ts":"20/, '"ts":"19'));
      },
    ],
    ["a torn entry", (dir) => writeFileSync(join(dir, "00000002.json"), '{"h":"')],
    ["an empty entry", (dir) => writeFileSync(join(dir, "00000002.json"), "")],
    ["a gap", (dir) => rmSync(join(dir, "00000001.json"))],
    [
      "an entry that is a symbolic link",
      (dir) => {
        renameSync(join(dir, "00000002.json"), join(dir, "..", "elsewhere"));
        symlinkSync(join(dir, "..", "elsewhere"), join(dir, "00000002.json"));
      },
    ],
    [
      "an entry that is sound by its hash and lacks what its type needs",
      (dir) => {
        const opened = openEntry(readFileSync(join(dir, "00000002.json")));
        if ("problem" in opened) throw new Error(opened.problem);
        const { h, ...last } = opened.entry;
        const events = [{ type: "opened", rotation: "r1" } as LedgerEvent];
        writeFileSync(join(dir, "00000003.json"), seal({ ...last, seq: 3, prev: h, events }).line);
      },
    ],
  ];
  it("whatever broke it", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    const whole = join(w.dir, "whole");
    cpSync(w.ledgerDir, whole, { recursive: true });
    const second = w.sandbox.issue();
    for (const [name, act] of spoil) {
      rmSync(w.ledgerDir, { recursive: true });
      cpSync(whole, w.ledgerDir, { recursive: true });
      act(w.ledgerDir);
      const before = [w.ledgerFiles(), w.escrow()];
      const [staged, rotated] = await Promise.all([
        w.run(["stage", "demo", "--from-stdin", "--replace", "--json"], { stdin: second }),
        w.run(["rotate", "demo", "--json"]),
      ]);
      expect({ name, codes: [staged.code, rotated.code] }).toEqual({ name, codes: [5, 5] });
      expect(errorOf(staged)).toMatchObject({ code: "LEDGER_BROKEN", exitCode: 5 });
      expect(errorOf(rotated)).toMatchObject({
        code: "LEDGER_BROKEN",
        do: expect.arrayContaining([
          "imkit-rotator audit verify demo",
          "imkit-rotator adopt demo --new-ledger",
        ]),
      });
      expect(jsonLines(rotated.stdout)[0]).toMatchObject({ type: "result", status: "failed", exitCode: 5 });
      expect([w.ledgerFiles(), w.escrow()]).toEqual(before);
      expect(w.value()).toBe(w.sandbox.firstKey());
    }
  });

  it("another app's ledger", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    const text = readFileSync(w.configFile, "utf8");
    writeFileSync(w.configFile, text.replace("  demo:", "  other:"));
    cpSync(join(w.dir, "state", "demo"), join(w.dir, "state", "other"), { recursive: true });
    const ran = await w.run(["rotate", "other", "--json"]);
    expect(ran.code).toBe(5);
    expect(errorOf(ran)).toMatchObject({ code: "LEDGER_BROKEN" });
  });
});

describe.concurrent("a state directory that cannot be used: exit 2, and the key is nowhere", () => {
  it("a file in its place, a file where the ledger should be, a place that takes no directory", async () => {
    const w = await world();
    writeFileSync(join(w.dir, "file"), "");
    mkdirSync(join(w.dir, "odd", "demo"), { recursive: true });
    writeFileSync(join(w.dir, "odd", "demo", "ledger"), "");
    const key = w.sandbox.issue();
    let before = "./state";
    for (const dir of ["./file", "./odd", "/proc/imkit", "/dev/null/x"]) {
      edit(w, `dir: ${before}`, `dir: ${dir}`);
      before = dir;
      for (const run of [() => stage(w, key), () => w.run(["rotate", "demo", "--json"])]) {
        const ran = await run();
        expect({ dir, code: ran.code }).toEqual({ dir, code: 2 });
        expect(errorOf(ran)).toMatchObject({ type: "error", code: "STATE_UNUSABLE", exitCode: 2 });
      }
      const status = await w.run(["status"]);
      expect({ dir, code: status.code }).toEqual({ dir, code: dir === "/proc/imkit" ? 0 : 2 });
      expect(status.stdout).toContain("demo");
    }
  });

  it("doctor, a dry run and stage say so before a key is given, of the identity too", async () => {
    const w = await world();
    const cases = [
      { dir: "/proc/imkit", env: {}, check: "ledger.writable", code: "STATE_UNUSABLE", exitCode: 2 },
      {
        dir: "./state",
        env: { XDG_CONFIG_HOME: "/proc/imkit" },
        check: "escrow.writable",
        code: "ESCROW_FAILED",
        exitCode: 1,
      },
    ];
    for (const { dir, env, check, ...error } of cases) {
      edit(w, /dir: \S+ /, `dir: ${dir} `);
      const doctor = await w.run(["doctor", "--json"], { env });
      expect(doctor.code).toBe(5);
      const { checks } = lastJson(doctor.stdout) as { checks: { id: string; status: string; fix: string }[] };
      expect(checks.find(({ id }) => id === check)).toMatchObject({
        status: "fail",
        fix: expect.any(String) as string,
      });
      const plan = await w.run(["rotate", "demo", "--dry-run", "--json"], { env });
      expect(plan.code).toBe(error.exitCode);
      const ran = await w.run(["stage", "demo", "--from-file", "is-never-opened", "--json"], { env });
      expect(errorOf(ran)).toMatchObject(error);
    }
    expect(readdirSync(w.dir).filter((name) => name.startsWith(".tmp-") || name === "state")).toEqual([]);
  });

  /** As another user than root, to whom permissions mean something. */
  const asNobody = async (w: World, args: readonly string[], stdin = "") => {
    const node = [process.execPath, await programFile(), ...args];
    const isRoot = process.getuid?.() === 0;
    const [command = "", ...rest] = isRoot
      ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", ...node]
      : node;
    const { spawn } = await import("node:child_process");
    const child = spawn(command, rest, { cwd: w.dir, env: cleanEnv(w.dir) });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (d: Buffer) => (stdout += d.toString()));
    child.stderr.on("data", (d: Buffer) => (stderr += d.toString()));
    child.stdin.on("error", () => {});
    child.stdin.end(stdin);
    const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
    return { code, signal: null, stdout, stderr } satisfies Ran;
  };

  it("one that this user may not write", async () => {
    const isReachable =
      spawnSync("setpriv", ["--reuid=65534", "--regid=65534", "--clear-groups", process.execPath, "-e", "0"])
        .status === 0;
    const w = await world();
    for (const dir of [w.dir, join(w.dir, "env.env")]) chmodSync(dir, 0o755);
    mkdirSync(join(w.dir, "state"), { mode: 0o555 });
    chmodSync(join(w.dir, "state"), 0o555);
    chmodSync(join(await programFile(), "..", ".."), 0o755);
    const ran =
      isReachable || process.getuid?.() !== 0
        ? await asNobody(w, ["stage", "demo", "--from-stdin", "--json"], w.sandbox.issue())
        : null;
    chmodSync(join(w.dir, "state"), 0o755);
    // Where the runtime itself is out of nobody's reach there is nobody to ask.
    if (ran === null) return;
    expect(ran.code).toBe(2);
    expect(errorOf(ran)).toMatchObject({ code: "STATE_UNUSABLE" });
    expect(w.escrow()).toEqual([]);
  });
});

describe.concurrent("escrow", () => {
  it("its identity lost: exit 1, says what is missing and where, and nothing is written; restored, it goes on", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    const identity = join(w.dir, "home", ".config", "imkit-rotator", "escrow-identity.txt");
    renameSync(identity, `${identity}.away`);
    const ran = await w.run(["rotate", "demo", "--json"]);
    expect(ran.code).toBe(1);
    expect(errorOf(ran)).toMatchObject({
      code: "ESCROW_FAILED",
      exitCode: 1,
      why: expect.stringContaining(identity),
    });
    expect(JSON.stringify(errorOf(ran)["do"])).toMatch(/backup/);
    expect(w.value()).toBe(w.sandbox.firstKey());
    renameSync(`${identity}.away`, identity);
    expect((await w.run(["rotate", "demo"])).code).toBe(3);
  });

  it("its blob lost before any store was written: the key is gone, and the way out is another one", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    const [blob = ""] = w.escrow();
    rmSync(join(w.dir, "state", "demo", "escrow", blob));
    const ran = await w.run(["rotate", "demo", "--json"]);
    expect(ran.code).toBe(1);
    expect(errorOf(ran)).toMatchObject({ code: "ESCROW_LOST" });
    expect(errorOf(ran)).toMatchObject({
      state: expect.stringContaining("in no place that can be read"),
      do: ["imkit-rotator stage demo", "imkit-rotator stage demo --replace"],
    });
  });

  it("a blob without a ledger entry, as of a killed stage, is taken in by the next command", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    rmSync(join(w.ledgerDir, w.ledgerFiles().at(-1) ?? ""));
    expect(w.events().some((e) => e["type"] === "staged")).toBe(false);
    const ran = await w.run(["rotate", "demo"]);
    expect(ran.code).toBe(3);
    expect(w.events().find((e) => e["type"] === "staged")).toMatchObject({ source: "escrow" });
  });
});

describe.concurrent("another rotator is at work", () => {
  it("exit 6 at once, with the result and the error; --wait waits for it, and a killed one is no obstacle", async () => {
    const w = await world({
      rollouts: `[{ name: api, type: exec, command: [sh, -c, "touch started; while [ ! -e go ]; do sleep 0.05; done"], timeout: 50s }]`,
    });
    await stage(w, w.sandbox.issue());
    const { existsSync } = await import("node:fs");
    let refused: Promise<Ran> | null = null;
    let waiting: Promise<Ran> | null = null;
    const holder = w.run(["rotate", "demo", "--json"], {
      onOutput: (text) => {
        if (refused !== null || !text.includes('"action":"roll"')) return;
        refused = w.run(["rotate", "demo", "--json"]);
        waiting = w.run(["rotate", "demo", "--wait=20s", "--json"], { onOutput: () => {} });
        void refused.then(() => writeFileSync(join(w.dir, "go"), ""));
      },
    });
    const first = await holder;
    expect(existsSync(join(w.dir, "started"))).toBe(true);
    expect(first.code).toBe(3);
    const ran = await (refused as Promise<Ran> | null);
    expect(ran?.code).toBe(6);
    expect(jsonLines(ran?.stdout ?? "")).toMatchObject([
      { type: "result", status: "locked", exitCode: 6, app: "demo" },
      { type: "error", code: "LOCKED", exitCode: 6, why: expect.stringMatching(/Process \d+ on /) },
    ]);
    w.sandbox.revoke(1);
    expect((await (waiting as Promise<Ran> | null))?.code).toBe(0);
  });

  it("one that was killed is known to be gone: the next run goes on at once", async () => {
    const w = await world({
      rollouts: '[{ name: api, type: exec, command: [sh, -c, "[ -e go ] || exec sleep 30"], timeout: 50s }]',
    });
    await stage(w, w.sandbox.issue());
    const killed = await w.run(["rotate", "demo", "--json"], {
      signalAfter: { text: /"action":"roll"/, signal: "SIGKILL" },
    });
    expect(killed.signal).toBe("SIGKILL");
    writeFileSync(join(w.dir, "go"), "");
    const ran = await w.run(["rotate", "demo", "--json"]);
    expect(ran.code).toBe(3);
    expect(lastJson(ran.stdout)).toMatchObject({
      status: "waiting",
      stores: [{ state: "written" }],
      workloads: [{ state: "done" }],
    });
  });
});

describe.concurrent("what nobody expects", () => {
  it("a fault of ours is said in one line, without its text and without a stack; one app's stops no other one", async () => {
    const w = await world();
    const boom = join(w.dir, "boom.mjs");
    writeFileSync(boom, 'AbortSignal.any = () => { throw new TypeError("SECRET text"); };\n');
    const env = { NODE_OPTIONS: `--import=${boom}` };
    const ran = await w.run(["status", "--json"], { env });
    expect(ran.code).toBe(1);
    expect(errorOf(ran)).toMatchObject({
      code: "INTERNAL",
      why: expect.stringMatching(/^TypeError \S+:\d+:\d+$/),
    });
    expect(`${ran.stdout}${ran.stderr}`).not.toContain("SECRET");
  });

  it("a working directory that was removed", async () => {
    const w = await world();
    const gone = join(w.dir, "gone");
    mkdirSync(gone);
    const command = `rmdir "${gone}"; exec "${process.execPath}" "${await programFile()}" status`;
    const { spawn } = await import("node:child_process");
    const child = spawn("sh", ["-c", command], { cwd: gone, env: cleanEnv(w.dir, { PWD: gone }) });
    let text = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (d: Buffer) => (text += d.toString()));
    const code = await new Promise((resolve) => child.on("close", resolve));
    expect(text).not.toMatch(/\n\s+at |node:internal/);
    expect({ code, text }).toMatchObject({ code: 0, text: expect.stringContaining("demo  new") });
  });

  it("a store that never answers costs status 5 s, and hides no other one", async () => {
    const w = await world({
      more: `  other:
    baseUrl: http://127.0.0.1:9
    stores:
      - { name: slow, type: exec, read: [sleep, "30"], write: [cat] }
      - { name: env, type: dotenv, path: ./env.env, key: IMKIT_API_KEY }
`,
    });
    const began = performance.now();
    const ran = await w.run(["status", "other", "--json"]);
    expect(performance.now() - began).toBeLessThan(9_000);
    expect(ran.code).toBe(0);
    expect(lastJson(ran.stdout)).toMatchObject({
      apps: [
        {
          stores: [
            { name: "slow", state: "error", code: "TIMEOUT" },
            { name: "env", state: "in-sync" },
          ],
        },
      ],
    });
  });

  it("--quiet says nothing but trouble; the answer stays", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    const ran = await w.run(["rotate", "demo", "-q"]);
    expect(ran).toMatchObject({ code: 3, stderr: "" });
    expect(ran.stdout).toContain("confirm-revoked demo");
    const loud = await w.run(["confirm-revoked", "demo", "-v"]);
    expect(loud.stderr).toMatch(/entry \d+: claimed/);
  });

  it("nobody reads the output any more: the rotation goes on to its end", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    const { spawn } = await import("node:child_process");
    const command = `"${process.execPath}" "${await programFile()}" rotate demo --json | head -n 1 > /dev/null; exit "\${PIPESTATUS[0]}"`;
    const child = spawn("bash", ["-c", command], { cwd: w.dir, env: cleanEnv(w.dir), stdio: "ignore" });
    expect(await new Promise((resolve) => child.on("close", resolve))).toBe(3);
    expect(w.value()).not.toBe(w.sandbox.firstKey());
    expect(w.events().slice(-2)).toMatchObject([{ type: "waiting", for: "revoke" }, { type: "released" }]);
  });
});
