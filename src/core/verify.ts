import { inspect, type Line } from "./chain.ts";
import { quoteText } from "./contradiction.ts";
import type { Entry, LedgerEvent } from "./events.ts";
import type { ProblemCode } from "./shape.ts";

export type Problem = { readonly code: ProblemCode; readonly seq: number };

/** The answer of `audit verify --json`. */
export type Report = {
  readonly ok: boolean;
  /** null when no entry can be read. */
  readonly ledger: string | null;
  readonly entries: number;
  /** Intents whose end is not known and whose rotation goes on. */
  readonly open: number;
  readonly partial: boolean;
  /** Of the last sound entry; nulls when there is none. */
  readonly head: { readonly seq: number | null; readonly hash: string | null };
  readonly problems: readonly Problem[];
};

export type VerifyOptions = {
  /** A folder must begin at entry 0; an export may begin anywhere. */
  readonly folder: boolean;
  /** The number that each line's file name states. */
  readonly seqs?: readonly number[] | undefined;
  /** A head that was quoted elsewhere: it must be in this ledger. `h16` is 16 or more hex digits of the hash. */
  readonly head?: { readonly seq: number; readonly h16: string } | undefined;
  /** What stores quote (`Witness`): each must be in this ledger. */
  readonly witnesses?:
    | readonly { readonly ledger: string; readonly seq: number; readonly h16: string }[]
    | undefined;
};

/** One line at its place. `number` is where it stands: by file name, by its own word if it is sound, else by counting. */
type Placed = { readonly line: Line; readonly number: number; readonly expected: number };

/** Checks a whole ledger and goes on after each problem. Lines are raw bytes with their LF. Never throws. */
export const verifyLedger = (lines: Iterable<Uint8Array>, options: VerifyOptions): Report => {
  const placed = place(Array.from(lines, inspect), options);
  const ledger = placed.map(({ line }) => entryOf(line)?.ledger).find((id) => id !== undefined) ?? null;
  const sound = soundEntries(placed, ledger);
  const damaged = placed.filter(({ line }) => entryOf(line)?.ledger !== ledger).map(({ number }) => number);
  const meaning = checkMeaning(sound, { first: placed[0]?.number ?? 0, damaged });
  const problems = [
    ...checkPlaces(placed, ledger),
    ...meaning.problems,
    ...checkQuotes(sound, ledger, options),
  ].sort((a, b) => a.seq - b.seq);
  const head = [...sound.values()].at(-1);
  return {
    ok: problems.length === 0,
    ledger,
    entries: placed.length,
    open: meaning.open,
    partial: placed.length > 0 && placed[0]?.number !== 0,
    head: { seq: head?.seq ?? null, hash: head?.h ?? null },
    problems,
  };
};

const entryOf = (line: Line): Entry | undefined => (line.problem === null ? line.entry : undefined);

const place = (lines: readonly Line[], { folder, seqs }: VerifyOptions): readonly Placed[] => {
  const at = lines.findIndex((line) => line.problem === null);
  const firstSound = lines[at] && entryOf(lines[at]);
  let expected = folder || firstSound === undefined ? 0 : Math.max(0, firstSound.seq - at);
  return lines.map((line, index) => {
    const number = seqs?.[index] ?? entryOf(line)?.seq ?? expected;
    const here = { line, number, expected };
    expected = Math.max(expected, number + 1);
    return here;
  });
};

/** Sound entries of this ledger in order of their numbers; of two with one number, the first. */
const soundEntries = (placed: readonly Placed[], ledger: string | null): ReadonlyMap<number, Entry> => {
  const found = new Map<number, Entry>();
  for (const { line } of placed) {
    const entry = entryOf(line);
    if (entry?.ledger === ledger && !found.has(entry.seq)) found.set(entry.seq, entry);
  }
  return new Map([...found].sort(([a], [b]) => a - b));
};

const checkPlaces = (placed: readonly Placed[], ledger: string | null): readonly Problem[] => {
  const hashes = new Map<number, string>();
  for (const { line, number } of placed) {
    const seq = entryOf(line)?.seq ?? number;
    if (line.h !== null && !hashes.has(seq)) hashes.set(seq, line.h);
  }
  return placed.flatMap(({ line, number, expected }) => {
    const problems: Problem[] = [];
    if (line.problem !== null) problems.push({ code: line.problem, seq: number });
    const entry = entryOf(line);
    if (number !== expected || (entry !== undefined && entry.seq !== number)) {
      problems.push({ code: "BAD_SEQ", seq: number });
    }
    if (entry !== undefined && (entry.ledger !== ledger || !isLinked(entry, hashes.get(entry.seq - 1)))) {
      problems.push({ code: "BAD_PREV", seq: number });
    }
    return problems;
  });
};

