import { expect, test } from "vitest";
import { PLAIN_ROTATE } from "../kit/rotate-options.ts";
import { stores, tell, workload } from "./story.ts";

test("a restart that was said while another process still wrote proves nothing: it is not recorded", async () => {
  await tell({ stores: stores("a"), workloads: [workload("manual")] }, async (w) => {
    await w.stage(w.key());
    const [first, hasty] = await Promise.all([
      w.rotate(),
      w.sleep(50).then(() => w.rotate({ restarted: true, waitMs: 30_000 })),
    ]);
    expect([first.says, hasty.says]).toEqual(["waiting-restart", "waiting-restart"]);
    expect(w.events("restarted")).toEqual([]);
    for (const manual of w.workloads.values()) w.restart(manual);
    expect((await w.rotate({ restarted: true })).says).toBe("waiting-revoke");
    expect(w.events("restarted")).toHaveLength(1);
  });
});

test("said to a process that sleeps before it reads the ledger: what was written meanwhile was not restarted", async () => {
  await tell({ stores: stores("a"), workloads: [workload("manual")] }, async (w) => {
    await w.stage(w.key());
    await w.rotate();
    for (const manual of w.workloads.values()) w.restart(manual);
    const next = async (): Promise<void> => {
      await w.sleep(1_000);
      await w.stage(w.key(), true);
      await w.rotate();
    };
    const [{ says }] = await Promise.all([
      w.rotate({ restarted: true }, { pauseAt: 1, pauseMs: 200_000 }),
      next(),
    ]);
    expect(says).toBe("waiting-restart");
    expect(w.events("restarted")).toEqual([]);
    for (const manual of w.workloads.values()) w.restart(manual);
    expect((await w.rotate({ restarted: true })).says).toBe("waiting-revoke");
  });
});

test("said before a mirror shows the key, and waited for: what came into the mirror later was not restarted", async () => {
  await tell({ stores: stores("a", "m~"), workloads: [workload("manual", { reads: "m" })] }, async (w) => {
    await w.stage(w.key());
    const first = w.rotate();
    await w.sleep(2_000);
    for (const manual of w.workloads.values()) w.restart(manual);
    const hasty = await w.rotate({ restarted: true, waitMs: 120_000 });
    expect([(await first).says, hasty.says]).toEqual(["waiting-restart", "waiting-restart"]);
    expect(w.events("restarted")).toEqual([]);
  });
});

test("said on a host whose clock is behind that of the host which wrote: it counts", async () => {
  await tell({ stores: stores("a"), workloads: [workload("manual")] }, async (w) => {
    await w.stage(w.key());
    await w.command("writer", (hands) => {
      const clock = { ...hands.clock, now: () => hands.clock.now() + 3_600_000 };
      return w.product.rotate({ ...hands, clock }, { ...PLAIN_ROTATE, waitMs: 0 });
    });
    for (const manual of w.workloads.values()) w.restart(manual);
    expect((await w.rotate({ restarted: true })).says).toBe("waiting-revoke");
  });
});
