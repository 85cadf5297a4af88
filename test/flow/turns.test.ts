import { describe, expect, test } from "vitest";
import { blackoutOf } from "../../src/core/exposure.ts";
import type { App } from "../../src/flow/hands.ts";
import type { Platform, Store } from "../../src/ports.ts";
import { firstKey, type Story, stores, tell, workload } from "./story.ts";

const alarm = {};
/** A key that IMKIT rejects for so long. */
const freshKey = (w: Story, forMs: number): string => {
  const key = w.imkit.issue();
  Object.assign(key, { worksAt: w.time.now() + forMs });
  return key.text;
};

describe("a key that IMKIT rejects for the first seconds", () => {
  test("is not proved dead when the rotation goes back to the old one at once", async () => {
    await tell({}, async (w) => {
      await w.stage(freshKey(w, 15_000));
      await w.rotate();
      expect((await w.rollback()).says).toBe("waiting-revoke");
      expect(w.events("proof")).toEqual([]);
    });
  });

  test("is not proved dead when it is discarded at once", async () => {
    await tell({}, async (w) => {
      await w.stage(freshKey(w, 15_000));
      await w.discard();
      expect((await w.confirm()).says).toBe("accepted");
      expect(w.events("proof")).toEqual([]);
    });
  });

  test("one that never works is proved dead all the same", async () => {
    await tell({}, async (w) => {
      const dud = freshKey(w, Number.POSITIVE_INFINITY);
      await w.stage(dud);
      await w.discard();
      w.imkit.revoke(dud);
      expect((await w.confirm()).says).toBe("rejected");
      expect(w.state().dead.has(w.fpOf(dud))).toBe(true);
    });
  });

  test("after another one was written: nobody revoked it, and it is waited for", async () => {
    await tell({ stores: stores("a", "b"), workloads: [workload("exec")] }, async (w) => {
      await w.stage(w.key());
      await w.rotate();
      const fresh = freshKey(w, 40_000);
      await w.stage(fresh, true);
      const early = await w.rotate();
      expect(early.says).toBe("failed");
      expect(early.state.rotation).toMatchObject({ wrongKey: false, newFp: w.fpOf(fresh) });
      expect((await w.rotate({ waitMs: 60_000 })).says).toBe("waiting-revoke");
      expect(w.events("wrong-key-revoked")).toEqual([]);
      expect(w.values()).toEqual({ a: fresh, b: fresh });
    });
  });

  test("in a blackout: the next one is waited for, not another one asked for", async () => {
    await tell({ workloads: [workload("exec")] }, async (w) => {
      const first = w.key();
      await w.stage(first);
      await w.rotate();
      w.imkit.revoke(first);
      w.imkit.revoke(firstKey(w));
      expect((await w.rotate()).says).toBe("blackout");
      const fresh = freshKey(w, 20_000);
      await w.stage(fresh);
      expect((await w.rotate()).says).toBe("failed");
      expect((await w.rotate({ waitMs: 60_000 })).state.rotation?.ended).toBe("done");
      expect(w.uses()).toEqual({ exec: fresh });
    });
  });
});

describe("a target that is dropped in the middle of its write", () => {
  const onlyA = (app: App): App => ({ ...app, stores: app.stores.slice(0, 1) });

  test("the ledger is sound when it is over, though nobody knows how that write ended", async () => {
    let met = 0;
    for (let crashAt = 10; crashAt < 40; crashAt++) {
      await tell({ stores: stores("a", "b") }, async (w) => {
        await w.stage(w.key());
        await w.rotate({}, { crashAt });
        if (w.state().rotation?.stores.get("b")?.open == null) return;
        await w.rotate({ drop: ["b"], app: onlyA });
        w.imkit.revoke(firstKey(w));
        const { state } = await w.rotate({ app: onlyA });
        expect(state.rotation?.ended).toBe("done");
        // What the dead process sent on its way may have arrived after all, and told the end.
        met += w.events("observed").filter((e) => e["code"] === "DROPPED").length;
      });
    }
    expect(met).toBeGreaterThan(0);
  });
});

describe("a key that was saved just before an interruption", () => {
  test("is the one that an emergency waits for", async () => {
    let met = 0;
    for (let crashAt = 1; crashAt < 20; crashAt++) {
      await tell({}, async (w) => {
        await w.rotate({ alarm });
        const fresh = w.key();
        await w.stage(fresh, false, { crashAt });
        if (!w.escrow.blobs.has(w.fpOf(fresh)) || w.state().known.has(w.fpOf(fresh))) return;
        met++;
        expect((await w.rotate()).says).toBe("waiting-revoke");
        expect(w.values()).toEqual({ a: fresh });
      });
    }
    expect(met).toBeGreaterThan(0);
  });
});

