import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { LedgerEvent } from "../../src/core/events.ts";
import { type Incident, incident } from "../../src/core/incident.ts";
import { incidentWords } from "../../src/core/incident-words.ts";
import { markdown, plain, span, zonedClock } from "../../src/core/incident-text.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import {
  accepted,
  adopted,
  counted,
  done,
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
  type Said,
  staged,
  triad,
  ts,
  verdict,
  WHOLE,
} from "./incident-story.ts";

const context = { app: "chat-prod", host: "your-app.imkit.io", timezone: "Asia/Taipei" };
const reportOf = (story: readonly Said[]): Incident => {
  const found = incident(ledgerOf(story), R, context);
  if (found === null) throw new Error("no report");
  return found;
};
const wordsOf = (story: readonly Said[]): string => incidentWords(reportOf(story));
const ids = (i: Incident): readonly string[] => i.notProved.map((d) => d.id);
const states = (i: Incident): readonly string[] => i.steps.map((step) => step.state);
/** The whole story with one entry changed, or left out. */
const swap = (n: number, change: (said: Said) => Said | null): readonly Said[] =>
  WHOLE.flatMap((said, i) => (i === n ? (change(said) ?? []) : said));
const opening = (change: Partial<LedgerEvent & { type: "opened" }>): readonly Said[] =>
  swap(1, (said) => ({ ...said, events: [openedAs(change), leaked()] }));

test("a rotation without an emergency has no report, nor has one that is not there", () => {
  expect(incident(ledgerOf(WHOLE), "r2", context)).toBeNull();
  expect(incident(ledgerOf([{ at: "08:00", events: [openedAs()] }]), R, context)).toBeNull();
  expect(incident([], R, context)).toBeNull();
});

test("the four steps, each with time, who, key and the entry that says so", () => {
  const ledger = ledgerOf(WHOLE);
  const { steps, ...report } = reportOf(WHOLE);
  expect(steps.map(({ id, state, at, by }) => [id, state, at, by])).toEqual([
    ["old-key-revoked", "done", ts("08:07:30"), "person:may"],
    ["new-key-issued", "done", ts("08:05"), "person:kim"],
    ["services-updated", "done", ts("08:05:09"), "person:may"],
    ["operations-checked", "done", ts("08:07:31"), "person:may"],
  ]);
  expect(steps[0]?.evidence).toEqual([
    {
      what: "proof: rejected",
      at: ts("08:07:30"),
      by: "person:may",
      seq: 10,
      h16: ledger[10]?.h.slice(0, 16),
      fingerprint: "7c2e91aa",
      triads: 3,
      answers: [
        { asked: "old", status: 401, code: "INVALID_API_KEY", times: 3 },
        { asked: "new", status: 200, code: null, times: 3 },
        { asked: "made-up", status: 401, code: "INVALID_API_KEY", times: 3 },
      ],
      dates: ["Mon, 02 Mar 2026 08:20:00 GMT"],
    },
  ]);
  expect(report).toMatchObject({
    schemaVersion: 1,
    state: "done",
    newFingerprint: "b40d55e2",
    ledger: { head: `11:${ledger[11]?.h.slice(0, 16)}` },
    stores: [{ name: "env", state: "written", written: { seq: 5 }, readBack: { seq: 11 } }],
    workloads: [{ name: "api", state: "done", restarted: { seq: 7 }, proof: 1 }],
    usage: { difference: { users: 0, messages: 15, peakConnections: null } },
    exposure: { atLeastMs: 410_000, atMostMs: 420_000 },
    blackout: { state: "none" },
    next: [],
  });
  expect(ids(reportOf(WHOLE))).toEqual(["since-unknown", "no-witness", "foreign-use"]);
});

test("what is written later in the ledger changes no report of an ended rotation", () => {
  const later: Said = { at: "09:00", events: [openedAs({ rotation: "r2", current: NEW, old: [NEW] })] };
  const again: Said = {
    at: "09:01",
    events: [{ ...verdict(OLD, "accepted"), rotation: "r2" } as LedgerEvent],
  };
  expect(reportOf([...WHOLE, later, again])).toEqual(reportOf(WHOLE));
});

