import { rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { findKey } from "../kit/leak.ts";
import { CTRL_C, ENTER, hasTerminal, runOnTerminal, type Step } from "../kit/terminal.ts";
import { makeWorld, type World, type WorldOptions } from "../kit/world.ts";

/** The tests of a file run side by side, each in a world of its own. */
const worlds: World[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));

const world = async (options?: WorldOptions): Promise<World> => {
  const made = await makeWorld(options);
  worlds.push(made);
  return made;
};
const staged = async (options?: WorldOptions): Promise<World> => {
  const w = await world(options);
  expect((await w.run(["stage", "demo", "--from-stdin"], { stdin: w.sandbox.issue() })).code).toBe(0);
  return w;
};
const on = (w: World, args: readonly string[], ...steps: Step[]) =>
  runOnTerminal(args, { cwd: w.dir, steps });

it("has a terminal to test on where it has to", () => {
  expect(hasTerminal || process.env["CI"] === undefined).toBe(true);
});

describe
  .skipIf(!hasTerminal)
  .concurrent("on a terminal (left out where util-linux's script is missing)", () => {
    it("stage asks for the key, shows none of it, and colours are colours", async () => {
      const w = await world();
      const key = w.sandbox.issue();
      const { code, screen, missed } = await on(w, ["stage", "demo"], {
        see: /New API Key of demo/,
        type: key + ENTER,
      });
      expect({ code, missed }).toEqual({ code: 0, missed: null });
      expect(findKey(screen, key)).toEqual([]);
      expect(screen).toContain("\u001b[32m✔");
      expect(screen).not.toContain("?[3");
      expect(screen).toMatch(/Staged [0-9a-f]{8} for demo: accepted/);
      expect(w.escrow()).toHaveLength(1);
    });

    it("a rotation that would stop now is told of before the key is asked for", async () => {
      const w = await world({ stores: ["one", "two"] });
      await w.run(["adopt", "demo"]);
      rmSync(join(w.dir, "two.env"));
      const key = w.sandbox.issue();
      const { code, missed } = await on(w, ["stage", "demo"], {
        see: /A rotation would stop now: A store could not be written\. two: [^]*doctor demo[^]*New API Key/,
        type: key + ENTER,
      });
      expect({ code, missed }).toEqual({ code: 0, missed: null });
    });

    it("--from-stdin on a terminal is hidden too; Ctrl-C leaves with 130 and stores nothing", async () => {
      const w = await world();
      const { code, missed } = await on(w, ["stage", "demo", "--from-stdin"], {
        see: /New API Key of demo/,
        type: CTRL_C,
      });
      expect({ code, missed }).toEqual({ code: 130, missed: null });
      expect(w.ledgerFiles()).toEqual([]);
    });

    it("rotate shows the plan, asks, waits at the restart for Enter and at the gate for the revocation", async () => {
      const w = await staged({ rollouts: null, app: "    soak: 0s" });
      const { code, screen, missed } = await on(
        w,
        ["rotate", "demo"],
        { see: /Plan for demo[^]*write +env[^]*Go on\?/, type: "y" },
        { see: /Your turn: demo is waiting-restart[^]*press Enter/, type: ENTER },
        { see: /Your turn: demo is waiting-revoke/, act: () => w.sandbox.revoke(1) },
        { see: /Done: demo runs on/ },
      );
      expect({ code, missed }).toEqual({ code: 0, missed: null });
      expect(screen).toContain("Ctrl-C is safe");
      expect(w.events().some((e) => e["type"] === "done")).toBe(true);
    });

    it("a no to the question writes nothing; the key stays staged", async () => {
      const w = await staged();
      const before = w.ledgerFiles();
      const { code, missed } = await on(w, ["rotate", "demo"], { see: /Go on\?/, type: "n" });
      expect({ code, missed }).toEqual({ code: 130, missed: null });
      expect(w.ledgerFiles()).toEqual(before);
      expect(w.value()).toBe(w.sandbox.firstKey());
    });

    it("Ctrl-C at the gate: 130, and the next run goes on", async () => {
      const w = await staged();
      const { code, screen, missed } = await on(w, ["rotate", "demo", "--yes"], {
        see: /Your turn: demo is waiting-revoke/,
        type: CTRL_C,
      });
      expect({ code, missed }).toEqual({ code: 130, missed: null });
      expect(screen).not.toContain("Go on?");
      expect(screen).toMatch(/1 of 1 stores hold the new key/);
      w.sandbox.revoke(1);
      expect((await w.run(["rotate", "demo"])).code).toBe(0);
    });

    it("due and nothing staged: rotate asks for the key itself", async () => {
      const w = await world({ app: "    rotateEvery: 0d", sandbox: { mode: "replace" } });
      await w.run(["adopt", "demo"]);
      const key = w.sandbox.issue();
      const { code, screen, missed } = await on(
        w,
        ["rotate", "demo"],
        { see: /New API Key of demo/, type: key + ENTER },
        { see: /Go on\?/, type: "y" },
      );
      expect({ code, missed }).toEqual({ code: 0, missed: null });
      expect(findKey(screen, key)).toEqual([]);
      expect(w.value()).toBe(key);
    });

    it("the end of input at a prompt stores nothing and is an interruption", async () => {
      const w = await world({});
      const { code, missed } = await on(w, ["stage", "demo"], { see: /New API Key of demo/, type: "\u0004" });
      expect({ code, missed }).toEqual({ code: 130, missed: null });
    });

    it("replace mode: stage goes on to rotate", async () => {
      const w = await world({ sandbox: { mode: "replace" } });
      const key = w.sandbox.issue();
      const { code, missed } = await on(
        w,
        ["stage", "demo"],
        { see: /New API Key of demo/, type: key + ENTER },
        { see: /failing NOW[^]*Done: demo runs on/ },
      );
      expect({ code, missed }).toEqual({ code: 0, missed: null });
      expect(w.value()).toBe(key);
    });

    it("--no-input asks nothing and does not wait; NO_COLOR and --no-color are obeyed", async () => {
      const w = await staged();
      const asked = await on(w, ["rotate", "demo", "--no-input"]);
      expect(asked.code).toBe(3);
      expect(asked.screen).not.toContain("Go on?");
      const plain = await on(w, ["status", "--no-color"]);
      const env = await runOnTerminal(["status"], { cwd: w.dir, env: { NO_COLOR: "1" }, steps: [] });
      for (const { code, screen } of [plain, env]) {
        expect(code).toBe(0);
        expect(screen).not.toContain("\u001b");
      }
    });
  });
