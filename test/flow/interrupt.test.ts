import { describe, expect, test } from "vitest";
import type { App } from "../../src/flow/hands.ts";
import type { Store } from "../../src/ports.ts";
import { NO_FATE } from "../simulation/world/process.ts";
import { firstKey, type Story, stores, tell, workload } from "./story.ts";
import { PLAIN_ROTATE } from "../kit/rotate-options.ts";

/** The world's places answer a call that was told to stop as the adapters do: TIMEOUT, `unclear`, no identity. None of that is true. */
const PLACES = {
  stores: () => stores("a", "cas-b+", "m~"),
  workloads: () => [workload("watched"), workload("exec")],
};
const AT_MOST = 90;

const pretended = (w: Story): readonly unknown[] => [
  ...["observed", "result"].flatMap((type) => w.events(type).filter((e) => e["code"] === "TIMEOUT")),
  ...w.events("observed").filter((e) => e["code"] === "IMKIT_UNCLEAR" || e["usage"] === null),
  ...w.events("mode-found").filter((e) => e["sameApp"] !== "proved"),
  ...w.events("done").filter((e) => e["appFingerprint"] === null),
];

/** Tells one story for each call at which the command may be told to stop, until one ends before it is. */
const atEachCall = async (
  before: (w: Story) => Promise<void>,
  command: (w: Story, stopAt: number) => Promise<{ readonly says: string }>,
  after: (w: Story, says: string) => Promise<void>,
): Promise<number> => {
  for (let stopAt = 1; stopAt <= AT_MOST; stopAt++) {
    const isStopped = await tell(
      { stores: PLACES.stores(), workloads: PLACES.workloads() },
      async (w): Promise<boolean> => {
        await before(w);
        const { says } = await command(w, stopAt);
        expect(pretended(w), `stopped at call ${stopAt}`).toEqual([]);
        await after(w, says);
        return w.log.some((line) => line.includes("is told to stop"));
      },
    );
    if (!isStopped) return stopAt - 1;
  }
  throw new Error("the command does not end");
};

