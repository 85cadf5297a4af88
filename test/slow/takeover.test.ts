import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { FAST, startDaemon, until } from "../kit/daemon.ts";
import { makeWorld } from "../kit/world.ts";
import { follow, seal } from "../../src/core/chain.ts";
import type { Entry } from "../../src/core/events.ts";

it("a claim of another host that nobody will ever give back: the daemon sees its silence and goes on", async () => {
  const w = await makeWorld({ more: FAST });
  const key = w.sandbox.issue();
  expect((await w.run(["stage", "demo", "--from-stdin"], { stdin: key })).code).toBe(0);
  let head: Entry | null = null;
  for (const name of readdirSync(w.ledgerDir)
    .filter((n) => n.endsWith(".json"))
    .toSorted()) {
    const followed = follow(head, readFileSync(join(w.ledgerDir, name)));
    if ("problem" in followed) throw new Error(followed.problem);
    head = followed.entry;
  }
  if (head === null) throw new Error("no ledger");
  const seq = head.seq + 1;
  const inst = "0123456789abcdef";
  const claim = { inst, host: "pod-that-is-gone", bootId: "b", pidNamespace: "n", pid: 1, startTime: "1" };
  const { line } = seal({
    v: 1,
    ledger: head.ledger,
    seq,
    prev: head.h,
    ts: new Date().toISOString(),
    inst,
    actor: { kind: "tick", id: "65532" },
    events: [{ type: "claimed", ...claim }],
  });
  writeFileSync(join(w.ledgerDir, `${String(seq).padStart(8, "0")}.json`), line, { mode: 0o600 });
  const d = await startDaemon(w.dir);
  try {
    const locked = 'imkit_rotator_ticks_total{app="demo",status="locked"}';
    await until("it is seen", async () => ((await d.metric(locked)) ?? 0) >= 1);
    expect(w.value()).toBe(w.sandbox.firstKey());
    await until("it is taken over", () => w.value() === key, 150_000);
    expect((await w.run(["audit", "verify", "demo"])).code).toBe(0);
  } finally {
    d.signal("SIGTERM");
    expect((await d.ended).code).toBe(143);
    await w.close();
  }
});
