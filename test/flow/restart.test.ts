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
