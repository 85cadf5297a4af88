import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, expect, it } from "vitest";
import { lastJson, makeWorld, type World } from "../kit/world.ts";

const worlds: World[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));

/** A program that shows what another store holds, and cannot write. */
const FOLLOWER = `      - { name: copy, type: exec, read: [sed, -n, "s/^IMKIT_API_KEY=//p", env.env], write: false }`;

it("a store that somebody else fills is read and never written: it stops nothing, and the rotation waits until it shows the new key", async () => {
  const w = await makeWorld();
  worlds.push(w);
  const text = readFileSync(w.configFile, "utf8");
  writeFileSync(w.configFile, text.replace(/^( +- \{ name: env,.*)$/m, `$1\n${FOLLOWER}`));
  const doctor = await w.run(["doctor", "--json"]);
  expect(doctor.code, doctor.stdout).toBe(0);
  const plan = await w.run(["rotate", "demo", "--dry-run", "--json"]);
  expect(plan.code, plan.stdout).toBe(0);
  expect(lastJson(plan.stdout)).toMatchObject({
    steps: [
      { target: "env", action: "write", check: "ok" },
      { target: "copy", action: "watch", check: "ok" },
      {},
    ],
  });
  const [old, key] = [w.sandbox.firstKey(), w.sandbox.issue()];
  expect((await w.run(["stage", "demo", "--from-stdin"], { stdin: key })).code).toBe(0);
  const rotated = await w.run(["rotate", "demo", "--json"]);
  expect(rotated.code, rotated.stderr).toBe(3);
  expect(lastJson(rotated.stdout)).toMatchObject({
    status: "waiting",
    stores: [
      { name: "env", state: "written" },
      { name: "copy", state: "unchanged" },
    ],
  });
  expect(
    w
      .events()
      .filter((e) => e["type"] === "intent")
      .map((e) => e["target"]),
  ).toEqual(["env"]);
  w.sandbox.revoke(old);
  expect((await w.run(["confirm-revoked", "demo"])).code).toBe(0);
});
