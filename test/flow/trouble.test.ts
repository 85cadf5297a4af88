import { describe, expect, test } from "vitest";
import type { App } from "../../src/flow/hands.ts";
import type { Store } from "../../src/ports.ts";
import { firstKey, type Story, stores, tell, workload } from "./story.ts";

const storeOf = (w: Story, name: string) => {
  const store = w.stores.get(name);
  if (store === undefined) throw new Error(`no store ${name}`);
  return store;
};
const trouble = (w: Story, name: string, code: string, forMs = 600_000): void =>
  void storeOf(w, name).troubles.push({ from: w.time.now(), to: w.time.now() + forMs, code });
const failure = (w: Story) => {
  const r = w.state().rotation;
  return r === null ? null : w.product.failureOf(r);
};

describe("stores", () => {
  test("a stranger's value: exit 4, and nothing is written to any store", async () => {
    await tell({ stores: stores("a", "b") }, async (w) => {
      await w.stage(w.key());
      const before = { a: firstKey(w), b: w.key() };
      w.edit(storeOf(w, "b"), before.b);
      expect((await w.rotate()).says).toBe("failed");
      expect(failure(w)).toMatchObject({ code: "STORE_CONFLICT", target: "b" });
      expect(w.values()).toEqual(before);
      expect(w.events("intent")).toEqual([]);
    });
  });

  test("a stranger's value that IMKIT rejects is written over in a blackout, one that works is not", async () => {
    for (const works of [false, true]) {
      await tell({ stores: stores("a", "b") }, async (w) => {
        const fresh = w.key();
        await w.stage(fresh);
        w.imkit.revoke(firstKey(w));
        const strange = w.key();
        if (!works) w.imkit.revoke(strange);
        w.edit(storeOf(w, "b"), strange);
        expect((await w.rotate()).says).toBe(works ? "failed" : "idle");
        expect(w.values()).toEqual(works ? { a: firstKey(w), b: strange } : { a: fresh, b: fresh });
      });
    }
  });

  test("one that refuses before the first write stops all; a rerun goes on", async () => {
    await tell({ stores: stores("a", "b") }, async (w) => {
      const fresh = w.key();
      await w.stage(fresh);
      trouble(w, "b", "AUTHZ", 60_000);
      expect((await w.rotate()).says).toBe("failed");
      expect(failure(w)).toMatchObject({ code: "STORE_REFUSED", target: "b" });
      expect(w.values()).toEqual({ a: firstKey(w), b: firstKey(w) });
      await w.sleep(60_000);
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.values()).toEqual({ a: fresh, b: fresh });
    });
  });

  test("one that is not required may fail without holding up the rest", async () => {
    await tell({ stores: stores("a", "b?") }, async (w) => {
      const fresh = w.key();
      await w.stage(fresh);
      trouble(w, "b", "AUTHZ");
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.values()).toEqual({ a: fresh, b: firstKey(w) });
    });
  });

  test("an unknown outcome is read back before anything else is done there", async () => {
    for (const seed of [1, 2, 3, 4, 5, 6]) {
      await tell({ stores: stores("a", "cas-b"), losesAnswer: 0.7, crashes: seed * 0 }, async (w) => {
        const fresh = w.key();
        await w.stage(fresh);
        for (let n = 0; n < seed; n++) w.chance.next();
        for (let runs = 0; runs < 12 && (await w.rotate()).says !== "waiting-revoke"; runs++)
          await w.sleep(30_000);
        expect(w.values()).toEqual({ a: fresh, "cas-b": fresh });
        const unknown = w.events("result").filter((e) => e["outcome"] === "unknown");
        expect(unknown.length).toBeGreaterThan(0);
        const observed = new Set(w.events("observed").map((e) => e["intent"]));
        for (const { intent } of unknown) expect(observed).toContain(intent);
      });
    }
  });

  test("drift before the gate: written again, and restarted again", async () => {
    await tell({ workloads: [workload("watched")] }, async (w) => {
      const fresh = w.key();
      await w.stage(fresh);
      await w.rotate();
      w.edit(storeOf(w, "a"), firstKey(w));
      for (const it of w.workloads.values()) w.restart(it);
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.values()).toEqual({ a: fresh });
      expect(w.uses()).toEqual({ watched: fresh });
    });
  });

  test("drift between the last look and the end, and a crash there: it is looked at again before it is over", async () => {
    for (let crashAt = 1; crashAt < 60; crashAt++) {
      await tell({ stores: stores("a", "b") }, async (w) => {
        const fresh = w.key();
        await w.stage(fresh);
        await w.rotate();
        w.imkit.revoke(firstKey(w));
        await w.rotate({}, { crashAt });
        await w.sleep(6_000);
        if (!w.product.isOpen(w.state()) || w.state().rotation?.closing === true) return;
        w.edit(storeOf(w, "a"), firstKey(w));
        expect((await w.rotate()).says).toBe("idle");
        expect(w.values()).toEqual({ a: fresh, b: fresh });
      });
    }
  });

  test("one that cannot be read at the gate restarts nothing, and is said", async () => {
    await tell({ workloads: [workload("watched")] }, async (w) => {
      await w.stage(w.key());
      await w.rotate();
      trouble(w, "a", "AUTHZ", 60_000);
      expect((await w.rotate()).says).toBe("failed");
      expect(failure(w)).toMatchObject({ code: "STORE_REFUSED", target: "a" });
      await w.sleep(60_000);
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.events("intent").filter((e) => e["action"] === "roll")).toHaveLength(1);
    });
  });
});

