import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { LedgerEvent } from "../../src/core/events.ts";
import { type Blackout, blackoutOf, type Exposure, exposureOf } from "../../src/core/exposure.ts";
import { incident } from "../../src/core/incident.ts";
import { incidentWords } from "../../src/core/incident-words.ts";
import { type AppState, EMPTY, evolve } from "../../src/core/state.ts";
import {
  adopted,
  done,
  ended,
  intends,
  leaked,
  ledgerOf,
  modeFound,
  NEW,
  OLD,
  openedAs,
  OTHER,
  proof,
  R,
  readBack,
  run,
  type Said,
  staged,
  ts,
  verdict,
  WHOLE,
} from "./incident-story.ts";

const stateOf = (story: readonly Said[]): AppState =>
  ledgerOf(story).reduce(
    (s, { events, seq, ts: at }) =>
      events.reduce((all, e, index) => evolve(all, e, { seq, index, ts: at }), s),
    EMPTY,
  );
const MIN = 60_000;
const alarm = (change: Partial<LedgerEvent & { type: "emergency-requested" }> = {}): readonly Said[] => [
  { at: "07:59", events: [adopted] },
  { at: "08:00", events: [openedAs(), leaked(change)] },
];

describe("exposure", () => {
  const yes: Said = { at: "08:01", events: [verdict(OLD, "accepted")] };
  const no: Said = { at: "08:11", events: [verdict(OLD, "rejected", ts("08:10"))] };
  const table: readonly (readonly [string, readonly Said[], Partial<Exposure>])[] = [
    [
      "between the last yes and the first no",
      [...alarm(), yes, no],
      { fromKnown: false, atLeastMs: 10 * MIN, atMostMs: 11 * MIN },
    ],
    [
      "from when a person says",
      [...alarm({ since: ts("06:00") }), yes, no],
      { from: ts("06:00"), fromKnown: true, atLeastMs: 130 * MIN, atMostMs: 131 * MIN },
    ],
    [
      "later rejections move nothing",
      [...alarm(), yes, no, { at: "08:30", events: [verdict(OLD, "rejected"), proof()] }],
      { firstRejected: ts("08:11"), atMostMs: 11 * MIN },
    ],
    ["still accepted: open", [...alarm(), yes], { firstRejected: null, atLeastMs: MIN, atMostMs: null }],
    [
      "accepted again: open again",
      [...alarm(), yes, no, { at: "08:20", events: [verdict(OLD, "accepted")] }],
      { firstRejected: null, atLeastMs: 20 * MIN, atMostMs: null },
    ],
    ["never asked: open", alarm(), { lastAccepted: null, atLeastMs: 0, atMostMs: null }],
    [
      "no clear word: open",
      [...alarm(), yes, { at: "08:09", events: [verdict(OLD, "unclear")] }],
      { firstRejected: null, atMostMs: null },
    ],
    [
      "a doubt after the no takes nothing back",
      [...alarm(), yes, no, { at: "08:20", events: [verdict(OLD, "unclear")] }],
      { firstRejected: ts("08:11"), atMostMs: 11 * MIN },
    ],
    [
      "said to have leaked after it died: none",
      [...alarm({ since: ts("09:00") }), yes, no],
      { atLeastMs: 0, atMostMs: 0 },
    ],
    [
      "a time that is none counts as nothing",
      [...alarm({ since: "yesterday" }), yes, no],
      { atLeastMs: 0, atMostMs: 0 },
    ],
    [
      "of two leaked keys the worst",
      [...alarm(), yes, no, { at: "08:12", events: [leaked({ leaked: OTHER }), verdict(OTHER, "accepted")] }],
      { firstRejected: null, atLeastMs: 12 * MIN, atMostMs: null },
    ],
    [
      "nobody knows which: every old key",
      [...alarm({ leaked: null }), yes, no],
      { atLeastMs: 10 * MIN, atMostMs: 11 * MIN },
    ],
  ];
  test.each(table)("%s", (_, story, expected) => {
    expect(exposureOf(stateOf(story))).toMatchObject(expected);
  });

  test("the same after the rotation is done", () => {
    expect(exposureOf(stateOf(WHOLE))).toMatchObject({ atLeastMs: 410_000, atMostMs: 420_000 });
  });

  test("null without an emergency, and without a key that could have leaked", () => {
    expect(exposureOf(EMPTY)).toBeNull();
    expect(exposureOf(stateOf([{ at: "08:00", events: [openedAs()] }]))).toBeNull();
    const none = [openedAs({ old: [], current: null }), leaked({ leaked: null })];
    expect(exposureOf(stateOf([{ at: "08:00", events: none }]))).toBeNull();
  });
});

