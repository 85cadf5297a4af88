import { describe, expect, test } from "vitest";
import { phaseOf } from "../../src/core/outcome.ts";
import type { App } from "../../src/flow/hands.ts";
import type { Store } from "../../src/ports.ts";
import { nextSteps } from "../../src/core/steps.ts";
import { type AppState, unproved } from "../../src/core/state.ts";
import { firstKey, type Story, stores, tell, workload } from "./story.ts";

const alarm = {};
const steps = (s: AppState): string =>
  nextSteps("app", s, phaseOf(s))
    .map((n) => `${n.text} | ${n.command ?? ""}`)
    .join("\n");
const fail = (w: Story, name: string, forMs: number, code = "AUTHZ"): void => {
  const store = w.stores.get(name);
  store?.troubles.push({ from: w.time.now(), to: w.time.now() + forMs, code });
};

describe("an emergency", () => {
  test("revoke first: the outage is announced, the wait is ended by what is seen", async () => {
    await tell({ stores: stores("a", "cas-b"), workloads: [workload("exec")] }, async (w) => {
      const old = firstKey(w);
      const opened = await w.rotate({ alarm });
      expect(opened.says).toBe("waiting-key");
      expect(steps(opened.state)).toMatch(
        /revoke the API Key that the services use now .*fails from then on/,
      );
      expect(opened.state.rotation?.emergency).toMatchObject({ order: "revoke-first", since: null });
      expect(opened.state.leaked.has(w.fpOf(old))).toBe(true);
      w.imkit.revoke(old);
      const seen = await w.rotate();
      expect(seen.says).toBe("waiting-key");
      expect(seen.state.verdicts.get(w.fpOf(old))?.verdict).toBe("rejected");
      expect(steps(seen.state)).not.toContain("revoke the");
      const fresh = w.key();
      await w.stage(fresh);
      const done = await w.rotate();
      expect(done.state.rotation).toMatchObject({ ended: "done", mode: "replace" });
      expect(w.values()).toEqual({ a: fresh, "cas-b": fresh });
      expect(w.events("proof")).toHaveLength(1);
      expect(w.events("opened")).toHaveLength(1);
      expect(
        w
          .events("observed")
          .filter((e) => e["what"] === "usage")
          .map((e) => e["when"]),
      ).toEqual(["before", "after"]);
    });
  });

  test("replace first: the old key is not asked to be revoked before everything runs on the new one", async () => {
    await tell({ workloads: [workload("manual")] }, async (w) => {
      const old = firstKey(w);
      const opened = await w.rotate({ alarm: { order: "replace-first" } });
      expect(opened.says).toBe("waiting-key");
      expect(steps(opened.state)).toContain("Do not revoke the leaked key yet");
      await w.stage(w.key());
      const restart = await w.rotate();
      expect(restart.says).toBe("waiting-restart");
      expect(steps(restart.state)).not.toMatch(/revoke/i);
      for (const each of w.workloads.values()) w.restart(each);
      expect((await w.rotate({ restarted: true })).says).toBe("waiting-revoke");
      w.imkit.revoke(old);
      expect((await w.rotate()).state.rotation).toMatchObject({ ended: "done", mode: "overlap" });
    });
  });

  test("revoke first, but the person stages first: nothing is held back", async () => {
    await tell({ workloads: [workload("exec")] }, async (w) => {
      await w.rotate({ alarm });
      await w.stage(w.key());
      const { says } = await w.rotate();
      expect(says).toBe("waiting-revoke");
      expect(w.values()).toEqual({ a: w.uses()["exec"] });
    });
  });

  test("one wait for both: the key comes while it waits, and the revocation is seen by itself", async () => {
    await tell({ workloads: [workload("exec")] }, async (w) => {
      const old = firstKey(w);
      const running = w.rotate({ alarm, waitMs: 4 * 3_600_000 });
      await w.sleep(60_000);
      await w.stage(w.key());
      await w.sleep(60_000);
      w.imkit.revoke(old);
      const { state } = await running;
      expect(state.rotation?.ended).toBe("done");
      const sighting = state.verdicts.get(w.fpOf(old));
      const between = Date.parse(sighting?.rejectedTs ?? "") - Date.parse(sighting?.acceptedTs ?? "");
      expect(between).toBeGreaterThan(0);
      expect(between).toBeLessThanOrEqual(15_000);
    });
  });

  test("somebody puts the new key into the store by hand before it is staged: the leaked one can still be proved dead", async () => {
    await tell({ workloads: [workload("exec")] }, async (w) => {
      const old = firstKey(w);
      await w.rotate({ alarm });
      expect([...w.escrow.blobs.keys()]).toContain(w.fpOf(old));
      w.imkit.revoke(old);
      const fresh = w.key();
      const store = w.stores.get("a");
      if (store) w.edit(store, fresh);
      await w.stage(fresh);
      const { state } = await w.rotate();
      expect(state.rotation).toMatchObject({ ended: "done", mode: "replace" });
      expect(w.events("proof")).toHaveLength(1);
      expect([...w.escrow.blobs]).toEqual([]);
    });
  });

  test("a false alarm is taken back while a stranger's key is in the only store: the one in use stays in escrow", async () => {
    await tell({}, async (w) => {
      const [key, strange] = [firstKey(w), w.key()];
      await w.rotate({ alarm });
      const store = w.stores.get("a");
      if (store !== undefined) store.value = strange;
      expect((await w.rollback(true)).says).toBe("idle");
      expect([...w.escrow.blobs.values()]).toEqual([key]);
      if (store !== undefined) store.value = key;
      await w.rotate({ alarm });
      await w.rollback(true);
      expect([...w.escrow.blobs]).toEqual([]);
    });
  });

  test.each(["before", "after"])(
    "what a process saw of a key before it slept does not bring that key back: staged %s it looked",
    async (when) => {
      let met = 0;
      for (let isReached = true, pauseAt = 1; isReached; pauseAt++) {
        isReached = await tell({ seed: 1 }, async (w) => {
          if (when === "before") await w.stage(w.key());
          const others = async (): Promise<void> => {
            await w.sleep(100_000);
            if (when === "after") await w.stage(w.key());
            await w.rotate({ alarm });
            w.imkit.revoke(firstKey(w));
            // The last of it is left to the one that sleeps.
            await w.confirm({}, { crashAt: 30 });
          };
          const waitMs = when === "before" ? 75_000 : 0;
          await Promise.all([w.rotate({ alarm, waitMs }, { pauseAt, pauseMs: 400_000 }), others()]);
          const leaked = w.fpOf(firstKey(w));
          const isProved = w.events("proof").some((e) => e["fp"] === leaked);
          expect({ pauseAt, isDead: w.state().dead.has(leaked) }).toEqual({ pauseAt, isDead: isProved });
          met += isProved ? 1 : 0;
          return w.log.some((line) => line.includes("is stopped for"));
        });
      }
      expect(met).toBeGreaterThan(10);
    },
  );

  test("declared at any moment while a rotation closes: it is an emergency of the next one", async () => {
    let met = 0;
    for (let ms = 0; ms < 200; ms += 1) {
      await tell({}, async (w) => {
        const fresh = w.key();
        await w.stage(fresh);
        await w.rotate();
        w.imkit.revoke(firstKey(w));
        const closing = new Set<unknown>();
        const alarms: Promise<unknown>[] = [];
        let isLate = false;
        w.onEntry((_proc, { events }) => {
          for (const e of events) {
            if (e.type === "proof" && alarms.length === 0)
              alarms.push(w.sleep(ms).then(() => w.rotate({ alarm: { leaked: fresh } })));
            if (e.type === "closing") closing.add(e.rotation);
            if (e.type === "emergency-requested") isLate ||= closing.has(e.rotation);
          }
        });
        await w.confirm();
        await Promise.all(alarms);
        met += w.events("emergency-requested").length;
        expect({ ms, isLate }).toEqual({ ms, isLate: false });
      });
    }
    expect(met).toBeGreaterThan(100);
  });

  describe("taken back by a process that is stopped anywhere", () => {
    const isNowhere = (w: Story, fp: string): boolean =>
      !w.escrow.blobs.has(fp) &&
      !Object.values(w.values()).some((text) => text !== null && w.fpOf(text) === fp);
    const isReached = (w: Story): boolean =>
      w.log.some((line) => line.includes("is stopped for") || line.includes("is told to stop"));
    /** For each call of the rollback, until there is no such call. */
    const atEachCall = async (
      seed: number,
      story: (w: Story, at: number) => Promise<void>,
    ): Promise<void> => {
      for (let isMore = true, at = 1; isMore; at++) {
        isMore = await tell({ seed }, async (w) => {
          await w.rotate({ alarm });
          await story(w, at);
          return isReached(w);
        });
      }
    };

    test.each([2, 5, 6, 7, 8])("the next rotation keeps its old key (world %i)", async (seed) => {
      for (const pauseMs of [20_000, 100_000])
        await atEachCall(seed, async (w, pauseAt) => {
          const next = async (): Promise<string> => {
            await w.sleep(5_000);
            await w.stage(w.key());
            return (await w.rotate({ waitMs: 300_000 })).says;
          };
          const [, says] = await Promise.all([w.rollback(true, { pauseAt, pauseMs }), next()]);
          const lost = unproved(w.state()).filter((fp) => isNowhere(w, fp));
          expect({ pauseAt, says, lost, claim: w.state().claim }).toEqual({
            pauseAt,
            says: "waiting-revoke",
            lost: [],
            claim: null,
          });
        });
    });

    test("the key in use does not leave escrow once the store that showed it is overwritten", () =>
      atEachCall(7, async (w, pauseAt) => {
        const store = w.stores.get("a");
        const strange = w.key();
        const meddle = async (): Promise<void> => {
          await w.sleep(50_000);
          if (store !== undefined) w.edit(store, strange);
        };
        await Promise.all([w.rollback(true, { pauseAt, pauseMs: 100_000 }), meddle()]);
        const line = (part: string): number => w.log.findIndex((each) => each.includes(part));
        const isLate = line("drops") > line("somebody puts");
        expect({ pauseAt, isLate, claim: w.state().claim }).toEqual({ pauseAt, isLate: false, claim: null });
      }));

    test("told to stop after it was taken back, it says so, and the next rotation clears escrow", () =>
      atEachCall(7, async (w, stopAt) => {
        const { says } = await w.rollback(true, { stopAt });
        const isBack = w.state().rotation?.ended === "abandoned";
        expect({ stopAt, says }).toEqual({ stopAt, says: isBack ? "idle" : "INTERRUPTED" });
        expect(w.state().claim).toBeNull();
        if (!isBack) await w.rollback(true);
        await w.stage(w.key());
        await w.rotate();
        w.imkit.revoke(firstKey(w));
        await w.confirm();
        expect([...w.escrow.blobs]).toEqual([]);
      }));
  });

  test("a store that the alarm adds to the plan while the others are asked is asked, too", async () => {
    await tell({ stores: stores("a", "b") }, async (w) => {
      const fresh = w.key();
      await w.stage(fresh);
      const alarmed: Promise<unknown>[] = [];
      const adding = (app: App): App => ({
        ...app,
        stores: app.stores.slice(0, 1).map(({ plan, store }) => {
          const preflight: Store["preflight"] = async (signal) => {
            if (alarmed.length === 0) alarmed.push(w.rotate({ alarm, waitMs: 60_000 }));
            await w.sleep(1_000);
            return store.preflight(signal);
          };
          return { plan, store: { ...store, preflight } };
        }),
      });
      await w.rotate({ app: adding });
      await Promise.all(alarmed);
      expect(w.events("plan-amended")).toMatchObject([{ stores: [{ name: "b" }] }]);
      const asked = w.events("observed").filter((e) => e["what"] === "preflight" && e["target"] === "b");
      expect(asked.map((e) => [e["run"], e["outcome"]])).toEqual([
        [1, "failed"],
        [2, "ok"],
      ]);
      expect(w.values()).toEqual({ a: fresh, b: fresh });
    });
  });

  test("an old key that a store showed once is kept, whatever it shows right before the write", async () => {
    await tell({}, async (w) => {
      await w.rotate({ alarm });
      const fp = w.fpOf(firstKey(w));
      w.escrow.lose(fp);
      await w.command("writer", async (hands) => {
        const keys = w.product.openKeys(hands, await w.product.openJournal(hands));
        expect(await keys.keepKnown([fp])).toBe(false);
        expect(w.escrow.blobs.has(fp)).toBe(false);
        await keys.get(fp);
        expect([await keys.keepKnown([fp]), await keys.keepKnown([fp])]).toEqual([true, false]);
        expect(w.escrow.blobs.get(fp)).toBe(firstKey(w));
        return null;
      });
    });
  });

  test("what one process kept, and another took out when the leak was taken back, is kept again", async () => {
    await tell({}, async (w) => {
      await w.rotate({ alarm });
      const key = firstKey(w);
      const fp = w.fpOf(key);
      await w.command("keeper", async (hands) => {
        const journal = await w.product.openJournal(hands);
        const keys = w.product.openKeys(hands, journal);
        const secret = await keys.get(fp);
        await w.rollback(true);
        expect(w.escrow.blobs.has(fp)).toBe(false);
        await journal.refresh();
        expect(secret === null ? null : await keys.keep(fp, secret)).toBe(true);
        expect(w.escrow.blobs.has(fp)).toBe(true);
        return null;
      });
    });
  });

  test("a wait that is used up loses nothing, and says until when the leaked key was seen to work", async () => {
    await tell({}, async (w) => {
      const ended = await w.rotate({ alarm, waitMs: 600_000 });
      expect(ended.says).toBe("waiting-key");
      const { verdicts, rotation } = ended.state;
      const seen = verdicts.get(w.fpOf(firstKey(w)))?.acceptedTs ?? "";
      expect(Date.parse(seen) - Date.parse(rotation?.openedTs ?? "")).toBeGreaterThan(580_000);
      expect((await w.rotate({ alarm })).says).toBe("waiting-key");
      expect(w.events("emergency-requested")).toHaveLength(1);
    });
  });

  test("the staged key leaked: it has to die too, and another one is waited for", async () => {
    await tell({ workloads: [workload("exec")] }, async (w) => {
      const bad = w.key();
      await w.stage(bad);
      await w.rotate();
      const { says, state } = await w.rotate({ alarm: { leaked: bad } });
      expect(says).toBe("waiting-key");
      expect([...state.old.keys()].sort()).toEqual([w.fpOf(bad), w.fpOf(firstKey(w))].sort());
      expect((await w.stage(bad)).says).toBe("KEY_DEAD");
      const good = w.key();
      expect((await w.stage(good)).says).toBe("accepted");
      expect((await w.rotate()).says).toBe("waiting-revoke");
      w.imkit.revoke(bad);
      expect((await w.rotate()).says).toBe("waiting-revoke");
      w.imkit.revoke(firstKey(w));
      const end = await w.rotate();
      expect(end.state).toMatchObject({ current: w.fpOf(good), rotation: { ended: "done" } });
      expect(w.uses()).toEqual({ exec: good });
    });
  });

  test("a staged key that leaked before anything was opened", async () => {
    await tell({}, async (w) => {
      const bad = w.key();
      await w.stage(bad);
      const { says, state } = await w.rotate({ alarm: { leaked: bad } });
      expect(says).toBe("waiting-key");
      expect(state.staged).toBeNull();
      expect(state.old.has(w.fpOf(bad))).toBe(true);
      expect(w.values()).toEqual({ a: firstKey(w) });
    });
  });

  test("no canary, no order, no soak", async () => {
    const workloads = [
      workload("exec", { name: "canary", canary: true }),
      workload("exec", { name: "rest", after: ["canary"] }),
    ];
    await tell({ workloads, soakMs: 3_600_000 }, async (w) => {
      await w.stage(w.key());
      const { says } = await w.rotate({ alarm });
      expect(says).toBe("waiting-revoke");
      const rolls = w.events("intent").filter((e) => e["action"] === "roll");
      expect(rolls).toHaveLength(2);
      const lines = w.ledger.lines.map((line) => Buffer.from(line).toString());
      expect(lines.filter((line) => line.includes('"action":"roll"'))).toHaveLength(1);
    });
  });

  test("one store fails: the others have the new key and what reads them is restarted; then it is mended", async () => {
    await tell({ stores: stores("a", "b"), workloads: [workload("exec")] }, async (w) => {
      const old = firstKey(w);
      const fresh = w.key();
      await w.stage(fresh);
      fail(w, "b", 300_000);
      const { says, state } = await w.rotate({ alarm });
      expect(says).toBe("failed");
      expect(w.values()).toEqual({ a: fresh, b: old });
      expect(w.uses()).toEqual({ exec: fresh });
      expect(steps(state)).toContain("accept the outage");
      await w.sleep(300_000);
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.values()).toEqual({ a: fresh, b: fresh });
    });
  });

  test("the person changes his mind about the new key: the leak is not forgotten", async () => {
    await tell({}, async (w) => {
      await w.stage(w.key());
      await w.rotate({ alarm, app: (app) => ({ ...app, stores: [] }) }).catch(() => {});
      await w.discard();
      const { says, state } = await w.rotate();
      expect(says).toBe("waiting-key");
      expect(state.old.has(w.fpOf(firstKey(w)))).toBe(true);
    });
  });

  test("what stage saw of the leaked key is not forgotten when the new one is taken back", async () => {
    await tell({}, async (w) => {
      const old = firstKey(w);
      await w.rotate({ alarm });
      const fresh = w.key();
      await w.stage(fresh);
      w.imkit.revoke(old);
      const again = await w.stage(fresh);
      expect(again.state.verdicts.get(w.fpOf(old))?.verdict).toBe("rejected");
      expect(w.events("staged")).toHaveLength(1);
      const { state } = await w.discard();
      expect(phaseOf(state)).toBe("waiting-key");
      expect(steps(state)).not.toContain("Stop the leak");
      expect((await w.stage(w.key())).says).toBe("accepted");
      expect(
        w.events("observed").filter((e) => e["fp"] === w.fpOf(old) && e["verdict"] === "rejected"),
      ).toHaveLength(1);
    });
  });

  test("a rotator at work goes on as an emergency; who declared it follows to the end", async () => {
    const workloads = [
      workload("watched", { name: "canary", canary: true, takesMs: 240_000 }),
      workload("watched", { name: "rest", after: ["canary"] }),
    ];
    await tell({ workloads }, async (w) => {
      await w.stage(w.key());
      const first = w.rotate();
      await w.sleep(30_000);
      expect(w.events("intent").filter((e) => e["action"] === "roll")).toHaveLength(1);
      const second = w.rotate({ alarm });
      await w.sleep(30_000);
      expect(w.events("intent").filter((e) => e["action"] === "roll")).toHaveLength(2);
      expect((await first).says).toBe("waiting-revoke");
      expect((await second).says).toBe("waiting-revoke");
    });
  });

  test("said again when all is over it is no second leak, unless another key is named", async () => {
    await tell({}, async (w) => {
      await w.rotate({ alarm });
      w.imkit.revoke(firstKey(w));
      const fresh = w.key();
      await w.stage(fresh);
      await w.rotate({ alarm });
      expect((await w.rotate({ alarm })).says).toBe("idle");
      expect(w.events("emergency-requested")).toHaveLength(1);
      expect((await w.rotate({ alarm: { leaked: fresh } })).says).toBe("waiting-key");
      expect(w.events("emergency-requested")).toHaveLength(2);
    });
  });

  test("a false alarm before anything was written is taken back", async () => {
    await tell({ workloads: [workload("exec")] }, async (w) => {
      await w.rotate({ alarm });
      expect((await w.rollback()).says).toBe("ROLLBACK_REFUSED");
      expect((await w.rollback(true)).says).toBe("idle");
      const s = w.state();
      expect(s.rotation?.ended).toBe("abandoned");
      expect(s).toMatchObject({ current: w.fpOf(firstKey(w)) });
      expect([...s.old.keys(), ...s.leaked]).toEqual([]);
      expect(w.events("intent")).toEqual([]);
      expect([...w.escrow.blobs]).toEqual([]);
    });
  });

  test("the leaked key was revoked before anybody ran this program", async () => {
    await tell({ workloads: [workload("exec")] }, async (w) => {
      w.imkit.revoke(firstKey(w));
      expect((await w.rotate({ alarm })).says).toBe("waiting-key");
      await w.stage(w.key());
      expect((await w.rotate()).state.rotation).toMatchObject({ ended: "done", mode: "replace" });
    });
  });

  test("a fingerprint that nobody knows, or of a dead key, is refused", async () => {
    await tell({}, async (w) => {
      expect((await w.rotate({ alarm: { leaked: w.key() } })).says).toBe("USAGE");
      await w.stage(w.key());
      await w.rotate();
      w.imkit.revoke(firstKey(w));
      await w.rotate();
      expect((await w.rotate({ alarm: { leaked: firstKey(w) } })).says).toBe("USAGE");
      expect(w.events("emergency-requested")).toEqual([]);
    });
  });

  test("an unknown value in a store is overwritten when IMKIT rejects it, and not when it works", async () => {
    await tell({ stores: stores("a", "b") }, async (w) => {
      await w.stage(w.key());
      const dead = w.key();
      w.imkit.revoke(dead);
      const store = w.stores.get("b");
      if (store) w.edit(store, dead);
      expect((await w.rotate({ alarm })).says).toBe("waiting-revoke");
    });
    await tell({ stores: stores("a", "b") }, async (w) => {
      const fresh = w.key();
      await w.stage(fresh);
      const alive = w.key();
      const store = w.stores.get("b");
      if (store) w.edit(store, alive);
      expect((await w.rotate({ alarm })).says).toBe("failed");
      expect(w.values()).toEqual({ a: fresh, b: alive });
    });
  });
});

