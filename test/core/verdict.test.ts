import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseStrictJson } from "../../src/core/strict-json.ts";
import {
  type Answer,
  clientKeyOf,
  controlRejects,
  httpDate,
  judge,
  judgeTriad,
  type ProbeLike,
  retryAfterMs,
} from "../../src/core/verdict.ts";
import { answer, ENVELOPE, FLAT, HOSTILE, OK } from "../kit/hostile.ts";

describe("judge says a clear word", () => {
  test.each<[string, Answer]>([
    ["the documented success", answer(200, OK)],
    ["no RC", answer(200, { result: { count: 0 } })],
    ["unknown extra fields", answer(200, { ...OK, version: "2", result: { count: 1, peak: 2 } })],
    [
      "names that every object has",
      answer(200, '{"RC":0,"result":{"count":1},"constructor":1,"toString":2,"__proto__":{"RC":1}}'),
    ],
    ["error: null", answer(200, { ...OK, error: null })],
    ["no content type", answer(200, OK, { contentType: null })],
    ["text/plain", answer(200, OK, { contentType: "text/plain" })],
    ["blanks around", answer(200, ` \r\n\t${JSON.stringify(OK)}\n`)],
    ["the largest safe integer", answer(200, { RC: 0, result: { count: Number.MAX_SAFE_INTEGER } })],
  ])("accepted: %s", (_, given) => {
    expect(judge(given)).toEqual({ verdict: "accepted", code: null, why: "", retryAfterMs: null });
  });

  test.each<[string, Answer]>([
    ["flat", answer(401, FLAT)],
    ["flat, bare", answer(401, { error: "INVALID_API_KEY" })],
    ["envelope", answer(401, ENVELOPE)],
    ["envelope without RC", answer(401, { error: { code: "INVALID_API_KEY" } })],
    ["envelope with an application RC", answer(401, { ...ENVELOPE, RC: 10_001 })],
    ["flat with RC 401", answer(401, { RC: 401, ...FLAT })],
    ["result: null", answer(401, { ...ENVELOPE, result: null })],
    ["the same code twice told", answer(401, { ...FLAT, code: "INVALID_API_KEY" })],
    ["a number as code beside it", answer(401, { ...FLAT, code: 401 })],
  ])("rejected: %s", (_, given) => {
    expect(judge(given)).toEqual({
      verdict: "rejected",
      code: "INVALID_API_KEY",
      why: "",
      retryAfterMs: null,
    });
  });
});

describe("judge takes everything else as unclear", () => {
  test.each(HOSTILE)("%s", (_, given) => {
    const said = judge(given);
    expect(said.verdict).toBe("unclear");
    expect(said.why).toMatch(/^HTTP \d{3}/);
  });

  test.each([
    [401, "UNAUTHORIZED"],
    [401, "INVALID_AUTH"],
    [401, "MISSING_API_KEY"],
    [403, "INSUFFICIENT_PERMISSIONS"],
    [403, "INSUFFICIENT_PERMISSION"],
    [403, "PERMISSION_DENIED"],
    [429, "RATE_LIMIT_EXCEEDED"],
  ])("HTTP %i %s keeps its code, in both shapes", (status, code) => {
    expect(judge(answer(status, { error: code }))).toMatchObject({ verdict: "unclear", code });
    expect(judge(answer(status, { RC: status, error: { code } }))).toMatchObject({
      verdict: "unclear",
      code,
    });
  });

  test("no text of the answer but a known code comes through", () => {
    for (const status of [200, 302, 401, 403, 429, 500]) {
      const said = JSON.stringify(
        judge(answer(status, { error: "S3CRET_TEXT", message: "S3CRET_TEXT", RM: "S3CRET_TEXT" })),
      );
      expect(said).not.toContain("S3CRET");
    }
  });
});

