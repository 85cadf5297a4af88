import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { seal } from "../../src/core/chain.ts";
import type { ProblemCode } from "../../src/core/shape.ts";
import { verifyLedger } from "../../src/core/verify.ts";
import {
  bodyOf,
  chainOf,
  done,
  genesis,
  intent,
  observed,
  opened,
  reline,
  result,
  STORY,
} from "../kit/ledger-story.ts";

const FOLDER = { folder: true } as const;
const FILE = { folder: false } as const;
const lines = chainOf(STORY);
const at = <T>(list: readonly T[], index: number): T => list[index] as T;
const hashAt = (index: number): string => Buffer.from(at(lines, index)).toString("latin1").slice(6, 70);
const codes = (
  chain: readonly Uint8Array[],
  options: Parameters<typeof verifyLedger>[1] = FOLDER,
): string[] => verifyLedger(chain, options).problems.map(({ code, seq }) => `${code}@${seq}`);
const flipped = (bytes: Uint8Array, bit: number): Uint8Array => {
  const copy = Uint8Array.from(bytes);
  copy[bit >> 3] = at([...copy], bit >> 3) ^ (1 << (bit & 7));
  return copy;
};
const split = (bytes: Buffer): Uint8Array[] => {
  const parts: Uint8Array[] = [];
  for (let start = 0; start < bytes.length; ) {
    const end = bytes.indexOf(10, start) + 1 || bytes.length;
    parts.push(bytes.subarray(start, end));
    start = end;
  }
  return parts;
};

describe("a sound ledger", () => {
  test("is reported with its head", () => {
    expect(verifyLedger(lines, FOLDER)).toEqual({
      ok: true,
      ledger: "ledger-a",
      entries: 5,
      open: 0,
      partial: false,
      head: { seq: 4, hash: hashAt(4) },
      problems: [],
    });
  });

  test("of nothing says nothing", () => {
    const head = { seq: null, hash: null };
    expect(verifyLedger([], FILE)).toEqual({
      ok: true,
      ledger: null,
      entries: 0,
      open: 0,
      partial: false,
      head,
      problems: [],
    });
  });

  test("holds the heads and witnesses that are quoted from it", () => {
    const h16 = hashAt(2).slice(0, 16);
    const witnesses = [{ ledger: "ledger-a", seq: 2, h16 }];
    expect(codes(lines, { ...FOLDER, head: { seq: 2, h16 }, witnesses })).toEqual([]);
  });

  test.each([
    ["another hash", { seq: 4, h16: "0".repeat(16) }],
    ["a later entry", { seq: 5, h16: hashAt(4).slice(0, 16) }],
    ["too few digits", { seq: 4, h16: hashAt(4).slice(0, 8) }],
    ["nothing", { seq: 4, h16: "" }],
  ])("does not hold a head with %s", (_, head) => {
    expect(codes(lines, { ...FOLDER, head })).toEqual([`HEAD_MISMATCH@${head.seq}`]);
  });

  test("without its tail is sound in itself, and behind what is quoted elsewhere", () => {
    const cut = lines.slice(0, 3);
    const quote = { seq: 4, h16: hashAt(4).slice(0, 16) };
    expect(codes(cut)).toEqual([]);
    expect(codes(cut, { ...FOLDER, head: quote })).toEqual(["HEAD_MISMATCH@4"]);
    expect(codes(cut, { ...FOLDER, witnesses: [{ ledger: "ledger-a", ...quote }] })).toEqual([
      "BEHIND_STORE@4",
    ]);
    expect(codes(lines, { ...FOLDER, witnesses: [{ ledger: "ledger-b", ...quote }] })).toEqual([
      "BEHIND_STORE@4",
    ]);
  });

  test("may lack its beginning in a file, not in a folder", () => {
    const tail = lines.slice(3);
    expect(verifyLedger(tail, FILE)).toMatchObject({ ok: true, partial: true, entries: 2, head: { seq: 4 } });
    expect(verifyLedger(tail, FOLDER)).toMatchObject({
      partial: true,
      problems: [{ code: "BAD_SEQ", seq: 3 }],
    });
  });
});

