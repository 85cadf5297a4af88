import { encodeText, follow, seal } from "../core/chain.ts";
import { brokenLedger, quoteText } from "../core/contradiction.ts";
import type { Entry, LedgerEvent } from "../core/events.ts";
import { type AppState, EMPTY, evolve } from "../core/state.ts";
import type { Witness } from "../ports.ts";
import { asError, type Hands } from "./hands.ts";

/** The ledger moved under a decision: fold again and decide again. */
export class Moved extends Error {}
/** Another rotator claimed the app after us. */
export class Superseded extends Error {}

type Waiter = {
  readonly events: readonly LedgerEvent[];
  /** Facts (results) are true whatever came between: null. A decision (intent) holds for the entry that it was made on: its seq. */
  readonly decidedAt: number | null;
  /** A fact about our own past that is told even after someone else took over. */
  readonly late: boolean;
  readonly resolve: (at: { seq: number; first: number }) => void;
  readonly reject: (error: unknown) => void;
};

/** One app's ledger, followed and folded, with one append queue. */
export type Journal = {
  /** State as of the last entry read or written. */
  state(): AppState;
  head(): { readonly seq: number; readonly h: string } | null;
  ledgerId(): string | null;
  /** Reads what others wrote. @throws RotatorError LEDGER_BROKEN */
  refresh(): Promise<void>;
  /** Appends a decision; @throws Moved when the ledger is not where it was decided, Superseded after a foreign claim. */
  decide(events: readonly LedgerEvent[]): Promise<{ readonly seq: number; readonly first: number }>;
  /** Appends facts, whatever was written between. @throws Superseded (unless `late`) */
  record(events: readonly LedgerEvent[], options?: { readonly late?: boolean }): Promise<void>;
  /** First 16 hex digits of an entry's hash; null = this ledger has no such entry. */
  h16(seq: number): string | null;
  /** It was begun to follow another ledger (`adopt --new-ledger`). */
  isSuccessor(): boolean;
  /** It was adopted in spite of what a store quotes. */
  overrules(quote: Witness): boolean;
  /** The last entry is ours, and it is that many ms old. Infinity when it is not ours. */
  ownHeadAgeMs(): number;
  superseded(): boolean;
  /** Monotonic ms at which an entry of that process was last seen to arrive. */
  seenMs(inst: string): number | null;
  readonly entries: () => number;
};

const MAX_BODY = 12_000;

