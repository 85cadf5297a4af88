import { spawnSync } from "node:child_process";
import { chmod, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inspect, parseEnv } from "node:util";
import { parse } from "dotenv";
import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import * as z from "zod/mini";
import { publicKeyOf as derived, seal, unseal } from "../../providers/stores/dotenv-ecies.ts";
import dotenv, { openDotenv } from "../../providers/stores/dotenv.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Revision, Store } from "../../src/ports.ts";
import {
  dotenvxReads,
  dotenvxSets,
  type Made,
  made,
  madeBy,
  privateKeyOf,
  publicKeyOf,
  toolsWith,
} from "../kit/dotenvx.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { tempDir, refusal } from "../kit/provider-tools.ts";

const KEY = "IMKIT_API_KEY";
const SEALED = /encrypted:[A-Za-z0-9+/=]+/;
const OURS = /^((?:export )?IMKIT_API_KEY=["']?)encrypted:[A-Za-z0-9+/=]+/m;
const next = madeKey();
const op = { id: "0".repeat(32), witness: null };
const soon = () => AbortSignal.timeout(10_000);
const [one, other] = [made[0], made[1]] as readonly [Made, Made];

let dir: string;
let remove: () => Promise<void>;
beforeEach(async () => {
  ({ dir, remove } = await tempDir());
});
afterEach(async () => await remove());

type Options = {
  readonly file?: string;
  /** What `privateKey.valueFrom` gives; null: not configured. */
  readonly key?: string | null;
  readonly publicKey?: string;
  readonly create?: boolean;
};
/** A store on a file with these bytes (latin1); null = no file. */
const storeOn = async (
  text: string | null,
  { file = ".env", key, publicKey, create = false }: Options = {},
) => {
  const path = join(dir, file);
  if (text !== null) await writeFile(path, Buffer.from(text, "latin1"), { mode: 0o640 });
  const config = {
    path,
    key: KEY,
    create,
    encrypted: true,
    ...(publicKey === undefined ? {} : { publicKey }),
    ...(key === null ? {} : { privateKey: { valueFrom: { env: "PRIVATE" } } }),
  };
  const values: Record<string, string> = key === null || key === undefined ? {} : { PRIVATE: key };
  return { path, store: openDotenv(config, toolsWith(dir, values)) };
};
const put = async (store: Store, value = next): Promise<Revision> =>
  await store.write(new Secret(value), (await store.read(soon()))?.revision ?? null, op, soon());
const latin1 = async (path: string) => (await readFile(path)).toString("latin1");
/** The text with our ciphertext taken out. */
const around = (text: string) => text.replace(OURS, "$1@");

test("the vectors are of the dotenvx that is installed", async () => {
  const manifest = join(import.meta.dirname, "../../node_modules/@dotenvx/dotenvx/package.json");
  expect(madeBy).toBe(JSON.parse(await readFile(manifest, "utf8")).version);
  expect(made.length).toBeGreaterThanOrEqual(12);
});

describe.each(made)("a file of dotenvx: $name", (vector) => {
  const { file, sealed, keys, value } = vector;

  test.each([
    ["from .env.keys", keys],
    ["from the key alone", privateKeyOf(vector)],
    [
      "from several keys",
      `${privateKeyOf(one)}, ${privateKeyOf(other)},${privateKeyOf(vector).toUpperCase()}`,
    ],
  ])("is read, the private key %s", async (_, key) => {
    const { store } = await storeOn(sealed, { file, key });
    expect((await store.read(soon()))?.secret.reveal()).toBe(value);
    expect((await store.preflight(soon())).filter(({ status }) => status !== "ok")).toEqual([]);
  });

  test("is written: dotenvx reads the new key, and every byte but the ciphertext's is the same", async () => {
    const { path, store } = await storeOn(sealed, { file, key: keys });
    await chmod(path, 0o604);
    const revision = await put(store);
    const bytes = await readFile(path);
    expect(around(bytes.toString("latin1"))).toBe(around(sealed));
    expect(dotenvxReads(bytes, privateKeyOf(vector))).toEqual({
      ...dotenvxReads(Buffer.from(sealed, "latin1"), privateKeyOf(vector)),
      [KEY]: next,
    });
    const text = bytes.toString("utf8");
    expect(parse(text)[KEY]).toBe(parseEnv(text)[KEY]);
    expect((await store.read(soon()))?.revision).toBe(revision);
    expect((await stat(path)).mode & 0o777).toBe(0o604);
    expect(await readdir(dir)).toEqual([file]);
    expect(findKey(text, next)).toEqual([]);
  });

  test("gets a new line where it has none of ours, with the public key alone", async () => {
    const text = sealed.replace(/^(export )?IMKIT_API_KEY=.*(\r?\n)?/m, "");
    const { path, store } = await storeOn(text, { file, key: null });
    expect(await store.read(soon())).toBeNull();
    await put(store);
    const after = await latin1(path);
    expect(after.startsWith(text)).toBe(true);
    expect(after.slice(text.length)).toMatch(/^(\r?\n)?IMKIT_API_KEY="encrypted:[A-Za-z0-9+/=]+"\r?\n$/);
    expect(dotenvxReads(await readFile(path), privateKeyOf(vector))[KEY]).toBe(next);
  });
});

describe("bytes that stay", () => {
  test.each([
    ["a byte order mark", (text: string) => `\xef\xbb\xbf${text}`],
    ["line ends of Windows", (text: string) => text.replaceAll("\n", "\r\n")],
    ["line ends of both kinds", (text: string) => text.replace("\n", "\r\n")],
    ["no final line end", (text: string) => text.trimEnd()],
    ["bytes that are no UTF-8", (text: string) => `# \xff\x80\n${text}B="\xff"\n`],
    [
      "a plain neighbour and a sealed one",
      (text: string) => `${text}B=two\nC="${SEALED.exec(other.sealed)?.[0]}"\n`,
    ],
    [
      "a header at the end",
      (text: string) => text.replace(/^(#.*\n)*(DOTENV_.*\n)\n((?:.*\n)*)$/m, "$3$1$2"),
    ],
    [
      "blanks and a comment",
      (text: string) => text.replace(/^IMKIT_API_KEY="(.*)"$/m, '  export IMKIT_API_KEY = "$1" # c'),
    ],
  ])("%s", async (_, change) => {
    const text = change(one.sealed);
    expect(text).not.toBe(one.sealed);
    const { path, store } = await storeOn(text, { key: one.keys });
    expect((await store.read(soon()))?.secret.reveal()).toBe(one.value);
    await put(store);
    expect((await latin1(path)).replace(SEALED, "@")).toBe(text.replace(SEALED, "@"));
    expect((await store.read(soon()))?.secret.reveal()).toBe(next);
  });
});

describe("the public key alone", () => {
  const absent = one.sealed.replace(/^IMKIT_API_KEY=.*\n/m, `${KEY}=\n`);

  test("is enough to write; what this process wrote, it tells", async () => {
    const { path, store } = await storeOn(absent, { key: null });
    expect(await store.preflight(soon())).toContainEqual(
      expect.objectContaining({ id: "private-key", status: "warn" }),
    );
    const revision = await put(store);
    expect(dotenvxReads(await readFile(path), privateKeyOf(one))[KEY]).toBe(next);
    const found = await store.read(soon());
    expect(found?.revision).toBe(revision);
    expect(found?.secret.reveal()).toBe(next);
    const last = madeKey();
    await put(store, last);
    expect(dotenvxReads(await readFile(path), privateKeyOf(one))[KEY]).toBe(last);
  });

  test("tells nothing of a value that somebody else wrote: UNSUPPORTED, and what to do", async () => {
    const { path, store } = await storeOn(absent, { key: null });
    const revision = await put(store);
    await dotenvxSets(path, KEY, madeKey(), one.keys);
    const before = await latin1(path);
    const error = await refusal(store.read(soon()));
    expect(error).toMatchObject({ code: "UNSUPPORTED", outcome: "not_applied" });
    expect(error.hint).toContain("set privateKey");
    for (const expected of [revision, null]) {
      const call = store.write(new Secret(madeKey()), expected, op, soon());
      expect(await refusal(call)).toMatchObject({ code: "CONFLICT", outcome: "not_applied" });
    }
    expect(await store.preflight(soon())).toContainEqual(
      expect.objectContaining({
        status: "fail",
        code: "UNSUPPORTED",
        fix: expect.stringContaining("privateKey"),
      }),
    );
    expect(await latin1(path)).toBe(before);
  });

  test("writes over a value that it cannot tell for whoever knows its revision", async () => {
    const { path, store } = await storeOn(absent, { key: one.keys });
    const revision = await put(store);
    const blind = await storeOn(null, { key: null });
    expect(await refusal(blind.store.read(soon()))).toMatchObject({ code: "UNSUPPORTED" });
    const last = madeKey();
    await blind.store.write(new Secret(last), revision, op, soon());
    expect(dotenvxReads(await readFile(path), privateKeyOf(one))[KEY]).toBe(last);
  });

  test("of the config, where the file has none; one that differs from the file's is refused", async () => {
    const bare = await storeOn("A=1\n", { key: null, publicKey: publicKeyOf(one).toUpperCase() });
    await put(bare.store);
    expect(dotenvxReads(await readFile(bare.path), privateKeyOf(one))[KEY]).toBe(next);
    expect(await latin1(bare.path)).toMatch(/^A=1\nIMKIT_API_KEY="encrypted:.*"\n$/);
    const { store } = await storeOn(absent, { key: null, publicKey: publicKeyOf(other) });
    expect((await refusal(put(store))).hint).toContain("another public key");
  });

  test.each([
    [".env", "DOTENV_PUBLIC_KEY"],
    [".env.production", "DOTENV_PUBLIC_KEY_PRODUCTION"],
    [".env.local.staging", "DOTENV_PUBLIC_KEY_LOCAL_STAGING"],
    ["chat.env", "DOTENV_PUBLIC_KEY"],
  ])("goes into a file that is made, %s, as %s", async (file, header) => {
    const { path, store } = await storeOn(null, {
      file,
      key: null,
      publicKey: publicKeyOf(one),
      create: true,
    });
    expect(await store.read(soon())).toBeNull();
    await put(store);
    expect(await latin1(path)).toMatch(
      new RegExp(`^${header}="${publicKeyOf(one)}"\n\nIMKIT_API_KEY="encrypted:[^"]+"\n$`),
    );
    expect(dotenvxReads(await readFile(path), privateKeyOf(one))[KEY]).toBe(next);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
  });
});

describe("refused, and the file is untouched", () => {
  const cut = (by: number) => one.sealed.replace(SEALED, (text) => text.slice(0, -by));
  const bytesCut = (by: number) =>
    one.sealed.replace(SEALED, (text) => {
      const bytes = Buffer.from(text.slice("encrypted:".length), "base64");
      return `encrypted:${bytes.subarray(0, bytes.length - by).toString("base64")}`;
    });
  const flipped = (at: number) =>
    one.sealed.replace(SEALED, (text) => {
      const bytes = Buffer.from(text.slice("encrypted:".length), "base64");
      bytes[at] = (bytes[at] ?? 0) ^ 1;
      return `encrypted:${bytes.toString("base64")}`;
    });
  const plain = one.sealed.replace(SEALED, one.value);
  const header = /^DOTENV_PUBLIC_KEY="(.*)"$/m;
  const keys = one.keys;
  const line = (text: string, word: string) => text.split("\n").findIndex((row) => row.startsWith(word)) + 1;

  test.each<[string, string, string | null, string, string]>([
    [
      "our entry in plain text",
      plain,
      keys,
      "CONFIG",
      `:${line(plain, KEY)}: IMKIT_API_KEY is in plain text`,
    ],
    ["our entry in plain text, no private key", plain, null, "CONFIG", "in plain text"],
    [
      "the prefix in other case",
      one.sealed.replace("encrypted:", "Encrypted:"),
      keys,
      "CONFIG",
      "in plain text",
    ],
    [
      "nothing behind the prefix",
      one.sealed.replace(SEALED, "encrypted:"),
      keys,
      "CONFIG",
      "damaged or cut off",
    ],
    ["half a ciphertext", cut(100), keys, "CONFIG", "damaged or cut off"],
    ["one character missing", cut(1), keys, "CONFIG", "damaged or cut off"],
    ["one byte missing", bytesCut(1), keys, "KMS", "cannot be decrypted"],
    ["a flipped bit of the point", flipped(1), keys, "KMS", "cannot be decrypted"],
    ["a flipped bit of the nonce", flipped(66), keys, "KMS", "cannot be decrypted"],
    ["a flipped bit of the tag", flipped(90), keys, "KMS", "cannot be decrypted"],
    ["a flipped bit of the text", flipped(100), keys, "KMS", "cannot be decrypted"],
    [
      "sealed for another key",
      one.sealed.replace(SEALED, SEALED.exec(other.sealed)?.[0] ?? ""),
      keys,
      "KMS",
      "cannot be decrypted",
    ],
    ["another private key", one.sealed, other.keys, "KMS", "does not belong"],
    [
      "no private key in what is named",
      one.sealed,
      "DOTENV_PRIVATE_KEY=\n",
      "CONFIG",
      "holds no private key",
    ],
    ["half a private key", one.sealed, privateKeyOf(one).slice(0, 40), "CONFIG", "holds no private key"],
    ["a private key out of range", one.sealed, "f".repeat(64), "KMS", "does not belong"],
    ["a private key of zeros", one.sealed, "0".repeat(64), "KMS", "does not belong"],
    ["an empty private key", one.sealed, " ", "CONFIG", "cannot be read, or is empty"],
    ["no header", one.sealed.replace(header, ""), keys, "CONFIG", "has no DOTENV_PUBLIC_KEY"],
    ["a header without a key", one.sealed.replace(header, 'DOTENV_PUBLIC_KEY=""'), keys, "CONFIG", "is none"],
    [
      "a header that is no point",
      one.sealed.replace(header, `DOTENV_PUBLIC_KEY="02${"f".repeat(64)}"`),
      keys,
      "CONFIG",
      "is none",
    ],
    [
      "two headers that differ",
      `${one.sealed}${header.exec(other.sealed)?.[0].replace("KEY", "KEY_TWO")}\n`,
      keys,
      "CONFIG",
      "more than one public key",
    ],
    [
      "a header twice",
      `${one.sealed}${header.exec(one.sealed)?.[0]}\n`,
      keys,
      "CONFLICT",
      "DOTENV_PUBLIC_KEY is defined on lines",
    ],
    [
      "our entry twice",
      `${one.sealed}${KEY}="${SEALED.exec(one.sealed)?.[0]}"\n`,
      keys,
      "CONFLICT",
      "IMKIT_API_KEY is defined on lines",
    ],
    [
      "our entry twice, once plain",
      `${KEY}=${one.value}\n${one.sealed}`,
      keys,
      "CONFLICT",
      "is defined on lines",
    ],
    ["UTF-16", `\xff\xfe${one.sealed}`, keys, "CONFIG", "UTF-16"],
  ])("%s", async (_, text, key, code, words) => {
    const { path, store } = await storeOn(text, { key });
    const failures = [
      await refusal(store.read(soon())),
      await refusal(store.write(new Secret(next), null, op, soon())),
    ];
    for (const error of failures) {
      expect(error).toMatchObject({ code, outcome: "not_applied" });
      expect(error.hint).toContain(words);
    }
    const checks = await store.preflight(soon());
    expect(checks).toContainEqual(expect.objectContaining({ status: "fail", code }));
    expect(await latin1(path)).toBe(text);
    const said = [...failures, checks]
      .map((each) => inspect(each, { depth: 9, showHidden: true }))
      .join("\n");
    for (const secret of [one.value, next, privateKeyOf(one), privateKeyOf(other)])
      expect(findKey(said, secret)).toEqual([]);
  });

  test("a private key that cannot be had", async () => {
    const { store } = await storeOn(one.sealed);
    expect(await refusal(store.read(soon()))).toMatchObject({ code: "CONFIG" });
  });

  test("a sealed reference to another variable, which dotenvx would follow", async () => {
    const { path, store } = await storeOn(one.sealed, { key: one.keys });
    await dotenvxSets(path, KEY, "a$HOME", one.keys);
    expect((await refusal(store.read(soon()))).hint).toContain("another variable");
  });

  test("a new value that readers would change", async () => {
    const { store } = await storeOn(one.sealed, { key: one.keys });
    for (const value of ["a$B", "a b", "a\nb"])
      expect(await refusal(put(store, value))).toMatchObject({ code: "UNSUPPORTED" });
  });

  test("a file of dotenvx where the config does not say encrypted", async () => {
    const { path } = await storeOn(one.sealed);
    const store = openDotenv({ path, key: KEY, create: false }, toolsWith(dir, {}));
    const error = await refusal(store.read(soon()));
    expect(error).toMatchObject({ code: "CONFIG" });
    expect(error.hint).toContain("set encrypted: true");
  });
});

test("a value that was sealed for nothing counts as absent", async () => {
  const nothing = await seal(Buffer.from(publicKeyOf(one), "hex"), Buffer.alloc(0));
  const text = one.sealed.replace(SEALED, `encrypted:${nothing.toString("base64")}`);
  const { path, store } = await storeOn(text, { key: one.keys });
  expect(await store.read(soon())).toBeNull();
  await put(store);
  expect(dotenvxReads(await readFile(path), privateKeyOf(one))[KEY]).toBe(next);
});

test("the same key again is no write, though it would be sealed anew", async () => {
  const { path, store } = await storeOn(one.sealed, { key: one.keys });
  await put(store);
  const before = await latin1(path);
  await store.write(new Secret(next), null, op, soon());
  expect(await latin1(path)).toBe(before);
});

test("neither the key nor the private key is in any state of the store", async () => {
  const { store } = await storeOn(one.sealed, { key: one.keys });
  const said = [store, await store.read(soon()), await put(store), await store.preflight(soon())];
  const text = said
    .map((each) => inspect(each, { depth: 9, showHidden: true }) + JSON.stringify(each))
    .join("\n");
  for (const secret of [one.value, next, privateKeyOf(one)]) expect(findKey(text, secret)).toEqual([]);
});

test("what is sealed is unsealed by its own private key, and by no other, whatever it is", async () => {
  const [mine, wrong] = [one, other].map((vector) => Buffer.from(privateKeyOf(vector), "hex"));
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (value) => {
      const sealed = await seal(Buffer.from(publicKeyOf(one), "hex"), value);
      expect(sealed.length).toBe(97 + value.length);
      expect(await unseal(mine ?? Buffer.alloc(0), sealed)).toEqual(Buffer.from(value));
      await expect(unseal(wrong ?? Buffer.alloc(0), sealed)).rejects.toThrow("unable to authenticate");
    }),
    { numRuns: 40 },
  );
  expect(derived(mine ?? Buffer.alloc(0))).toBe(publicKeyOf(one));
});

test("the curve's library is loaded by a value that is sealed or unsealed, and not by a plain file", async () => {
  const { path } = await storeOn(one.sealed);
  await writeFile(join(dir, "plain.env"), `${KEY}=${next}\n`);
  const from = (file: string) => JSON.stringify(new URL(`../../${file}`, import.meta.url).href);
  const script = `
    import { registerHooks } from "node:module";
    const seen = [];
    registerHooks({ resolve: (name, context, then) => (/noble/.test(name) && seen.push(name), then(name, context)) });
    const { openDotenv } = await import(${from("providers/stores/dotenv.ts")});
    const { Secret } = await import(${from("src/core/secret.ts")});
    const signal = AbortSignal.timeout(10000);
    const use = async (config, text) => {
      const store = openDotenv({ key: "${KEY}", create: false, ...config }, { configDir: "/", env: {}, valueOf: async () => text });
      await store.preflight(signal);
      const found = await store.read(signal);
      await store.write(new Secret("next-value"), found.revision, { id: "", witness: null }, signal);
      return seen.length > 0;
    };
    const plain = await use({ path: ${JSON.stringify(join(dir, "plain.env"))} });
    const sealed = await use({ path: ${JSON.stringify(path)}, encrypted: true, privateKey: {} }, ${JSON.stringify(one.keys)});
    process.stdout.write(JSON.stringify({ plain, sealed }));`;
  const child = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
  expect(child.stdout).toBe('{"plain":false,"sealed":true}');
});

describe("the config", () => {
  const parsed = (more: object) => z.safeParse(dotenv.schema, { path: ".env", ...more });
  const publicKey = publicKeyOf(one);

  test.each([
    [{ encrypted: true }],
    [{ encrypted: true, publicKey }],
    [{ encrypted: true, privateKey: { valueFrom: { file: ".env.keys" } } }],
    [{ encrypted: true, publicKey, create: true }],
    [{ encrypted: false }],
  ])("takes %j", (more) => {
    expect(parsed(more).success).toBe(true);
  });

  test.each([
    [{ publicKey }],
    [{ privateKey: { valueFrom: { file: ".env.keys" } } }],
    [{ encrypted: true, create: true }],
    [{ encrypted: true, publicKey: "02" }],
    [{ encrypted: true, privateKey: privateKeyOf(one) }],
    [{ encrypted: true, privateKey: { valueFrom: {} } }],
  ])("refuses %j", (more) => {
    const result = parsed(more);
    expect(result.success).toBe(false);
    expect(findKey(inspect(result, { depth: 9 }), privateKeyOf(one))).toEqual([]);
  });
});