/** An entry whose predecessor is missing or torn cannot be compared; that one is reported itself. */
const isLinked = (entry: Entry, before: string | undefined): boolean => {
  if (entry.seq === 0 || entry.prev === null) return entry.seq === 0 && entry.prev === null;
  return before === undefined || before === entry.prev;
};

type Intent = {
  readonly seq: number;
  readonly rotation: string;
  result: boolean;
  closed: boolean;
  ended: boolean;
};

/** Intents, results and ends, in the order of the entries. What a damaged entry may have said is never held against another one. */
const checkMeaning = (
  entries: ReadonlyMap<number, Entry>,
  known: { readonly first: number; readonly damaged: readonly number[] },
): { readonly open: number; readonly problems: readonly Problem[] } => {
  const intents = new Map<string, Intent>();
  const problems: Problem[] = [];
  const damaged = new Set(known.damaged);
  const lastDamaged = known.damaged.reduce((a, b) => Math.max(a, b), -1);
  for (const { seq, events } of entries.values()) {
    for (const [index, event] of events.entries()) {
      const ok = take(intents, event, { seq, index }, (named) => named < known.first || damaged.has(named));
      if (!ok) problems.push({ code: "NO_INTENT", seq });
    }
  }
  const left = [...intents.values()].filter((intent) => !intent.closed);
  const wrong = left.filter((intent) => intent.ended && intent.seq > lastDamaged);
  problems.push(...wrong.map(({ seq }) => ({ code: "OPEN_AFTER_END" as const, seq })));
  return { open: left.length - wrong.length, problems };
};

/** @returns false when the event is about an intent that it may not speak of. */
const take = (
  intents: Map<string, Intent>,
  event: LedgerEvent,
  at: { readonly seq: number; readonly index: number },
  isBeyondSight: (seq: number) => boolean,
): boolean => {
  if (event.type === "intent") {
    const { rotation } = event;
    const fresh = { seq: at.seq, rotation, result: false, closed: false, ended: false };
    intents.set(`${at.seq}.${at.index}`, fresh);
  }
  if (event.type === "done" || event.type === "abandoned") {
    for (const intent of intents.values()) if (intent.rotation === event.rotation) intent.ended = true;
  }
  if (event.type !== "result" && event.type !== "observed") return true;
  const name = event.intent ?? null;
  if (name === null) return true;
  const intent = intents.get(name);
  if (intent === undefined) return /^\d+\.\d+$/.test(name) && isBeyondSight(Number.parseInt(name, 10));
  if (intent.seq >= at.seq || (event.type === "result" && (intent.result || intent.closed))) return false;
  if (event.type === "result") intent.result = true;
  if (event.outcome !== "unknown") intent.closed = true;
  return true;
};

/** Quotes of other ledgers in spite of which a person began this one. */
const overruledBy = (entries: ReadonlyMap<number, Entry>): ReadonlySet<unknown> =>
  new Set(
    [...entries.values()].flatMap(({ events }) =>
      events.flatMap((e): readonly unknown[] =>
        e.type === "adopted" && Array.isArray(e.overrules) ? e.overrules : [],
      ),
    ),
  );

const checkQuotes = (
  entries: ReadonlyMap<number, Entry>,
  ledger: string | null,
  { head, witnesses = [] }: VerifyOptions,
): readonly Problem[] => {
  const holds = (quote: { readonly seq: number; readonly h16: string }): boolean =>
    /^[0-9a-f]{16,64}$/.test(quote.h16) && entries.get(quote.seq)?.h.startsWith(quote.h16) === true;
  const overruled = witnesses.length === 0 ? new Set() : overruledBy(entries);
  const behind = witnesses.filter(
    (witness) => !overruled.has(quoteText(witness)) && (witness.ledger !== ledger || !holds(witness)),
  );
  const quotes: Problem[] = behind.map(({ seq }) => ({ code: "BEHIND_STORE", seq }));
  if (head !== undefined && !holds(head)) quotes.push({ code: "HEAD_MISMATCH", seq: head.seq });
  return quotes;
};
