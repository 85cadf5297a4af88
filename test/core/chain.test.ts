import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { canonical, decodeText, encodeText, follow, openEntry, seal } from "../../src/core/chain.ts";
import { entryProblem, shapeProblem } from "../../src/core/shape.ts";
import { bodyOf, chainOf, genesis, intent, lineOf, STORY } from "../kit/ledger-story.ts";

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");
const sound = (): string => text(chainOf([[genesis]])[0] ?? new Uint8Array()).slice(76, -2);

describe("canonical form", () => {
  test("sorts keys, leaves out undefined, writes no blanks", () => {
    expect(canonical({ b: [1, true, null, "x"], a: { d: undefined, c: -5 }, "10": 1, "9": 2 })).toBe(
      '{"10":1,"9":2,"a":{"c":-5},"b":[1,true,null,"x"]}',
    );
    expect(canonical({ q: 'a"b\\c/d' })).toBe('{"q":"a\\"b\\\\c/d"}');
    expect(canonical(-0)).toBe("0");
  });

  test("a value and what JSON.parse makes of its form are the same, whatever the order of keys", () => {
    const leaf = fc.oneof(
      fc.boolean(),
      fc.constant(null),
      fc.maxSafeInteger(),
      fc.string({ unit: "binary" }).map(encodeText),
    );
    const key = fc.string({ unit: "binary-ascii", maxLength: 6 }).map(encodeText);
    const value = fc.letrec((tie) => ({
      any: fc.oneof({ maxDepth: 4 }, leaf, fc.array(tie("any"), { maxLength: 4 }), tie("object")),
      object: fc.dictionary(key, tie("any"), { maxKeys: 4, noNullPrototype: true }),
    })).object;
    fc.assert(
      fc.property(value, (v) => {
        const form = canonical(v);
        expect(canonical(JSON.parse(form))).toBe(form);
        expect(canonical(Object.fromEntries(Object.entries(v as object).reverse()))).toBe(form);
        expect(JSON.parse(form)).toEqual(JSON.parse(JSON.stringify(v)));
      }),
    );
  });

  test.each([
    ["a fraction", 0.5],
    ["an unsafe integer", 2 ** 53],
    ["NaN", Number.NaN],
    ["a bigint", 1n],
    ["a date", new Date(0)],
    ["bytes", new Uint8Array(1)],
    ["undefined", undefined],
    ["a hole", [undefined]],
    ["text that is not encoded", "ä"],
    ["a line feed", "a\nb"],
    ["DEL", "\x7f"],
    ["a bare percent", "100%"],
    ["a key that is not ASCII", { ä: 1 }],
    ["depth 7", [[[[[[[]]]]]]]],
  ])("%s has none", (_, value) => {
    expect(() => canonical(value)).toThrow("no canonical form");
  });

  test("depth 6 has one", () => {
    expect(canonical([[[[[[1]]]]]])).toBe("[[[[[[1]]]]]]");
  });
});

describe("text", () => {
  test("is printable ASCII when stored and comes back the same", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (s) => {
        expect(encodeText(s)).toMatch(/^[ -~]*$/);
        expect(decodeText(encodeText(s))).toBe(s.toWellFormed());
      }),
    );
    expect(encodeText("換 100%\n")).toBe("%E6%8F%9B 100%25%0A");
    expect(decodeText("%e6%8f%9b")).toBe("換");
  });

  test.each(["50%", "%zz", "%41", "%20", "%7e", "%FF", "%C0%AF", "%ED%A0%80", "ä"])(
    "%j is no stored text",
    (s) => {
      expect(() => decodeText(s)).toThrow(/not percent-encoded text|URI malformed/);
    },
  );

  test("of an entry is encoded when sealed and decoded when opened", () => {
    const [line] = chainOf([[{ ...genesis, note: "疑似外洩 100%" }]]);
    expect(text(line ?? new Uint8Array())).toContain('"note":"%E7%96%91');
    expect(openEntry(line ?? new Uint8Array())).toMatchObject({
      entry: { events: [{ note: "疑似外洩 100%" }] },
    });
  });
});

