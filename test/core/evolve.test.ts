import { describe, expect, test } from "vitest";
import type { LedgerEvent } from "../../src/core/events.ts";
import { seenSinceChange, storesDone } from "../../src/core/next.ts";
import { type AppState, EMPTY, evolve } from "../../src/core/state.ts";

const K1 = "00000000000000a1";
const K2 = "00000000000000b2";
const K3 = "00000000000000c3";

/** One entry for each list of events. */
const fold = (entries: readonly (readonly LedgerEvent[])[]): AppState =>
  entries.reduce(
    (state, events, seq) =>
      events.reduce(
        (s, e, index) => evolve(s, e, { seq, index, ts: `2026-03-02T08:00:0${seq % 10}.000Z` }),
        state,
      ),
    EMPTY,
  );

const opened: readonly (readonly LedgerEvent[])[] = [
  [
    { type: "genesis", app: "chat", salt: "5a".repeat(32) },
    {
      type: "adopted",
      mode: "current",
      by: "auto",
      current: K1,
      old: [],
      stale: [],
      stores: [{ name: "a", fp: K1 }],
      appFingerprint: null,
    },
    { type: "staged", fp: K2, verdict: "accepted", source: "stdin", sameApp: "proved", appFingerprint: null },
  ],
  [
    {
      type: "opened",
      rotation: "r",
      new: K2,
      old: [K1],
      current: K1,
      stores: [{ name: "a", type: "dotenv", where: "dotenv:/a", required: true, write: true }],
      rollouts: [
        { name: "w", type: "exec", where: "exec:w", required: true, canary: false, after: [] },
        { name: "n", type: "none", where: "none", required: true, canary: false, after: [] },
      ],
      reason: null,
      ticket: null,
    },
    { type: "run-started", rotation: "r", run: 1 },
  ],
];
const intent = (target: string, action: "write" | "roll", fp = K2): LedgerEvent => ({
  type: "intent",
  rotation: "r",
  run: 1,
  target,
  action,
  opId: "0f".repeat(16),
  fp,
});
const result = (of: string, more: object = {}): LedgerEvent => ({
  type: "result",
  rotation: "r",
  intent: of,
  outcome: "ok",
  ...more,
});
const seen = (fp: string | null, more: object = {}): LedgerEvent => ({
  type: "observed",
  rotation: "r",
  what: "target",
  run: 1,
  target: "a",
  outcome: "ok",
  fp,
  ...more,
});
const another: LedgerEvent = {
  type: "staged",
  rotation: "r",
  fp: K3,
  replaces: K2,
  verdict: "accepted",
  source: "stdin",
  sameApp: "proved",
  appFingerprint: null,
};
const store = (s: AppState) => s.rotation?.stores.get("a");
const rollout = (s: AppState) => s.rotation?.rollouts.get("w");

describe("a write", () => {
  test("counts for the key that it was for, not for the one that took its place meanwhile", () => {
    const s = fold([...opened, [intent("a", "write")], [another], [result("2.0")]]);
    expect(store(s)).toMatchObject({ state: "pending", open: null });
    expect(s.lastSeen.get("a")).toBe(K2);
    const found = { ...seen(K2), what: "intent" as const, intent: "2.0" };
    expect(store(fold([...opened, [intent("a", "write")], [another], [found as LedgerEvent]]))).toMatchObject(
      {
        state: "pending",
        open: null,
      },
    );
  });

  test("that was called off leaves the store to do", () => {
    const s = fold([
      ...opened,
      [intent("a", "write")],
      [result("2.0", { outcome: "failed", code: "CANCELLED" })],
    ]);
    expect(store(s)).toMatchObject({ state: "pending", code: null });
  });

  test("is unknown until somebody looked, whatever the next run does", () => {
    const unknown = fold([
      ...opened,
      [intent("a", "write")],
      [result("2.0", { outcome: "unknown", code: "TIMEOUT" })],
    ]);
    const later = evolve(
      unknown,
      { type: "run-started", rotation: "r", run: 2 },
      { seq: 9, index: 0, ts: "" },
    );
    expect(store(later)).toMatchObject({ state: "unknown", open: { id: "2.0" } });
  });

  test("of a restarted workload's store asks for another restart, and the second is no repeat of the first", () => {
    const done = [...opened, [intent("a", "write")], [result("2.0")], [intent("w", "roll")], [result("4.0")]];
    expect(fold(done).rotation?.generation).toBe(0);
    const s = fold([...done, [seen(K1)], [intent("a", "write")], [result("7.0")]]);
    expect(rollout(s)?.state).toBe("pending");
    expect(s.rotation?.generation).toBe(1);
    const again = fold([...done, [seen(K1)], [intent("a", "write")], [result("7.0", { changed: false })]]);
    expect(rollout(again)?.state).toBe("pending");
    expect(again.rotation?.rollouts.get("n")?.state).toBe("done");
  });
});