describe("step 1 is done by a proof and by nothing else", () => {
  const withProof = (change: Partial<LedgerEvent & { type: "proof" }>): readonly Said[] =>
    swap(9, (said) => ({ ...said, events: [proof(OLD, change)] }));
  const waived: LedgerEvent = { type: "waived", rotation: R, fp: OLD, reason: "lost" };
  const table: readonly (readonly [string, readonly Said[], string, string | null])[] = [
    ["no proof at all", swap(9, () => null), "open|not proved", null],
    ["a proof without a question", withProof({ triads: [] }), "open|not proved", null],
    [
      "one answer was a yes",
      withProof({ triads: [triad(), triad({ old: accepted })] }),
      "open|not proved",
      null,
    ],
    [
      "the made-up key was accepted",
      withProof({ triads: [triad({ control: accepted })] }),
      "open|not proved",
      null,
    ],
    [
      "the made-up key is missing",
      withProof({ triads: [triad({ control: null })] }),
      "open|not proved",
      null,
    ],
    [
      "a proof of another key",
      swap(9, (said) => ({ ...said, events: [proof(OTHER)] })),
      "open|not proved",
      null,
    ],
    [
      "accepted after its proof",
      swap(10, (said) => ({ ...said, events: [verdict(OLD, "accepted"), done] })),
      "open|not proved",
      "key-accepted",
    ],
    ["attested", swap(9, (said) => ({ ...said, events: [waived] })), "not proved", "key-attested"],
    [
      "the made-up key was switched off",
      withProof({ control: false, triads: [triad({ control: null })] }),
      "done",
      "control-off",
    ],
  ];
  test.each(table)("%s", (_, story, state, doubt) => {
    const report = reportOf(story);
    const step = report.steps[0];
    const isDone = state === "done";
    expect(step?.state).toMatch(new RegExp(`^(${state})$`));
    expect(ids(report)).toEqual(expect.arrayContaining(doubt === null ? [] : [doubt]));
    const [, , first = ""] = incidentWords(report).split("\n");
    expect(first.includes("**Over.**")).toBe(isDone);
    expect(first.includes(": proved dead")).toBe(isDone);
  });

  test("with two old keys, both", () => {
    const two = opening({ old: [OLD, OTHER] });
    const report = reportOf(two);
    expect(report.steps[0]?.state).not.toBe("done");
    expect(report.oldKeys.map((k) => [k.fingerprint, k.leaked, k.state])).toEqual([
      ["7c2e91aa", true, "proved"],
      ["e91f03cc", false, "unknown"],
    ]);
  });

  test("without any old key it is not done either", () => {
    const story = [...opening({ old: [], current: null }).slice(1, 2), { at: "08:01", events: [done] }].map(
      (said, i) =>
        i === 0
          ? { ...said, events: [openedAs({ old: [], current: null }), leaked({ leaked: null })] }
          : said,
    );
    expect(reportOf(story).steps[0]).toMatchObject({ state: "not proved", at: null, evidence: [] });
  });
});

test("an open rotation: what is so far, and what to do, with commands as they can be pasted", () => {
  const found = incident(ledgerOf(WHOLE.slice(0, 3)), R, {
    ...context,
    command: (line) => line.replace("imkit-rotator", "imkit-rotator -c /etc/x.yaml"),
  });
  if (found === null) throw new Error("no report");
  expect(found).toMatchObject({ state: "open", phase: "waiting-key", newFingerprint: null });
  expect(states(found)).toEqual(["open", "open", "open", "open"]);
  expect(found.steps.every((step) => step.at === null)).toBe(true);
  expect(found.next.map(({ command }) => command)).toContain("imkit-rotator -c /etc/x.yaml stage chat-prod");
  const words = incidentWords(found);
  expect(words).toContain("1. **NOT OVER.** It waits for a new key (`waiting-key`)");
  expect(words).toContain("**STILL ACCEPTED**");
  expect(words.split("\n").slice(2, 7).join("\n")).not.toMatch(/proved dead/);
});

