import { chmodSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { findKey } from "../kit/leak.ts";
import { lastJson, makeWorld, type World } from "../kit/world.ts";

const worlds: World[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));
const world = async (...options: Parameters<typeof makeWorld>): Promise<World> => {
  const made = await makeWorld(...options);
  worlds.push(made);
  return made;
};
const node = (script: string): readonly string[] => [process.execPath, "-e", script];

describe.concurrent("run", () => {
  it("starts the command with the current key and the base URL, and what it prints is all that is printed", async () => {
    const w = await world();
    const { code, stdout, stderr } = await w.run([
      "run",
      "demo",
      "--",
      ...node("console.log(process.env.IMKIT_API_KEY + ' ' + process.env.IMKIT_BASE_URL)"),
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toBe(`${w.sandbox.firstKey()} ${w.sandbox.url}\n`);
    expect(w.ledgerFiles()).toEqual([]);
  });

  it("the key is in no argument, and what stood in the variable before is replaced", async () => {
    const w = await world();
    const script =
      "require('fs').writeFileSync('seen', require('fs').readFileSync('/proc/' + process.ppid + '/cmdline'))";
    await w.run(["run", "demo", "--", ...node(script)], { env: { IMKIT_API_KEY: "old" } });
    const { readFileSync } = await import("node:fs");
    expect(findKey(readFileSync(join(w.dir, "seen"), "latin1"), w.sandbox.firstKey())).toEqual([]);
    const { stdout } = await w.run(
      ["run", "demo", "--", ...node("console.log(process.env.IMKIT_API_KEY.length)")],
      {
        env: { IMKIT_API_KEY: "old" },
      },
    );
    expect(stdout).toBe("60\n");
  });

  it("standard input and options of the command reach it", async () => {
    const w = await world();
    const { stdout } = await w.run(["run", "demo", "--", "cat", "-"], { stdin: "through\n" });
    expect(stdout).toBe("through\n");
  });

  it.each([
    ["its exit status", ["sh", "-c", "exit 7"], 7],
    ["128 + n after a signal", ["sh", "-c", "kill -TERM $$"], 143],
    ["127 where there is no such program", ["no-such-program"], 127],
    ["126 where it is no program", ["/etc/passwd"], 126],
  ])("exits with %s", async (_what, command, exit) => {
    const w = await world();
    // Root may look into it; to everybody else it says no for a program that is nowhere.
    const closed = join(w.dir, "closed");
    mkdirSync(closed, { mode: 0 });
    const env = { PATH: `${closed}:${process.env["PATH"]}` };
    const { code } = await w.run(["run", "demo", "--", ...command], { env });
    chmodSync(closed, 0o700);
    expect(code).toBe(exit);
  });

  it.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)(
    "%s reaches the command, which decides what it means",
    async (signal) => {
      const w = await world();
      const script = `process.on("${signal}", () => { console.log("got it"); process.exit(9) }); setInterval(() => {}, 1000); console.log("ready")`;
      const { code, stdout } = await w.run(["run", "demo", "--", ...node(script)], {
        signalAfter: { text: /ready/, signal },
      });
      expect({ code, stdout }).toEqual({ code: 9, stdout: "ready\ngot it\n" });
    },
  );

  it("the first store that can be read, or the one that is named", async () => {
    const w = await world({ stores: ["one", "two"], holds: { two: null } });
    rmSync(join(w.dir, "one.env"));
    writeFileSync(join(w.dir, "two.env"), `IMKIT_API_KEY=${w.sandbox.issue()}\n`);
    const print = node("console.log(process.env.IMKIT_API_KEY)");
    expect((await w.run(["run", "demo", "--", ...print])).stdout.trim()).toBe(w.value("two"));
    const named = await w.run(["run", "demo", "--store", "one", "--json", "--", ...print]);
    expect(named.code).toBe(1);
    expect(lastJson(named.stdout)).toMatchObject({ type: "error", code: "STORE_FAILED" });
  });

  it("our own failures come before the start: 2 for usage and config, 4 for a store that refuses, 1 else", async () => {
    const w = await world();
    const touch = ["--", "touch", join(w.dir, "started")];
    expect((await w.run(["run", "demo", "touch", "started"])).code).toBe(2);
    expect((await w.run(["run", "other", ...touch])).code).toBe(2);
    expect((await w.run(["run", "demo", "--store", "none", ...touch])).code).toBe(2);
    const key = w.sandbox.firstKey();
    writeFileSync(join(w.dir, "env.env"), `IMKIT_API_KEY=${key}\nIMKIT_API_KEY=${key}\n`);
    expect((await w.run(["run", "demo", ...touch])).code).toBe(4);
    w.setValue("env", null);
    expect((await w.run(["run", "demo", ...touch])).code).toBe(1);
    const { existsSync } = await import("node:fs");
    expect(existsSync(join(w.dir, "started"))).toBe(false);
    expect(findKey(w.printed(), key)).toEqual([]);
  });
});