describe("properties", () => {
  // Pools that meet often: mostly the words that matter, in right and wrong places.
  const word = fc.constantFrom(
    "INVALID_API_KEY",
    "UNAUTHORIZED",
    "MISSING_API_KEY",
    "invalid_api_key",
    "",
    "X",
  );
  const junk = fc.oneof(
    word,
    fc.constantFrom(null, true, 0, -0, 1, 401, 403, 200, 1.5, -1, "0", "401"),
    fc.jsonValue(),
  );
  const error = fc.oneof(
    word,
    junk,
    fc.record({ code: fc.oneof(word, junk), error: junk }, { requiredKeys: [] }),
  );
  const result = fc.oneof(
    junk,
    fc.record({ count: fc.oneof(junk, fc.nat(), fc.double()) }, { requiredKeys: [] }),
  );
  const member = fc.oneof(
    fc.tuple(fc.constant("error"), error),
    fc.tuple(fc.constant("RC"), junk),
    fc.tuple(fc.constant("result"), result),
    fc.tuple(fc.constantFrom("code", "RM", "message", "__proto__", "retryAfter"), junk),
  );
  // Text is put together by hand so that names may come twice.
  const text = fc
    .array(member, { maxLength: 5 })
    .map(
      (all) =>
        `{${all.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(",")}}`,
    );
  /** A documented answer with a member or two put over it. */
  const near = fc
    .tuple(fc.constantFrom<object>(OK, FLAT, ENVELOPE), fc.array(member, { maxLength: 2 }))
    .map(([base, over]) => JSON.stringify({ ...base, ...Object.fromEntries(over) }));
  const edited = fc
    .tuple(
      fc.constantFrom(JSON.stringify(OK), JSON.stringify(FLAT), JSON.stringify(ENVELOPE)),
      fc.nat(),
      fc.string({ maxLength: 2 }),
    )
    .map(([base, at, put]) => base.slice(0, at % base.length) + put + base.slice((at % base.length) + 1));
  const body = fc.oneof(
    text,
    { arbitrary: near, weight: 4 },
    { arbitrary: edited, weight: 2 },
    fc.json(),
    fc.string(),
  );
  const status = fc.oneof(fc.constantFrom(200, 401), fc.integer({ min: 100, max: 599 }));

  /** Written without the code under test: what DESIGN asks at least of either word. */
  const mayBe = (code: number, given: string): "accepted" | "rejected" | "unclear" => {
    let parsed: unknown;
    try {
      parsed = JSON.parse(given);
    } catch {
      return "unclear";
    }
    if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) return "unclear";
    const own = new Map<string, unknown>(Object.entries(parsed));
    const inside = (name: string, key: string): unknown => {
      const value = own.get(name);
      return typeof value === "object" && value !== null
        ? new Map<string, unknown>(Object.entries(value)).get(key)
        : undefined;
    };
    const count = inside("result", "count");
    const isCount = typeof count === "number" && Number.isSafeInteger(count) && count >= 0;
    if (code === 200 && (!own.has("RC") || own.get("RC") === 0) && isCount) return "accepted";
    const isNo = own.get("error") === "INVALID_API_KEY" || inside("error", "code") === "INVALID_API_KEY";
    if (code === 401 && own.get("RC") !== 0 && typeof own.get("RC") !== "string" && isNo) return "rejected";
    return "unclear";
  };

  test("no false accepted, no false rejected", () => {
    const seen = { accepted: 0, rejected: 0, unclear: 0 };
    fc.assert(
      fc.property(
        status,
        body,
        fc.constantFrom("application/json", "text/html", null),
        (code, given, contentType) => {
          const { verdict } = judge(answer(code, given, { contentType }));
          seen[verdict] += 1;
          expect(["unclear", mayBe(code, given)]).toContain(verdict);
        },
      ),
      { numRuns: 20_000 },
    );
    expect(Math.min(seen.accepted, seen.rejected)).toBeGreaterThan(100);
  });

  test("a name that comes twice is never a clear word", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(OK, FLAT, ENVELOPE),
        fc.nat(),
        junk,
        fc.constantFrom(200, 401),
        (base, pick, value, code) => {
          const names = Object.keys(base);
          const name = JSON.stringify(names[pick % names.length]);
          const given = `${JSON.stringify(base).slice(0, -1)},${name}:${JSON.stringify(value)}}`;
          expect(judge(answer(code, given)).verdict).toBe("unclear");
        },
      ),
    );
  });

  test("the strict parser reads what JSON.parse reads, and nothing that it does not read", () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 6 }), (given) => {
        expect(JSON.stringify(parseStrictJson(given))).toBe(JSON.stringify(JSON.parse(given)));
      }),
    );
    fc.assert(
      fc.property(fc.oneof(fc.string(), edited), (given) => {
        if (parseStrictJson(given) !== undefined) JSON.parse(given);
      }),
    );
  });
});

