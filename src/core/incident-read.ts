import type { Entry, LedgerEvent } from "./events.ts";
import { plain } from "./incident-text.ts";
import type { Rotation } from "./rotation.ts";
import { type Fp, showFp } from "./secret.ts";
import { type AppState, EMPTY, evolve } from "./state.ts";

/** The entry that says so: when, by whom (`kind:id`), and where to find it. */
export type Mark = { readonly at: string; readonly by: string; readonly seq: number; readonly h16: string };
export type Told = { readonly event: LedgerEvent; readonly id: string; readonly mark: Mark };

/** One rotation as its ledger tells it, up to its end or to the last entry. */
export type Reading = {
  readonly s: AppState;
  readonly r: Rotation;
  readonly ledger: string;
  /** Everything from the first entry on. */
  readonly told: readonly Told[];
  /** Of the last entry that was read. */
  readonly head: Mark;
  /** The key that was current when the rotation was opened. */
  readonly before: Fp | null;
  /** Every key that was an old one at some time of the rotation and is not its new one. */
  readonly old: readonly Fp[];
  /** Every key that was the new one for some time. */
  readonly wasNew: ReadonlySet<Fp>;
  /** What of it belongs to this rotation, and what was said beside it since it was opened. */
  readonly inside: readonly Told[];
};

/** @returns null when these entries hold no such rotation */
export const readRotation = (entries: readonly Entry[], rotation: string): Reading | null => {
  let s = EMPTY;
  const told: Told[] = [];
  const old = new Set<Fp>();
  const wasNew = new Set<Fp>();
  let before: Fp | null = null;
  let openedAt = -1;
  let head: Mark | null = null;
  let ledger = "";
  const isOurs = (): boolean => s.rotation?.id === rotation;
  for (const entry of entries) {
    ledger = entry.ledger;
    head = markOf(entry);
    for (const [index, event] of entry.events.entries()) {
      const { seq, ts } = entry;
      s = evolve(s, event, { seq, index, ts });
      told.push({ event, id: `${seq}.${index}`, mark: head });
      if (!isOurs()) continue;
      if (event.type === "opened" && event.rotation === rotation) {
        before = event.current;
        openedAt = told.length - 1;
      }
      for (const fp of s.old.keys()) old.add(fp);
      if (s.rotation?.newFp != null) wasNew.add(s.rotation.newFp);
    }
    if (isOurs() && s.rotation?.ended !== null) break;
  }
  const r = s.rotation;
  if (r === null || !isOurs() || head === null || openedAt < 0) return null;
  const mine = [...old].filter((fp) => fp !== r.newFp);
  const leaked = (r.emergency?.leaked ?? []).filter((fp) => fp !== r.newFp && !mine.includes(fp));
  const inside = told.filter(
    ({ event }, i) => i >= openedAt && (!("rotation" in event) || (event.rotation ?? rotation) === rotation),
  );
  return { s, r, ledger, told, head, before, old: [...mine, ...leaked], wasNew, inside };
};

const markOf = (entry: Entry): Mark => ({
  at: entry.ts,
  by: plain(`${entry.actor.kind}:${entry.actor.id}`, 80),
  seq: entry.seq,
  h16: entry.h.slice(0, 16),
});

/** The last one that `is` true of. */
export const lastTold = (told: readonly Told[], is: (event: LedgerEvent) => boolean): Told | undefined =>
  told.findLast(({ event }) => is(event));

/** A fingerprint with what it means in this rotation. */
export const meaning = ({ r, before, wasNew, old }: Omit<Reading, "told" | "inside">, fp: Fp): string => {
  const isLeaked = r.emergency?.leaked.includes(fp) === true;
  const leak = isLeaked ? "leaked " : "";
  if (fp === r.newFp) return `${leak}new key ${showFp(fp)}`;
  if (wasNew.has(fp)) return `${leak}key ${showFp(fp)} that was the new one before`;
  if (isLeaked || fp === before) return `${leak}old key ${showFp(fp)}`;
  return old.includes(fp) ? `older key ${showFp(fp)}` : `another key ${showFp(fp)}`;
};
