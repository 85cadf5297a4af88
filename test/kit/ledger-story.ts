import { createHash } from "node:crypto";
import { seal } from "../../src/core/chain.ts";
import type { EntryBody, LedgerEvent } from "../../src/core/events.ts";

export const SALT = "5a".repeat(32);
export const OLD = "00000000000000aa";
export const NEW = "00000000000000bb";
export const genesis: LedgerEvent = { type: "genesis", app: "chat-prod", salt: SALT };
export const opened: LedgerEvent = {
  type: "opened",
  rotation: "r1",
  new: NEW,
  old: [OLD],
  current: OLD,
  stores: [],
  rollouts: [],
  reason: null,
  ticket: null,
};
export const intent = (target: string, rotation = "r1"): LedgerEvent => ({
  type: "intent",
  rotation,
  run: 1,
  target,
  action: "write",
  opId: "0f".repeat(16),
  fp: NEW,
});
export const result = (name: string, outcome: "ok" | "failed" | "unknown" = "ok"): LedgerEvent => ({
  type: "result",
  rotation: "r1",
  intent: name,
  outcome,
});
export const observed = (name: string): LedgerEvent => ({
  type: "observed",
  rotation: "r1",
  what: "intent",
  run: 1,
  intent: name,
  outcome: "ok",
});
export const done: LedgerEvent = { type: "done", rotation: "r1", appFingerprint: null };

/** An entry with every common field set; `change` wins. */
export const bodyOf = (seq: number, prev: string | null, events: unknown, change: object = {}): EntryBody =>
  ({
    v: 1,
    ledger: "ledger-a",
    seq,
    prev,
    ts: `2026-03-02T08:00:${String(Math.abs(seq) % 60).padStart(2, "0")}.000Z`,
    inst: "inst-1",
    actor: { kind: "operator", id: "may" },
    events,
    ...change,
  }) as EntryBody;

/** A line with a true hash over any body text at all: what an attacker or a newer version may write. */
export const lineOf = (r: string): Uint8Array => {
  const h = createHash("sha256").update("imkit-rotator/ledger/v1\0").update(r, "latin1").digest("hex");
  return Buffer.from(`{"h":"${h}","r":${r}}\n`, "latin1");
};
/** The body text of a line, changed and framed again. */
export const reline = (line: Uint8Array, change: (r: string) => string): Uint8Array =>
  lineOf(change(Buffer.from(line).toString("latin1").slice(76, -2)));

/** A sound chain: one entry for each list of events. */
export const chainOf = (stories: readonly unknown[][], change: object = {}): Uint8Array[] => {
  let prev: string | null = null;
  return stories.map((events, seq) => {
    const { h, line } = seal(bodyOf(seq, prev, events, change));
    prev = h;
    return line;
  });
};

/** A whole small rotation in five entries. */
export const STORY: readonly unknown[][] = [
  [genesis],
  [opened, { type: "run-started", rotation: "r1", run: 1 }],
  [intent("aws"), intent("env")],
  [result("2.0"), result("2.1", "unknown")],
  [observed("2.1"), done],
];
