import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { dotenvxReads, dotenvxSets, made, privateKeyOf } from "../kit/dotenvx.ts";
import { findKey } from "../kit/leak.ts";
import { lastJson, makeWorld, type World } from "../kit/world.ts";

const vector = made.find(({ name }) => name === "a stage") ?? made[0];
if (vector === undefined) throw new Error("no vectors");
const privateKey = privateKeyOf(vector);

let w: World;
afterEach(async () => await w.close());

/** A world whose one store is an encrypted env file that dotenvx wrote. `options`: more of the store's config. */
const begin = async (options: string, holds: "first" | "nothing" = "first"): Promise<void> => {
  w = await makeWorld();
  const path = file();
  writeFileSync(path, vector.sealed.replace(/^IMKIT_API_KEY=.*\n/m, ""));
  if (holds === "first") await dotenvxSets(path, "IMKIT_API_KEY", w.sandbox.firstKey(), vector.keys);
  writeFileSync(join(w.dir, ".env.keys"), vector.keys);
  const config = readFileSync(w.configFile, "utf8").replace(
    "path: ./env.env",
    `path: ${vector.file}, encrypted: true${options}`,
  );
  writeFileSync(w.configFile, config);
};
const file = () => join(w.dir, vector.file);
const held = () => dotenvxReads(readFileSync(file()), privateKey)["IMKIT_API_KEY"];
const clean = (...keys: readonly string[]): void => {
  for (const key of [...keys, w.sandbox.firstKey(), privateKey])
    expect(findKey(w.printed(), key)).toEqual([]);
};
const READ = ", privateKey: { valueFrom: { file: .env.keys } }";

it("a key in an encrypted env file is rotated to the end, and a service starts with it", async () => {
  await begin(READ);
  const key = w.sandbox.issue();
  const before = readFileSync(file(), "utf8");
  expect((await w.run(["stage", "demo", "--from-stdin"], { stdin: key })).code).toBe(0);
  const rotated = await w.run(["rotate", "demo", "--json"]);
  expect([rotated.code, lastJson(rotated.stdout)]).toMatchObject([3, { stores: [{ state: "written" }] }]);
  expect(held()).toBe(key);
  const around = (text: string) => text.replace(/encrypted:[^"\n]+/g, "@");
  expect(around(readFileSync(file(), "utf8"))).toBe(around(before));
  w.sandbox.revoke(1);
  expect((await w.run(["confirm-revoked", "demo", "--json"])).code).toBe(0);
  const status = await w.run(["status", "demo", "--json"]);
  expect(lastJson(status.stdout)).toMatchObject({
    apps: [{ state: "idle", stores: [{ state: "in-sync" }] }],
  });
  clean(key);
  const script = "process.exit(process.env.IMKIT_API_KEY.length === 60 ? 0 : 1)";
  expect((await w.run(["run", "demo", "--", process.execPath, "-e", script])).code).toBe(0);
});

it("without the private key a key that is there stays there, and the way out is said", async () => {
  await begin("");
  const key = w.sandbox.issue();
  const before = readFileSync(file(), "utf8");
  const doctor = await w.run(["doctor", "demo"]);
  expect(doctor.code).toBe(5);
  expect(doctor.stdout + doctor.stderr).toContain("privateKey: { valueFrom:");
  expect((await w.run(["stage", "demo", "--from-stdin"], { stdin: key })).code).toBe(0);
  const rotated = await w.run(["rotate", "demo"]);
  expect(rotated.code).toBe(1);
  expect(rotated.stdout + rotated.stderr).toContain("UNSUPPORTED");
  expect(readFileSync(file(), "utf8")).toBe(before);
  clean(key);
});

it("the public key alone is enough for the first key of a file", async () => {
  await begin("", "nothing");
  const key = w.sandbox.firstKey();
  expect((await w.run(["stage", "demo", "--from-stdin"], { stdin: key })).code).toBe(0);
  const rotated = await w.run(["rotate", "demo", "--json"]);
  expect([rotated.code, lastJson(rotated.stdout)]).toMatchObject([0, { status: "done", mode: "first" }]);
  expect(held()).toBe(key);
  clean(key);
});

it("a private key in the config is refused with its line, and is not repeated", async () => {
  await begin(`, privateKey: "${privateKey}"`);
  const status = await w.run(["status", "demo"]);
  expect(status.code).toBe(2);
  expect(status.stderr).toMatch(/imkit-rotator\.config\.yaml:7:\d+: /);
  clean();
});
