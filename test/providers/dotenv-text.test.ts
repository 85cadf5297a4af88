import { readFileSync } from "node:fs";
import { chmod, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { parse } from "dotenv";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type EnvFile, readEnv, readsAs, withValue } from "../../providers/stores/dotenv-text.ts";
import dotenv from "../../providers/stores/dotenv.ts";
import { Secret } from "../../src/core/secret.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { tempDir, toolsIn, refusal } from "../kit/provider-tools.ts";

type Case = {
  readonly name: string;
  readonly before: string;
  readonly after?: string;
  readonly absent?: boolean;
  readonly refuse?: { readonly code: string; readonly line: number; readonly lines?: readonly number[] };
};

const vectors = join(import.meta.dirname, "../vectors/dotenv/cases.json");
const cases = JSON.parse(readFileSync(vectors, "utf8")) as readonly Case[];
const KEY = "IMKIT_API_KEY";
const [old, next] = [madeKey(), madeKey()];
const filled = (text: string): Buffer =>
  Buffer.from(text.replaceAll("{OLD}", old).replaceAll("{NEW}", next), "latin1");
const soon = () => AbortSignal.timeout(10_000);
const op = { id: "0".repeat(32), witness: null };

let place: { readonly dir: string; readonly remove: () => Promise<void> };
beforeAll(async () => {
  place = await tempDir();
});
afterAll(async () => await place.remove());

const storeOf = async (bytes: Buffer) => {
  const path = join(place.dir, ".env");
  await writeFile(path, bytes);
  await chmod(path, 0o640);
  return { path, store: dotenv.open({ path, key: KEY, create: false }, toolsIn(place.dir).tools) };
};

test("there are enough traps", () => {
  expect(cases.length).toBeGreaterThanOrEqual(60);
});

describe("written, and only the value's bytes change", () => {
  test.each(cases.filter(({ after }) => after !== undefined))(
    "$name",
    async ({ before, after = "", absent = false }) => {
      const { path, store } = await storeOf(filled(before));
      const found = await store.read(soon());
      expect(found === null).toBe(absent);
      expect((await store.preflight(soon())).filter(({ status }) => status !== "ok")).toEqual([]);
      const revision = await store.write(new Secret(next), found?.revision ?? null, op, soon());
      const bytes = await readFile(path);
      expect(bytes.toString("latin1")).toBe(filled(after).toString("latin1"));
      expect((await stat(path)).mode & 0o777).toBe(0o640);
      expect((await store.read(soon()))?.revision).toBe(revision);
      const text = bytes.toString("utf8").replace(/^\uFEFF/, "");
      expect([parse(text)[KEY], parseEnv(text)[KEY]]).toEqual([next, next]);
    },
  );
});

describe("refused, and the file is untouched", () => {
  test.each(cases.filter(({ refuse }) => refuse !== undefined))("$name", async ({ before, refuse }) => {
    const { path, store } = await storeOf(filled(before));
    const failures = [
      await refusal(store.read(soon())),
      await refusal(store.write(new Secret(next), null, op, soon())),
    ];
    for (const error of failures) {
      expect(error).toMatchObject({ code: refuse?.code, outcome: "not_applied" });
      expect(error.hint).toContain(`${path}:${refuse?.line}: `);
      expect(error.hint).toContain(
        refuse?.lines === undefined ? "" : `on lines ${refuse.lines.join(" and ")}`,
      );
      expect(findKey(`${error.hint} ${error.stack}`, old)).toEqual([]);
    }
    const [check] = await store.preflight(soon());
    expect(check).toMatchObject({ status: "fail", code: refuse?.code });
    expect((await readFile(path)).toString("latin1")).toBe(filled(before).toString("latin1"));
  });
});