describe("retryAfterMs", () => {
  const at = "Mon, 01 Jun 2026 10:00:00 GMT";
  test.each<[unknown, string | null, number | null]>([
    [30, null, 30_000],
    [null, "30", 30_000],
    [30, "60", 60_000],
    [60, "30", 60_000],
    [0, null, 1_000],
    [null, "0", 1_000],
    [-1, null, 1_000],
    [null, "-1", 1_000],
    [0, "45", 45_000],
    [1.5, null, 1_500],
    ["1.5", null, 1_500],
    ["30", null, 30_000],
    [3600, null, 3_600_000],
    [3601, null, 3_600_000],
    [60_000, null, 3_600_000],
    [2 ** 31, null, 3_600_000],
    [1e12, null, 3_600_000],
    [Number.POSITIVE_INFINITY, null, null],
    [Number.NaN, "7", 7_000],
    ["soon", null, null],
    ["soon", "7", 7_000],
    ["1e3", null, null],
    ["0x10", null, null],
    ["", "", null],
    [" 30 ", null, 30_000],
    ["9".repeat(400), null, null],
    ["2026-06-01T10:00:30Z", null, null],
    [null, null, null],
    [undefined, null, null],
    [{ seconds: 30 }, null, null],
    [[30], null, null],
    [true, null, null],
    [null, "Mon, 01 Jun 2026 10:00:30 GMT", 30_000],
    [5, "Mon, 01 Jun 2026 10:00:30 GMT", 30_000],
    [null, "Mon, 01 Jun 2026 09:00:00 GMT", 1_000],
    [null, "Tue, 01 Jun 2027 10:00:00 GMT", 3_600_000],
    [null, "Mon, 99 Foo 2026 10:00:30 GMT", null],
  ])("body %o, header %o: %o", (inBody, header, expected) => {
    expect(retryAfterMs(inBody, header, at)).toBe(expected);
  });

  test("an HTTP date says nothing without the answer's own Date", () => {
    expect(retryAfterMs(null, at)).toBeNull();
    expect(retryAfterMs(null, at, "yesterday")).toBeNull();
  });

  test("never under a second, never over an hour, never what a timer would take for now", () => {
    fc.assert(
      fc.property(
        fc.anything(),
        fc.option(fc.oneof(fc.string(), fc.double().map(String))),
        (inBody, header) => {
          const ms = retryAfterMs(inBody, header) ?? 1_000;
          expect(Number.isSafeInteger(ms) && ms >= 1_000 && ms <= 3_600_000).toBe(true);
        },
      ),
    );
  });

  test("judge takes it from both shapes of a 429, and from the header of an unreadable one", () => {
    expect(judge(answer(429, { error: "RATE_LIMIT_EXCEEDED", retryAfter: 60 })).retryAfterMs).toBe(60_000);
    const nested = { RC: 429, error: { code: "RATE_LIMIT_EXCEEDED", retryAfter: 20 }, retryAfter: 10 };
    expect(judge(answer(429, nested)).retryAfterMs).toBe(20_000);
    expect(judge(answer(429, null, { retryAfter: "9" })).retryAfterMs).toBe(9_000);
    expect(judge(answer(429, "<html>", { contentType: "text/html" })).retryAfterMs).toBeNull();
    expect(judge(answer(401, { error: "INVALID_API_KEY", retryAfter: 60 })).retryAfterMs).toBeNull();
  });
});