describe("keys", () => {
  test("the wrong key was revoked: nothing more is written, and another key may be staged", async () => {
    await tell({ stores: stores("a", "b"), workloads: [workload("manual")] }, async (w) => {
      const wrong = w.key();
      await w.stage(wrong);
      await w.rotate();
      w.imkit.revoke(wrong);
      expect((await w.rotate()).says).toBe("wrong-key-revoked");
      expect(w.events("wrong-key-revoked")).toHaveLength(1);
      const fresh = w.key();
      expect((await w.stage(fresh)).says).toBe("accepted");
      expect((await w.rotate()).says).toBe("waiting-restart");
      expect(w.values()).toEqual({ a: fresh, b: fresh });
      for (const it of w.workloads.values()) w.restart(it);
      await w.rotate({ restarted: true });
      w.imkit.revoke(firstKey(w));
      expect((await w.rotate()).says).toBe("idle");
      expect(w.events("proof").map((e) => e["fp"])).toEqual(
        expect.arrayContaining([w.fpOf(wrong), w.fpOf(firstKey(w))]),
      );
    });
  });

  test("also where IMKIT only says UNAUTHORIZED", async () => {
    const imkit = {
      replaces: false,
      worksAfterMs: 0,
      diesAfterMs: 0,
      says: "UNAUTHORIZED",
      showsApp: true,
    } as const;
    await tell({ imkit, workloads: [workload("manual")] }, async (w) => {
      const wrong = w.key();
      await w.stage(wrong);
      await w.rotate();
      w.imkit.revoke(wrong);
      expect((await w.rotate()).says).toBe("wrong-key-revoked");
    });
  });

  test("blackout: both are dead, the same rotation goes on with another key", async () => {
    await tell({ workloads: [workload("watched")] }, async (w) => {
      const second = w.key();
      await w.stage(second);
      await w.rotate();
      w.imkit.revoke(second);
      w.imkit.revoke(firstKey(w));
      expect((await w.rotate()).says).toBe("blackout");
      const fresh = w.key();
      await w.stage(fresh);
      expect((await w.rotate()).says).toBe("idle");
      expect(w.events("opened")).toHaveLength(1);
      expect(w.values()).toEqual({ a: fresh });
      expect(w.uses()).toEqual({ watched: fresh });
    });
  });

  test("revoked early: the waits are skipped and rotate proves it", async () => {
    await tell({ soakMs: 3_600_000, workloads: [workload("watched", { takesMs: 60_000 })] }, async (w) => {
      await w.stage(w.key());
      const rotating = w.rotate();
      await w.sleep(10_000);
      w.imkit.revoke(firstKey(w));
      expect((await rotating).says).toBe("idle");
      expect(w.time.now()).toBeLessThan(120_000);
    });
  });

  test("a key of another app stops before the first write; an operator may insist", async () => {
    await tell({}, async (w) => {
      const strange = w.imkit.issue("app-2").text;
      expect((await w.stage(strange)).says).toBe("accepted");
      expect((await w.rotate()).says).toBe("failed");
      expect(failure(w)).toMatchObject({ code: "WRONG_APP" });
      const app = new w.product.Secret("client-key-of-app-2").fingerprint(w.state().salt ?? "");
      expect((await w.rotate({ acceptApp: app })).says).toBe("waiting-revoke");
    });
  });

  test("a second key needs --replace, and the first one joins the old keys", async () => {
    await tell({}, async (w) => {
      const [first, second] = [w.key(), w.key()];
      await w.stage(first);
      expect((await w.stage(first)).says).toBe("accepted");
      expect((await w.stage(second)).says).toBe("KEY_STAGED_ALREADY");
      expect(w.escrow.blobs.has(w.fpOf(second))).toBe(false);
      expect((await w.stage(second, true)).says).toBe("accepted");
      await w.rotate();
      w.imkit.revoke(firstKey(w));
      expect((await w.confirm()).says).toBe("accepted");
      w.imkit.revoke(first);
      expect((await w.confirm()).says).toBe("rejected");
      expect(w.state().rotation?.ended).toBe("done");
    });
  });

  test("discard: before the first write only; the key waits for its revocation, or is forgotten", async () => {
    await tell({}, async (w) => {
      const key = w.key();
      await w.stage(key);
      await w.discard();
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.escrow.blobs.has(w.fpOf(key))).toBe(true);
      expect((await w.confirm()).says).toBe("accepted");
      w.imkit.revoke(key);
      expect((await w.confirm()).says).toBe("rejected");
      expect(w.escrow.blobs.has(w.fpOf(key))).toBe(false);
      const next = w.key();
      await w.stage(next);
      await w.discard(true);
      expect((await w.rotate()).says).toBe("idle");
      expect(w.escrow.blobs.has(w.fpOf(next))).toBe(false);
      const last = w.key();
      await w.stage(last);
      await w.rotate();
      expect((await w.discard()).says).toBe("TOO_LATE");
    });
  });

  test("waive: refused while the key works, attested and never proved when nobody can tell", async () => {
    await tell({ workloads: [workload("none")] }, async (w) => {
      await w.stage(w.key());
      await w.rotate();
      expect((await w.confirm({ waive: "no" })).says).toBe("STILL_ACCEPTED");
      w.imkit.trouble(w.time.now(), w.time.now() + 20_000, "down");
      await w.confirm({ waive: "the Dashboard shows it revoked" });
      expect(w.events("waived")).toHaveLength(1);
      await w.sleep(30_000);
      expect((await w.rotate()).says).toBe("idle");
      expect(w.events("proof")).toEqual([]);
      expect(w.state().dead.size).toBe(0);
    });
  });

  test("escrow lost: the new key is read back from a store, an old one is given by the person", async () => {
    await tell({ stores: stores("a", "b") }, async (w) => {
      await w.stage(w.key());
      await w.rotate();
      (w.escrow.blobs as Map<string, string>).clear();
      w.imkit.revoke(firstKey(w));
      expect((await w.confirm()).says).toBe("unclear");
      expect((await w.confirm({ key: w.key() })).says).toBe("USAGE");
      expect((await w.confirm({ key: firstKey(w) })).says).toBe("rejected");
      expect(w.state().rotation?.ended).toBe("done");
    });
  });

  test("a store that takes long to answer while escrow is emptied: it comes to an end, and the new key stays there", async () => {
    await tell({ stores: stores("a?", "b") }, async (w) => {
      const slow = (app: App): App => ({
        ...app,
        stores: app.stores.map(({ plan, store }) => {
          const read: Store["read"] = async () => {
            await w.sleep(40_000);
            throw new w.product.ProviderError("TIMEOUT", "not_applied");
          };
          return { plan, store: plan.required ? store : { ...store, read } };
        }),
      });
      const fresh = w.key();
      await w.stage(fresh);
      await w.rotate();
      w.imkit.revoke(firstKey(w));
      await w.rotate({ app: slow });
      expect(w.state().rotation?.ended).toBe("done");
      expect([...w.escrow.blobs.values()]).toEqual([fresh]);
    });
  });

  test("a key in escrow that no ledger entry names is taken in", async () => {
    await tell({}, async (w) => {
      await w.rotate();
      const key = w.key();
      (w.escrow.blobs as Map<string, string>).set(w.fpOf(key), key);
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.values()).toEqual({ a: key });
      expect(w.events("staged")).toMatchObject([{ source: "escrow" }]);
    });
  });
});