test.each<readonly [string, readonly Said[], readonly string[]]>([
  [
    "a person's word on a restart",
    [
      ...opening({
        rollouts: [{ name: "api", type: "manual", where: "", required: true, canary: false, after: [] }],
      }).slice(0, 5),
      { at: "08:06", events: [{ type: "restarted", rotation: R, targets: ["api"] }] },
    ],
    ["restart-unproved"],
  ],
  [
    "a restart that reports success",
    swap(6, (s) => ({ ...s, events: s.events.map((e) => ({ ...e, proof: 0 }) as LedgerEvent) })),
    ["restart-unproved"],
  ],
  [
    "the app only remembered",
    swap(3, (s) => ({
      ...s,
      events: s.events.map((e) => (e.type === "mode-found" ? modeFound({ sameApp: "remembered" }) : e)),
    })),
    ["app-remembered"],
  ],
  [
    "the app not known",
    swap(3, (s) => ({
      ...s,
      events: s.events.map((e) => (e.type === "mode-found" ? modeFound({ sameApp: "unproved" }) : e)),
    })),
    ["app-unproved"],
  ],
  [
    "another app, accepted by a person",
    swap(3, (s) => ({
      ...s,
      events: s.events.map((e) =>
        e.type === "mode-found" ? modeFound({ sameApp: "different", acceptedApp: true }) : e,
      ),
    })),
    ["app-different"],
  ],
  [
    "a store left out",
    swap(4, (s) => ({ ...s, events: [{ type: "waived", rotation: R, target: "env", reason: "gone" }] })),
    ["store-dropped"],
  ],
  [
    "no counts before",
    swap(2, (s) => ({ ...s, events: s.events.filter((e) => e.type !== "observed" || e.what !== "usage") })),
    ["usage-before"],
  ],
  [
    "IMKIT gave no counts after",
    swap(10, (s) => ({
      ...s,
      events: s.events.map((e) => (e.type === "observed" && e.what === "usage" ? { ...e, usage: null } : e)),
    })),
    ["usage-after"],
  ],
  [
    "nobody knows which key",
    swap(1, (s) => ({ ...s, events: [openedAs(), leaked({ leaked: null })] })),
    ["leak-unknown"],
  ],
  [
    "a silence of hours",
    WHOLE.map((s, i) => (i < 9 ? s : { ...s, at: s.at.replace("08:", "11:") })),
    ["gaps"],
  ],
])("not proved: %s", (_, story, expected) => {
  const report = reportOf(story);
  expect(ids(report)).toEqual(expect.arrayContaining([...expected]));
  for (const id of expected) expect(ids(reportOf(WHOLE))).not.toContain(id);
  const section = incidentWords(report).split("## Not proved")[1]?.split("## ")[0] ?? "";
  for (const { text } of report.notProved) expect(section).toContain(markdown(text));
});

test("a person's word alone: the third step is not proved", () => {
  const manual = { name: "api", type: "manual", where: "", required: true, canary: false, after: [] };
  const story = [
    ...opening({ rollouts: [manual] }).slice(0, 5),
    { at: "08:06", events: [{ type: "restarted", rotation: R, targets: ["api"] } as const] },
  ];
  expect(reportOf(story).steps[2]).toMatchObject({ state: "not proved" });
  expect(wordsOf(story)).toContain("a person said so, nobody looked");
});

test("a look that a later entry tells of ends a silence", () => {
  const quiet = WHOLE.map((s, i) => (i < 8 ? s : { ...s, at: s.at.replace("08:0", "08:2") }));
  expect(reportOf(quiet).gaps).toEqual(
    [{ from: ts("08:05:10"), to: ts("08:06:50"), ms: 0 }]
      .slice(1)
      .concat([{ from: ts("08:06:50"), to: ts("08:27"), ms: 1_210_000 }]),
  );
});

