import * as fc from "fast-check";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { RotatorError } from "../../src/core/errors.ts";
import { loadConfig } from "../../src/io/config.ts";
import { nearest } from "../../src/core/suggest.ts";

describe("the nearest word", () => {
  const words = ["stores", "rollouts", "soak", "rotateEvery", "remindBefore", "key", "baseUrl"];
  test.each([
    ["stors", "stores"],
    ["store", "stores"],
    ["sotres", "stores"],
    ["rolouts", "rollouts"],
    ["soka", "soak"],
    ["rotate_every", "rotateEvery"],
    ["ROTATE-EVERY", "rotateEvery"],
    ["remindBfore", "remindBefore"],
    ["ky", "key"],
    ["base-url", "baseUrl"],
    ["baseURL", "baseUrl"],
  ])("of %s is %s", (word, option) => {
    expect(nearest(word, words)).toBe(option);
  });

  test.each(["", "x", "k", "zzzz", "storage", "secrets", "s".repeat(100_000)])("of %j is none", (word) => {
    expect(nearest(word, words)).toBeNull();
  });

  test("is the word itself where it is there, and nothing of no options", () => {
    expect(nearest("soak", ["soap", "soak"])).toBe("soak");
    expect(nearest("soak", [])).toBeNull();
  });
});

describe("a damaged config", () => {
  const dir = mkdtempSync(join(tmpdir(), "damaged-"));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const path = join(dir, "imkit-rotator.config.yaml");
  const text = `schemaVersion: 1
defaults: { timezone: Asia/Taipei, remindBefore: [14d, "0d"] }
apps:
  chat: # production
    baseUrl: "https://your-app.imkit.io"
    stores: &s
      - { name: env, type: any, path: 'x', deep: [1, { a: ~ }] }
    rollouts: [{ name: api, type: any, after: [] }]
    revoke:
      every: 5s
`;
  const any = { "~standard": { validate: (value: unknown) => ({ value }) } };

  const wellTold = (error: unknown): unknown =>
    error instanceof RotatorError && error.code === "CONFIG_INVALID"
      ? error.why.split("\n").every((line) => /^\/[^\n]+\.yaml:\d+:\d+: \S|^and \d+ more$/.test(line))
      : error;

  test("is either sound or CONFIG_INVALID, whatever was changed", async () => {
    const piece = fc.oneof(
      fc.string({ maxLength: 6, unit: "binary" }),
      fc.constantFrom(
        "\n",
        "\t",
        ": ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "!x ",
        "'",
        '"',
        "#",
        "? ",
        "<<: ",
        "---\n",
        "%",
        "\0",
        "null",
        "|\n",
        ">",
      ),
    );
    const change = fc.tuple(fc.nat(text.length), fc.nat(8), piece);
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
        const damaged = changes.reduce(
          (old, [at, cut, put]) => old.slice(0, at) + put + old.slice(at + cut),
          text,
        );
        writeFileSync(path, damaged);
        const outcome: unknown = await loadConfig(path, { schemaOf: async () => any, env: {} }).then(
          ({ apps }) => apps.size > 0,
          wellTold,
        );
        expect(outcome).toBe(true);
      }),
      { numRuns: 600 },
    );
  });
});
