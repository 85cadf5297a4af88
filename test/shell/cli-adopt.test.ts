import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { madeKey } from "../kit/leak.ts";
import { jsonLines, lastJson, makeWorld, type World, type WorldOptions } from "../kit/world.ts";

/** The tests of a file run side by side, each in a world of its own. */
const worlds: World[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));
const world = async (options?: WorldOptions): Promise<World> => {
  const made = await makeWorld(options);
  worlds.push(made);
  return made;
};
const TWO: WorldOptions = { stores: ["one", "two"] };
type Json = Record<string, unknown>;
const adopt = async (
  w: World,
  ...more: string[]
): Promise<{ code: number | null; answer: Json; end: Json }> => {
  const { code, stdout } = await w.run(["adopt", "demo", "--json", ...more]);
  const lines = jsonLines(stdout);
  return { code, answer: lines[0] ?? {}, end: lines.at(-1) ?? {} };
};
/** A line that the program gave, run as it stands. */
const paste = (w: World, line: unknown) => w.run(String(line).split(" ").slice(1));
const adopted = (w: World): readonly Json[] => w.events().filter((e) => e["type"] === "adopted");
const stage = (w: World, key: string) => w.run(["stage", "demo", "--from-stdin"], { stdin: key });
/** The same key but for one character, as two samples of the vendor differ. */
const typo = (key: string): string => key.slice(0, 34) + (key[34] === "F" ? "p" : "F") + key.slice(35);

describe.concurrent("adopt, case by case", { timeout: 90_000 }, () => {
  it("no store holds a key: mode first, and the first rotation has no revoke step", async () => {
    const w = await world({ holds: { env: null } });
    const { code, answer } = await adopt(w);
    expect({ code, answer }).toMatchObject({
      code: 0,
      answer: { state: "adopted", current: null, old: [], stale: [], found: [], exitCode: 0 },
    });
    expect(adopted(w)).toMatchObject([{ mode: "first", current: null }]);
    const key = w.sandbox.issue();
    await stage(w, key);
    const rotated = await w.run(["rotate", "demo", "--json"]);
    expect(rotated.code).toBe(0);
    expect(lastJson(rotated.stdout)).toMatchObject({ status: "done", mode: "first", oldFingerprints: [] });
    expect(w.value()).toBe(key);
  });

  it("one value that was revoked by hand at night: it is current, and a key that works replaces it at once", async () => {
    const w = await world(TWO);
    w.sandbox.revoke(1);
    expect((await adopt(w)).answer).toMatchObject({
      state: "adopted",
      stale: [],
      found: [{ verdict: "rejected", stores: ["one", "two"] }],
    });
    await stage(w, w.sandbox.issue());
    const rotated = await w.run(["rotate", "demo", "--json"]);
    expect(rotated.code).toBe(0);
    expect(lastJson(rotated.stdout)).toMatchObject({ status: "done", mode: "replace" });
  });

  it("several values, all rejected: no current key, all may be overwritten, none needs a proof", async () => {
    const w = await world(TWO);
    w.setValue("one", madeKey());
    w.setValue("two", madeKey());
    const { code, answer } = await adopt(w);
    expect(code).toBe(0);
    expect(answer).toMatchObject({
      current: null,
      old: [],
      stores: [{ state: "drift" }, { state: "drift" }],
    });
    expect(answer["stale"]).toHaveLength(2);
    const key = w.sandbox.issue();
    await stage(w, key);
    const rotated = await w.run(["rotate", "demo", "--json"]);
    expect(rotated.code).toBe(0);
    expect([w.value("one"), w.value("two")]).toEqual([key, key]);
  });

  it("several accepted: exit 4, nothing recorded; the lines of next and do are the same and work", async () => {
    const w = await world(TWO);
    const second = w.sandbox.issue();
    w.setValue("two", second);
    const { code, answer, end } = await adopt(w);
    expect(code).toBe(4);
    expect(answer).toMatchObject({ state: "refused", current: null, exitCode: 4 });
    expect(end).toMatchObject({ type: "error", code: "ADOPTION_REFUSED", exitCode: 4 });
    expect(adopted(w)).toEqual([]);
    const lines = end["do"] as string[];
    expect((answer["next"] as Json[]).map((step) => step["command"])).toEqual(lines);
    const pasted = await paste(w, lines[0]);
    expect(pasted.code).toBe(0);
    const fp = lines[0]?.split(" ").at(-1) ?? "";
    expect(adopted(w)).toMatchObject([{ by: "operator", current: expect.stringMatching(`^${fp}`) }]);
    expect(pasted.stdout).toMatch(/Old keys, to be revoked: [0-9a-f]{8}\n/);
  });

  it("the staged key is in a store already: it is not taken for the current one", async () => {
    const w = await world(TWO);
    const fresh = w.sandbox.issue();
    w.setValue("two", fresh);
    const staged = await w.run(["stage", "demo", "--from-stdin", "--json"], { stdin: fresh });
    expect(staged.code).toBe(0);
    expect(lastJson(staged.stdout)).toMatchObject({ mode: "overlap" });
    const rotated = await w.run(["rotate", "demo", "--json"]);
    expect(rotated.code).toBe(3);
    expect(lastJson(rotated.stdout)["stores"]).toMatchObject([
      { name: "one", state: "written" },
      { name: "two", state: "unchanged" },
    ]);
  });

  it("while a rotation is open: refused, with both ways out", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    await w.run(["rotate", "demo"]);
    const current = (await w.run(["fingerprint", "demo"], { stdin: w.sandbox.firstKey() })).stdout.trim();
    const { code, end } = await adopt(w, "--current", current);
    expect(code).toBe(4);
    expect(end).toMatchObject({
      code: "TOO_LATE",
      do: ["imkit-rotator rotate demo"],
      undo: ["imkit-rotator rollback demo"],
    });
    expect(adopted(w)).toHaveLength(1);
  });
});