describe("seal", () => {
  test("frames the canonical body under its domain hash", () => {
    const { h, line } = seal(bodyOf(0, null, [genesis]));
    const r = text(line).slice(76, -2);
    expect(text(line)).toBe(`{"h":"${h}","r":${r}}\n`);
    expect(Buffer.from(line)).toEqual(lineOf(r));
    expect(Object.keys(JSON.parse(r))).toEqual([
      "actor",
      "events",
      "inst",
      "ledger",
      "prev",
      "seq",
      "ts",
      "v",
    ]);
  });

  test("gives the entry that a reader makes of the line, whatever text is in it", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.string(), (note, more) => {
        const { line, entry } = seal(
          bodyOf(0, null, [{ ...genesis, note, left: undefined, deep: { more: [more] } }]),
        );
        expect(openEntry(line)).toStrictEqual({ entry });
      }),
    );
  });

  test("takes 16 KiB with its line feed and not a byte more", () => {
    const spare = 16_384 - seal(bodyOf(0, null, [{ ...genesis, pad: "" }])).line.length;
    expect(seal(bodyOf(0, null, [{ ...genesis, pad: "x".repeat(spare) }])).line).toHaveLength(16_384);
    expect(() => seal(bodyOf(0, null, [{ ...genesis, pad: "x".repeat(spare + 1) }]))).toThrow("16 KiB");
  });

  test("refuses what no reader would take", () => {
    expect(() => seal(bodyOf(0, null, [intent("aws")]))).toThrow("NOT_CANONICAL");
    expect(() => seal(bodyOf(1, null, [{ type: "erased" }]))).toThrow("UNKNOWN_TYPE");
    expect(() => seal(bodyOf(0, null, [genesis], { ts: "2026-03-02T08:00:00Z" }))).toThrow("NOT_CANONICAL");
  });
});