export const openJournal = async (hands: Hands): Promise<Journal> => {
  const { ledger, clock, host } = hands;
  let state = EMPTY;
  let head: { seq: number; h: string; ledger: string } | null = null;
  let lastAppend = Number.NEGATIVE_INFINITY;
  let headInst = "";
  const hashes: string[] = [];
  let poisoned: Error | null = null;
  const seen = new Map<string, number>();
  const inst = host.claim.inst;
  let claimedByUs = false;
  let lost = false;
  let isSuccessor = false;
  let isFollowing = false;
  const overruled = new Set<string>();

  const take = (entry: Entry): void => {
    head = { seq: entry.seq, h: entry.h, ledger: entry.ledger };
    headInst = entry.inst;
    hashes[entry.seq] = entry.h.slice(0, 16);
    seen.set(entry.inst, clock.monotonic());
    entry.events.forEach((event, index) => {
      state = evolve(state, event, { seq: entry.seq, index, ts: entry.ts });
      if (event.type === "claimed") {
        if (event.inst === inst) {
          claimedByUs = true;
          lost = false;
        } else if (claimedByUs) lost = true;
      }
      if (event.type === "released" && event.inst === inst) claimedByUs = false;
      if (event.type === "genesis") isSuccessor = event.successorOf !== undefined;
      if (event.type === "adopted") for (const quote of event.overrules ?? []) overruled.add(quote);
    });
  };

  const tellAll = (kind: "event" | "heard", { seq, events }: Entry): void =>
    events.forEach((event, index) => hands.tell({ kind, event, seq, id: `${seq}.${index}` }));

  // One at a time: a read that overlapped an append, or another read, would see the same entries twice.
  let turn: Promise<unknown> = Promise.resolve();
  const alone = <T>(work: () => Promise<T>): Promise<T> => {
    const mine = turn.then(work);
    turn = mine.catch(() => {});
    return mine;
  };

  let reading: Promise<void> | null = null;
  const refresh = (): Promise<void> => {
    reading ??= alone(() => {
      reading = null;
      if (poisoned !== null) throw poisoned;
      return readNew();
    });
    return reading;
  };

  const readNew = async (): Promise<void> => {
    for (const bytes of await ledger.read(head === null ? 0 : head.seq + 1)) {
      const followed = follow(head, bytes);
      if ("problem" in followed) {
        const seq = head === null ? 0 : head.seq + 1;
        throw brokenLedger(hands.app.name, `Entry ${seq} of ${ledger.where}: ${followed.problem}.`);
      }
      const { entry } = followed;
      const { seq } = entry;
      try {
        take(entry);
      } catch {
        // Sound by its hash, but no rotator of ours wrote it: it lacks what its type needs.
        throw brokenLedger(hands.app.name, `Entry ${seq} of ${ledger.where} makes no sense.`);
      }
      if (isFollowing && entry.inst !== inst) tellAll("heard", entry);
    }
  };

  const queue: Waiter[] = [];
  let pumping = false;

  const pump = async (): Promise<void> => {
    if (pumping) return;
    pumping = true;
    try {
      while (queue.length > 0) await alone(appendOnce);
    } finally {
      pumping = false;
    }
  };

  /** As many waiters as fit into one entry, but a decision only alone: it was made on this very head. */
  const appendOnce = async (): Promise<void> => {
    const batch = queue[0]?.decidedAt === null ? takeFacts(queue) : queue.splice(0, 1);
    const events = batch.flatMap((w) => w.events);
    const seq: number = head === null ? 0 : head.seq + 1;
    const began = clock.monotonic();
    try {
      if (poisoned !== null) throw poisoned;
      // The read before this turn may have shown a foreign claim: what was found out meanwhile is no result any more.
      if (lost && batch.some((w) => !w.late)) return reject(batch);
      if (batch.some((w) => w.decidedAt !== null && w.decidedAt !== seq - 1)) return reject(batch);
      const { line, entry } = seal({
        v: 1,
        ledger: head?.ledger ?? hex(hands.entropy(16)),
        seq,
        prev: head?.h ?? null,
        ts: new Date(clock.now()).toISOString(),
        inst,
        actor: hands.actor,
        events,
      });
      const made = await ledger.create(seq, line);
      if (made === "exists") return await moved(batch);
      take(entry);
      lastAppend = began;
      let first = 0;
      for (const w of batch) {
        w.resolve({ seq, first });
        first += w.events.length;
      }
      tellAll("event", entry);
    } catch (error) {
      // After a failed append nobody knows what is on the disk: this process writes and does nothing more.
      poisoned = asError(error);
      for (const w of [...batch, ...queue.splice(0)]) w.reject(error);
    }
  };

  const moved = async (batch: readonly Waiter[]): Promise<void> => {
    await readNew();
    reject(batch);
  };

  /** Facts go to the next entry; decisions have to be made again. */
  const reject = (batch: readonly Waiter[]): void => {
    for (const w of [...batch].reverse()) {
      if (lost && !w.late) w.reject(new Superseded());
      else if (w.decidedAt === null) queue.unshift(w);
      else w.reject(new Moved());
    }
  };

  const push = (
    events: readonly LedgerEvent[],
    decidedAt: number | null,
    late = false,
  ): Promise<{ seq: number; first: number }> =>
    new Promise((resolve, reject) => {
      queue.push({ events, decidedAt, late, resolve, reject });
      void pump();
    });

  await refresh();
  // What this process lost before it began to follow is no loss of whoever begins now.
  lost = false;
  claimedByUs = state.claim?.inst === inst;
  isFollowing = true;
  return {
    state: () => state,
    head: () => head,
    ledgerId: () => head?.ledger ?? null,
    refresh,
    decide: (events) => {
      if (lost) return Promise.reject(new Superseded());
      return push(events, head === null ? -1 : head.seq);
    },
    record: async (events, options) => {
      if (events.length === 0) return;
      const late = options?.late === true;
      if (lost && !late) throw new Superseded();
      for (const chunk of chunks(events)) await push(chunk, null, late);
    },
    h16: (seq) => hashes[seq] ?? null,
    isSuccessor: () => isSuccessor,
    overrules: (quote) => overruled.has(quoteText(quote)),
    ownHeadAgeMs: () => (headInst === inst ? clock.monotonic() - lastAppend : Number.POSITIVE_INFINITY),
    superseded: () => lost,
    seenMs: (who) => seen.get(who) ?? null,
    entries: () => (head === null ? 0 : head.seq + 1),
  };
};

const size = (events: readonly LedgerEvent[]): number => encodeText(JSON.stringify(events)).length;

const takeFacts = (queue: Waiter[]): readonly Waiter[] => {
  let n = 1;
  while (queue[n]?.decidedAt === null && size(queue.slice(0, n + 1).flatMap((w) => w.events)) < MAX_BODY) n++;
  return queue.splice(0, n);
};

const chunks = (events: readonly LedgerEvent[]): readonly (readonly LedgerEvent[])[] => {
  if (events.length <= 1 || size(events) < MAX_BODY) return [events];
  const half = Math.ceil(events.length / 2);
  return [...chunks(events.slice(0, half)), ...chunks(events.slice(half))];
};

export const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
