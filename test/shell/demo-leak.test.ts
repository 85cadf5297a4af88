import { appendFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { RotatorError } from "../../src/core/errors.ts";
import type { Act, Order } from "../../src/shell/demo/leak.ts";
import { tellLeak } from "../../src/shell/demo/leak.ts";
import { openPlace, type Place } from "../../src/shell/demo/place.ts";
import type { Screen } from "../../src/shell/demo/screen.ts";
import { demo } from "../kit/demo.ts";
import { programFile } from "../kit/program.ts";

const screen: Screen = {
  say: () => undefined,
  step: async (_, work) => void (await work()),
  steps: () => [],
};
const never = new AbortController().signal;

/** Why an act stops in a place where `lie` is told. */
const why = async (order: Order, lie: (place: Place) => Place): Promise<string> => {
  const place = await openPlace(process.env, never, [process.execPath, await programFile()], true);
  try {
    await tellLeak(lie(place), order, screen, never);
    return "nothing was noticed";
  } catch (error) {
    return error instanceof RotatorError ? error.why : String(error);
  } finally {
    await place.close();
  }
};

describe.concurrent("imkit-rotator demo --leak", { timeout: 120_000 }, () => {
  it("tells both orders: bounds, what really was, 80 columns, what to type next; and one JSON object", async ({
    expect,
  }) => {
    const { code, out, err: told } = await demo(await programFile(), ["--leak", "--json"]);
    expect(code).toBe(0);
    const said = JSON.parse(out) as { readonly ok: boolean; readonly acts: readonly Act[] };
    expect(said.ok).toBe(true);
    expect(said.acts.map(({ order, mode }) => [order, mode])).toEqual([
      ["revoke-first", "replace"],
      ["replace-first", "overlap"],
    ]);
    for (const { exposure } of said.acts) {
      expect(exposure.atLeastMs).toBeLessThanOrEqual(exposure.reallyMs);
      expect(exposure.reallyMs).toBeLessThanOrEqual(exposure.atMostMs);
    }
    expect(said.acts.map(({ failed }) => failed > 0)).toEqual([true, false]);

    const lines = told.split("\n");
    expect(lines.filter((line) => line.length > 80 && !line.includes("imkit-rotator.cjs"))).toEqual([]);
    expect(/\p{Cc}/u.test(told.replaceAll("\n", ""))).toBe(false);
    expect(lines.filter((line) => /^ ?\d+ ✔/.test(line))).toHaveLength(18);
    expect(told.match(/ \d+\.\d s to \d+\.\d s; really \d+\.\d s\n/g)).toHaveLength(4);
    expect(told).toMatch(/\nrevoke-first +\d+\.\d s +\d*\.\d s +[1-9]\d+ +\d+\n/);
    expect(told).toMatch(/\nreplace-first +\d+\.\d s +0\.0 s +0 +\d+\n/);
    expect(told).toMatch(/imkit-rotator\.cjs'? rotate --emergency --wait=4h\n/);
  });

  it("ends everything it started, also the rotator that watches", async ({ expect }) => {
    const { code, out, err } = await demo(await programFile(), ["--leak"], { signal: "SIGTERM", at: / 3 ✔/ });
    expect(code).toBe(143);
    expect(out).not.toContain(" 5 ✔");
    expect(err).toContain("INTERRUPTED");
  });

  it("finds out that the key in the log is another one", async () => {
    const lie = (place: Place): Place => {
      const run: Place["program"]["run"] = (args, stdin) =>
        place.program.run(args, args[0] === "fingerprint" ? place.sandbox.issue() : stdin);
      return { ...place, program: { ...place.program, run } };
    };
    expect(await why("replace-first", lie)).toBe("What was found is another key.");
  });

  it("finds out that the key lived longer than the rotator says", async () => {
    const keys =
      (place: Place): Place["sandbox"]["keys"] =>
      () =>
        place.sandbox
          .keys()
          .map((key) => ({ ...key, revokedAt: key.revokedAt === null ? null : key.revokedAt + 60_000 }));
    const told = await why("replace-first", (place) => ({
      ...place,
      sandbox: { ...place.sandbox, keys: keys(place) },
    }));
    expect(told).toMatch(/^The exposure is said to be \d+\.\d s to \d+\.\d s, and was 6\d\.\d s\.$/);
  });

  it("finds out that the service failed, or that the next key leaked too", async () => {
    const told = await why("replace-first", (place) => {
      const run: Place["program"]["run"] = async (args, stdin) => {
        if (args[0] === "stage") appendFileSync(place.logFile, `${stdin}\n`);
        return place.program.run(args, stdin);
      };
      return { ...place, program: { ...place.program, run } };
    });
    expect(told).toBe("The new key stands in the log, too.");
    const failing = await why("replace-first", (place) => {
      place.sandbox.fault({ kind: "500", route: "clients", count: 3 });
      return place;
    });
    expect(failing).toMatch(/^[1-3] requests failed, where none should\.$/);
  });
});
