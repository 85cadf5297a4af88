import type { Entry, LedgerEvent } from "../../../src/core/events.ts";
import type { AppState } from "../../../src/core/state.ts";
import type { Escrow, Ledger } from "../../../src/ports.ts";
import type { Prng } from "./prng.ts";
import type { Proc, Trace } from "./process.ts";
import type { Product } from "./product.ts";
import type { Timeline } from "./timeline.ts";

/** The durable ledger of one app, checked and folded by sound code as it grows. */
export type TrueLedger = {
  readonly lines: readonly Uint8Array[];
  readonly state: () => AppState;
  readonly head: () => Entry | null;
  readonly port: (proc: Proc) => Ledger;
  readonly full: (from: number, to: number) => void;
  /** The n-th append from now on fails; its entry is there all the same, or not. */
  readonly failAt: (nth: number, kept: boolean) => void;
};

type LedgerAround = {
  readonly product: Product;
  /** Sound modules, also where `product` has a bug planted. */
  readonly sound: Product;
  readonly time: Timeline;
  readonly chance: Prng;
  readonly failChance: () => number;
  readonly entered: (proc: Proc, entry: Entry, before: AppState) => void;
  readonly violated: (what: string) => void;
  readonly trace: Trace;
};

const LATEST = 5;

/** In one order, whoever made it: read from a line or just sealed. */
const shown = (event: LedgerEvent): string =>
  JSON.stringify(event, (_, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );

export const trueLedger = (around: LedgerAround): TrueLedger => {
  const { product, sound, time, chance, violated, trace } = around;
  const lines: Uint8Array[] = [];
  const fullTimes: { from: number; to: number }[] = [];
  let state: AppState = sound.EMPTY;
  let head: Entry | null = null;
  let appends = 0;
  let keeps = false;

  const append = (proc: Proc, seq: number, bytes: Uint8Array): "created" | "exists" => {
    if (seq < lines.length) return "exists";
    if (seq > lines.length) violated(`${proc.name} writes entry ${seq} of a ledger of ${lines.length}`);
    const followed = sound.follow(head, bytes);
    if ("problem" in followed) {
      violated(`the ledger is broken by ${proc.name}: ${followed.problem}`);
      return "created";
    }
    lines.push(bytes);
    head = followed.entry;
    const before = state;
    followed.entry.events.forEach((event, index) => {
      trace(() => `${seq}.${index} ${proc.name}: ${shown(event)}`);
      state = sound.evolve(state, event, { seq, index, ts: followed.entry.ts });
    });
    around.entered(proc, followed.entry, before);
    return "created";
  };

  const isFull = (): boolean =>
    around.failChance() > 0 && fullTimes.some(({ from, to }) => time.now() >= from && time.now() < to);

  return {
    lines,
    state: () => state,
    head: () => head,
    failAt: (nth, kept) => {
      appends = nth;
      keeps = kept;
    },
    full: (from, to) => void fullTimes.push({ from, to }),
    port: (proc) => ({
      where: "world",
      create: async (seq, bytes) => {
        const began = time.now();
        try {
          const made = await proc.call(`append ${seq}`, LATEST, () => {
            appends--;
            if (appends === 0) {
              if (keeps) append(proc, seq, bytes);
              trace(() => `the ledger fails ${proc.name}, as told`);
              throw new product.RotatorError("LEDGER_UNWRITABLE");
            }
            const fails = isFull() || chance.chance(around.failChance());
            if (!fails) return append(proc, seq, bytes);
            if (!isFull() && chance.chance(0.5)) append(proc, seq, bytes);
            trace(() => `the ledger fails ${proc.name}`);
            throw new product.RotatorError("LEDGER_UNWRITABLE");
          });
          if (made === "created") proc.memory.appendedAt = began;
          if (made === "created") proc.memory.shown = seq + 1;
          return made;
        } catch (error) {
          proc.memory.ledgerFailed = true;
          throw error;
        }
      },
      read: async (from) => {
        const read = await proc.call("read the ledger", LATEST, () => lines.slice(from));
        proc.memory.shown = Math.max(proc.memory.shown, from + read.length);
        return read;
      },
    }),
  };
};

/** Keys at rest. The text of a key stands for its encrypted blob. */
export type TrueEscrow = {
  readonly blobs: ReadonlyMap<string, string>;
  /** A blob is gone, and nobody knows why. */
  readonly lose: (fp: string) => void;
  readonly port: (proc: Proc) => Escrow;
};

export const trueEscrow = (around: {
  readonly product: Product;
  readonly chance: Prng;
  readonly failChance: () => number;
  readonly removes: (proc: Proc, fp: string) => void;
  readonly removed: (proc: Proc, fp: string) => void;
  readonly mutates: (proc: Proc, what: string) => void;
  readonly trace: Trace;
}): TrueEscrow => {
  const { product, chance, trace } = around;
  const blobs = new Map<string, string>();
  const fails = (): boolean => chance.chance(around.failChance());
  const failure = (): Error => new product.RotatorError("ESCROW_FAILED");
  return {
    blobs,
    lose: (fp) => {
      trace(() => `escrow loses ${fp.slice(0, 8)}`);
      blobs.delete(fp);
    },
    port: (proc) => ({
      where: "world",
      list: () => proc.call("list escrow", 0, () => [...blobs.keys()].sort()),
      put: (fp, key) => {
        return proc.call("keep a key", 0, () => {
          if (fails()) throw failure();
          trace(() => `${proc.name} keeps ${fp.slice(0, 8)} in escrow`);
          blobs.set(fp, key.reveal());
        });
      },
      get: (fp) =>
        proc.call("get a key", 0, () => {
          const text = blobs.get(fp);
          return text === undefined ? null : new product.Secret(text);
        }),
      remove: (fp) => {
        around.mutates(proc, `drops ${fp.slice(0, 8)}`);
        around.removes(proc, fp);
        return proc.call("drop a key", 0, () => {
          if (fails()) throw failure();
          trace(() => `${proc.name} drops ${fp.slice(0, 8)} from escrow`);
          if (blobs.delete(fp)) around.removed(proc, fp);
        });
      },
    }),
  };
};
