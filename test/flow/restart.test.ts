import { expect, test } from "vitest";
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
