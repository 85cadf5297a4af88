import { renameSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { lastJson, makeWorld, type World } from "../kit/world.ts";

const worlds: World[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));

it("a ledger that is gone while a key is sealed: no other one is begun silently, and the key is not lost", async () => {
  const w = await makeWorld();
  worlds.push(w);
  const fresh = w.sandbox.issue();
  await w.run(["stage", "demo", "--from-stdin"], { stdin: fresh });
  renameSync(w.ledgerDir, join(w.dir, "away"));
  for (const args of [
    ["rotate", "demo"],
    ["stage", "demo", "--from-stdin"],
  ]) {
    const { code, stdout } = await w.run([...args, "--json"], { stdin: w.sandbox.issue() });
    expect(code).toBe(5);
    expect(lastJson(stdout)).toMatchObject({ code: "LEDGER_BROKEN" });
  }
  expect(w.ledgerFiles()).toEqual([]);
  const doctor = await w.run(["doctor", "demo", "--json"]);
  expect(doctor.code).toBe(5);
  expect(lastJson(doctor.stdout)["checks"]).toContainEqual(
    expect.objectContaining({ id: "ledger", status: "fail", fix: "imkit-rotator adopt demo --new-ledger" }),
  );
  expect((await w.run(["adopt", "demo", "--new-ledger"])).code).toBe(0);
  expect(w.escrow()).toHaveLength(1);
});
