import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import * as z from "zod/mini";
import {
  builtinSchemas,
  loadRolloutProvider,
  loadStoreProvider,
  rolloutKinds,
  storeKinds,
} from "../../providers/index.ts";
import { PROVIDER_CODES, REFUSALS } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { tempDir, toolsIn, refusal } from "../kit/provider-tools.ts";

const key = madeKey();
const soon = () => AbortSignal.timeout(10_000);
const op = { id: "0".repeat(32), witness: null };

let dir: string;
let remove: () => Promise<void>;
beforeEach(async () => {
  ({ dir, remove } = await tempDir());
});
afterEach(async () => await remove());

/** What the config room asks of a schema. */
const safeParse = (schema: z.core.$ZodType | undefined, value: unknown) =>
  z.safeParse(schema ?? z.never(), value);
const parse = (schema: z.core.$ZodType | undefined, value: unknown) => z.parse(schema ?? z.never(), value);

describe("built in", () => {
  test("every kind is loaded by its own name, and describes every option for editors", async () => {
    expect(storeKinds).toEqual(expect.arrayContaining(["dotenv", "exec"]));
    expect(rolloutKinds).toEqual(expect.arrayContaining(["exec", "manual", "none", "webhook"]));
    for (const kind of storeKinds) expect((await loadStoreProvider(kind, dir)).kind).toBe(kind);
    for (const kind of rolloutKinds) expect((await loadRolloutProvider(kind, dir)).kind).toBe(kind);
    const { stores, rollouts } = await builtinSchemas();
    expect([Object.keys(stores), Object.keys(rollouts)]).toEqual([storeKinds, rolloutKinds]);
    for (const schema of [...Object.values(stores), ...Object.values(rollouts)]) {
      const json = z.toJSONSchema(schema, { io: "input" });
      expect(json.additionalProperties).toBe(false);
      const without = Object.entries(json.properties ?? {}).filter(
        ([, option]) => typeof option === "object" && !option.description,
      );
      expect(without).toEqual([]);
    }
  });

  test("the design's own examples are valid, and get the vendor's names as defaults", async () => {
    const { stores, rollouts } = await builtinSchemas();
    expect(parse(stores["dotenv"], { path: "/srv/chat/.env" })).toEqual({
      path: "/srv/chat/.env",
      key: "IMKIT_API_KEY",
      create: false,
    });
    expect(parse(rollouts["none"], { reason: "reads the file on each call" })).toBeDefined();
    expect(parse(rollouts["manual"], {})).toEqual({});
    expect(
      safeParse(rollouts["exec"], { command: ["systemctl", "restart", "chat"], timeout: "1m" }).success,
    ).toBe(true);
    expect(safeParse(rollouts["none"], { reason: "  " }).success).toBe(false);
    expect(safeParse(rollouts["none"], {}).success).toBe(false);
    for (const key of ["a b", "1A", "", "A=B", "A-B"]) {
      expect(safeParse(stores["dotenv"], { path: "x", key }).success).toBe(false);
    }
  });

  test.each([
    ["dotnev", 'did you mean "dotenv"?'],
    ["dot-env", 'did you mean "dotenv"?'],
    ["exce", 'did you mean "exec"?'],
    ["no-such-thing-at-all", "Known:"],
    ["constructor", "Known:"],
    ["__proto__", "Known:"],
    ["./no-such.store.ts", "Known:"],
    ["fs", "Known:"],
    ["node:fs", "Known:"],
    ["../../etc/passwd", ""],
  ])("%s is no kind: CONFIG", async (type, hint) => {
    const error = await refusal(loadStoreProvider(type, dir));
    expect(error).toMatchObject({ code: "CONFIG", outcome: "not_applied" });
    expect(error.hint).toContain(hint);
    expect(await refusal(loadRolloutProvider(type, dir))).toMatchObject({ code: "CONFIG" });
  });
});