describe.concurrent("adopt on an adopted app", { timeout: 90_000 }, () => {
  it("looks: in sync is said, and nothing is recorded", async () => {
    const w = await world(TWO);
    await adopt(w);
    const entries = w.ledgerFiles().length;
    const { code, answer } = await adopt(w);
    expect(code).toBe(0);
    expect(answer).toMatchObject({ state: "in-sync", stores: [{ state: "in-sync" }, { state: "in-sync" }] });
    const again = await w.run(["adopt", "demo", "--current", String(answer["current"])]);
    expect(again.code).toBe(0);
    expect(again.stdout).toContain("Every store is in sync");
    expect(w.ledgerFiles()).toHaveLength(entries);
  });

  it("one store was changed by hand to a key that works: exit 4, and each line for a choice works", async () => {
    for (const way of [0, 1]) {
      const w = await world(TWO);
      await adopt(w);
      const second = w.sandbox.issue();
      w.setValue("two", second);
      const { code, answer, end } = await adopt(w);
      expect(code).toBe(4);
      expect(end).toMatchObject({ code: "STORE_CONFLICT", why: expect.stringContaining("two") });
      expect(answer).toMatchObject({ state: "refused", stores: [{ state: "in-sync" }, { state: "drift" }] });
      const lines = end["do"] as string[];
      expect(lines).toHaveLength(2);
      expect((await paste(w, lines[way])).code).toBe(0);
      const after = await adopt(w);
      expect(after).toMatchObject({ code: 0, answer: { state: "in-sync", old: [expect.any(String)] } });
      expect([w.value("one"), w.value("two")]).toEqual([w.sandbox.firstKey(), second]);
    }
  });

  it("every store was changed by hand to one key: one line, and the former key joins the old ones", async () => {
    const w = await world(TWO);
    const before = (await adopt(w)).answer["current"];
    const second = w.sandbox.issue();
    w.setValue("one", second);
    w.setValue("two", second);
    const { code, end } = await adopt(w);
    expect(code).toBe(4);
    const lines = end["do"] as string[];
    expect(lines).toHaveLength(1);
    expect((await paste(w, lines[0])).code).toBe(0);
    expect((await adopt(w)).answer).toMatchObject({ state: "in-sync", old: [before] });
  });

  it("a store whose key was removed is said, and no conflict: the next rotation fills it", async () => {
    const w = await world(TWO);
    await adopt(w);
    w.setValue("two", null);
    const ran = await w.run(["adopt", "demo"]);
    expect(ran.code).toBe(0);
    expect(ran.stdout).toContain("two: absent");
  });
});