describe("blackout", () => {
  const write: readonly Said[] = [
    { at: "08:20", events: [staged(), modeFound(), intends("env", "write")] },
    { at: "08:21", events: [ended("4.2", { changed: true }), readBack()] },
    { at: "08:21:30", events: [intends("api", "roll")] },
    { at: "08:22", events: [ended("6.0", { proof: 0 })] },
  ];
  const died = (at: string, seen?: string): Said => ({
    at,
    events: [verdict(OLD, "rejected", seen === undefined ? undefined : ts(seen))],
  });
  const table: readonly (readonly [string, readonly Said[], Partial<Blackout> | null])[] = [
    [
      "revoked first: until the last restart",
      [...alarm(), died("08:10", "08:09"), ...write],
      { state: "over", atLeastMs: 12 * MIN, atMostMs: 13 * MIN, ended: ts("08:22") },
    ],
    [
      "never seen to work: no upper bound",
      [...alarm(), died("08:10"), ...write],
      { state: "over", lastAccepted: null, atLeastMs: 12 * MIN, atMostMs: null },
    ],
    [
      "died when all was done: none",
      [...alarm(), { at: "08:01", events: [verdict(OLD, "accepted")] }, ...write, died("08:40", "08:39")],
      { state: "none", atLeastMs: 0, atMostMs: 0 },
    ],
    [
      "died between two looks, one before and one after the end",
      [...alarm(), { at: "08:01", events: [verdict(OLD, "accepted")] }, ...write, died("08:40")],
      { state: "over", atLeastMs: 0, atMostMs: 21 * MIN },
    ],
    [
      "goes on: counted until now",
      [...alarm(), died("08:10", "08:09")],
      { state: "going on", ended: null, atLeastMs: 5 * MIN, atMostMs: null },
    ],
    [
      "half of the work is not the end",
      [...alarm(), died("08:10", "08:09"), ...write.slice(0, 2)],
      { state: "going on", ended: null },
    ],
    [
      "still accepted: none so far",
      [...alarm(), { at: "08:01", events: [verdict(OLD, "accepted")] }],
      { state: "none" },
    ],
    [
      "asked once more when all was done, and accepted: none",
      [
        ...alarm(),
        { at: "08:01", events: [verdict(OLD, "accepted")] },
        ...write,
        { at: "08:24", events: [verdict(OLD, "accepted", ts("08:23"))] },
      ],
      { state: "none", atLeastMs: 0, atMostMs: 0 },
    ],
    [
      "accepted, and not to be asked any more when all was done: nobody knows",
      [...alarm(), { at: "08:01", events: [verdict(OLD, "accepted")] }, ...write],
      { state: "unknown", lastAccepted: ts("08:01"), firstRejected: null, atLeastMs: 0, atMostMs: 21 * MIN },
    ],
    ["never asked: nobody knows", alarm(), null],
    ["no clear word: nobody knows", [...alarm(), { at: "08:01", events: [verdict(OLD, "unclear")] }], null],
    [
      "the new key dies as well: goes on",
      [...alarm(), died("08:10", "08:09"), ...write, { at: "08:30", events: [verdict(NEW, "rejected")] }],
      { state: "going on", ended: null, atMostMs: null },
    ],
    [
      "no key was in use",
      [{ at: "08:00", events: [openedAs({ old: [], current: null }), leaked({ leaked: null })] }],
      null,
    ],
  ];
  test.each(table)("%s", (_, story, expected) => {
    const found = blackoutOf(stateOf(story), ts("08:15"));
    expect({ found }).toMatchObject({ found: expected });
  });

  test("clocks that contradict each other: no bound crosses the other", () => {
    const found = blackoutOf(stateOf([...alarm(), died("08:10", "08:19"), ...write]));
    expect(found).toMatchObject({ atLeastMs: 3 * MIN, atMostMs: 3 * MIN });
  });

  const another: readonly Said[] = [
    { at: "08:30", events: [staged(OTHER), modeFound({ fp: OTHER }), intends("env", "write", OTHER)] },
    { at: "08:31", events: [ended("8.2", { changed: true }), intends("api", "roll", OTHER)] },
    { at: "08:32", events: [ended("9.1", { proof: 0 })] },
  ];
  test("the wrong key revoked, then another one: sure is nothing while an older one works", () => {
    const story: readonly Said[] = [
      ...alarm(),
      { at: "08:01", events: [verdict(OLD, "accepted")] },
      ...write.slice(0, 3),
      { at: "08:25", events: [verdict(NEW, "rejected", ts("08:24"))] },
      ...another,
    ];
    const found = blackoutOf(stateOf(story));
    expect(found).toMatchObject({
      state: "over",
      atLeastMs: 0,
      atMostMs: 8 * MIN,
      firstRejected: ts("08:25"),
    });
  });

  test("two keys in use died, and one was never seen to work: sure from the second on, no upper bound", () => {
    const story: readonly Said[] = [
      ...alarm(),
      died("08:10"),
      ...write.slice(0, 3),
      { at: "08:25", events: [verdict(NEW, "rejected", ts("08:24"))] },
      ...another,
    ];
    expect(blackoutOf(stateOf(story))).toMatchObject({ state: "over", atLeastMs: 7 * MIN, atMostMs: null });
  });

  test("the wrong key revoked, then the way back: as long as the store had the dead one", () => {
    const story: readonly Said[] = [
      ...alarm({ leaked: null }),
      { at: "08:01", events: [verdict(OLD, "accepted")] },
      { at: "08:02", events: [staged(), modeFound(), intends("env", "write")] },
      { at: "08:03", events: [ended("4.2", { changed: true })] },
      { at: "08:05", events: [verdict(NEW, "rejected", ts("08:04"))] },
      { at: "08:06", events: [{ type: "rollback-requested", rotation: R, to: OLD }] },
      { at: "08:07", events: [intends("env", "write", OLD)] },
      { at: "08:08", events: [ended("8.0", { changed: true }), intends("api", "roll", OLD)] },
      { at: "08:09", events: [ended("9.1", { proof: 0 })] },
    ];
    expect(blackoutOf(stateOf(story))).toMatchObject({
      state: "over",
      atLeastMs: 4 * MIN,
      atMostMs: 5 * MIN,
    });
  });

  test("the old key was lost and is attested: what was not asked is not said", () => {
    const waived: LedgerEvent = { type: "waived", rotation: R, fp: OLD, reason: "lost" };
    const asked: Said = { at: "08:01", events: [verdict(OLD, "accepted")] };
    const end: Said = { at: "08:40", events: [waived, done] };
    const story = [...alarm(), asked, ...write, end];
    const s = stateOf(story);
    expect(s.rotation?.ended).toBe("done");
    const report = incident(ledgerOf(story), R, { app: "chat-prod", host: "x", timezone: "Asia/Taipei" });
    const words = report === null ? "" : incidentWords(report);
    expect(words).toMatch(
      /\*\*Outage\*\*.*not known\. A key in use was last seen accepted 2026-03-02 16:01.*At most 21 min/,
    );
    expect(words).not.toContain("none seen");
    expect(blackoutOf(s)).toMatchObject({ state: "unknown", atLeastMs: 0, atMostMs: 21 * MIN });
    const never: Said = { at: "08:01", events: [run()] };
    expect(blackoutOf(stateOf([...alarm(), never, ...write, end]))).toBeNull();
  });

  test("another old key that stood in a store has a say: not asked, accepted, dead", () => {
    const two: LedgerEvent = {
      type: "adopted",
      mode: "current",
      by: "operator",
      current: OLD,
      old: [OTHER],
      stale: [],
      stores: [
        { name: "env", fp: OLD },
        { name: "eu", fp: OTHER },
      ],
      appFingerprint: null,
    };
    const begin: readonly Said[] = [
      { at: "07:59", events: [two] },
      { at: "08:00", events: [openedAs({ old: [OLD, OTHER] }), leaked()] },
      { at: "08:01", events: [run()] },
    ];
    const of = (...events: readonly LedgerEvent[]) =>
      blackoutOf(
        stateOf([...begin, ...write, { at: "08:40", events: [verdict(OLD, "accepted"), ...events] }]),
      );
    expect(of()).toBeNull();
    expect(of(verdict(OTHER, "accepted"))).toMatchObject({ state: "none" });
    expect(of(verdict(OTHER, "rejected", ts("08:10")))).toMatchObject({ state: "over", atMostMs: 12 * MIN });
    const alive = verdict(OTHER, "accepted");
    const proved = of(
      alive,
      verdict(OLD, "rejected"),
      verdict(OTHER, "rejected"),
      proof(),
      proof(OTHER),
      done,
    );
    expect(proved).toMatchObject({ state: "none" });
    const attested: LedgerEvent = { type: "waived", rotation: R, fp: OTHER, reason: "lost" };
    expect(of(verdict(OLD, "rejected"), proof(), attested, done)).toBeNull();
  });

  test("the same after the rotation is done", () => {
    expect(blackoutOf(stateOf(WHOLE))).toMatchObject({ state: "none", atLeastMs: 0, atMostMs: 0 });
    const first = [...alarm(), died("08:10", "08:09"), ...write, { at: "08:23", events: [proof(), done] }];
    expect(blackoutOf(stateOf(first))).toMatchObject({ atLeastMs: 12 * MIN, atMostMs: 13 * MIN });
  });

  test("null while no rotation was ever open", () => expect(blackoutOf(EMPTY)).toBeNull());
});

