import { describe, expect, test } from "vitest";
import { ProviderError, type ProviderCode } from "../../src/core/errors.ts";
import type { App } from "../../src/flow/hands.ts";
import { firstKey, type RotateChange, type Story, stores, tell } from "./story.ts";

const line = (w: Story, words: string): number => w.log.findIndex((one) => one.includes(words));
const laid = (w: Story, name: string, key: string): number =>
  line(w, `${name}: ${w.show(key)} is laid ready`);
const switched = (w: Story, name: string, from: string, to: string): number =>
  line(w, `${name}: ${w.show(from)} -> ${w.show(to)}`);
const failure = (w: Story) => {
  const r = w.state().rotation;
  return r === null ? null : w.product.failureOf(r);
};

/** The slot of that store says no, so many times. */
const refusing = (name: string, code: ProviderCode, times = 1_000): RotateChange => {
  let left = times;
  return {
    app: (app: App): App => ({
      ...app,
      stores: app.stores.map((entry) =>
        entry.plan.name !== name
          ? entry
          : {
              ...entry,
              store: {
                ...entry.store,
                stage: async (...asked) => {
                  if (left-- > 0) throw new ProviderError(code, "not_applied");
                  if (entry.store.stage === undefined) throw new Error("no slot");
                  return entry.store.stage(...asked);
                },
              },
            },
      ),
    }),
  };
};

describe("stores with a slot", () => {
  test("have the new key ready before any store is switched", async () => {
    await tell({ stores: stores("a", "cas+", "b", "slot+") }, async (w) => {
      const [old, fresh] = [firstKey(w), w.key()];
      await w.stage(fresh);
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(new Set(Object.values(w.values()))).toEqual(new Set([fresh]));
      const ready = ["cas", "slot"].map((name) => laid(w, name, fresh));
      const after = ["a", "b", "cas", "slot"].map((name) => switched(w, name, old, fresh));
      expect(Math.min(...ready, ...after)).toBeGreaterThan(0);
      expect(Math.max(...ready)).toBeLessThan(Math.min(...after));
    });
  });

  test("one that refuses: no store is switched, none keeps anything in its slot, and a rerun goes on", async () => {
    await tell({ stores: stores("a", "cas+", "slot+") }, async (w) => {
      const [old, fresh] = [firstKey(w), w.key()];
      await w.stage(fresh);
      expect((await w.rotate(refusing("slot", "AUTHZ"))).says).toBe("failed");
      expect(failure(w)).toMatchObject({ code: "STORE_REFUSED", target: "slot" });
      expect(new Set(Object.values(w.values()))).toEqual(new Set([old]));
      expect(w.stores.get("cas")?.slot).toBeNull();
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(new Set(Object.values(w.values()))).toEqual(new Set([fresh]));
    });
  });

  test("one that asks for a moment: the others wait for it", async () => {
    await tell({ stores: stores("a", "cas+") }, async (w) => {
      const [old, fresh] = [firstKey(w), w.key()];
      await w.stage(fresh);
      expect((await w.rotate(refusing("cas", "THROTTLED", 2))).says).toBe("waiting-revoke");
      expect(w.values()).toEqual({ a: fresh, cas: fresh });
      expect(laid(w, "cas", fresh)).toBeLessThan(switched(w, "a", old, fresh));
    });
  });

  test("one that is not required does not hold up the rest", async () => {
    await tell({ stores: stores("a", "cas?+") }, async (w) => {
      const [old, fresh] = [firstKey(w), w.key()];
      await w.stage(fresh);
      await w.rotate(refusing("cas", "AUTHZ"));
      expect(w.values()).toEqual({ a: fresh, cas: old });
    });
  });

  test("in an emergency and in a blackout nobody waits for a slot", async () => {
    for (const alarm of [true, false]) {
      await tell({ stores: stores("a", "cas+") }, async (w) => {
        const [old, fresh] = [firstKey(w), w.key()];
        await w.stage(fresh);
        if (!alarm) w.imkit.revoke(old);
        const change = refusing("cas", "AUTHZ");
        await w.rotate(alarm ? { ...change, alarm: { order: "replace-first" } } : change);
        expect(w.values()).toEqual({ a: fresh, cas: fresh });
        expect(laid(w, "cas", fresh)).toBe(-1);
      });
    }
  });

  test("killed at any moment and run again: the same end", async () => {
    for (let dies = 1; dies < 60; dies++) {
      await tell({ stores: stores("a", "cas+", "slot+") }, async (w) => {
        const fresh = w.key();
        await w.stage(fresh);
        await w.rotate({}, { crashAt: dies });
        await w.sleep(120_000);
        expect((await w.rotate()).says).toBe("waiting-revoke");
        expect(new Set(Object.values(w.values()))).toEqual(new Set([fresh]));
      });
    }
  });
});
