import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { RotatorError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import { verifyLedger } from "../../src/core/verify.ts";
import { confirmRevoked } from "../../src/flow/confirm.ts";
import type { Hands } from "../../src/flow/hands.ts";
import { openJournal } from "../../src/flow/journal.ts";
import { rotate } from "../../src/flow/rotate.ts";
import { stage } from "../../src/flow/stage.ts";
import { type Predecessor, succeed } from "../../src/flow/succeed.ts";
import { readLedgerPath } from "../../src/io/ledger/export.ts";
import { filePredecessor, guardedLedger } from "../../src/io/ledger/successor.ts";
import type { Escrow, Ledger, Probe } from "../../src/ports.ts";
import { madeKey } from "../kit/leak.ts";
import { memoryEscrow } from "../kit/memory-escrow.ts";
import { type MemoryStore, memoryStore } from "../kit/memory-store.ts";
import { PLAIN_ROTATE } from "../kit/rotate-options.ts";

const root = mkdtempSync(join(tmpdir(), "adopt-ledger-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let count = 0;

type Claim = Hands["host"]["claim"];
const claimOf = (n: number): Claim => ({
  inst: `i${n}`,
  host: "h",
  bootId: "b",
  pidNamespace: "1",
  pid: n,
  startTime: "1",
});

/** One app with two stores on real ledger folders, a clock that only sleeping moves, and IMKIT as a set of keys. */
const place = () => {
  const dir = join(root, String(count++), "ledger");
  const working = new Set<string>();
  const alive = new Set<string>();
  const escrow = memoryEscrow();
  const a = memoryStore("memory:a");
  const b = memoryStore("memory:b");
  let mono = 0;
  let pid = 0;
  const answer = (yes: boolean): Probe => ({
    verdict: yes ? "accepted" : "rejected",
    status: yes ? 200 : 401,
    code: yes ? null : "INVALID_API_KEY",
    date: null,
    retryAfterMs: null,
    why: "",
  });
  const planned = (name: string, store: MemoryStore) => ({
    plan: { name, type: "memory", where: store.where, required: true, write: true },
    store,
  });
  /** A process of its own. */
  const hands = (ledger: Ledger = guardedLedger(dir, "chat"), kept: Escrow = escrow): Hands => {
    const claim = claimOf(++pid);
    return {
      app: {
        name: "chat",
        stores: [planned("a", a), planned("b", b)],
        rollouts: [
          {
            plan: { name: "none", type: "none", where: "-", required: true, canary: false, after: [] },
            rollout: {
              where: "-",
              how: "none",
              reason: "read on each call",
              preflight: async () => [],
              trigger: async () => ({ state: "done", proof: 0, reason: "" }),
            },
          },
        ],
        soakMs: 0,
        revoke: { probes: 3, everyMs: 10, control: true },
        rotateEveryMs: null,
      },
      ledger,
      escrow: kept,
      platform: {
        probe: async (key) => answer(working.has(key.reveal())),
        appIdentity: async () => null,
        usage: async () => null,
      },
      clock: {
        now: () => 1_800_000_000_000 + mono,
        monotonic: () => mono,
        sleep: async (ms) => {
          mono += ms;
          await new Promise((resolve) => setImmediate(resolve));
        },
      },
      host: { claim, isGone: async (other) => !alive.has(other.inst) },
      entropy: (n) => crypto.getRandomValues(new Uint8Array(n)),
      actor: { kind: "test", id: "t" },
      signal: new AbortController().signal,
      tell: () => {},
    };
  };
  const issue = (): Secret => {
    const text = madeKey();
    working.add(text);
    return new Secret(text);
  };
  const first = issue();
  a.put(first);
  b.put(first);
  return { dir, working, alive, escrow, a, b, hands, issue, first };
};
type Place = ReturnType<typeof place>;

const options = {
  ...PLAIN_ROTATE,
  waitMs: 0,
};
const staged = (p: Place, key: Secret) => stage(p.hands(), key, { source: "prompt", replace: false });
const newLedger = (p: Place, more: { waitMs?: number; choice?: string | null } = {}) =>
  succeed(p.hands(), filePredecessor(p.dir), { choice: null, waitMs: 0, ...more });
const codeOf = async (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "fine",
    (error: unknown) => (error instanceof RotatorError ? error.code : String(error)),
  );
const asides = (p: Place): readonly string[] =>
  readdirSync(join(p.dir, "..")).filter((name) => name.startsWith("ledger-"));
const isSound = async (path: string): Promise<boolean> => {
  const { lines, ...rest } = await readLedgerPath(path);
  return verifyLedger(lines, rest).ok;
};

/** A rotation that stopped half-way: `a` holds the new key, `b` the old one, escrow holds both. Then a store quotes a stranger. */
const halfWay = async (): Promise<Place & { readonly fresh: Secret }> => {
  const p = place();
  const fresh = p.issue();
  await staged(p, fresh);
  p.b.fault = (call) => (call === "write" ? { code: "AUTHZ", outcome: "not_applied" } : null);
  await rotate(p.hands(), options);
  p.b.fault = () => null;
  expect([p.a.held()?.equals(fresh), p.b.held()?.equals(p.first)]).toEqual([true, true]);
  expect(p.escrow.keys.size).toBe(2);
  return { ...p, fresh };
};
const contradict = async (p: Place): Promise<void> => {
  const held = await p.a.read(new AbortController().signal);
  const quote = { ledger: "stranger", seq: 9, h16: "0".repeat(16) };
  const read = p.a.read.bind(p.a);
  let isTheirs = true;
  const write = p.a.write.bind(p.a);
  Object.assign(p.a, {
    read: async (signal: AbortSignal) => {
      const stored = await read(signal);
      return stored !== null && isTheirs ? { ...stored, witness: quote } : stored;
    },
    write: (...args: Parameters<typeof write>) => {
      isTheirs = false;
      return write(...args);
    },
  });
  expect(held).not.toBeNull();
};

describe("a successor of a whole ledger", () => {
  test("keeps its word: the staged key stays staged, and the rotation ends on it", async () => {
    const p = await halfWay();
    await contradict(p);
    const { journal, taken } = await newLedger(p);
    const s = journal.state();
    expect(taken.outcome).toBe("adopted");
    expect(s.staged?.fp).toBe(p.fresh.fingerprint(s.salt ?? ""));
    expect(s.current).toBe(p.first.fingerprint(s.salt ?? ""));
    expect([...p.escrow.keys.keys()]).toEqual([s.staged?.fp]);
    expect((await rotate(p.hands(), options)).phase).toBe("waiting-revoke");
    p.working.delete(p.first.reveal());
    expect((await rotate(p.hands(), { ...options, confirm: true })).phase).toBe("idle");
    expect(p.b.held()?.equals(p.fresh)).toBe(true);
    expect(p.escrow.keys.size).toBe(0);
  });

  test("a choice by a fingerprint of the old ledger is understood", async () => {
    const p = place();
    await staged(p, p.issue());
    const old = (await openJournal(p.hands())).state();
    p.b.put(p.issue());
    await contradict(p);
    const { journal } = await newLedger(p, { choice: p.first.fingerprint(old.salt ?? "").slice(0, 8) });
    const s = journal.state();
    expect(s.current).toBe(p.first.fingerprint(s.salt ?? ""));
    expect(s.old.size).toBe(1);
    expect(await codeOf(newLedger(p, { choice: "00000000" }))).toBe("ADOPTION_REFUSED");
  });

  test("whoever holds the old one can write there no more", async () => {
    const p = await halfWay();
    await contradict(p);
    const late = await openJournal(p.hands());
    await newLedger(p);
    await expect(late.decide([{ type: "renewed", inst: "late" }])).rejects.toThrow(/LEDGER_UNWRITABLE/);
    expect(await isSound(join(p.dir, "..", asides(p)[0] ?? ""))).toBe(true);
    expect(await isSound(p.dir)).toBe(true);
  });
});

describe("a successor of a ledger that nobody can vouch for", () => {
  test.each(["lost", "damaged"])(
    "%s: what only escrow holds joins the old keys, and is never written",
    async (way) => {
      const p = await halfWay();
      // Both stores hold the old key again: the new one is in escrow alone.
      p.a.put(p.first);
      if (way === "lost") rmSync(p.dir, { recursive: true });
      else rmSync(join(p.dir, "00000001.json"));
      const { journal, successorOf } = await newLedger(p);
      const s = journal.state();
      const fp = p.fresh.fingerprint(s.salt ?? "");
      expect(successorOf?.ledger === null).toBe(way === "lost");
      expect({ staged: s.staged, current: s.current }).toEqual({
        staged: null,
        current: p.first.fingerprint(s.salt ?? ""),
      });
      expect([...s.old.keys()]).toEqual([fp]);
      expect(p.escrow.keys.get(fp)?.equals(p.fresh)).toBe(true);
      expect(p.escrow.keys.size).toBe(1);
      expect((await rotate(p.hands(), options)).phase).not.toBe("failed");
      expect([p.a.held()?.equals(p.first), p.b.held()?.equals(p.first)]).toEqual([true, true]);
    },
  );

  test("lost: how old a key is that only escrow holds is not known, so one that begins to work is not proved dead", async () => {
    const p = await halfWay();
    p.a.put(p.first);
    p.working.delete(p.fresh.reveal());
    rmSync(p.dir, { recursive: true });
    await newLedger(p);
    const { clock, ...hands } = p.hands();
    let slept = 0;
    const sleep: typeof clock.sleep = (ms, signal) => {
      slept += ms;
      if (slept >= 15_000) p.working.add(p.fresh.reveal());
      return clock.sleep(ms, signal);
    };
    const ask = () =>
      confirmRevoked({ ...hands, clock: { ...clock, sleep } }, { waitMs: 0, waive: null, key: null });
    expect(await ask()).toMatchObject({ verdict: "accepted", proofs: [{ proved: false }] });
  });

  test("none is begun by itself over such an escrow", async () => {
    const p = await halfWay();
    p.a.put(p.first);
    rmSync(p.dir, { recursive: true });
    const before = [...p.escrow.keys.keys()];
    await expect(staged(p, p.issue())).rejects.toMatchObject({ code: "LEDGER_BROKEN" });
    await expect(rotate(p.hands(), options)).rejects.toMatchObject({ code: "LEDGER_BROKEN" });
    expect([...p.escrow.keys.keys()]).toEqual(before);
    expect((await newLedger(p)).taken.outcome).toBe("adopted");
  });

  test("a blob that cannot be opened stays where it is", async () => {
    const p = await halfWay();
    rmSync(p.dir, { recursive: true });
    const [name = ""] = [...p.escrow.keys].find(([, key]) => key.equals(p.fresh)) ?? [];
    p.escrow.broken.add(name);
    p.a.put(p.first);
    expect((await newLedger(p)).taken.outcome).toBe("adopted");
    expect([...p.escrow.keys.keys()]).toEqual([name]);
    const another = p.issue();
    await staged(p, another);
    expect((await rotate(p.hands(), options)).phase).toBe("waiting-revoke");
    expect(p.escrow.keys.has(name)).toBe(true);
  });
});

describe("refused", () => {
  test("while the ledger is sound and nothing contradicts it; also of a successor that is adopted", async () => {
    const p = await halfWay();
    expect(await codeOf(newLedger(p))).toBe("ADOPTION_REFUSED");
    await contradict(p);
    expect(await codeOf(newLedger(p))).toBe("fine");
    expect(await codeOf(newLedger(p))).toBe("ADOPTION_REFUSED");
    expect(asides(p)).toHaveLength(1);
  });

  test("while a claim is alive; one that nobody can prove gone is dead after 90 s of silence", async () => {
    const p = await halfWay();
    await contradict(p);
    const other = p.hands();
    p.alive.add(other.host.claim.inst);
    const journal = await openJournal(other);
    await journal.decide([{ type: "claimed", ...other.host.claim }]);
    expect(await codeOf(newLedger(p))).toBe("LOCKED");
    expect(await codeOf(newLedger(p, { waitMs: 30_000 }))).toBe("LOCKED");
    expect(asides(p)).toEqual([]);
    expect(await codeOf(newLedger(p, { waitMs: 300_000 }))).toBe("fine");
  });
});

describe("an interruption at any point, and the same end", () => {
  /** Dies at its nth call of a port, before or after the call took effect; nothing that it does later has any. */
  const dying = (p: Place, at: number, after: boolean) => {
    let calls = 0;
    let dead = false;
    const port =
      <A extends readonly unknown[], R>(work: (...args: A) => Promise<R>) =>
      async (...args: A): Promise<R> => {
        if (dead) throw new Error("dead");
        calls++;
        if (calls < at) return work(...args);
        dead = true;
        if (after) await work(...args);
        throw new Error("dead");
      };
    const real = filePredecessor(p.dir);
    const ledger: Ledger = {
      where: real.ledger.where,
      create: port((seq, bytes) => real.ledger.create(seq, bytes)),
      read: port((seq) => real.ledger.read(seq)),
    };
    const predecessor: Predecessor = {
      ledger,
      look: port(() => real.look()),
      setAside: port((id) => real.setAside(id)),
    };
    const { escrow } = p;
    const kept: Escrow = {
      where: escrow.where,
      list: port(() => escrow.list()),
      put: port((fp, key) => escrow.put(fp, key)),
      get: port((fp) => escrow.get(fp)),
      remove: port((fp) => escrow.remove(fp)),
    };
    return { hands: p.hands(ledger, kept), predecessor, died: () => dead };
  };

  // Every other call with its effect there, every other one without, and then the other way round for the rest.
  test.each([1, 2])("killed in each call, from the %ith on", async (begin) => {
    for (let at = begin, over = false; !over; at += 2) {
      const after = Math.floor(at / 2) % 2 === 0;
      const p = await halfWay();
      await contradict(p);
      const { hands, predecessor, died } = dying(p, at, after);
      await succeed(hands, predecessor, { choice: null, waitMs: 0 }).catch(() => {});
      over = !died();
      const again = await codeOf(newLedger(p));
      expect(["fine", "ADOPTION_REFUSED"], `call ${at}`).toContain(again);
      // Whatever was left over is done by the next command.
      const ended = await rotate(p.hands(), options);
      expect({ at, phase: ended.phase }).toEqual({ at, phase: "waiting-revoke" });
      const fps = [p.fresh, p.first].map((key) => key.fingerprint(ended.state.salt ?? "")).sort();
      expect({ at, kept: [...p.escrow.keys.keys()].sort() }).toEqual({ at, kept: fps });
      expect(await isSound(p.dir)).toBe(true);
      expect(asides(p)).toHaveLength(1);
      expect(await isSound(join(p.dir, "..", asides(p)[0] ?? ""))).toBe(true);
      if (at > 60) throw new Error("it never ends");
    }
  });
});