describe("opening a line", () => {
  const good = text(lineOf(sound()));
  const upper = good.replace(/"h":"[0-9a-f]+"/, (h) => h.toUpperCase().replace("H", "h"));
  const bytes = (s: string): Uint8Array => Buffer.from(s, "latin1");
  test.each([
    ["nothing", "", "UNREADABLE"],
    ["a line feed", "\n", "UNREADABLE"],
    ["no line feed at the end", good.slice(0, -1), "UNREADABLE"],
    ["half of it", good.slice(0, 200), "UNREADABLE"],
    ["half of it and a line feed", `${good.slice(0, 200)}\n`, "UNREADABLE"],
    ["NUL behind it", `${good}\0\0\0\0`, "UNREADABLE"],
    ["only NUL", "\0".repeat(4096), "UNREADABLE"],
    ["noise", "\x80\xff\x00\x9f\n", "UNREADABLE"],
    ["CRLF", good.replace("\n", "\r\n"), "NOT_CANONICAL"],
    ["a BOM", `\xef\xbb\xbf${good}`, "NOT_CANONICAL"],
    ["blanks behind it", good.replace("\n", "  \n"), "NOT_CANONICAL"],
    ["an empty line behind it", `${good}\n`, "NOT_CANONICAL"],
    ["an upper-case hash", upper, "NOT_CANONICAL"],
    ["a hash that is no hex", good.replace(/"h":"../, '"h":"zz'), "NOT_CANONICAL"],
    ["another frame", good.replace('"h"', '"H"'), "NOT_CANONICAL"],
    ["JSON that is no entry", "[]\n", "NOT_CANONICAL"],
    ["17 KiB", text(lineOf(sound().replace("chat-prod", "x".repeat(17_000)))), "NOT_CANONICAL"],
    ["two entries in a line", good.replace("\n", "") + good, "BAD_HASH"],
    ["another hash", good.replace(/"h":"(.)/, (_, c) => `"h":"${c === "0" ? "1" : "0"}`), "BAD_HASH"],
    ["another body", good.replace("chat-prod", "chat-prob"), "BAD_HASH"],
  ])("%s", (_, line, problem) => {
    expect(openEntry(bytes(line))).toEqual({ problem });
  });

  test.each([
    ["a blank", sound().replace('"v":1', '"v": 1'), "NOT_CANONICAL"],
    [
      "keys out of order",
      sound()
        .replace(/,"v":1}$/, "}")
        .replace("{", '{"v":1,'),
      "NOT_CANONICAL",
    ],
    ["a key twice", sound().replace('"v":1', '"v":1,"v":1'), "NOT_CANONICAL"],
    ["1.0", sound().replace('"v":1', '"v":1.0'), "NOT_CANONICAL"],
    ["1e0", sound().replace('"v":1', '"v":1e0'), "NOT_CANONICAL"],
    ["-0", sound().replace('"seq":0', '"seq":-0'), "NOT_CANONICAL"],
    ["2^53", sound().replace('"seq":0', '"seq":9007199254740992'), "NOT_CANONICAL"],
    ["a fraction", sound().replace('"seq":0', '"seq":0.5'), "NOT_CANONICAL"],
    ["an escape for a plain letter", sound().replace("chat", "\\u0063hat"), "NOT_CANONICAL"],
    ["an escaped line feed", sound().replace("chat", "ch\\nat"), "NOT_CANONICAL"],
    ["an escaped letter beyond ASCII", sound().replace("chat", "ch\\u00e4t"), "NOT_CANONICAL"],
    ["a raw letter beyond ASCII", sound().replace("chat", "ch\xc3\xa4t"), "NOT_CANONICAL"],
    ["a bare percent", sound().replace("chat", "100%"), "NOT_CANONICAL"],
    ["bytes that are no UTF-8", sound().replace("chat", "%FF"), "NOT_CANONICAL"],
    ["depth 7", sound().replace('"v":1', '"u":[[[[[[]]]]]],"v":1'), "NOT_CANONICAL"],
    ["no actor", sound().replace(/"actor":\{[^}]*\},/, ""), "NOT_CANONICAL"],
    ["a body that is torn", `${sound().slice(0, -20)}}`, "NOT_CANONICAL"],
    ["another version", sound().replace('"v":1', '"v":2'), "UNKNOWN_TYPE"],
    ["a version in quotes", sound().replace('"v":1', '"v":"1"'), "NOT_CANONICAL"],
    ["another type", sound().replace('"genesis"', '"exodus"'), "UNKNOWN_TYPE"],
    ["a day that never was", sound().replace("2026-03-02", "2026-02-30"), "NOT_CANONICAL"],
    ["a time with an offset", sound().replace(".000Z", "+00:00"), "NOT_CANONICAL"],
  ])("a true hash over %s", (_, r, problem) => {
    expect(openEntry(lineOf(r))).toEqual({ problem });
  });

  test("__proto__ is an unknown field like any other", () => {
    const opened = openEntry(lineOf(sound().replace("{", '{"__proto__":{"seq":7,"x":"%25"},')));
    expect(opened).toMatchObject({ entry: { seq: 0 } });
    expect(Object.getPrototypeOf("entry" in opened && opened.entry)).toBe(Object.prototype);
  });

  test("never throws, whatever it is given", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array(),
          fc.json().map((s) => Buffer.from(s)),
        ),
        (noise) => {
          expect(openEntry(noise)).toHaveProperty("problem");
          expect(openEntry(lineOf(Buffer.from(noise).toString("latin1")))).toHaveProperty("problem");
        },
      ),
    );
    expect(openEntry(lineOf("[".repeat(16_000)))).toHaveProperty("problem");
  });
});

describe("following a chain", () => {
  const lines = chainOf(STORY);
  const entries = lines.map((line) => {
    const opened = openEntry(line);
    if ("problem" in opened) throw new Error(opened.problem);
    return opened.entry;
  });
  const at = <T>(list: readonly T[], index: number): T => list[index] as T;

  test("takes each next entry", () => {
    let previous: (typeof entries)[number] | null = null;
    for (const line of lines) {
      const next = follow(previous, line);
      expect(next).toHaveProperty("entry");
      if ("entry" in next) previous = next.entry;
    }
    expect(previous?.seq).toBe(4);
  });

  test("takes nothing else", () => {
    expect(follow(null, at(lines, 1))).toEqual({ problem: "BAD_SEQ" });
    expect(follow(at(entries, 0), at(lines, 2))).toEqual({ problem: "BAD_SEQ" });
    expect(follow(at(entries, 0), at(lines, 0))).toEqual({ problem: "BAD_SEQ" });
    expect(follow({ ...at(entries, 1), h: "0".repeat(64) }, at(lines, 2))).toEqual({ problem: "BAD_PREV" });
    expect(follow({ ...at(entries, 1), ledger: "ledger-b" }, at(lines, 2))).toEqual({ problem: "BAD_PREV" });
    expect(follow(null, seal(bodyOf(0, "0".repeat(64), [genesis])).line)).toEqual({ problem: "BAD_PREV" });
    expect(follow(at(entries, 1), Buffer.from("torn"))).toEqual({ problem: "UNREADABLE" });
  });
});

describe("shape of an event", () => {
  const claim = { inst: "i", host: "h", bootId: "b", pidNamespace: "n", pid: 1, startTime: "9" };
  test.each([
    [{ type: "opened", rotation: "r1" }],
    [{ type: "claimed", ...claim }],
    [{ type: "claimed", ...claim, startTime: 9, pidNamespace: 4026531836 }],
    [{ ...intent("aws"), run: "run-1" }],
    [{ type: "result", intent: "2.0", outcome: "failed", code: "AUTHZ" }],
    [{ type: "observed", rotation: "r1", intent: "2.0" }],
    [{ type: "staged", rotation: null, anything: { else: [1] } }],
  ])("%j is tolerated", (event) => {
    expect(shapeProblem(event)).toBeNull();
  });

  test.each([
    [null, "NOT_CANONICAL"],
    ["genesis", "NOT_CANONICAL"],
    [[{ type: "genesis" }], "NOT_CANONICAL"],
    [{}, "NOT_CANONICAL"],
    [{ type: 1 }, "NOT_CANONICAL"],
    [{ type: "constructor" }, "UNKNOWN_TYPE"],
    [{ type: "Genesis" }, "UNKNOWN_TYPE"],
    [{ type: "genesis", salt: "5a" }, "NOT_CANONICAL"],
    [{ type: "done" }, "NOT_CANONICAL"],
    [{ type: "result", intent: "2.0" }, "NOT_CANONICAL"],
    [{ type: "result", intent: "2.0", outcome: "maybe" }, "NOT_CANONICAL"],
    [{ type: "result", outcome: "ok" }, "NOT_CANONICAL"],
    [{ type: "claimed", ...claim, pid: "1" }, "NOT_CANONICAL"],
    [{ ...intent("aws"), opId: undefined }, "NOT_CANONICAL"],
    [{ ...intent("aws"), rotation: 1 }, "NOT_CANONICAL"],
  ])("%j is %s", (event, problem) => {
    expect(shapeProblem(event)).toBe(problem);
  });

  test("genesis opens entry 0 and stands nowhere else", () => {
    expect(entryProblem(bodyOf(0, null, []))).toBe("NOT_CANONICAL");
    expect(entryProblem(bodyOf(0, null, [genesis, genesis]))).toBe("NOT_CANONICAL");
    expect(entryProblem(bodyOf(1, "0".repeat(64), [genesis]))).toBe("NOT_CANONICAL");
    expect(entryProblem(bodyOf(1, "0".repeat(64), []))).toBeNull();
  });
});
