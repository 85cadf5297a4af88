import { describe, expect, test } from "vitest";
import { firstKey, stores, tell, workload } from "./story.ts";

describe("from a staged key to a dead one", () => {
  test("overlap: stores, restarts, the person, the proof", async () => {
    const scenario = { stores: stores("a", "cas-b"), workloads: [workload("watched")] };
    await tell(scenario, async (w) => {
      const old = firstKey(w);
      const fresh = w.key();
      expect((await w.stage(fresh)).says).toBe("accepted");
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.values()).toEqual({ a: fresh, "cas-b": fresh });
      expect(w.uses()).toEqual({ watched: fresh });
      expect([...w.escrow.blobs.keys()].sort()).toEqual([w.fpOf(old), w.fpOf(fresh)].sort());
      expect((await w.confirm()).says).toBe("accepted");
      w.imkit.revoke(old);
      const { says, state } = await w.confirm();
      expect(says).toBe("rejected");
      expect(state.rotation).toMatchObject({ ended: "done", mode: "overlap" });
      expect(state.current).toBe(w.fpOf(fresh));
      expect([...state.old]).toEqual([]);
      expect([...w.escrow.blobs]).toEqual([]);
      expect((await w.rotate()).says).toBe("idle");
      expect((await w.confirm()).says).toBe("nothing");
    });
  });

  test("a normal rotation of four stores takes less than twenty entries", async () => {
    const scenario = {
      stores: stores("a", "b", "cas-c", "cas-d"),
      workloads: [workload("watched")],
    };
    await tell(scenario, async (w) => {
      await w.stage(w.key());
      await w.rotate();
      w.imkit.revoke(firstKey(w));
      await w.confirm();
      expect(w.state().rotation?.ended).toBe("done");
      const entries = w.ledger.lines.map((line) => Buffer.from(line).toString());
      const opened = entries.findIndex((line) => line.includes('"type":"opened"'));
      expect(entries.length - opened).toBeLessThan(20);
    });
  });

  test("replace: the old key is dead already, so rotate proves it by itself", async () => {
    await tell({ imkit: { ...tame, replaces: true }, workloads: [workload("exec")] }, async (w) => {
      await w.stage(w.key());
      expect((await w.rotate()).says).toBe("idle");
      expect(w.state().rotation).toMatchObject({ ended: "done", mode: "replace" });
      expect(w.events("proof")).toHaveLength(1);
    });
  });

  test("replace, where IMKIT only says UNAUTHORIZED: the made-up key tells", async () => {
    await tell({ imkit: { ...tame, replaces: true, says: "UNAUTHORIZED" } }, async (w) => {
      expect((await w.stage(w.key())).says).toBe("accepted");
      expect((await w.rotate()).says).toBe("idle");
      expect(w.state().rotation).toMatchObject({ ended: "done", mode: "replace" });
    });
  });

  test("first: nothing to revoke", async () => {
    await tell({ start: "nothing", stores: stores("a", "b") }, async (w) => {
      const fresh = w.key();
      await w.stage(fresh);
      expect((await w.rotate()).says).toBe("idle");
      expect(w.values()).toEqual({ a: fresh, b: fresh });
      expect(w.state().rotation).toMatchObject({ ended: "done", mode: "first" });
    });
  });

  test("the canary is restarted before the rest, `after` orders, and in a blackout everything goes at once", async () => {
    const workloads = () => [
      workload("exec", { name: "rest" }),
      workload("watched", { name: "bird", canary: true }),
      workload("exec", { name: "last", after: ["rest"] }),
    ];
    const order = (w: { events: (type: string) => readonly Record<string, unknown>[] }) =>
      w.events("intent").flatMap((e) => (e["action"] === "roll" ? [e["target"]] : []));
    await tell({ workloads: workloads() }, async (w) => {
      await w.stage(w.key());
      await w.rotate();
      expect(order(w)).toEqual(["bird", "rest", "last"]);
    });
    await tell({ workloads: workloads(), imkit: { ...tame, replaces: true } }, async (w) => {
      await w.stage(w.key());
      await w.rotate();
      expect(order(w)).toEqual(["rest", "bird", "last"]);
      const entries = w.ledger.lines.filter((line) =>
        Buffer.from(line).toString().includes('"action":"roll"'),
      );
      expect(entries).toHaveLength(1);
    });
  });

  test("a soak holds no claim, is waited for, and is skipped when the old key is dead", async () => {
    await tell({ soakMs: 120_000, workloads: [workload("exec")] }, async (w) => {
      await w.stage(w.key());
      const rotating = w.rotate();
      await w.sleep(60_000);
      expect(w.state().claim).toBeNull();
      expect(w.state().rotation?.waitingFor).toBe("soak");
      expect((await rotating).says).toBe("waiting-revoke");
      expect(w.time.now()).toBeGreaterThan(120_000);
    });
    await tell({ soakMs: 120_000, workloads: [workload("exec")] }, async (w) => {
      await w.stage(w.key());
      const rotating = w.rotate();
      await w.sleep(20_000);
      w.imkit.revoke(firstKey(w));
      expect((await rotating).says).toBe("idle");
      expect(w.time.now()).toBeLessThan(60_000);
    });
  });

  test("a mirror is never written, and restarts wait until it shows the new key", async () => {
    const scenario = { stores: stores("a", "m~"), workloads: [workload("exec", { reads: "m" })] };
    await tell(scenario, async (w) => {
      const fresh = w.key();
      await w.stage(fresh);
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.uses()).toEqual({ exec: fresh });
      expect(w.events("intent").map((e) => e["target"])).toEqual(["a", "exec"]);
    });
  });
});

