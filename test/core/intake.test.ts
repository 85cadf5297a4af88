import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { checkKey, looksLikeKey } from "../../src/core/intake.ts";

const base64 = (data: string | Uint8Array): string => Buffer.from(data).toString("base64");
const makeKey = (): string => base64(base64(randomBytes(32)));
const key = makeKey();
const single = base64(randomBytes(32));

/** Refused, in words that hold no 6 characters in a row of what was given. */
const whyNot = (text: string): string => {
  const checked = checkKey(text);
  if (checked.ok) throw new Error("was accepted");
  for (const source of [key, single])
    for (let at = 0; at + 6 <= source.length; at += 1)
      expect(checked.why.includes(source.slice(at, at + 6))).toBe(false);
  return checked.why;
};

const notesOf = (text: string): readonly string[] => {
  const checked = checkKey(text);
  if (!checked.ok) throw new Error(checked.why);
  return checked.notes;
};

describe("accepted", () => {
  test("a key as IMKIT makes it, without a word", () => {
    const checked = checkKey(key);
    expect(checked).toMatchObject({ ok: true, notes: [] });
    expect(checked.ok && checked.secret.reveal()).toBe(key);
    expect(JSON.stringify(checked)).not.toContain(key.slice(0, 8));
  });

  test.each([" ", "\n", "\r\n", "\t", "\n\n \v\f"])(
    "white space %j around it is dropped and said",
    (space) => {
      for (const text of [key + space, space + key, space + key + space]) {
        const checked = checkKey(text);
        expect(checked.ok && checked.secret.reveal()).toBe(key);
        expect(notesOf(text).join()).toMatch(/white space/i);
      }
    },
  );

  test.each([16, 24, 32, 48, 64, 100])("a key of %d bytes, with a warning for its length", (bytes) => {
    expect(notesOf(base64(randomBytes(bytes))).join()).toMatch(/characters long/);
  });

  test("one whose last character no encoder would write, with a warning", () => {
    expect(notesOf(`${"QUJDREVGR0hJSktM".repeat(3)}QUJDREVGR0F=`).join()).toMatch(/mistyped/);
  });

  test("made-up keys of both shapes are never refused", () => {
    for (let round = 0; round < 2_000; round += 1)
      for (const text of [makeKey(), base64(randomBytes(32)), base64(randomBytes(16 + (round % 40)))])
        expect(checkKey(text)).toMatchObject({ ok: true });
  });
});