/** Pieces of env files, plain and nasty, without our key. */
const line = fc.oneof(
  fc.constantFrom(
    "",
    " ",
    "# comment",
    "  # it's",
    `# ${KEY}=no`,
    `#${KEY}=no`,
    "A=1",
    "export B=two",
    "C = 'x y'",
    'D="a # b"',
  ),
  fc.constantFrom(
    `MY_${KEY}=x`,
    `${KEY}_2=x`,
    `E='${KEY}=x'`,
    "F=it's",
    "G=",
    "H=''",
    'I="q" # c',
    "J=`b`",
    "K=a#b",
    "L=$M/x",
  ),
  fc.constantFrom(
    `M="one\n${KEY}=no\ntwo"`,
    "N='x\n\ny' # c",
    "O=`a\nb`",
    "P=\\",
    'Q="a\\nb"',
    "words only",
    "A=2",
    "R=\xff\x80",
    "=x",
  ),
);
const entry = fc.constantFrom(
  `${KEY}=@`,
  `export ${KEY}=@`,
  `${KEY} = @`,
  `${KEY}="@"`,
  `${KEY}='@'`,
  `${KEY}=\`@\``,
  `${KEY}=@ # c`,
  `  ${KEY}\t= "@" #x`,
);
const eol = fc.constantFrom("\n", "\n", "\r\n");
const file = fc.record({
  bom: fc.boolean(),
  before: fc.array(fc.tuple(line, eol), { maxLength: 8 }),
  entry,
  after: fc.array(fc.tuple(eol, line), { maxLength: 8 }),
  last: fc.constantFrom("", "\n", "\r\n"),
});

const understood = (text: string): EnvFile | null => {
  const read = readEnv(Buffer.from(text, "latin1"), KEY);
  return "code" in read ? null : read;
};

test("random files: every byte but the value's is the same, both readers see the new key and the old neighbours", () => {
  let understoodFiles = 0;
  fc.assert(
    fc.property(file, ({ bom, before, entry, after, last }) => {
      const text = [bom ? "\xef\xbb\xbf" : "", ...before.flat(), entry, ...after.flat(), last].join("");
      const [head = "", tail = ""] = text.split("@");
      const read = understood(`${head}${old}${tail}`);
      if (read === null) return;
      understoodFiles += 1;
      const bytes = withValue(read, next);
      expect(read.entry?.value).toBe(old);
      expect(Buffer.from(bytes ?? []).toString("latin1")).toBe(`${head}${next}${tail}`);
      expect(readsAs(read, bytes ?? Buffer.alloc(0), next)).toBe(true);
    }),
    { numRuns: 1_500 },
  );
  expect(understoodFiles).toBeGreaterThan(1_000);
});

test("random files without the entry: one line is added behind all bytes, or the file is refused", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(line, eol), { maxLength: 8 }), fc.boolean(), (lines, cut) => {
      const text = lines
        .flat()
        .slice(0, cut ? -1 : undefined)
        .join("");
      const read = understood(text);
      if (read === null) return;
      const after = Buffer.from(withValue(read, next) ?? []).toString("latin1");
      expect(after.startsWith(text)).toBe(true);
      expect(after.slice(text.length)).toMatch(/^(\r?\n)?IMKIT_API_KEY=[^\r\n]+\r?\n$/);
    }),
    { numRuns: 500 },
  );
});

test("random bytes: an answer or a refusal, at once, and never a crash", () => {
  const alphabet = fc.constantFrom(
    ...`${KEY}|=|:|'|"|\`|#|\\|$|\n|\r|\r\n| |\t|export |A|\0|\xff|\xc2\xa0|\xef\xbb\xbf|encrypted:`.split(
      "|",
    ),
  );
  fc.assert(
    fc.property(fc.array(alphabet, { maxLength: 30 }), (parts) => {
      const text = parts.join("");
      const read = understood(text);
      if (read === null) return;
      const bytes = withValue(read, next) ?? Buffer.alloc(0);
      if (!readsAs(read, bytes, next)) return;
      const again = understood(Buffer.from(bytes).toString("latin1"));
      expect(again === null || again.entry?.value === next).toBe(true);
    }),
    { numRuns: 3_000 },
  );
});

test.each([
  ["empty lines", "\n".repeat(1_000_000)],
  ["opening quotes", "A='\n".repeat(250_000)],
  ["pairs of quotes", "A='\n'\n".repeat(150_000)],
  ["backslashes", `A="${"\\".repeat(900_000)}"\n`],
  ["blanks", `${KEY}=${" ".repeat(900_000)}x`],
  ["definitions", `${KEY}=x\n`.repeat(60_000)],
])("a megabyte of %s takes no longer than a second", (_, text) => {
  const began = performance.now();
  readEnv(Buffer.from(text, "latin1"), KEY);
  expect(performance.now() - began).toBeLessThan(1_000);
});

test("a value that an env file cannot hold safely is not written", () => {
  const read = understood("A=1\n");
  for (const value of ["a b", "a#b", "a$b", "a'b", 'a"b', "a\\b", "a\nb", "", "ä", "a`b"]) {
    expect(read && withValue(read, value)).toBeNull();
  }
});
