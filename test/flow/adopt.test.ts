import { describe, expect, test } from "vitest";
import { firstKey, type Story, stores, tell } from "./story.ts";

const storeOf = (w: Story, name: string) => {
  const store = w.stores.get(name);
  if (store === undefined) throw new Error(`no store ${name}`);
  return store;
};
const adopted = (w: Story) => w.events("adopted").at(-1);
const fps = (w: Story, ...keys: readonly string[]): readonly string[] => keys.map(w.fpOf).sort();

describe("what the stores hold, and what is adopted", () => {
  test("nothing anywhere: no current key, mode first, and a rotation without a revoke step", async () => {
    await tell({ stores: stores("a", "b"), start: "nothing" }, async (w) => {
      await w.adopt(null);
      expect(adopted(w)).toMatchObject({ mode: "first", current: null, old: [], stale: [] });
      const fresh = w.key();
      await w.stage(fresh);
      expect((await w.rotate()).says).toBe("idle");
      expect(w.values()).toEqual({ a: fresh, b: fresh });
      expect(w.events("proof")).toEqual([]);
    });
  });

  test("one value, accepted or revoked by hand: it is the current key", async () => {
    for (const isDead of [false, true]) {
      await tell({ stores: stores("a", "b") }, async (w) => {
        if (isDead) w.imkit.revoke(firstKey(w));
        await w.adopt(null);
        expect(adopted(w)).toMatchObject({
          mode: "current",
          current: w.fpOf(firstKey(w)),
          old: [],
          stale: [],
        });
        const fresh = w.key();
        await w.stage(fresh);
        expect((await w.rotate()).says).toBe(isDead ? "idle" : "waiting-revoke");
        expect(w.state().rotation?.mode).toBe(isDead ? "replace" : "overlap");
      });
    }
  });

  test("several, all rejected: no current key, all may be overwritten, no proof is asked for", async () => {
    await tell({ stores: stores("a", "b"), start: "two live" }, async (w) => {
      const { a, b } = w.values();
      for (const key of [a, b]) if (key) w.imkit.revoke(key);
      await w.sleep(1_000);
      await w.adopt(null);
      expect(adopted(w)).toMatchObject({ current: null, old: [] });
      expect([...w.state().stale].sort()).toEqual(fps(w, a ?? "", b ?? ""));
      const fresh = w.key();
      await w.stage(fresh);
      expect((await w.rotate()).says).toBe("idle");
      expect(w.values()).toEqual({ a: fresh, b: fresh });
    });
  });

  test("several that work: refused until a person says; each choice makes the other one an old key", async () => {
    for (const pick of ["a", "b"]) {
      await tell({ stores: stores("a", "b"), start: "two live" }, async (w) => {
        expect((await w.adopt(null)).says).toBe("ADOPTION_REFUSED");
        expect(w.events("adopted")).toEqual([]);
        const { a, b } = w.values();
        const [current, other] = pick === "a" ? [a, b] : [b, a];
        await w.adopt(current ?? "");
        expect(adopted(w)).toMatchObject({ by: "operator", current: w.fpOf(current ?? "") });
        expect([...w.state().old.keys()]).toEqual(fps(w, other ?? ""));
      });
    }
  });

  test("no clear answer among several: nothing is recorded, stage works, and it is adopted when IMKIT answers", async () => {
    await tell({ stores: stores("a", "b"), start: "one live, one dead" }, async (w) => {
      w.imkit.trouble(0, 60_000, "down");
      expect((await w.adopt(null)).says).toBe("ADOPTION_UNCLEAR");
      const fresh = w.key();
      expect((await w.stage(fresh)).says).toBe("unclear");
      expect(w.events("adopted")).toEqual([]);
      await w.sleep(60_000);
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(adopted(w)).toMatchObject({ current: w.fpOf(firstKey(w)) });
      expect(w.values()).toEqual({ a: fresh, b: fresh });
    });
  });

  test("stage never fails because of it: a store that cannot be read, two keys that work", async () => {
    await tell({ stores: stores("a", "b"), start: "two live" }, async (w) => {
      expect((await w.stage(w.key())).says).toBe("accepted");
      storeOf(w, "b").troubles.push({ from: 0, to: w.time.now() + 60_000, code: "AUTHZ" });
      expect((await w.stage(w.key(), true)).says).toBe("accepted");
      expect(w.events("adopted")).toEqual([]);
    });
  });

  test("the staged key that stands in some store already is not the current one", async () => {
    await tell({ stores: stores("a", "b") }, async (w) => {
      const fresh = w.key();
      w.edit(storeOf(w, "b"), fresh);
      await w.stage(fresh);
      expect(adopted(w)).toMatchObject({ current: w.fpOf(firstKey(w)), old: [], stale: [] });
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.values()).toEqual({ a: fresh, b: fresh });
    });
  });

  test("the staged key in every store: the only value there is, and nothing is left to prove", async () => {
    await tell({ stores: stores("a", "b") }, async (w) => {
      const fresh = w.key();
      for (const name of ["a", "b"]) w.edit(storeOf(w, name), fresh);
      await w.stage(fresh);
      expect(w.state().current).toBe(w.fpOf(fresh));
      expect(w.values()).toEqual({ a: fresh, b: fresh });
    });
  });
});

describe("a choice on an app that is adopted", () => {
  test("of a key that was put into a store by hand: the former current key has to die", async () => {
    await tell({ stores: stores("a", "b") }, async (w) => {
      await w.adopt(null);
      const byHand = w.key();
      w.edit(storeOf(w, "b"), byHand);
      await w.adopt(byHand);
      expect(w.state().current).toBe(w.fpOf(byHand));
      expect([...w.state().old.keys()]).toEqual(fps(w, firstKey(w)));
      const fresh = w.key();
      await w.stage(fresh);
      expect((await w.rotate()).says).toBe("waiting-revoke");
      w.imkit.revoke(firstKey(w));
      w.imkit.revoke(byHand);
      await w.sleep(1_000);
      expect((await w.confirm()).says).toBe("rejected");
      expect(w.values()).toEqual({ a: fresh, b: fresh });
    });
  });

  test("of the current key: what somebody broke is taken note of, and repaired by the next rotation", async () => {
    await tell({ stores: stores("a", "b") }, async (w) => {
      await w.adopt(null);
      const since = w.state().freshTs;
      const broken = w.key();
      w.imkit.revoke(broken);
      await w.sleep(5_000);
      w.edit(storeOf(w, "b"), broken);
      await w.adopt(firstKey(w));
      expect(w.state()).toMatchObject({ current: w.fpOf(firstKey(w)), freshTs: since });
      expect([...w.state().stale]).toEqual(fps(w, broken));
      const fresh = w.key();
      await w.stage(fresh);
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.values()).toEqual({ a: fresh, b: fresh });
    });
  });

  test("where nothing differs, nothing is recorded; while a rotation is open it is refused", async () => {
    await tell({ stores: stores("a", "b") }, async (w) => {
      await w.adopt(null);
      await w.adopt(firstKey(w));
      expect(w.events("adopted")).toHaveLength(1);
      await w.stage(w.key());
      await w.rotate();
      w.edit(storeOf(w, "b"), w.key());
      expect((await w.adopt(w.values()["b"] ?? "")).says).toBe("TOO_LATE");
      w.edit(storeOf(w, "b"), w.values()["a"] ?? "");
      expect(w.events("adopted")).toHaveLength(1);
    });
  });
});