describe("adoption", () => {
  test("several values, one of which works: the others may be overwritten", async () => {
    await tell({ stores: stores("a", "b"), start: "one live, one dead" }, async (w) => {
      const fresh = w.key();
      await w.stage(fresh);
      expect(w.events("adopted")).toMatchObject([{ current: w.fpOf(firstKey(w)), old: [], by: "auto" }]);
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.values()).toEqual({ a: fresh, b: fresh });
    });
  });

  test("several values that work: a person says which, and the other one has to die too", async () => {
    await tell({ stores: stores("a", "b"), start: "two live" }, async (w) => {
      const fresh = w.key();
      const other = storeOf(w, "b").value ?? "";
      expect((await w.stage(fresh)).says).toBe("accepted");
      expect((await w.rotate()).says).toBe("ADOPTION_REFUSED");
      expect(w.events("adopted")).toEqual([]);
      await w.adopt(firstKey(w));
      expect((await w.rotate()).says).toBe("waiting-revoke");
      w.imkit.revoke(firstKey(w));
      expect((await w.confirm()).says).toBe("accepted");
      w.imkit.revoke(other);
      expect((await w.confirm()).says).toBe("rejected");
    });
  });

  test("no clear answer: nothing is adopted, and staging works all the same", async () => {
    await tell({}, async (w) => {
      w.imkit.trouble(0, 60_000, "down");
      expect((await w.stage(w.key())).says).toBe("unclear");
      expect((await w.rotate()).says).toBe("ADOPTION_UNCLEAR");
      await w.sleep(60_000);
      expect((await w.rotate()).says).toBe("waiting-revoke");
    });
  });
});