/** Any events at any times, in any order: also such as no rotator writes. */
const anyFp = fc.constantFrom(OLD, NEW, OTHER);
const anyTs = fc.integer({ min: 0, max: 24 * 60 - 1 }).map((m) => ts(`${pad(m / 60)}:${pad(m % 60)}`));
const pad = (n: number): string => String(Math.floor(n)).padStart(2, "0");
const anyEvent: fc.Arbitrary<LedgerEvent> = fc.oneof(
  fc
    .tuple(anyFp, fc.constantFrom("accepted", "rejected", "unclear"), fc.option(anyTs, { nil: undefined }))
    .map(([fp, word, seen]) => verdict(fp, word, seen)),
  fc.tuple(anyFp, fc.option(anyTs)).map(([fp, since]) => leaked({ leaked: fp, since })),
  anyFp.map((fp) => staged(fp)),
  anyFp.map((fp) => modeFound({ fp })),
  fc
    .tuple(fc.constantFrom("env", "api"), anyFp)
    .map(([target, fp]) => intends(target, target === "env" ? "write" : "roll", fp)),
  fc
    .tuple(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 0, max: 2 }))
    .map(([seq, i]) => ended(`${seq}.${i}`)),
  anyFp.map((fp) => readBack(fp)),
  anyFp.map((fp) => proof(fp)),
  anyFp.map((to): LedgerEvent => ({ type: "rollback-requested", rotation: R, to })),
  fc.constantFrom(run(), done, adopted, openedAs()),
);
const anyStory = fc.array(fc.tuple(anyTs, fc.array(anyEvent, { minLength: 1, maxLength: 3 })), {
  maxLength: 25,
});

