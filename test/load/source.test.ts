import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ProviderError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import { type SecretSource, secretSource } from "../../src/load/source.ts";

type Bench = {
  readonly source: SecretSource;
  /** What the store answers from now on: a key, nothing, an error, or no answer at all. */
  answer: string | null | ProviderError;
  now: number;
  reads: number;
};
const down = new ProviderError("UNAVAILABLE", "not_applied", "down");

const bench = (ttlMs = 300_000): Bench => {
  const b: Bench = {
    answer: "key-1",
    now: 0,
    reads: 0,
    source: secretSource({
      ttlMs,
      monotonic: () => b.now,
      // Time passes by hand; whoever waits has waited, after whatever answers at once.
      sleep: () => new Promise((resolve) => void setImmediate(resolve)),
      read: async () => {
        b.reads++;
        if (b.answer === "hangs") return new Promise(() => {});
        if (b.answer instanceof ProviderError) throw b.answer;
        return b.answer === null ? null : new Secret(b.answer);
      },
    }),
  };
  return b;
};
const textOf = async (asking: Promise<Secret>): Promise<string> => (await asking).reveal();

describe("get", () => {
  test("one read within the time to live, the next one after it", async () => {
    const b = bench(1_000);
    expect(await textOf(b.source.get())).toBe("key-1");
    b.answer = "key-2";
    b.now = 999;
    expect(await textOf(b.source.get())).toBe("key-1");
    b.now = 1_000;
    expect(await textOf(b.source.get())).toBe("key-2");
    expect(b.reads).toBe(2);
  });

  test("many that ask at once share one read", async () => {
    const b = bench();
    const all = await Promise.all(Array.from({ length: 50 }, () => textOf(b.source.get())));
    expect(new Set(all)).toEqual(new Set(["key-1"]));
    expect(b.reads).toBe(1);
  });

  test.each([down, null, "hangs" as const])(
    "the last good key while the store gives none: %s",
    async (answer) => {
      const b = bench(1_000);
      await b.source.get();
      b.answer = answer;
      b.now = 5_000;
      expect(await textOf(b.source.get())).toBe("key-1");
    },
  );

  test("a store that is down is not asked at every call", async () => {
    const b = bench(60_000);
    await b.source.get();
    b.answer = down;
    b.now = 60_000;
    for (let i = 0; i < 20; i++) await b.source.get();
    expect(b.reads).toBe(2);
    b.now = 70_000;
    b.answer = "key-2";
    expect(await textOf(b.source.get())).toBe("key-2");
  });

  test("without any key it fails in the store's code, and tries again at the next call", async () => {
    const b = bench();
    b.answer = down;
    await expect(b.source.get()).rejects.toMatchObject({ code: "UNAVAILABLE" });
    b.answer = null;
    await expect(b.source.get()).rejects.toMatchObject({ code: "NOT_FOUND" });
    b.answer = "key-1";
    expect(await textOf(b.source.get())).toBe("key-1");
  });
});

describe("rejected", () => {
  test("reads anew at once, but not again within 10 s", async () => {
    const b = bench();
    await b.source.get();
    b.answer = "key-2";
    expect(await textOf(b.source.rejected())).toBe("key-2");
    b.answer = "key-3";
    b.now = 9_999;
    expect(await textOf(b.source.rejected())).toBe("key-2");
    b.now = 10_000;
    expect(await textOf(b.source.rejected())).toBe("key-3");
    expect(await textOf(b.source.get())).toBe("key-3");
    expect(b.reads).toBe(3);
  });

  test("a hundred workers that are rejected together cost one read, and all get the new key", async () => {
    const b = bench();
    await b.source.get();
    b.answer = "key-2";
    const all = await Promise.all(Array.from({ length: 100 }, () => textOf(b.source.rejected())));
    expect(b.reads).toBe(2);
    expect(new Set(all)).toEqual(new Set(["key-2"]));
  });

  test("a store that is down leaves the key that there is", async () => {
    const b = bench();
    await b.source.get();
    b.answer = down;
    expect(await textOf(b.source.rejected())).toBe("key-1");
  });
});

test("closed: the key is gone, and so is whoever asks", async () => {
  const b = bench();
  await b.source.get();
  b.source.close();
  await expect(b.source.get()).rejects.toMatchObject({ code: "CONFIG" });
  await expect(b.source.rejected()).rejects.toMatchObject({ code: "CONFIG" });
});

test("whatever happens: never a key that the store did not hold, never more than one read in 10 s beside the time to live", async () => {
  const step = fc.record({
    wait: fc.integer({ min: 0, max: 20_000 }),
    call: fc.constantFrom("get", "rejected"),
    answer: fc.constantFrom("key-1", "key-2", null, down),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 40 }),
      fc.integer({ min: 10_000, max: 60_000 }),
      async (steps, ttl) => {
        const b = bench(ttl);
        await b.source.get();
        const held = new Set(["key-1"]);
        for (const { wait, call, answer } of steps) {
          b.now += wait;
          b.answer = answer;
          if (typeof answer === "string") held.add(answer);
          const before = b.reads;
          const got = await textOf(call === "get" ? b.source.get() : b.source.rejected());
          expect(held.has(got)).toBe(true);
          expect(b.reads - before).toBeLessThanOrEqual(1);
        }
        // At most one by time to live, one after a failure, one by rejection in each 10 s.
        expect(b.reads).toBeLessThanOrEqual(3 + 2 * Math.ceil(b.now / 10_000));
      },
    ),
    { numRuns: 300 },
  );
});