describe("rollback", () => {
  test("the roles are swapped, and the newer key has to die", async () => {
    await tell({ stores: stores("a", "cas-b"), workloads: [workload("exec")] }, async (w) => {
      const old = firstKey(w);
      const fresh = w.key();
      await w.stage(fresh);
      await w.rotate();
      const { says, state } = await w.rollback();
      expect(says).toBe("waiting-revoke");
      expect(w.values()).toEqual({ a: old, "cas-b": old });
      expect(w.uses()).toEqual({ exec: old });
      expect(steps(state)).toContain("revoke the newer API Key");
      expect((await w.rollback()).says).toBe("waiting-revoke");
      expect(w.events("rollback-requested")).toHaveLength(1);
      expect((await w.discard()).says).toBe("TOO_LATE");
      w.imkit.revoke(fresh);
      expect((await w.confirm()).says).toBe("rejected");
      expect(w.state()).toMatchObject({ current: w.fpOf(old), rotation: { ended: "done" } });
      expect([...w.state().old.keys()]).toEqual([]);
      expect(w.state().dead.has(w.fpOf(fresh))).toBe(true);
    });
  });

  test("the wrong key was revoked: back to the old one, without another word", async () => {
    await tell({ workloads: [workload("exec")] }, async (w) => {
      const old = firstKey(w);
      const fresh = w.key();
      await w.stage(fresh);
      await w.rotate();
      w.imkit.revoke(fresh);
      const wrong = await w.rotate();
      expect(wrong.says).toBe("wrong-key-revoked");
      expect(steps(wrong.state)).toContain("imkit-rotator rollback app");
      const back = await w.rollback();
      expect(back.state).toMatchObject({ current: w.fpOf(old), rotation: { ended: "done" } });
      expect(w.values()).toEqual({ a: old });
    });
  });

  test("nothing is open: nothing to do", async () => {
    await tell({}, async (w) => expect((await w.rollback()).says).toBe("nothing"));
  });

  test.each(["dead", "leaked", "first"])("no way back: %s", async (why) => {
    await tell({ start: why === "first" ? "nothing" : "one key" }, async (w) => {
      const fresh = w.key();
      await w.stage(fresh);
      await w.rotate(why === "leaked" ? { alarm } : { app: (app) => ({ ...app, soakMs: 3_600_000 }) });
      if (why === "dead") w.imkit.revoke(firstKey(w));
      const { says } = await w.rollback();
      expect(says).toBe(why === "first" ? "nothing" : "ROLLBACK_REFUSED");
      expect(w.values()).toEqual({ a: fresh });
    });
  });
});