describe("a plan that changed", () => {
  const without =
    (name: string) => (app: Parameters<NonNullable<Parameters<Story["rotate"]>[0]>["app"] & {}>[0]) => ({
      ...app,
      stores: app.stores.filter((s) => s.plan.name !== name),
    });

  test("a required target is gone: refused until it is back, or dropped", async () => {
    await tell({ stores: stores("a", "b") }, async (w) => {
      const fresh = w.key();
      await w.stage(fresh);
      trouble(w, "b", "AUTHZ");
      await w.rotate();
      expect((await w.rotate({ app: without("b") })).says).toBe("PLAN_CHANGED");
      expect((await w.rotate({ drop: ["b"] })).says).toBe("USAGE");
      expect((await w.rotate({ app: without("b"), drop: ["b"] })).says).toBe("waiting-revoke");
      expect((await w.rotate({ app: without("b"), drop: ["b"] })).says).toBe("waiting-revoke");
      expect(w.values()).toEqual({ a: fresh, b: firstKey(w) });
      expect(w.state().rotation?.stores.get("b")?.state).toBe("dropped");
    });
  });

  test("a target that was added is written too", async () => {
    await tell({ stores: stores("a", "b") }, async (w) => {
      const fresh = w.key();
      await w.stage(fresh);
      await w.rotate({ app: without("b") });
      expect(w.values()).toEqual({ a: fresh, b: firstKey(w) });
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.events("plan-amended")).toHaveLength(1);
      expect(w.values()).toEqual({ a: fresh, b: fresh });
    });
  });
});

describe("an interruption at any point, and the same end", () => {
  const end = async (w: Story, step: () => Promise<unknown>): Promise<string> => {
    const fresh = [...w.imkit.keys.keys()].at(-1) ?? "";
    await step();
    for (let runs = 0; runs < 6; runs++) {
      if (w.state().staged === null && !w.product.isOpen(w.state())) await w.stage(fresh);
      await w.sleep(1_000);
      const { says } = await w.rotate();
      if (says === "waiting-revoke") w.imkit.revoke(firstKey(w));
      if (says === "idle") break;
    }
    expect(w.state().current).toBe(w.fpOf(fresh));
    expect(w.values()).toEqual({ a: fresh, "cas-b": fresh });
    expect([...w.escrow.blobs]).toEqual([]);
    expect(w.events("opened")).toHaveLength(1);
    expect(w.events("done")).toHaveLength(1);
    return w.state().rotation?.ended ?? "open";
  };
  const scenario = () => ({ stores: stores("a", "cas-b"), workloads: [workload("watched")] });

  test("the ledger fails at each append, with the entry there or not", { timeout: 60_000 }, async () => {
    for (let nth = 1; nth <= 14; nth++) {
      for (const kept of [true, false]) {
        const ended = await tell(scenario(), (w) => {
          const fresh = w.key();
          w.ledger.failAt(nth, kept);
          return end(w, async () => {
            await w.stage(fresh);
            await w.rotate();
          });
        });
        expect(ended).toBe("done");
      }
    }
  });

  test("killed in each call of a rotation", { timeout: 60_000 }, async () => {
    const killedAt = (crashAt: number): Promise<{ readonly says: string; readonly ended: string }> =>
      tell(scenario(), async (w) => {
        await w.stage(w.key());
        let says = "";
        const ended = await end(w, async () => {
          says = (await w.rotate({}, { crashAt })).says;
        });
        return { says, ended };
      });
    let crashAt = 1;
    for (; ; crashAt++) {
      const { says, ended } = await killedAt(crashAt);
      expect(ended).toBe("done");
      if (says !== "killed") break;
    }
    expect(crashAt).toBeGreaterThan(40);
  });
});
