import { chmodSync, cpSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RotatorError } from "../../src/core/errors.ts";
import { openPlace, type Place } from "../../src/shell/demo/place.ts";
import type { Screen } from "../../src/shell/demo/screen.ts";
import { type Facts, tellStory } from "../../src/shell/demo/story.ts";
import { demo, inFolder } from "../kit/demo.ts";
import { programFile, programRoot } from "../kit/program.ts";

describe.concurrent("imkit-rotator demo", { timeout: 60_000 }, () => {
  it("tells the whole story in a pipe: figures, 80 columns, no colour, what to type next", async ({
    expect,
  }) => {
    const { code, out, err } = await demo(await programFile(), []);
    expect(err).toBe("");
    expect(code).toBe(0);
    const lines = out.split("\n");
    expect(lines.filter((line) => line.length > 80 && !line.includes("imkit-rotator.cjs"))).toEqual([]);
    expect(/\p{Cc}/u.test(out.replaceAll("\n", ""))).toBe(false);
    expect(lines.filter((line) => /^ \d ✔/.test(line)).map((line) => line.slice(0, 3))).toEqual([
      " 1 ",
      " 2 ",
      " 3 ",
      " 4 ",
      " 5 ",
      " 6 ",
      " 7 ",
    ]);
    expect(out).toMatch(/ 5 ✔ .* [1-9]\d+ requests, 0 failed\n/);
    expect(out).toMatch(/ 4 ✔ .* ([3-9]) of \1 probes rejected\n/);
    expect(out).toMatch(/ 7 ✔ .* BAD_HASH at entry \d+\n/);
    expect(out).toMatch(/imkit-rotator\.cjs'? init\n/);
  });

  it("gives one JSON object, from a folder with a blank in its name that nothing can be written to", async ({
    expect,
  }) => {
    const ended = await inFolder(async (folder) => {
      const root = join(folder, "my programs");
      const from = await programRoot();
      for (const part of ["bin", "dist", "package.json"])
        cpSync(join(from, part), join(root, part), { recursive: true });
      rmSync(join(root, "dist", ".compile-cache"), { recursive: true, force: true });
      symlinkSync(join(from, "node_modules"), join(root, "node_modules"));
      for (const folder of ["", "bin", "dist"]) chmodSync(join(root, folder), 0o555);
      const ended = await demo(join(root, "bin", "imkit-rotator.cjs"), ["--json", "-q"]);
      for (const folder of ["", "bin", "dist"]) chmodSync(join(root, folder), 0o755);
      return ended;
    });
    const { code, out, err } = ended;
    expect(err).toBe("");
    expect(code).toBe(0);
    const said = JSON.parse(out) as Facts & { readonly ok: boolean; readonly exitCode: number };
    expect(said).toMatchObject({ ok: true, exitCode: 0, mode: "overlap", failed: 0 });
    expect(said.probes).toBeGreaterThanOrEqual(3);
    expect(said.requests).toBeGreaterThanOrEqual(40);
    expect(said.oldFingerprint).toMatch(/^[0-9a-f]{8}$/);
    expect(said.newFingerprint).not.toBe(said.oldFingerprint);
  });

  it.for([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("ends everything it started on %s", async ([signal, status], { expect }) => {
    const { code, out, err } = await demo(await programFile(), [], { signal, at: / 2 ✔/ });
    expect(code).toBe(status);
    expect(out).not.toContain(" 3 ");
    expect(err).toContain("INTERRUPTED");
  });
});

describe("the story finds out", () => {
  let place: Place;
  const never = new AbortController().signal;
  const shown: string[] = [];
  const screen: Screen = {
    say: () => undefined,
    step: async (text, work) => {
      await work();
      shown.push(text);
    },
    steps: () => [],
  };
  beforeEach(async () => {
    shown.length = 0;
    place = await openPlace(process.env, never, [process.execPath, await programFile()]);
  });
  afterEach(() => place.close());

  /** The story with a program that is asked in place of the real one for `command`. */
  const why = async (
    command: string,
    lie: (answer: Awaited<ReturnType<Place["program"]["run"]>>) => unknown,
    runs = true,
  ): Promise<string> => {
    const run: Place["program"]["run"] = async (args, stdin) => {
      if (args[0] !== command) return place.program.run(args, stdin);
      const answer = runs ? await place.program.run(args, stdin) : { code: 0, lines: [], last: {} };
      return { ...answer, ...(lie(answer) as object) };
    };
    const told = tellStory({ ...place, program: { ...place.program, run } }, screen, never);
    const error: unknown = await told.then(
      () => null,
      (thrown: unknown) => thrown,
    );
    return error instanceof RotatorError ? error.why : `no refusal but ${String(error)}`;
  };

  it("requests that fail", async () => {
    place.sandbox.fault({ kind: "500", route: "clients", count: 30 });
    expect(await why("none", () => ({}))).toMatch(/^The chat service counts [1-9]/);
    expect(shown.length).toBeLessThan(3);
  });

  it("a rotation that is said to be done and is not", async () => {
    const last = {
      status: "waiting",
      mode: "overlap",
      stores: [{ state: "written" }],
      workloads: [{ state: "done" }],
    };
    expect(await why("rotate", () => ({ code: 3, last }), false)).toBe("More than the key changed in .env.");
  });

  it("a proof that nobody made", async () => {
    expect(await why("confirm-revoked", () => ({ code: 0, last: { verdict: "rejected" } }), false)).toBe(
      "IMKIT saw 0 probes of the old key, not 3.",
    );
    expect(shown.length).toBe(3);
  });

  it("a key that was printed", async () => {
    const { printed: honest } = place.program;
    const printed = (): string => `${honest()} ${place.sandbox.firstKey().slice(20, 30)}`;
    place = { ...place, program: { ...place.program, printed } };
    expect(await why("none", () => ({}))).toBe("A key stands in what was printed.");
  });
});
