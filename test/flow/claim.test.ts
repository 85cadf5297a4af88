import { getEventListeners } from "node:events";
import { describe, expect, test } from "vitest";
import type { Hands } from "../../src/flow/hands.ts";
import { openRotation } from "../../src/flow/open.ts";
import { NO_FATE } from "../simulation/world/process.ts";
import { PLAIN_ROTATE } from "../kit/rotate-options.ts";
import { firstKey, type Story, stores, tell, workload } from "./story.ts";

const options = { reason: null, ticket: null, drop: [] };

/** The types of the events of each entry. */
const entries = (w: Story): readonly (readonly string[])[] =>
  w.ledger.lines.map((line) => {
    const { r } = JSON.parse(Buffer.from(line).toString("latin1")) as { r: { events: { type: string }[] } };
    return r.events.map((e) => e.type);
  });

describe("a rotation begins", () => {
  test("with its first run and the claim in the entry that opens it", async () => {
    await tell({}, async (w) => {
      await w.stage(w.key());
      await w.rotate();
      expect(entries(w).filter((types) => types.includes("run-started"))).toEqual([
        ["opened", "run-started", "claimed"],
      ]);
      expect(w.events("run-started")).toMatchObject([{ run: 1 }]);
      w.imkit.revoke(firstKey(w));
      await w.rotate();
      expect(w.events("run-started")).toMatchObject([{ run: 1 }, { run: 2 }]);
      expect(w.state().claim).toBeNull();
    });
  });

  test("by nothing but its plan where another process holds the claim", async () => {
    await tell({}, async (w) => {
      await w.stage(w.key());
      await w.command("other", async (other) => {
        const theirs = await w.product.openJournal(other);
        await theirs.decide([{ type: "claimed", ...other.host.claim }]);
        await w.command("opener", async (hands) => {
          const journal = await w.product.openJournal(hands);
          expect(await openRotation(hands, journal, options)).toBe(false);
          expect(journal.state().claim?.inst).toBe(other.host.claim.inst);
          return null;
        });
        await theirs.refresh();
        await theirs.decide([{ type: "released", inst: other.host.claim.inst }]);
        return null;
      });
      expect(entries(w).at(-2)).toEqual(["opened"]);
    });
  });

  test("and gives the claim back where it is discarded before anything was done", async () => {
    let met = 0;
    for (let ms = 0; ms < 40; ms += 1) {
      await tell({ stores: stores("a?"), workloads: [workload("manual")] }, async (w) => {
        await w.stage(w.key());
        await Promise.all([w.rotate({ restarted: true }), w.sleep(ms).then(() => w.discard())]);
        expect({ ms, claim: w.state().claim }).toEqual({ ms, claim: null });
        met += w.events("abandoned").length;
      });
    }
    expect(met).toBeGreaterThan(0);
  });
});

describe("a process that lives on", () => {
  const rotateWith = (w: Story, hands: Hands): Promise<string> =>
    w.product.rotate(hands, { ...PLAIN_ROTATE, waitMs: 0 }).then(
      ({ phase }) => phase,
      (error: { readonly code: string }) => error.code,
    );

  test("and was taken for dead once works again when its next turn comes", async () => {
    await tell({ stores: stores("a", "b") }, async (w) => {
      await w.stage(w.key());
      await w.command(
        "daemon",
        async (hands) => {
          const other = w.sleep(5_000).then(() => w.rotate({ waitMs: 200_000 }));
          expect(await rotateWith(w, hands)).toBe("LOCKED");
          await other;
          w.imkit.revoke(firstKey(w));
          expect((await w.confirm()).says).toBe("rejected");
          const fresh = w.key();
          await w.stage(fresh);
          expect(await rotateWith(w, hands)).toBe("waiting-revoke");
          expect(w.values()).toEqual({ a: fresh, b: fresh });
          return null;
        },
        { ...NO_FATE, pauseAt: 12, pauseMs: 100_000 },
      );
      expect(w.log.some((line) => line.includes("daemon#2 is stopped for"))).toBe(true);
    });
  });

  test("keeps nothing on its signal of the turns that are over", async () => {
    await tell({ workloads: [workload("exec")] }, async (w) => {
      await w.stage(w.key());
      await w.command("daemon", async (hands) => {
        const before = getEventListeners(hands.signal, "abort").length;
        expect(await rotateWith(w, hands)).toBe("waiting-revoke");
        expect(getEventListeners(hands.signal, "abort")).toHaveLength(before);
        return null;
      });
    });
  });
});
