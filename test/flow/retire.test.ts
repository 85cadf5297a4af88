import { expect, test } from "vitest";
import { ProviderError } from "../../src/core/errors.ts";
import type { App } from "../../src/flow/hands.ts";
import { firstKey, stores, tell, workload } from "./story.ts";

/** Every store keeps its versions, and says which were disabled. */
const keepsVersions = (log: string[], fails = false) => ({
  app: (app: App): App => ({
    ...app,
    stores: app.stores.map(({ plan, store }) => ({
      plan,
      store: {
        ...store,
        caps: { ...store.caps, retire: true },
        retire: async (revision: string) => {
          log.push(`${plan.name}:${revision}`);
          if (fails) throw new ProviderError("AUTHZ", "not_applied");
        },
      },
    })),
  }),
});

test("what a rotation wrote over is disabled when the old key is proved dead, and not before", async () => {
  await tell({ stores: stores("a", "cas-b"), workloads: [workload("none")] }, async (w) => {
    const log: string[] = [];
    const change = keepsVersions(log);
    const before = [...w.stores.values()].map((s) => `${s.plan.name}:r${s.revision}`);
    await w.stage(w.key());
    expect((await w.rotate(change)).says).toBe("waiting-revoke");
    expect(log).toEqual([]);
    w.imkit.revoke(firstKey(w));
    expect((await w.rotate(change)).state.rotation?.ended).toBe("done");
    expect(log.sort()).toEqual(before.sort());
  });
});

test("a second new key in the same rotation: both earlier versions go", async () => {
  await tell({ workloads: [workload("none")] }, async (w) => {
    const log: string[] = [];
    const change = keepsVersions(log);
    const second = w.key();
    await w.stage(second);
    await w.rotate(change);
    await w.stage(w.key(), true);
    await w.rotate(change);
    for (const key of [firstKey(w), second]) w.imkit.revoke(key);
    await w.rotate(change);
    expect(w.state().rotation?.ended).toBe("done");
    expect(log).toHaveLength(2);
    expect(log).not.toContain(`a:r${w.stores.get("a")?.revision}`);
  });
});

test("a version that cannot be disabled is remarked and stops nothing", async () => {
  await tell({ workloads: [workload("none")] }, async (w) => {
    await w.stage(w.key());
    await w.rotate(keepsVersions([]));
    w.imkit.revoke(firstKey(w));
    expect((await w.rotate(keepsVersions([], true))).state.rotation?.ended).toBe("done");
    expect(w.log.join("\n")).toContain("a superseded version could not be disabled (AUTHZ)");
  });
});
