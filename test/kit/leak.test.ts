import { generateX25519Identity } from "age-encryption";
import { expect, test } from "vitest";
import { encodingCount, examples, findKey, madeKey } from "./leak.ts";

const key = madeKey();

test("knows at least 40 encodings, and finds each one", () => {
  expect(encodingCount()).toBeGreaterThanOrEqual(40);
  for (const { name, text } of examples(key)) expect(findKey(`log line: ${text} (end)`, key)).toContain(name);
});

test("finds any 8 characters of the key, in any case and backwards", () => {
  for (let at = 0; at + 8 <= key.length; at += 1) {
    const piece = key.slice(at, at + 8);
    expect(findKey(`…${piece}…`, key)).toContain("raw");
    expect(findKey(piece.toUpperCase(), key)).toContain("raw, any case");
    expect(findKey(piece.split("").reverse().join(""), key)).toContain("reversed");
  }
});

test("is silent about another key, and about 7 characters", () => {
  const other = madeKey();
  for (const { text } of examples(other)) expect(findKey(text, key)).toEqual([]);
  expect(findKey(key.slice(10, 17), key)).toEqual([]);
});

test("is silent about bytes in hex that come out of a secret that is no Base64 of Base64", async () => {
  // Decoded twice, each escrow identity begins with the byte 68, and many a one ends after the second.
  const bytes = Array.from({ length: 256 }, (_, n) => `68${n.toString(16).padStart(2, "0")}`).join(" ");
  for (let n = 0; n < 200; n += 1) expect(findKey(bytes, await generateX25519Identity())).toEqual([]);
});