describe("someone must restart what reads the stores", () => {
  const manual = { workloads: [workload("manual")] };

  test("rotate waits for the restart, and only then asks to revoke", async () => {
    await tell({ workloads: [workload("manual")] }, async (w) => {
      await w.stage(w.key());
      expect((await w.rotate()).says).toBe("waiting-restart");
      expect((await w.rotate()).says).toBe("waiting-restart");
      for (const it of w.workloads.values()) w.restart(it);
      expect((await w.rotate({ restarted: true })).says).toBe("waiting-revoke");
    });
  });

  test("a proof may come before the restart; it is over after it", async () => {
    await tell({ workloads: [workload("manual")] }, async (w) => {
      await w.stage(w.key());
      await w.rotate();
      w.imkit.revoke(firstKey(w));
      const { says, state } = await w.confirm();
      expect(says).toBe("rejected");
      expect(state.rotation?.ended).toBeNull();
      for (const it of w.workloads.values()) w.restart(it);
      expect((await w.rotate({ restarted: true })).says).toBe("idle");
    });
  });

  test("--restarted before every store is written is not believed", async () => {
    await tell(manual, async (w) => {
      await w.stage(w.key());
      expect((await w.rotate({ restarted: true })).says).toBe("waiting-restart");
      expect(w.events("restarted")).toEqual([]);
    });
  });

  test("a store that drifted after the restart is written again, and the restart is asked for again", async () => {
    await tell({ workloads: [workload("manual")] }, async (w) => {
      const fresh = w.key();
      await w.stage(fresh);
      await w.rotate();
      for (const it of w.workloads.values()) w.restart(it);
      await w.rotate({ restarted: true });
      for (const store of w.stores.values()) w.edit(store, firstKey(w));
      for (const it of w.workloads.values()) w.restart(it);
      expect((await w.rotate()).says).toBe("waiting-restart");
      expect(w.values()).toEqual({ a: fresh });
    });
  });
});

const tame = {
  replaces: false,
  worksAfterMs: 0,
  diesAfterMs: 0,
  says: "INVALID_API_KEY",
  showsApp: true,
} as const;