test("a rotation that was open before the leak was known may be older than the leak", () => {
  const early = swap(1, (said) => ({ ...said, at: "07:59:30", events: [openedAs()] }));
  const story = early.flatMap((said, i) => (i === 1 ? [said, { at: "08:01", events: [leaked()] }] : [said]));
  expect(wordsOf(story.slice(0, 4))).toContain("the true time may be shorter or longer");
  expect(wordsOf(WHOLE)).toContain("the true time may be longer");
});

test("the five lines come first, and every fingerprint has its meaning", () => {
  const words = wordsOf(WHOLE);
  const lines = words.split("\n");
  expect(lines.slice(2, 7).map((line) => line.slice(0, 3))).toEqual(["1. ", "2. ", "3. ", "4. ", "5. "]);
  expect(lines[2]).toBe(
    "1. **Over.** Leaked key `7c2e91aa`: proved dead. IMKIT's answer was a rejection 3 of 3 times, recorded 2026-03-02 16:07:30 +08:00 (08:07:30Z).",
  );
  for (const [at] of words.matchAll(/.{0,40}(7c2e91aa|b40d55e2)/g)) expect(at).toMatch(/key/i);
  expect(words).not.toContain(OLD);
  expect(words).not.toContain(NEW);
});

const UNSEEN = /[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e]/u;