describe("third-party", () => {
  const module = async (name: string, text: string) => {
    await mkdir(join(dir, name, ".."), { recursive: true });
    await writeFile(join(dir, name), text);
  };
  const store = (methods: string) => `
    export default ({ z, Secret, ProviderError, defineStore }) => defineStore({
      kind: "mine",
      schema: z.strictObject({ path: z.string() }),
      open: (config, tools) => ({
        where: "mine:" + config.path,
        caps: { staging: false, compareAndSwap: true, witness: false, retire: false },
        preflight: async () => [],
        read: async () => null,
        write: async () => "v1",
        ${methods}
      }),
    });`;
  const opened = async (methods: string) => {
    const name = `./s${Math.random()}.mjs`;
    await module(name, store(methods));
    return (await loadStoreProvider(name, dir)).open({ path: "x" }, toolsIn(dir).tools);
  };

  test("by relative path, absolute path and package name, with or without require", async () => {
    await module("stores/mine.store.mjs", store(""));
    await module("node_modules/both/index.js", store(""));
    await module("node_modules/both/package.json", '{"name":"both","type":"module","main":"index.js"}');
    await module("node_modules/@scope/only/lib/x.js", store(""));
    await module(
      "node_modules/@scope/only/package.json",
      '{"name":"@scope/only","type":"module","exports":{".":{"import":"./lib/x.js"}}}',
    );
    for (const type of [
      "./stores/mine.store.mjs",
      join(dir, "stores/mine.store.mjs"),
      "both",
      "@scope/only",
    ]) {
      const provider = await loadStoreProvider(type, dir);
      expect(provider.kind).toBe(type);
      expect(safeParse(provider.schema, { pth: "x" }).success).toBe(false);
      expect(await provider.open({ path: "x" }, toolsIn(dir).tools).read(soon())).toBeNull();
    }
  });

  test("in TypeScript, as a plain object, with a Standard Schema of its own", async () => {
    await module(
      "mine.store.ts",
      `type Config = { readonly path: string };
      const validate = (value: unknown) =>
        typeof value === "object" && value !== null && "path" in value ? { value } : { issues: [{ message: "path is missing" }] };
      export default {
        kind: "mine",
        schema: { "~standard": { version: 1, vendor: "mine", validate } },
        open(config: Config) {
          return { where: config.path, caps: {}, preflight: async () => [], read: async () => ({ secret: "plain text", revision: "r" }), write: async () => "r" };
        },
      };`,
    );
    const provider = await loadStoreProvider("./mine.store.ts", dir);
    expect(safeParse(provider.schema, {}).error?.issues[0]?.message).toBe("path is missing");
    const store = provider.open(parse(provider.schema, { path: "here" }), toolsIn(dir).tools);
    expect(store).toMatchObject({ where: "here", caps: { compareAndSwap: false, retire: false } });
    expect((await store.read(soon()))?.secret.equals(new Secret("plain text"))).toBe(true);
  });

  test.each([
    ["no default export", "export const kind = 1;"],
    ["no open", 'export default { kind: "x", schema: {} };'],
    ["no schema", 'export default { kind: "x", open: () => ({}) };'],
    ["a schema of no known form", 'export default { kind: "x", schema: {}, open: () => ({}) };'],
    ["a module that throws", `throw new Error("${key}");`],
    ["a module that does not parse", "export default {"],
    ["a function that throws", `export default () => { throw new Error("${key}"); };`],
  ])("%s: CONFIG, without its words", async (_, text) => {
    await module("bad.mjs", text);
    const error = await refusal(loadStoreProvider("./bad.mjs", dir));
    expect(error).toMatchObject({ code: "CONFIG", outcome: "not_applied" });
    expect(findKey(inspect(error, { depth: 8, showHidden: true }), key)).toEqual([]);
  });

  test("whatever it throws becomes one of our errors, and its text is dropped", async () => {
    const leaky = `throw Object.assign(new Error("${key}"), { config: { headers: "${key}" } })`;
    const store = await opened(
      `read: async () => { ${leaky} }, write: async () => { ${leaky} }, preflight: async () => { ${leaky} }`,
    );
    const errors = [
      await refusal(store.read(soon())),
      await refusal(store.write(new Secret(key), null, op, soon())),
    ];
    expect(errors).toMatchObject([
      { code: "UNAVAILABLE", outcome: "not_applied" },
      { code: "UNAVAILABLE", outcome: "unknown" },
    ]);
    const checks = await store.preflight(soon());
    expect(checks).toMatchObject([{ status: "unproved" }]);
    expect(findKey(inspect([errors, checks], { depth: 8, showHidden: true }), key)).toEqual([]);
  });

  test("an error of the right shape keeps code, outcome, hint and wait, also from another copy of the program", async () => {
    const foreign =
      'Object.assign(new Error(), { name: "ProviderError", code: "THROTTLED", outcome: "not_applied", hint: "slow down", retryAfterMs: 5 })';
    const store = await opened(
      `read: async () => { throw new ProviderError("DISABLED", "not_applied", "off") }, write: async () => { throw ${foreign} }`,
    );
    expect(await refusal(store.read(soon()))).toMatchObject({ code: "DISABLED", hint: "off" });
    expect(await refusal(store.write(new Secret(key), null, op, soon()))).toMatchObject({
      code: "THROTTLED",
      outcome: "not_applied",
      hint: "slow down",
      retryAfterMs: 5,
    });
  });

  test.each([
    "undefined",
    "false",
    '""',
    "{}",
    '{ secret: "x" }',
    '{ secret: "", revision: "v" }',
    '{ secret: {}, revision: "v" }',
  ])("read that answers %s is doubt, not absence", async (answer) => {
    const store = await opened(`read: async () => (${answer})`);
    expect(await refusal(store.read(soon()))).toMatchObject({ code: "UNAVAILABLE", outcome: "not_applied" });
  });

  test.each(["undefined", '""', "7", '"a\\nb"', '"x".repeat(201)'])(
    "write that answers %s is unknown",
    async (answer) => {
      const store = await opened(`write: async () => (${answer})`);
      expect(await refusal(store.write(new Secret(key), null, op, soon()))).toMatchObject({
        outcome: "unknown",
      });
    },
  );

  test("a rollout that answers nonsense is unknown, and one that answers well is passed on", async () => {
    const rollout = (trigger: string) => `export default ({ z, defineRollout }) => defineRollout({
      kind: "mine", schema: z.strictObject({}),
      open: () => ({ where: "mine", how: "auto", reason: "", preflight: async () => [], trigger: async () => (${trigger}) }),
    });`;
    await module("good.mjs", rollout('{ state: "done", proof: 2, reason: "said so" }'));
    await module("bad.mjs", rollout('{ state: "finished" }'));
    const [good, bad] = [
      await loadRolloutProvider("./good.mjs", dir),
      await loadRolloutProvider("./bad.mjs", dir),
    ];
    const rollOp = { app: "a", rotation: "r", opId: "o", fingerprint: "f" };
    expect(await good.open({}, toolsIn(dir).tools).trigger(rollOp, soon())).toEqual({
      state: "done",
      proof: 2,
      reason: "said so",
    });
    expect(await refusal(bad.open({}, toolsIn(dir).tools).trigger(rollOp, soon()))).toMatchObject({
      outcome: "unknown",
    });
  });
});

test("the README's table has every code, and the exit status that it ends in", async () => {
  const text = await readFile(join(import.meta.dirname, "../../providers/README.md"), "utf8");
  const rows = [...text.matchAll(/^\| `([A-Z_]+)` \|.*\| (\d)[^|]*\|$/gm)].map(([, code = "", exit]) => [
    code,
    Number(exit),
  ]);
  expect(rows).toEqual(PROVIDER_CODES.map((code) => [code, REFUSALS.has(code) ? 4 : 1]));
});