describe.concurrent("stores that differ in one character", { timeout: 90_000 }, () => {
  /** Two env files and a program that prints the key. */
  const three = async (): Promise<World> => {
    const w = await world(TWO);
    const tool = join(w.dir, "vault.sh");
    const key = join(w.dir, "vault.key");
    writeFileSync(
      tool,
      `#!/bin/sh
if [ "$1" = put ]; then cat > ${key}; else cat ${key}; fi
`,
    );
    chmodSync(tool, 0o755);
    writeFileSync(key, w.sandbox.firstKey());
    const line = `      - { name: exec, type: exec, read: [${tool}, get], write: [${tool}, put] }\n    rollouts`;
    const text = readFileSync(w.configFile, "utf8");
    writeFileSync(w.configFile, text.replace("    rollouts", line));
    return w;
  };
  const stores = async (w: World): Promise<Json[]> => {
    const ran = await w.run(["status", "demo", "--json"]);
    return ((JSON.parse(ran.stdout).apps as Json[])[0]?.["stores"] ?? []) as Json[];
  };

  it("status tells them apart, and the next rotation repairs the one that IMKIT rejects", async () => {
    const w = await three();
    w.setValue("two", typo(w.sandbox.firstKey()));
    expect((await stores(w)).map((s) => s["state"])).toEqual(["drift", "drift", "drift"]);
    const { answer } = await adopt(w);
    expect(answer["stale"]).toHaveLength(1);
    const seen = await stores(w);
    expect(seen.map((s) => s["state"])).toEqual(["in-sync", "drift", "in-sync"]);
    expect(seen[1]?.["fingerprint"]).toBe((answer["stale"] as string[])[0]);
    expect(seen[0]?.["fingerprint"]).not.toBe(seen[1]?.["fingerprint"]);
    expect((await w.run(["status", "--exit-code"])).code).toBe(5);
    const fresh = w.sandbox.issue();
    await stage(w, fresh);
    expect((await w.run(["rotate", "demo"])).code).toBe(3);
    w.sandbox.revoke(1);
    expect((await w.run(["confirm-revoked", "demo"])).code).toBe(0);
    expect([w.value("one"), w.value("two"), readFileSync(join(w.dir, "vault.key"), "utf8")]).toEqual([
      fresh,
      fresh,
      fresh,
    ]);
    expect((await stores(w)).map((s) => s["state"])).toEqual(["in-sync", "in-sync", "in-sync"]);
  });

  it("one that came in later is a stranger's until a person has looked: then it is repaired too", async () => {
    const w = await three();
    await adopt(w);
    const fresh = w.sandbox.issue();
    await stage(w, fresh);
    w.setValue("two", typo(w.sandbox.firstKey()));
    const stopped = await w.run(["rotate", "demo", "--json"]);
    expect(stopped.code).toBe(4);
    expect(w.value("one")).toBe(w.sandbox.firstKey());
    await w.run(["stage", "demo", "--discard"]);
    const { code, end } = await adopt(w);
    expect(code).toBe(4);
    const lines = end["do"] as string[];
    expect(lines).toHaveLength(1);
    expect((await paste(w, lines[0])).code).toBe(0);
    await stage(w, fresh);
    expect((await w.run(["rotate", "demo"])).code).toBe(3);
    expect(w.value("two")).toBe(fresh);
  });
});
