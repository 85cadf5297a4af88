import { chmodSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test, vi } from "vitest";
import { createKeySource, KeySourceError } from "../../src/load.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { makeWorld, type World } from "../kit/world.ts";

const worlds: World[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));
const world = async (...options: Parameters<typeof makeWorld>): Promise<World> => {
  const made = await makeWorld(...options);
  worlds.push(made);
  return made;
};

test("a store by its own settings, an app of the config, an environment variable", async () => {
  const w = await world({ stores: ["one", "two"] });
  const key = w.sandbox.firstKey();
  const path = join(w.dir, "one.env");
  const byStore = await createKeySource({ store: { type: "dotenv", path, key: "IMKIT_API_KEY" } });
  expect(await byStore.get()).toBe(key);
  const byApp = await createKeySource({ app: "demo", config: w.configFile });
  expect(await byApp.get()).toBe(key);
  w.setValue("two", madeKey());
  const second = await createKeySource({ app: "demo", store: "two", config: w.configFile });
  expect(await second.get()).toBe(w.value("two"));
  vi.stubEnv("CHAT_KEY", key);
  expect(await (await createKeySource({ env: "CHAT_KEY" })).get()).toBe(key);
});

test("the first store of an app that can be read is the one that is read", async () => {
  const w = await world({ stores: ["one", "two"] });
  rmSync(join(w.dir, "one.env"));
  expect(await (await createKeySource({ app: "demo", config: w.configFile })).get()).toBe(w.value("two"));
});

test("a rotation is taken up without a restart, at the first rejection", async () => {
  const w = await world({ sandbox: { mode: "replace" } });
  const source = await createKeySource({ app: "demo", config: w.configFile });
  const call = async (key: string): Promise<number> =>
    (await fetch(`${w.sandbox.url}/admin/connection-count`, { headers: { "IM-API-KEY": key } })).status;
  expect(await call(await source.get())).toBe(200);
  await w.run(["stage", "demo", "--from-stdin"], { stdin: w.sandbox.issue() });
  expect((await w.run(["rotate", "demo"])).code).toBe(0);
  expect(await call(await source.get())).toBe(401);
  expect(await call(await source.rejected())).toBe(200);
  expect(await call(await source.get())).toBe(200);
});

test("what is wrong is told in our own words, without a value", async () => {
  const w = await world();
  const key = w.sandbox.firstKey();
  const broken = join(w.dir, "env.env");
  writeFileSync(broken, `IMKIT_API_KEY=${key}\nIMKIT_API_KEY=${key}\n`);
  const cases = [
    () => createKeySource({ store: { type: "dotenv", pth: "x" } }),
    () => createKeySource({ store: { type: "nonesuch" } }),
    () => createKeySource({ app: "demo", config: join(w.dir, "none.yaml") }),
    () => createKeySource({ app: "other", config: w.configFile }),
    () => createKeySource({ app: "demo", store: "other", config: w.configFile }),
    () => createKeySource({ env: "NOT_SET_ANYWHERE" }).then((s) => s.get()),
    () => createKeySource({ app: "demo", config: w.configFile }).then((s) => s.get()),
  ];
  const codes: string[] = [];
  for (const failing of cases) {
    const error: unknown = await failing().catch((e: unknown) => e);
    if (!(error instanceof KeySourceError)) throw new Error("no KeySourceError");
    codes.push(error.code);
    expect(error.cause).toBeUndefined();
    expect(findKey(`${error.message}\n${error.stack ?? ""}\n${JSON.stringify(error)}`, key)).toEqual([]);
  }
  expect(codes).toEqual([
    "CONFIG",
    "CONFIG",
    "CONFIG_MISSING",
    "APP_UNKNOWN",
    "USAGE",
    "NOT_FOUND",
    "CONFLICT",
  ]);
});

test("nothing is written: no ledger, no state, and the file may be read-only", async () => {
  const w = await world();
  const path = join(w.dir, "env.env");
  chmodSync(path, 0o400);
  const before = readFileSync(path);
  const source = await createKeySource({ app: "demo", config: w.configFile });
  await source.get();
  source.close();
  expect(w.ledgerFiles()).toEqual([]);
  expect(readFileSync(path)).toEqual(before);
});