describe("clientKeyOf", () => {
  const stats = (clientKey: unknown) => ({
    RC: 0,
    RM: "OK",
    result: { clientKey, apiKey: "hidden", userList: [] },
  });
  test("takes the client key of a success", () => {
    expect(clientKeyOf(answer(200, stats("aaa.bbb.ccc")))).toBe("aaa.bbb.ccc");
  });
  test.each<[string, Answer]>([
    ["HTTP 401", answer(401, stats("a"))],
    ["RC 1", answer(200, { ...stats("a"), RC: 1 })],
    ["an error in it", answer(200, { ...stats("a"), error: "X" })],
    ["empty", answer(200, stats(""))],
    ["a number", answer(200, stats(5))],
    ["with blanks", answer(200, stats("a b"))],
    ["huge", answer(200, stats("a".repeat(4097)))],
    ["missing", answer(200, { RC: 0, result: {} })],
    ["no body", answer(200, null)],
    ["doubled", answer(200, '{"RC":0,"result":{"clientKey":"a","clientKey":"b"}}')],
  ])("null: %s", (_, given) => {
    expect(clientKeyOf(given)).toBeNull();
  });
});

test("httpDate lets dates through and nothing else", () => {
  expect(httpDate("Mon, 01 Jun 2026 10:00:00 GMT")).toBe("Mon, 01 Jun 2026 10:00:00 GMT");
  for (const bad of [
    null,
    "",
    "QUJDREVGR0hJSktM",
    "Mon, 01 Jun 2026 10:00:00 GMT ",
    "2026-06-01T10:00:00Z",
    "Mon, 77 Xyz 2026 10:00:00 GMT",
  ]) {
    expect(httpDate(bad)).toBeNull();
  }
});

describe("judgeTriad", () => {
  const probe = (verdict: ProbeLike["verdict"], status: number | null, code: string | null): ProbeLike => ({
    verdict,
    status,
    code,
  });
  const yes = probe("accepted", 200, null);
  const no = probe("rejected", 401, "INVALID_API_KEY");
  const vague = probe("unclear", 401, "UNAUTHORIZED");
  const vague2 = probe("unclear", 401, "INVALID_AUTH");
  const others = [
    probe("unclear", null, null),
    probe("unclear", 429, "RATE_LIMIT_EXCEEDED"),
    probe("unclear", 403, "INSUFFICIENT_PERMISSIONS"),
    probe("unclear", 403, "UNAUTHORIZED"),
    probe("unclear", 401, "MISSING_API_KEY"),
    probe("unclear", 401, null),
    probe("unclear", 502, null),
    probe("rejected", 401, "UNAUTHORIZED"),
    probe("rejected", 403, "INVALID_API_KEY"),
  ];
  const all = [yes, no, vague, vague2, ...others];

  test("says rejected in exactly the cases that are proofs, over all combinations", () => {
    const proofs = [
      [yes, no, no],
      [yes, no, null],
      [yes, vague, vague],
      [yes, vague2, vague2],
    ];
    const said: unknown[] = [];
    for (const fresh of all) {
      for (const old of all) {
        for (const control of [...all, null]) {
          const verdict = judgeTriad({ new: fresh, old, control });
          if (verdict === "rejected") said.push([fresh, old, control]);
          expect(verdict === "accepted").toBe(old === yes);
        }
      }
    }
    expect(said).toHaveLength(proofs.length);
    expect(said).toEqual(expect.arrayContaining(proofs));
  });

  test("a made-up key that is let in, or one refused in another way, spoils the proof", () => {
    expect(judgeTriad({ new: yes, old: no, control: yes })).toBe("unclear");
    expect(judgeTriad({ new: yes, old: no, control: vague })).toBe("unclear");
    expect(judgeTriad({ new: yes, old: vague, control: no })).toBe("unclear");
    expect(judgeTriad({ new: yes, old: vague, control: null })).toBe("unclear");
  });

  test("controlRejects: a clear no or a vague 401, nothing else", () => {
    expect(all.filter(controlRejects)).toEqual([no, vague, vague2]);
  });
});