describe("a restart", () => {
  test("that began before a store was written again does not count", () => {
    const s = fold([
      ...opened,
      [intent("a", "write")],
      [result("2.0")],
      [intent("w", "roll")],
      [seen(K1)],
      [intent("a", "write")],
      [result("6.0")],
      [result("4.0")],
    ]);
    expect(rollout(s)).toMatchObject({ state: "pending", open: null });
  });
});

describe("a look", () => {
  const written = [...opened, [intent("a", "write")], [result("2.0")]];

  test("counts from when it began, not from when it was written down", () => {
    expect(seenSinceChange(fold([...written, [seen(K2, { asOf: 3 })]]).rotation as never)).toBe(true);
    const late = fold([
      ...written,
      [seen(K1)],
      [intent("a", "write")],
      [result("5.0")],
      [seen(K2, { asOf: 4 })],
    ]);
    expect(seenSinceChange(late.rotation as never)).toBe(false);
  });

  test("from before a write says nothing of the store after it", () => {
    expect(store(fold([...written, [seen(K1, { asOf: 1 })]]))?.state).toBe("written");
  });

  test("that failed is no news of what the store holds; a late effect calls for another one", () => {
    const failed = fold([...written, [seen(null, { outcome: "failed", code: "TIMEOUT" })]]);
    expect(storesDone(failed.rotation as never)).toBe(true);
    expect(store(failed)).toMatchObject({ state: "written", code: "TIMEOUT", seenAt: 0 });
    const late: LedgerEvent = { type: "late-effect", rotation: "r", intent: "2.0", target: "a", fp: K1 };
    expect(store(fold([...written, [seen(K2)], [late]]))?.seenAt).toBe(0);
  });
});

describe("a key", () => {
  test("that is asked about says nothing of the one that took its place", () => {
    const about = (fp: string): LedgerEvent => ({
      type: "mode-found",
      rotation: "r",
      run: 1,
      mode: "overlap",
      fp,
      sameApp: "different",
      appFingerprint: null,
    });
    expect(fold([...opened, [another], [about(K2)]]).rotation).toMatchObject({ mode: null, sameApp: null });
    expect(fold([...opened, [another], [about(K3)]]).rotation).toMatchObject({ sameApp: "different" });
  });

  test("that another adoption leaves behind stays an old one", () => {
    const adopt = (current: string): LedgerEvent => ({
      type: "adopted",
      mode: "current",
      by: "operator",
      current,
      old: [],
      stale: [],
      stores: [{ name: "a", fp: current }],
      appFingerprint: null,
    });
    const start = opened.slice(0, 1);
    expect([...fold([...start, [adopt(K3)]]).old.keys()]).toEqual([K1]);
    expect([...fold([...opened, [adopt(K3)]]).old.keys()].sort()).toEqual([K1, K3]);
  });

  test("that was discarded while a rotation closed still waits for its proof", () => {
    const s = fold([
      ...opened,
      [
        { type: "proof", rotation: "r", fp: K1, control: true, triads: [] },
        { type: "closing", rotation: "r" },
      ],
      [{ type: "discarded", fp: K3, forget: false }],
      [{ type: "done", rotation: "r", appFingerprint: null }],
    ]);
    expect(s).toMatchObject({ current: K2, staged: null });
    expect([...s.old.keys()]).toEqual([K3]);
  });
});