describe("who waits for a key", () => {
  test("takes it whenever it comes, also while he looks at IMKIT", async () => {
    for (let at = 9_500; at < 11_500; at += 100) {
      await tell({}, async (w) => {
        const running = w.rotate({ alarm, waitMs: 40_000 });
        await w.sleep(at);
        const fresh = w.key();
        await w.stage(fresh);
        expect((await running).says).toBe("waiting-revoke");
        expect(w.values()).toEqual({ a: fresh });
      });
    }
  });
});

describe("two who begin at once", () => {
  test("the slower one sees that there is a ledger by now", async () => {
    for (let pauseAt = 1; pauseAt < 4; pauseAt++) {
      await tell({}, async (w) => {
        const slow = w.stage(w.key(), true, { pauseAt, pauseMs: 60_000 });
        await w.sleep(1_000);
        expect((await w.stage(w.key())).says).toBe("accepted");
        expect((await slow).says).toBe("accepted");
      });
    }
  });
});

describe("who waits for the soak", () => {
  test("goes on at once when a leak is called out, whenever that is", async () => {
    for (let at = 0; at < 600; at += 25) {
      await tell({ workloads: [workload("manual")], soakMs: 300_000 }, async (w) => {
        await w.stage(w.key());
        await w.rotate();
        for (const each of w.workloads.values()) w.restart(each);
        const running = w.rotate({ restarted: true });
        await w.sleep(at);
        const called = w.rotate({ alarm });
        expect((await running).says).toBe("waiting-revoke");
        expect((await called).says).toBe("waiting-revoke");
        expect(w.time.now()).toBeLessThan(60_000);
      });
    }
  });
});

describe("a restart", () => {
  test("that was made before the stores were written once more is not taken for one after it", async () => {
    await tell({ stores: stores("a"), workloads: [workload("manual")] }, async (w) => {
      await w.stage(w.key());
      expect((await w.rotate()).says).toBe("waiting-restart");
      for (const each of w.workloads.values()) w.restart(each);
      const said = w.rotate({ restarted: true }, { pauseAt: 2, pauseMs: 60_000 });
      await w.sleep(1_000);
      await w.stage(w.key(), true);
      expect((await w.rotate()).says).toBe("waiting-restart");
      expect((await said).says).toBe("waiting-restart");
      for (const each of w.workloads.values()) w.restart(each);
      expect((await w.rotate({ restarted: true })).says).toBe("waiting-revoke");
    });
  });
});

describe("a restart that is said beside another process", () => {
  const restart = (w: Story): void => {
    for (const each of w.workloads.values()) w.restart(each);
  };

  test("is recorded also while that one holds the claim, and both end as the rotation does", async () => {
    await tell({ workloads: [workload("manual")] }, async (w) => {
      await w.stage(w.key());
      await w.rotate();
      w.imkit.revoke(firstKey(w));
      const confirming = w.confirm();
      await w.sleep(6_000);
      expect(w.state().claim).not.toBeNull();
      restart(w);
      const { says, state } = await w.rotate({ restarted: true });
      expect([says, state.rotation?.ended]).toEqual(["idle", "done"]);
      expect(w.events("restarted")).toHaveLength(1);
      expect((await confirming).says).toBe("rejected");
    });
  });

  test("by one that waits: whoever of them goes on, no one is locked out", async () => {
    for (let pauseAt = 1; pauseAt < 16; pauseAt++) {
      await tell({ workloads: [workload("manual")] }, async (w) => {
        await w.rotate({ alarm });
        w.imkit.revoke(firstKey(w));
        await w.stage(w.key());
        const waiting = w.rotate({ waitMs: 3_600_000 });
        await w.sleep(20_000);
        expect(w.state().rotation?.waitingFor).toBe("restart");
        restart(w);
        expect((await w.rotate({ restarted: true }, { pauseAt, pauseMs: 1_000 })).says).toBe("idle");
        expect((await waiting).state.rotation?.ended).toBe("done");
      });
    }
  });

  test("too early, it is still the other one's turn", async () => {
    await tell({ workloads: [workload("manual")], stores: stores("a", "b") }, async (w) => {
      await w.stage(w.key());
      const running = w.rotate();
      while (w.events("claimed").length === 0) await w.sleep(10);
      expect((await w.rotate({ restarted: true })).says).toBe("LOCKED");
      expect(w.events("restarted")).toEqual([]);
      expect((await running).says).toBe("waiting-restart");
    });
  });
});