/** What is wrong with a bound, in words. */
const wrongBound = (bounds: Exposure | Blackout | null): string | null => {
  if (bounds === null) return null;
  const { atLeastMs, atMostMs, firstRejected } = bounds;
  if (atLeastMs < 0) return "below 0";
  if (!(atLeastMs <= (atMostMs ?? Number.POSITIVE_INFINITY))) return "more at least than at most";
  if ("from" in bounds) {
    if ((firstRejected === null) !== (atMostMs === null))
      return "an end without a bound, or the other way round";
    return firstRejected !== null && firstRejected <= bounds.from && atMostMs !== 0
      ? "over before it began"
      : null;
  }
  if (bounds.state === "none" && (atLeastMs !== 0 || atMostMs !== 0)) return "none, and yet some";
  return bounds.state === "going on" && bounds.ended !== null ? "goes on after its end" : null;
};

test("bounds hold whatever a ledger says, and never go below 0", () => {
  fc.assert(
    fc.property(anyStory, anyTs, fc.boolean(), (story, asOf, isCounted) => {
      let s = EMPTY;
      const all: [string, LedgerEvent[]][] = [[ts("08:00"), [adopted, openedAs(), leaked()]], ...story];
      all.forEach(([at, events], seq) => {
        events.forEach((e, index) => {
          s = evolve(s, e, { seq, index, ts: at });
        });
        const exposure = exposureOf(s);
        const blackout = blackoutOf(s, isCounted ? asOf : null);
        expect([exposure, blackout].map(wrongBound)).toEqual([null, null]);
      });
    }),
    { numRuns: 400 },
  );
});

test("whatever a ledger says, its report can be made, and a key is never called proved without a proof of it", () => {
  fc.assert(
    fc.property(anyStory, (story) => {
      const said = story.map(([at, events]): Said => ({ at: at.slice(11, 19), events }));
      const entries = ledgerOf([{ at: "08:00", events: [adopted, openedAs(), leaked()] }, ...said]);
      const report = incident(entries, R, { app: "chat-prod", host: "x", timezone: "Asia/Taipei" });
      if (report === null) return;
      const proofs = entries.flatMap(({ events }) =>
        events.flatMap((e) => (e.type === "proof" ? [e.fp.slice(0, 8)] : [])),
      );
      const called = report.oldKeys.filter((k) => k.state === "proved").map((k) => k.fingerprint);
      expect(called.filter((fp) => !proofs.includes(fp))).toEqual([]);
      const [revoked] = report.steps;
      expect(revoked?.state === "done").toBe(called.length > 0 && called.length === report.oldKeys.length);
      expect(incidentWords(report).split("\n").slice(2, 7)).toHaveLength(5);
      expect(report.notProved.length).toBeGreaterThan(0);
    }),
    { numRuns: 150 },
  );
});