describe("damage", () => {
  test("every single flipped bit of five entries is found, and named as at most the entry and its link", () => {
    for (const [index, line] of lines.entries()) {
      for (let bit = 0; bit < line.length * 8; bit++) {
        const { problems } = verifyLedger(lines.with(index, flipped(line, bit)), FOLDER);
        expect(problems.length).toBeGreaterThan(0);
        const first: ProblemCode[] = ["BAD_HASH", "NOT_CANONICAL", "UNREADABLE"];
        expect(first).toContain(problems[0]?.code);
        expect(problems[0]?.seq).toBe(index);
        const rest = problems.slice(1).map(({ code, seq }) => `${code}@${seq}`);
        expect(["", `BAD_PREV@${index + 1}`]).toContain(rest.join());
      }
    }
  });

  test("every flipped bit of an export is found, also where it joins or splits lines", () => {
    const whole = Buffer.concat(lines);
    fc.assert(
      fc.property(fc.nat(whole.length * 8 - 1), (bit) => {
        expect(verifyLedger(split(Buffer.from(flipped(whole, bit))), FILE).ok).toBe(false);
      }),
    );
    for (const [index, byte] of whole.entries()) {
      if (byte !== 10) continue;
      for (let bit = 0; bit < 8; bit++) {
        expect(verifyLedger(split(Buffer.from(flipped(whole, index * 8 + bit))), FILE).ok).toBe(false);
      }
    }
  });

  test("every prefix of an export that ends in a line is sound, every other one is torn at its last line", () => {
    const whole = Buffer.concat(lines);
    for (let length = 1; length <= whole.length; length++) {
      const prefix = whole.subarray(0, length);
      const parts = split(prefix);
      const expected = prefix.at(-1) === 10 ? [] : [`UNREADABLE@${parts.length - 1}`];
      expect(codes(parts, FILE)).toEqual(expected);
    }
  });

  test("every swap is found", () => {
    for (let a = 0; a < lines.length; a++) {
      for (let b = a + 1; b < lines.length; b++) {
        const swapped = lines.with(a, at(lines, b)).with(b, at(lines, a));
        for (const options of [FOLDER, FILE, { folder: true, seqs: [0, 1, 2, 3, 4] }]) {
          const { problems } = verifyLedger(swapped, options);
          expect(problems.map(({ code }) => code)).toContain("BAD_SEQ");
          expect(new Set(problems.map(({ code }) => code)).size).toBe(1);
        }
      }
    }
  });

  test("every entry taken out of the middle is found", () => {
    for (let gone = 1; gone < lines.length - 1; gone++) {
      const left = lines.toSpliced(gone, 1);
      const seqs = [0, 1, 2, 3, 4].toSpliced(gone, 1);
      expect(codes(left)).toContain(`BAD_SEQ@${gone + 1}`);
      expect(codes(left, { folder: true, seqs })).toContain(`BAD_SEQ@${gone + 1}`);
    }
  });

  test("every entry that is there twice is found, once", () => {
    for (let twice = 0; twice < lines.length; twice++) {
      expect(codes(lines.toSpliced(twice, 0, at(lines, twice)))).toEqual([`BAD_SEQ@${twice}`]);
    }
  });

  test("a gap in the file names is found although the entries follow each other", () => {
    expect(codes(lines, { folder: true, seqs: [0, 1, 2, 4, 5] })).toEqual(["BAD_SEQ@4", "BAD_SEQ@5"]);
  });

  test("a torn entry is named by its place, and what it said is not held against the others", () => {
    for (let index = 0; index < lines.length; index++) {
      expect(codes(lines.with(index, new Uint8Array()))).toEqual([`UNREADABLE@${index}`]);
      expect(codes(lines.with(index, new Uint8Array()), FILE)).toEqual([`UNREADABLE@${index}`]);
    }
    expect(codes([Buffer.from("noise\n"), ...lines.slice(3)], FILE)).toEqual(["UNREADABLE@2"]);
    const noise = ["UNREADABLE@0", "UNREADABLE@1"];
    expect(codes([Buffer.from("a\n"), Buffer.from("b\n")], FILE)).toEqual(noise);
    expect(verifyLedger([Buffer.from("a\n")], FILE).head).toEqual({ seq: null, hash: null });
  });

  test("an entry rewritten with a true hash breaks the link of the next one", () => {
    const forged = seal(bodyOf(2, hashAt(1), [intent("aws"), intent("evil")])).line;
    expect(codes(lines.with(2, forged))).toEqual(["BAD_PREV@3"]);
  });

  test("of two entries with one number the first stands, and the other is no head", () => {
    const fork = seal(bodyOf(4, hashAt(3), [observed("2.1"), done], { inst: "inst-2" }));
    const report = verifyLedger([...lines, fork.line], {
      ...FOLDER,
      head: { seq: 4, h16: fork.h.slice(0, 16) },
    });
    expect(report.head).toEqual({ seq: 4, hash: hashAt(4) });
    expect(report.problems.map(({ code }) => code)).toEqual(["BAD_SEQ", "HEAD_MISMATCH"]);
  });

  test("an entry of another ledger is not linked", () => {
    const other = chainOf(STORY, { ledger: "ledger-b" });
    expect(codes(lines.with(2, at(other, 2)))).toEqual(["BAD_PREV@2", "BAD_PREV@3"]);
    const grafted = seal(bodyOf(5, hashAt(4), [{ type: "renewed" }], { ledger: "ledger-b" })).line;
    expect(codes([...lines, grafted])).toEqual(["BAD_PREV@5"]);
  });

  test("a first entry has no predecessor, every other one has", () => {
    expect(codes([seal(bodyOf(0, "0".repeat(64), [genesis])).line])).toEqual(["BAD_PREV@0"]);
    expect(codes([seal(bodyOf(7, null, [{ type: "renewed" }])).line], FILE)).toEqual(["BAD_PREV@7"]);
  });

  test("an entry before the first one has no place", () => {
    expect(codes([...lines, seal(bodyOf(-1, hashAt(4), [])).line])).toContain("BAD_SEQ@-1");
  });

  test("noise in any number and order never throws", () => {
    const any = fc.oneof(
      fc.uint8Array(),
      fc.constantFrom(...lines),
      fc.json().map((s) => Buffer.from(s)),
    );
    fc.assert(
      fc.property(fc.array(any), fc.boolean(), fc.array(fc.nat(9)), (chain, folder, seqs) => {
        const report = verifyLedger(chain, { folder, seqs });
        expect(report.entries).toBe(chain.length);
        expect(report.ok).toBe(report.problems.length === 0);
      }),
    );
  });
});