describe("a leak", () => {
  test("called out while a rotation closes: the key that is in use now is kept until it is proved dead", async () => {
    let met = 0;
    for (let crashAt = 20; crashAt < 50; crashAt++) {
      await tell({ workloads: [workload("none")] }, async (w) => {
        await w.stage(w.key());
        await w.rotate();
        w.imkit.revoke(firstKey(w));
        await w.rotate({}, { crashAt });
        if (w.state().rotation?.ended != null || !w.state().rotation?.closing) return;
        met++;
        const running = w.rotate({ alarm, waitMs: 60_000 });
        await w.sleep(10_000);
        const used = w.values()["a"] ?? "";
        expect(w.state().leaked.has(w.fpOf(used))).toBe(true);
        await w.stage(w.key());
        await w.sleep(20_000);
        expect(w.values()["a"]).not.toBe(used);
        expect(w.escrow.blobs.has(w.fpOf(used))).toBe(true);
        w.imkit.revoke(used);
        expect((await running).state.rotation?.ended).toBe("done");
      });
    }
    expect(met).toBeGreaterThan(0);
  });

  test("that was taken back and is called out again stops the way back", async () => {
    await tell({ workloads: [workload("exec")] }, async (w) => {
      const old = firstKey(w);
      await w.stage(w.key());
      await w.rotate({ alarm });
      expect((await w.rollback(true)).says).toBe("waiting-revoke");
      expect(w.values()).toEqual({ a: old });
      const again = await w.rotate({ alarm });
      expect(again.says).toBe("waiting-key");
      expect(again.state.old.has(w.fpOf(old))).toBe(true);
      expect((await w.rollback()).says).toBe("ROLLBACK_REFUSED");
      await w.stage(w.key());
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.values()).not.toEqual({ a: old });
    });
  });

  test("of a discarded key is not forgotten", async () => {
    await tell({}, async (w) => {
      const bad = w.key();
      await w.stage(bad);
      await w.discard();
      await w.rotate({ alarm: { leaked: bad } });
      await w.discard(true);
      expect(w.state().old.has(w.fpOf(bad))).toBe(true);
      await w.stage(w.key());
      await w.rotate();
      w.imkit.revoke(firstKey(w));
      expect((await w.rotate()).says).toBe("waiting-revoke");
      w.imkit.revoke(bad);
      expect((await w.rotate()).state.rotation?.ended).toBe("done");
    });
  });
});

describe("whether anything was without a key", () => {
  test("is known where another key leaked than the one in use: that one is asked about too when all is written", async () => {
    await tell({ workloads: [workload("exec")] }, async (w) => {
      const bad = w.key();
      await w.stage(bad);
      await w.discard();
      await w.rotate({ alarm: { leaked: bad, order: "replace-first" } });
      await w.stage(w.key());
      const { says, state } = await w.rotate();
      expect(says).toBe("waiting-revoke");
      expect(blackoutOf(state)).toMatchObject({ state: "none" });
    });
  });

  test("is not known where the key in use could not be asked about any more", async () => {
    await tell({ workloads: [workload("exec")] }, async (w) => {
      const old = firstKey(w);
      await w.stage(w.key());
      const lost = (platform: Platform): Platform => ({
        ...platform,
        probe: async (key, ...rest) => {
          const probe = await platform.probe(key, ...rest);
          const isOver = w.values()["a"] !== old && key.reveal() === old;
          return isOver ? { ...probe, verdict: "unclear" as const, code: null, status: 502 } : probe;
        },
      });
      const { says, state } = await w.rotate({ alarm, platform: lost });
      expect(says).toBe("waiting-revoke");
      expect(blackoutOf(state)).toMatchObject({ state: "unknown", atLeastMs: 0 });
    });
  });
});

describe("what is on record of a leaked key", () => {
  test("it was seen to work when it was asked about, not when that was written down", async () => {
    await tell({}, async (w) => {
      const running = w.rotate({ alarm, waitMs: 89_000 });
      await w.sleep(86_500);
      w.imkit.revoke(firstKey(w));
      const { state } = await running;
      const seen = state.verdicts.get(w.fpOf(firstKey(w)))?.acceptedTs ?? "";
      expect(Date.parse(seen)).toBeLessThanOrEqual(Date.parse("2026-03-02T08:00:00.000Z") + 86_500);
      expect(w.events("observed").at(-1)).toMatchObject({ what: "verdict" });
    });
  });
});

test("another key that is staged while the stores are read: nobody is told to revoke before they hold it", async () => {
  let told = 0;
  for (let isReached = true, at = 1; isReached; at++) {
    isReached = await tell({}, async (w) => {
      await w.stage(w.key());
      await w.rotate();
      // The old key has to be looked for, in the stores too.
      w.escrow.lose(w.fpOf(firstKey(w)));
      const next = w.key();
      let reads = 0;
      const staging = (store: Store): Store => ({
        ...store,
        read: async (signal) => {
          reads += 1;
          if (reads === at) await w.stage(next, true);
          return store.read(signal);
        },
      });
      const app = (it: App): App => ({
        ...it,
        stores: it.stores.map(({ plan, store }) => ({ plan, store: staging(store) })),
      });
      const isTold = (await w.rotate({ app })).says === "waiting-revoke";
      const isThere = w.values()["a"] === next;
      expect({ at, isTold, isThere: isThere || reads < at || !isTold }).toEqual({
        at,
        isTold,
        isThere: true,
      });
      told += isTold ? 1 : 0;
      return reads >= at;
    });
  }
  expect(told).toBeGreaterThan(1);
});