describe("text of persons", () => {
  const evil =
    "x|y\n# Head <script>a</script> [l](javascript:1) ![i](http://e.vil/p) `c` **b** _u_ www.e.vil \u001b[31m\u202e\u0007 ~~s~~";
  const hostile = [
    ...swap(1, (said) => ({
      ...said,
      by: evil,
      events: [
        openedAs({
          reason: evil,
          ticket: evil,
          stores: [{ name: evil, type: evil, where: evil, required: true, write: true }],
        }),
        leaked(),
      ],
    })).slice(0, 4),
    { at: "08:10", by: evil, events: [{ type: "waived", rotation: R, fp: OLD, reason: evil } as const] },
  ];

  test("is shown as text: no mark-up, link, HTML, table cell or control character comes of it", () => {
    const words = wordsOf(hostile);
    expect(words.replaceAll("\n", "")).not.toMatch(UNSEEN);
    expect(words).not.toMatch(/<(?!br>)/);
    expect(words).not.toMatch(/^# (?!Incident report: chat-prod$)/m);
    expect(words).not.toMatch(/[^\\]\[(?:l|i)\\?\]/);
    expect(words).not.toMatch(/[^\\]:\/\/|www\.(?!\\)|[^\\]\*\*b/);
    for (const part of words.split("\n## ").slice(1)) {
      const rows = part.split("\n").filter((line) => line.startsWith("|"));
      expect(new Set(rows.map((row) => row.split(/(?<!\\)\|/).length)).size, part).toBeLessThanOrEqual(1);
    }
    expect(JSON.stringify(reportOf(hostile))).not.toMatch(/\\u001b|\\n|\u202e/);
  });

  test("no key gets in, wherever a person or a provider put one", () => {
    for (const key of Array.from({ length: 20 }, madeKey)) {
      const said = `found ${key} in a log (${key.slice(7, 45)})`;
      const story = [
        ...swap(1, (one) => ({
          ...one,
          by: key,
          events: [
            openedAs({
              reason: said,
              ticket: `key=${key}`,
              stores: [{ name: key, type: "dotenv", where: `dotenv:${key}`, required: true, write: true }],
            }),
            leaked({ since: key }),
          ],
        })).slice(0, 9),
        { at: "08:09", events: [{ type: "waived", rotation: R, fp: OLD, reason: said } as const] },
        { at: "08:10", events: [{ type: "abandoned", rotation: R, why: said } as const] },
      ];
      const report = reportOf(story);
      expect(findKey(`${JSON.stringify(report)}\n${incidentWords(report)}`, key)).toEqual([]);
    }
  });

  test("whatever it is, the report can be made", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 400 }), (text) => {
        const shown = plain(text);
        expect(shown).not.toMatch(UNSEEN);
        expect(Array.from(shown).length).toBeLessThanOrEqual(300);
        expect(markdown(shown)).not.toMatch(/<|(?<!\\)(?:\\\\)*[|`*_[\]]/);
      }),
    );
  });
});

describe("times", () => {
  test.each([
    [0, "0 s"],
    [999, "under 1 s"],
    [1000, "1 s"],
    [59_600, "1 min"],
    [252_000, "4 min 12 s"],
    [3_600_000, "1 h"],
    [3_605_000, "1 h"],
    [7_500_000, "2 h 5 min"],
    [90_000_000, "1 d 1 h"],
  ])("%i ms is %s", (ms, words) => expect(span(ms)).toBe(words));

  test("local time with its offset, also where summer time has begun", () => {
    expect(zonedClock("Asia/Taipei")("2026-03-02T16:30:05.999Z")).toBe("2026-03-03 00:30:05 +08:00");
    expect(zonedClock("Europe/Berlin")("2026-03-29T00:59:59Z")).toBe("2026-03-29 01:59:59 +01:00");
    expect(zonedClock("Europe/Berlin")("2026-03-29T01:00:00Z")).toBe("2026-03-29 03:00:00 +02:00");
    expect(zonedClock("UTC")("2026-03-29T01:00:00Z")).toBe("2026-03-29 01:00:00 +00:00");
    expect(zonedClock("UTC")("never")).toBe("?");
  });

  test("a report says the UTC day where it is another one", () => {
    const night = WHOLE.map((said) => ({ ...said, at: said.at.replace(/^0/, "1") }));
    expect(wordsOf(night)).toContain("2026-03-03 02:07:30 +08:00 (2026-03-02 18:07:30Z)");
  });
});

test("the counts of an entry pass as numbers only", () => {
  const key = madeKey();
  const odd = {
    ...counted("after", 1),
    usage: { users: key, rooms: [key], messages: 3, apiKey: key },
  } as never;
  const report = reportOf(swap(10, (said) => ({ ...said, events: [readBack(), odd, done] })));
  expect(report.usage.after?.counts).toEqual({
    users: null,
    rooms: null,
    totalRooms: null,
    messages: 3,
    peakConnections: null,
  });
  expect(findKey(JSON.stringify(report), key)).toEqual([]);
});

test("a staged key that leaked has its own line, and the one after it is the new key", () => {
  const story: readonly Said[] = [
    { at: "07:59", events: [adopted] },
    { at: "08:00", events: [openedAs(), leaked()] },
    { at: "08:01", events: [staged(NEW)] },
    { at: "08:02", events: [leaked({ leaked: NEW })] },
    { at: "08:03", events: [staged(OTHER), modeFound({ fp: OTHER })] },
  ];
  const report = reportOf(story);
  expect(report.oldKeys.map((k) => [k.fingerprint, k.leaked, k.role])).toEqual([
    ["7c2e91aa", true, "in use when the rotation began"],
    ["b40d55e2", true, "new key for a while, then replaced"],
  ]);
  expect(report.steps[1]).toMatchObject({ state: "done", fingerprints: ["e91f03cc"] });
  expect(report.emergency).toMatchObject({ leaked: ["7c2e91aa", "b40d55e2"], at: ts("08:00") });
});

test("a way back to a key that leaked is never good news", () => {
  const story: readonly Said[] = [
    ...WHOLE.slice(0, 4),
    { at: "08:06", events: [{ type: "rollback-requested", rotation: R, to: OLD }] },
  ];
  const report = reportOf(story);
  expect(report).toMatchObject({ rolledBack: true, newFingerprint: "7c2e91aa" });
  expect(report.steps[1]?.state).not.toBe("done");
  expect(ids(report)[0]).toBe("new-key-leaked");
});