describe("meaning", () => {
  const tell = (...stories: unknown[][]) => verifyLedger(chainOf([[genesis], [opened], ...stories]), FOLDER);
  const brief = (report: ReturnType<typeof tell>) => [
    report.open,
    ...report.problems.map((p) => `${p.code}@${p.seq}`),
  ];
  const abandoned = { type: "abandoned", rotation: "r1", why: "x" };

  test.each<[string, unknown[][], unknown[]]>([
    ["an intent without an end", [[intent("aws")]], [1]],
    ["an unknown without an end", [[intent("aws")], [result("2.0", "unknown")]], [1]],
    ["an unknown that stays unknown", [[intent("aws")], [{ ...observed("2.0"), outcome: "unknown" }]], [1]],
    ["an observation in place of a result", [[intent("aws")], [observed("2.0")], [done]], [0]],
    ["a failure", [[intent("aws")], [result("2.0", "failed")], [abandoned]], [0]],
    ["a late end", [[intent("aws")], [done], [result("2.0")]], [0]],
    ["an observation of nothing", [[{ type: "observed", rotation: "r1", what: "target", run: 1 }]], [0]],
    ["an end of another rotation", [[intent("aws", "r0")], [done]], [1]],
    ["an end before the intent", [[done], [intent("aws")]], [1]],
    ["an intent left open at the end", [[intent("aws")], [done]], [0, "OPEN_AFTER_END@2"]],
    ["an intent left open when given up", [[intent("aws")], [abandoned]], [0, "OPEN_AFTER_END@2"]],
    ["an end in the entry of the intent", [[intent("aws"), done]], [0, "OPEN_AFTER_END@2"]],
    ["an unknown left open", [[intent("aws")], [result("2.0", "unknown")], [done]], [0, "OPEN_AFTER_END@2"]],
    ["a result of nothing", [[result("1.0")]], [0, "NO_INTENT@2"]],
    ["a result of the future", [[result("3.0")], [intent("aws")]], [1, "NO_INTENT@2"]],
    ["a result in the entry of its intent", [[intent("aws"), result("2.0")]], [1, "NO_INTENT@2"]],
    ["a result by no number", [[result("aws")]], [0, "NO_INTENT@2"]],
    ["a second result", [[intent("aws")], [result("2.0")], [result("2.0")]], [0, "NO_INTENT@4"]],
    [
      "a result after it was observed",
      [[intent("aws")], [observed("2.0")], [result("2.0")]],
      [0, "NO_INTENT@4"],
    ],
    [
      "an unknown closed by a result",
      [[intent("aws")], [result("2.0", "unknown")], [result("2.0")]],
      [1, "NO_INTENT@4"],
    ],
    ["an observation of no intent", [[observed("9.9")]], [0, "NO_INTENT@2"]],
  ])("%s", (_, stories, expected) => {
    expect(brief(tell(...stories))).toEqual(expected);
  });

  test("an export without its beginning may speak of intents from before it", () => {
    const chain = chainOf([[genesis], [opened], [intent("aws")], [result("2.0")], [done]]);
    expect(codes(chain.slice(3), FILE)).toEqual([]);
    const later = chainOf([[genesis], [opened], [], [result("2.0")], [result("3.0")]]);
    expect(codes(later.slice(3), FILE)).toEqual(["NO_INTENT@4"]);
  });

  test("an entry of a newer version or with an ill-typed field is named, and the rest is still read", () => {
    const rewritten = (change: (r: string) => string): string[] => {
      const told = reline(at(lines, 3), change);
      const h = Buffer.from(told).toString("latin1").slice(6, 70);
      return codes([
        ...lines.slice(0, 3),
        told,
        reline(at(lines, 4), (r) => r.replace(/"prev":"\w+"/, `"prev":"${h}"`)),
      ]);
    };
    expect(rewritten((r) => r)).toEqual([]);
    expect(rewritten((r) => r.replace('"v":1', '"v":2'))).toEqual(["UNKNOWN_TYPE@3"]);
    expect(rewritten((r) => r.replace('"result"', '"resulted"'))).toEqual(["UNKNOWN_TYPE@3"]);
    expect(rewritten((r) => r.replace('"outcome":"ok",', ""))).toEqual(["NOT_CANONICAL@3"]);
    expect(rewritten((r) => r.replace('"outcome":"ok"', '"outcome":true'))).toEqual(["NOT_CANONICAL@3"]);
  });
});