const rows: readonly (readonly [string, string, RegExp])[] = [
  ["nothing", "", /nothing/i],
  ["white space only", " \t\r\n", /nothing/i],
  ["a .env line", `IMKIT_API_KEY=${key}`, /NAME=value/],
  ["a .env line with export", `export IMKIT_API_KEY=${key}`, /NAME=value/],
  ["a quoted .env line", `IMKIT_API_KEY="${key}"`, /NAME=value|quotes/],
  ["a lower-case assignment", `key = ${key}`, /NAME=value/],
  ["a PowerShell assignment", `$env:IMKIT_API_KEY=${key}`, /NAME=value/],
  ["a header", `IM-API-KEY: ${key}`, /header/],
  ["a header without a space", `im-api-key:${key}`, /header/],
  ["a YAML line", `api-key: ${key}`, /name: value/],
  ["double quotes", `"${key}"`, /quotes/],
  ["single quotes", `'${key}'`, /quotes/],
  ["one quote", `${key}'`, /quotes/],
  ["backticks", `\`${key}\``, /quotes/],
  ["angle brackets", `<${key}>`, /placeholder|brackets/],
  ["smart quotes", `\u201c${key}\u201d`, /quotes/],
  ["inner space", `${key.slice(0, 30)} ${key.slice(30)}`, /white space inside/],
  ["inner tab", `${key.slice(0, 30)}\t${key.slice(30)}`, /white space inside/],
  ["inner line end", `${key.slice(0, 30)}\n${key.slice(30)}`, /more than one line/],
  ["inner CRLF", `${key.slice(0, 30)}\r\n${key.slice(30)}`, /more than one line/],
  ["two keys", `${key}\n${makeKey()}`, /more than one line/],
  ["NUL inside", `${key.slice(0, 30)}\0${key.slice(30)}`, /invisible|non-ASCII/],
  ["NBSP behind", `${key}\u00a0`, /invisible/],
  ["NBSP before", `\u00a0${key}`, /invisible/],
  ["byte order mark", `\ufeff${key}`, /invisible/],
  ["zero-width space", `${key}\u200b`, /invisible/],
  ["soft hyphen inside", `${key.slice(0, 9)}\u00ad${key.slice(9)}`, /invisible/],
  ["Cyrillic look-alike", `\u0430${key.slice(1)}`, /look-alike/],
  ["full-width letter", `\uff21${key.slice(1)}`, /look-alike/],
  ["replacement character", `${key.slice(0, 59)}\ufffd`, /invisible/],
  ["Base64url", `${single.slice(0, 20)}-_${single.slice(22)}`, /Base64url/],
  ["a percent sign", `${key.slice(0, 59)}%`, /does not have/],
  ["padding in the middle", `${key.slice(0, 20)}=${key.slice(21)}`, /NAME=value|padding/],
  ["padding too long", `${key.slice(0, 56)}====`, /padding/],
  ["padding lost", key.slice(0, 59).replaceAll("=", ""), /padding/],
  ["cut off", key.slice(0, 41), /padding/],
  ["an ellipsis", `${key.slice(0, 20)}\u2026`, /placeholder/],
  ["three dots", `${key.slice(0, 20)}...`, /placeholder/],
  ["too short", base64(randomBytes(15)), /too short/],
  ["one character", "A", /too short|placeholder|padding/],
  [
    "a JWT",
    `${base64('{"alg":"HS256"}')}.${base64('{"apiKey":"x"}').replaceAll("=", "")}.c2lnbmF0dXJl`,
    /JWT.*Client Key/,
  ],
  ["a JWT's head", base64('{"alg":"HS256","typ":"JWT"}'), /JWT/],
  ["a JWT in Base64", base64(`${base64('{"alg":"HS256"}')}.e30.c2lnbmF0dXJl`), /JWT/],
  ["a URL", "https://your-app.imkit.io", /URL/],
  ["a URL with a key", `https://x.example/?key=${key}`, /URL/],
  ["changeme", "changeme", /placeholder/],
  ["your-api-key", "your-api-key-here", /placeholder/],
  ["xs", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", /placeholder/],
  ["stars", "********", /placeholder/],
  ["a masked key", `${key.slice(0, 4)}****`, /placeholder/],
  ["a shell variable", "$IMKIT_API_KEY", /placeholder/],
  ["a braced variable", "${IMKIT_API_KEY}", /placeholder/],
  ["a template", "{{ .Values.apiKey }}", /placeholder/],
  ["a Windows variable", "%IMKIT_API_KEY%", /placeholder/],
  ["a tag", "<api-key>", /placeholder/],
  ["JSON", `{"IMKIT_API_KEY":"${key}"}`, /JSON/],
  ["a JSON list", `["${key}"]`, /JSON/],
  ["the key in Base64 once more", base64(key), /Base64 once more/],
  ["the same with echo's line end", base64(`${key}\n`), /Base64 once more/],
  ["three times", base64(base64(key)), /Base64 once more/],
  ["pasted twice", key + key, /twice/],
  ["pasted twice with a line end", `${key}\n${key}`, /twice/],
  ["an unpadded key twice", "QUJDREVGR0hJSktMTU5PUFFS".repeat(2), /twice/],
  ["one letter over and over", "A".repeat(60), /placeholder/],
  ["a megabyte", "QUJD".repeat(262_144), /too long/],
];

describe("refused, in words that show nothing of it", () => {
  test.each(rows)("%s", (_, text, words) => {
    expect(whyNot(text)).toMatch(words);
    expect(whyNot(`  ${text}\n`)).toMatch(words);
  });

  /** What the keys that IMKIT's documentation publishes decode to: its sample, and the one inside its Kubernetes sample. */
  test.each([
    "db66296070da4252109434af54b08b2e8d8c3f315f566f63629c70dafb81ae69",
    "db66296070da4252109434af54b08b2e8d8c3ea15f566f63629c70dafb81ae69",
  ])("the published key %#, as it is and as its Kubernetes sample holds it", (hex) => {
    const published = base64(base64(Buffer.from(hex, "hex")));
    expect(published).toHaveLength(60);
    for (const text of [published, `${published}\n`, base64(published), base64(`${published}\n`)])
      expect(whyNot(text)).toMatch(/sample key/);
    expect(looksLikeKey(published)).toBe(true);
  });
});

describe("an argument that looks like a key", () => {
  test.each([
    key,
    `--key=${key}`,
    `IMKIT_API_KEY=${key}`,
    `"${key}"`,
    `api-key: ${key}`,
    key.replace(/=+$/, ""),
    base64(key),
    ` ${key}\n`,
  ])("case %# does", (word) => {
    expect(looksLikeKey(word)).toBe(true);
  });

  test("nearly every key of the other shape does", () => {
    const seen = Array.from({ length: 500 }, () => looksLikeKey(base64(randomBytes(32)))).filter(Boolean);
    expect(seen.length).toBeGreaterThan(450);
  });

  test.each([
    "",
    "chat-prod",
    "rotate",
    "7c2e91aa",
    "7c2e91aa00112233",
    "42:7c2e91aa00112233",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF",
    "123e4567-e89b-12d3-a456-426614174000",
    "/srv/chat/production/Config2/secrets/imkit/env",
    "/var/lib/imkit-rotator/chat-prod/ledger/00000042.json",
    "https://your-app.imkit.io",
    "--wait=30m",
    "the key stood in a public repository for two days",
    "2026-11-24T10:00:00.000Z",
    "arn:aws:secretsmanager:ap-northeast-1:123456789012:secret:prod/chat/imkit-AbCdEf",
    "AKIAIOSFODNN7EXAMPLE",
    "./providers/my-own-very-long-module-name/vault.store.ts",
    "an-application-with-a-very-long-name-indeed-and-more",
  ])("%j does not", (word) => {
    expect(looksLikeKey(word)).toBe(false);
  });
});
