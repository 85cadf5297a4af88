import { rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { startVault, type VaultServer } from "../kit/azure/server.ts";
import type { Ran } from "../kit/program.ts";
import { jsonLines, lastJson } from "../kit/world.ts";
import { type Four, makeFour, STORES } from "./four/world.ts";
import { kubernetes } from "./kubernetes.ts";

const kube = kubernetes(inject("kubernetes"));
const moto = inject("aws").moto;
let vault: VaultServer;
const open = new Set<Four>();
beforeAll(async () => {
  vault = await startVault();
});
afterAll(async () => {
  await Promise.all([...open].map(async (four) => await four.close()));
  await vault?.close();
});
const four = async (): Promise<Four> => {
  const made = await makeFour({ moto, kube, vault });
  open.add(made);
  return made;
};

const STAGE = ["stage", "demo", "--from-stdin", "--json"];
const ROTATE = ["rotate", "demo", "--json"];
const CONFIRM = ["confirm-revoked", "demo", "--json"];
const each = <T>(value: T) => Object.fromEntries(STORES.map((name) => [name, value]));
const must = async (ran: Promise<Ran>, code: number): Promise<Ran> => {
  const { stdout, stderr, ...end } = await ran;
  if (end.code !== code) throw new Error(`exit ${end.code}, not ${code}\n${stdout}\n${stderr}`);
  return { stdout, stderr, ...end };
};
const code = (ran: Ran): string => /"code":"([A-Z_]+)"/.exec(ran.stdout)?.[1] ?? "";

test("a whole rotation: every store written once, and what it wrote over is taken out of use when the old key is dead", async () => {
  const w = await four();
  await must(w.run(["doctor", "demo", "--json"]), 0);
  const [old, key] = [w.sandbox.firstKey(), w.sandbox.issue()];
  const superseded = Object.keys(await w.labels())[0] ?? "";
  await must(w.run(STAGE, key), 0);
  const rotated = await must(w.run(ROTATE), 3);
  expect(lastJson(rotated.stdout)).toMatchObject({
    status: "waiting",
    mode: "overlap",
    sameApp: "proved",
    stores: STORES.map((name) => ({ name, state: "written", code: null })),
  });
  expect(await w.values()).toEqual(each(key));
  expect(await w.changes()).toEqual(each(1));
  // The way back stays open until the old key is dead.
  expect((await w.labels())[superseded]).toContain("AWSPREVIOUS");
  expect(vault.vault.versions(w.azure).map(({ attributes }) => attributes.enabled)).toEqual([true, true]);

  w.sandbox.revoke(old);
  expect(lastJson((await must(w.run(CONFIRM), 0)).stdout)).toMatchObject({ verdict: "rejected" });
  await isOver(w, key);
  expect(w.intents()).toEqual(each(1));
  await must(w.run(["audit", "verify", "demo", "--stores", "--json"]), 0);
});

/** All four hold `key`, nothing of the rotation is left, and no key came out. */
const isOver = async (w: Four, key: string): Promise<void> => {
  expect(await w.values()).toEqual(each(key));
  const versions = vault.vault.versions(w.azure);
  expect(versions.map(({ attributes }) => attributes.enabled)).toEqual(
    versions.map((one) => one.value === key),
  );
  expect(versions.at(-1)?.tags).toMatchObject({ team: "chat" });
  const labels = Object.values(await w.labels()).flat();
  expect(labels.map((label) => label.replace(/\/.*/, "")).toSorted()).toEqual([
    "AWSCURRENT",
    "imkit-rotator",
  ]);
  const status = JSON.parse((await must(w.status(), 0)).stdout);
  expect(status.apps[0]).toMatchObject({
    state: "idle",
    stores: STORES.map((name) => ({ name, state: "in-sync" })),
  });
  expect(w.escrow()).toEqual([]);
  expect(w.events().filter(({ type }) => type === "done")).toHaveLength(1);
  const audit = lastJson((await must(w.run(["audit", "verify", "demo", "--json"]), 0)).stdout);
  expect(audit).toMatchObject({ ok: true, open: 0 });
  expect(w.leaks()).toEqual([]);
};

const COMMANDS = { stage: STAGE, rotate: ROTATE, "confirm-revoked": CONFIRM } as const;
type Command = keyof typeof COMMANDS;

/** Kills one command right before its n-th entry, then does what a person does next, to the end. false = it ended before. */
const killedAt = async (command: Command, n: number): Promise<boolean> => {
  const w = await four();
  const [old, key] = [w.sandbox.firstKey(), w.sandbox.issue()];
  if (command !== "stage") await must(w.run(STAGE, key), 0);
  if (command === "confirm-revoked") {
    await must(w.run(ROTATE), 3);
    w.sandbox.revoke(old);
  }
  const kill = ["-etrace=link", `-einject=link:signal=KILL:when=${n}`];
  const hit = await (await w.traced(COMMANDS[command], kill, command === "stage" ? key : "")).ended;
  const isHit = hit.signal === "SIGKILL";
  if (command === "stage" && !hit.stdout.includes('"durable":true')) await must(w.run(STAGE, key), 0);
  if (command !== "confirm-revoked") {
    await must(w.run(ROTATE), 3);
    w.sandbox.revoke(old);
  }
  await must(w.run(CONFIRM), 0);
  await isOver(w, key);
  expect(await w.changes()).toEqual(each(1));
  const intents = w.intents();
  for (const name of STORES) expect(intents[name]).toBeGreaterThan(0);
  await w.close();
  open.delete(w);
  return isHit;
};

describe.each(["stage", "rotate", "confirm-revoked"] as const)("%s", (command) => {
  test("killed at every entry and run again: the same end, no key lost, each store written once", {
    timeout: 600_000,
  }, async () => {
    const hits: number[] = [];
    let [next, over] = [1, false];
    const work = async (): Promise<void> => {
      while (!over) {
        const n = next++;
        if (await killedAt(command, n)) hits.push(n);
        else over = true;
      }
    };
    await Promise.all([work(), work()]);
    expect(hits.length).toBeGreaterThan(2);
  });
});

describe("an emergency with one store down", () => {
  const down = new Set<string>();
  beforeAll(() => {
    vault.fault = ({ path }) => ([...down].some((name) => path.includes(name)) ? { how: "drop" } : null);
  });
  const set = (w: Four, store: "aws" | "azure" | "k8s", isDown: boolean): void => {
    if (store !== "azure") w[store].down = isDown;
    else if (isDown) down.add(w.azure);
    else down.delete(w.azure);
  };

  test.each(["aws", "azure", "k8s"] as const)(
    "%s: the other three get the new key at once; it follows when it is back",
    async (store) => {
      const w = await four();
      await must(w.run(["adopt", "demo"]), 0);
      const [leaked, key] = [w.sandbox.firstKey(), w.sandbox.issue()];
      w.sandbox.revoke(leaked);
      set(w, store, true);
      await must(w.run(STAGE, key), 0);
      const first = await must(w.run(["rotate", "demo", "--emergency", "--wait=30s", "--json"]), 1);
      const [answer = {}, error] = jsonLines(first.stdout).slice(-2);
      expect(error).toMatchObject({ type: "error", exitCode: 1 });
      const states = (answer["stores"] as readonly { readonly name: string; readonly state: string }[]).map(
        ({ name, state }) => [name, state],
      );
      expect(Object.fromEntries(states)).toEqual({ ...each("written"), [store]: "failed" });
      expect(await w.values()).toEqual({ ...each(key), [store]: leaked });
      // The key stays at hand for as long as one store is without it.
      expect(w.escrow().length).toBeGreaterThan(0);

      set(w, store, false);
      const second = await must(w.run(["rotate", "demo", "--emergency", "--wait=30s", "--json"]), 0);
      expect(lastJson(second.stdout)).toMatchObject({ status: "done", mode: "replace" });
      await isOver(w, key);
      expect(await w.changes()).toEqual(each(1));
    },
  );
});

test("each store that has a witness refuses a ledger whose end was cut off, and another ledger", async () => {
  const w = await four();
  const [old, key] = [w.sandbox.firstKey(), w.sandbox.issue()];
  await must(w.run(STAGE, key), 0);
  const known = w.ledgerFiles().length;
  await must(w.run(ROTATE), 3);
  w.sandbox.revoke(old);
  await must(w.run(CONFIRM), 0);
  const third = w.sandbox.issue();
  const before = await w.values();

  for (const store of ["aws", "azure", "k8s"] as const) {
    const cut = w.copyState(`cut-${store}`);
    for (const name of w.ledgerFiles().slice(known)) rmSync(join(cut, name));
    w.only([store], `cut-${store}`);
    const behind = await w.run([...ROTATE, "--yes"]);
    expect([store, behind.code, code(behind)]).toEqual([store, 5, "LEDGER_BEHIND"]);

    w.only([store], `other-${store}`);
    await w.run(STAGE, third);
    const foreign = await w.run(ROTATE);
    expect([store, foreign.code, code(foreign)]).toEqual([store, 4, "LEDGER_FOREIGN"]);
  }
  expect(await w.values()).toEqual(before);
  expect(w.leaks()).toEqual([]);
});