describe("told to stop at any call, nothing is written down because of that", () => {
  test("rotate: no failure, no answer, and the next one goes on to the gate", async () => {
    const calls = await atEachCall(
      async (w) => void (await w.stage(w.key())),
      (w, stopAt) => w.rotate({}, { stopAt }),
      async (w, says) => {
        expect(["INTERRUPTED", "rotating", "waiting-revoke"]).toContain(says);
        await w.sleep(60_000);
        expect((await w.rotate({ waitMs: 60_000 })).says).toBe("waiting-revoke");
      },
    );
    expect(calls).toBeGreaterThan(20);
  });

  test("a write that does not end has ten seconds, and then nobody knows how it ended", async () => {
    await tell({ stores: stores("a"), workloads: [workload("none")] }, async (w) => {
      await w.stage(w.key());
      const endless = (app: App): App => ({
        ...app,
        stores: app.stores.map(({ plan, store }) => {
          const write: Store["write"] = async (_next, _expect, _op, signal) => {
            while (!signal.aborted) await store.preflight(signal).catch(() => []);
            throw new w.product.ProviderError("TIMEOUT", "unknown");
          };
          return { plan, store: { ...store, write } };
        }),
      });
      await w.rotate({ app: endless }, { stopAt: 60 });
      const told = w.log.findLast((line) => line.includes("is told to stop")) ?? "";
      expect(w.time.now() - Number.parseFloat(told) * 1_000).toBeLessThan(11_000);
      expect(w.events("result")).toMatchObject([{ outcome: "unknown", code: "INTERRUPTED" }]);
      expect((await w.rotate()).says).toBe("waiting-revoke");
      expect(w.events("observed")).toContainEqual(expect.objectContaining({ code: "NOT_APPLIED" }));
    });
  });

  test("a ledger that fails ends what looks, too", async () => {
    await tell({ stores: stores("a", "m~"), workloads: [workload("none")] }, async (w) => {
      await w.stage(w.key());
      let looks = 0;
      const endless = (app: App): App => ({
        ...app,
        stores: app.stores.map(({ plan, store }) => {
          const read: Store["read"] = async (signal) => {
            if (plan.write || w.events("result").length === 0) return store.read(signal);
            looks += 1;
            await new Promise<void>((resolve) => {
              signal.addEventListener("abort", () => resolve());
            });
            throw new w.product.RotatorError("INTERRUPTED");
          };
          return { plan, store: { ...store, read } };
        }),
      });
      const failing = w.sleep(60_000).then(() => w.ledger.failAt(1, false));
      const { says } = await w.rotate({ app: endless });
      await failing;
      expect({ says, isLooking: looks > 0 }).toEqual({ says: "LEDGER_UNWRITABLE", isLooking: true });
    });
  });

  test("an emergency, and the end of it", async () => {
    await atEachCall(
      async (w) => {
        await w.stage(w.key());
        await w.rotate({ waitMs: 60_000, alarm: {} });
        w.imkit.revoke(firstKey(w));
        await w.sleep(1_000);
      },
      (w, stopAt) => w.rotate({}, { stopAt }),
      async (w) => {
        expect((await w.rotate({ waitMs: 60_000 })).says).toBe("idle");
        expect(w.events("done")).toHaveLength(1);
      },
    );
  });

  test("adopt: no answer of IMKIT, nothing adopted", async () => {
    await atEachCall(
      async () => {},
      async (w, stopAt) => w.rotate({}, { stopAt }),
      async (w, says) => {
        expect(["INTERRUPTED", "idle"]).toContain(says);
        for (const { appFingerprint } of w.events("adopted")) expect(appFingerprint).not.toBeNull();
      },
    );
  });

  test("a tick: a look for drift is no failure, and what was done before it is done", async () => {
    const people = { notifiers: [], owners: [], remindBeforeMs: [], escalateAfterMs: 0, steps: () => [] };
    const options = { rotate: { ...PLAIN_ROTATE, waitMs: 0 }, inboxes: [], people, mayOpen: true };
    const ends = new Set<string>();
    await atEachCall(
      async (w) => {
        await w.stage(w.key());
        await w.rotate({ waitMs: 60_000 });
        w.imkit.revoke(firstKey(w));
        await w.sleep(1_000);
      },
      async (w, stopAt) => {
        const ended = await w.command("tick", (hands) => w.product.tick(hands, options), {
          ...NO_FATE,
          stopAt,
        });
        if (ended.kind !== "returned") throw new Error(ended.kind);
        const { error, drift, rotated } = ended.value;
        const isDone = w.events("done").length > 0;
        ends.add(`${rotated.phase} ${isDone} ${error?.code ?? ""}`);
        expect(drift).toEqual([]);
        return { says: "" };
      },
      async () => {},
    );
    expect([...ends].sort()).toEqual(["idle true ", "rotating false ", "waiting-revoke false "]);
  });

  test("stage: the key is kept and in the ledger, with what was answered", async () => {
    await atEachCall(
      async () => {},
      (w, stopAt) => w.stage(w.key(), false, { stopAt }),
      async (w) => {
        expect(w.events("staged")).toHaveLength(1);
        expect((await w.rotate({ waitMs: 60_000 })).says).toBe("waiting-revoke");
      },
    );
  });

  test("a key is not attested because IMKIT could not be asked whether it still works", async () => {
    await atEachCall(
      async (w) => {
        await w.stage(w.key());
        await w.rotate({ waitMs: 60_000 });
      },
      (w, stopAt) => w.confirm({ waive: "it is gone" }, { stopAt }),
      async (w, says) => {
        expect(["INTERRUPTED", "STILL_ACCEPTED"]).toContain(says);
        expect(w.events("waived")).toEqual([]);
      },
    );
  });
});
