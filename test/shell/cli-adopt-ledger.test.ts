import { cpSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { seal } from "../../src/core/chain.ts";
import { thisHost } from "../../src/io/host.ts";
import { jsonLines, lastJson, type WorldOptions } from "../kit/world.ts";
import { makeWitnessWorld, type WitnessWorld } from "../kit/witness-world.ts";

/** The tests of a file run side by side, each in a world of its own. */
const worlds: WitnessWorld[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));
const world = async (options?: WorldOptions): Promise<WitnessWorld> => {
  const made = await makeWitnessWorld(options);
  worlds.push(made);
  return made;
};
type Json = Record<string, unknown>;
const NEW = ["adopt", "demo", "--new-ledger"];
const stage = (w: WitnessWorld, key: string) =>
  w.run(["stage", "demo", "--from-stdin", "--json"], { stdin: key });
const json = async (w: WitnessWorld, args: readonly string[]) => {
  const { code, stdout } = await w.run([...args, "--json"]);
  const lines = jsonLines(stdout);
  return { code, answer: lines[0] ?? {}, end: lines.at(-1) ?? {} };
};
/** The line for another ledger that an error gave, run as it stands. */
const paste = async (w: WitnessWorld, end: Json) => {
  const line = (end["do"] as string[]).find((text) => text.endsWith("--new-ledger")) ?? "none";
  expect(line).toBe("imkit-rotator adopt demo --new-ledger");
  return json(w, line.split(" ").slice(1));
};
const appDir = (w: WitnessWorld): string => join(w.dir, "state", "demo");
const asides = (w: WitnessWorld): readonly string[] =>
  readdirSync(appDir(w)).filter((name) => name.startsWith("ledger-"));
const genesis = (w: WitnessWorld): Json => w.events()[0] ?? {};
const line = (w: WitnessWorld, name: string): { h: string; r: { ledger: string; seq: number } } =>
  JSON.parse(readFileSync(join(w.ledgerDir, name), "utf8"));
/** One whole rotation, as far as the gate: the vault quotes the ledger from then on. */
const toGate = async (w: WitnessWorld): Promise<string> => {
  const key = w.sandbox.issue();
  expect((await stage(w, key)).code).toBe(0);
  expect((await w.run(["rotate", "demo"])).code).toBe(3);
  return key;
};
const toEnd = async (w: WitnessWorld, revoke: number): Promise<void> => {
  w.sandbox.revoke(revoke);
  expect((await w.run(["confirm-revoked", "demo"])).code).toBe(0);
};
const isSound = async (w: WitnessWorld): Promise<void> => {
  const { code, answer } = await json(w, ["audit", "verify", "demo"]);
  expect({ code, problems: answer["problems"] }).toEqual({ code: 0, problems: [] });
};

describe.concurrent("adopt --new-ledger", { timeout: 90_000 }, () => {
  it("a broken ledger: the old one stays beside it as it was, and the new one quotes it", async () => {
    const w = await world();
    await toGate(w);
    const files = w.ledgerFiles();
    const last = files.at(-1) ?? "";
    const { h, r } = line(w, last);
    writeFileSync(join(w.ledgerDir, files[2] ?? ""), "torn");
    cpSync(w.ledgerDir, join(w.dir, "copy"), { recursive: true });
    const stopped = await json(w, ["rotate", "demo"]);
    expect(stopped).toMatchObject({ code: 5, end: { code: "LEDGER_BROKEN" } });
    const { code, answer } = await paste(w, stopped.end);
    expect(code).toBe(0);
    expect(answer).toMatchObject({
      state: "adopted",
      newLedger: {
        why: expect.stringContaining("UNREADABLE"),
        successorOf: { ledger: r.ledger, head: `${r.seq}:${h}` },
        aside: join(appDir(w), `ledger-${r.ledger}-1`),
      },
    });
    expect(genesis(w)).toMatchObject({ successorOf: { ledger: r.ledger, head: `${r.seq}:${h}` } });
    const aside = join(appDir(w), asides(w)[0] ?? "");
    expect(readdirSync(aside).sort()).toEqual(readdirSync(join(w.dir, "copy")).sort());
    for (const name of files)
      expect(readFileSync(join(aside, name))).toEqual(readFileSync(join(w.dir, "copy", name)));
    await isSound(w);
    expect((await w.run(["audit", "verify", aside])).code).toBe(5);
    // The old key was in escrow alone. It joins the old ones, and the next rotation wants it dead too.
    expect(answer).toMatchObject({
      old: [expect.any(String)],
      next: [{}, { command: "imkit-rotator confirm-revoked demo" }],
    });
    await toGate(w);
    w.sandbox.revoke(2);
    expect((await w.run(["confirm-revoked", "demo"])).code).toBe(3);
    await toEnd(w, 1);
    expect((await json(w, ["status", "demo"])).answer).toMatchObject({ apps: [{ state: "idle" }] });
    expect(w.escrow()).toEqual([]);
  });

  it("a ledger that is behind a store: exit 5 with the line that works, and the store is written again", async () => {
    const w = await world();
    await toGate(w);
    await toEnd(w, 1);
    const files = w.ledgerFiles();
    for (const name of files.slice(3)) rmSync(join(w.ledgerDir, name));
    const { h, r } = line(w, files[2] ?? "");
    const looked = await json(w, ["adopt", "demo"]);
    expect(looked).toMatchObject({ code: 5, end: { code: "LEDGER_BEHIND" } });
    const { code, answer } = await paste(w, looked.end);
    expect(code).toBe(0);
    expect(answer).toMatchObject({
      state: "adopted",
      newLedger: { successorOf: { ledger: r.ledger, head: `${r.seq}:${h}` } },
    });
    expect((await w.run(["audit", "verify", "demo", "--stores"])).code).toBe(0);
    const aside = join(appDir(w), asides(w)[0] ?? "");
    expect((await w.run(["audit", "verify", aside, "--head", `${r.seq}:${h}`])).code).toBe(0);
    const key = await toGate(w);
    expect(w.vault()).toMatchObject({
      value: key,
      witness: { ledger: line(w, w.ledgerFiles()[0] ?? "").r.ledger },
    });
    await toEnd(w, 2);
    await isSound(w);
  });

  it("a stranger's quote in the middle of a rotation: its next step is the line, and the rotation ends after it", async () => {
    const w = await world();
    const key = w.sandbox.issue();
    await stage(w, key);
    w.setVault(w.sandbox.firstKey(), { ledger: "ab", seq: 3, h16: "0".repeat(16) });
    const stopped = await json(w, ["rotate", "demo"]);
    expect(stopped).toMatchObject({ code: 4, end: { code: "LEDGER_FOREIGN" } });
    const doctor = await json(w, ["doctor", "demo"]);
    expect(doctor.answer["checks"]).toContainEqual(
      expect.objectContaining({ target: "vault", fix: "imkit-rotator adopt demo --new-ledger" }),
    );
    const { code, answer } = await paste(w, stopped.end);
    expect(code).toBe(0);
    expect(answer).toMatchObject({ state: "adopted", staged: expect.stringMatching(/^[0-9a-f]{8}$/) });
    expect((await w.run(["audit", "verify", "demo", "--stores"])).code).toBe(0);
    expect((await w.run(["rotate", "demo"])).code).toBe(3);
    expect([w.value(), w.vault().value]).toEqual([key, key]);
    await toEnd(w, 1);
  });

  it("a ledger that is lost: stage keeps the key all the same, rotate says what to do, and goes on after it", async () => {
    const w = await world();
    await toGate(w);
    await toEnd(w, 1);
    const { witness } = w.vault();
    rmSync(join(w.dir, "state"), { recursive: true });
    const looked = await json(w, ["adopt", "demo"]);
    expect(looked).toMatchObject({ code: 4, end: { code: "LEDGER_FOREIGN" } });
    expect(existsSync(w.ledgerDir)).toBe(false);
    const key = w.sandbox.issue();
    expect((await stage(w, key)).code).toBe(0);
    const stopped = await json(w, ["rotate", "demo"]);
    expect(stopped.code).toBe(4);
    const { code, answer } = await paste(w, stopped.end);
    expect(code).toBe(0);
    expect(answer["staged"]).toMatch(/^[0-9a-f]{8}$/);
    expect(answer).toMatchObject({ state: "adopted", next: [{ command: "imkit-rotator rotate demo" }] });
    expect((await w.run(["rotate", "demo"])).code).toBe(3);
    expect([w.value(), w.vault().value]).toEqual([key, key]);
    expect(w.vault().witness?.ledger).not.toBe(witness?.ledger);
    await toEnd(w, 2);
  });

  it("a lost one is quoted as the stores quote it; where none does, with nothing", async () => {
    const w = await world();
    await toGate(w);
    const { witness } = w.vault();
    rmSync(join(w.dir, "state"), { recursive: true });
    const head = `${witness?.seq ?? ""}:${witness?.h16 ?? ""}`;
    expect((await json(w, NEW)).answer).toMatchObject({
      newLedger: { successorOf: { ledger: witness?.ledger, head }, aside: null },
    });
    const bare = await world();
    expect((await json(bare, NEW)).code).toBe(0);
    expect(genesis(bare)).toMatchObject({ successorOf: { ledger: null, head: null } });
  });

  it("several keys that work: the lines give fingerprints of the new ledger, and work", async () => {
    const w = await world();
    await w.run(["adopt", "demo"]);
    w.setValue("env", w.sandbox.issue());
    writeFileSync(join(w.ledgerDir, "00000001.json"), "");
    const { code, answer, end } = await json(w, NEW);
    expect(code).toBe(4);
    expect(answer).toMatchObject({ state: "refused", newLedger: { why: expect.any(String) } });
    const [first] = end["do"] as string[];
    expect((await json(w, (first ?? "").split(" ").slice(1))).code).toBe(0);
    await isSound(w);
  });

  it("a sound ledger that nothing contradicts: exit 4; no clear answer: exit 1; nothing is changed by either", async () => {
    const w = await world();
    await w.run(["adopt", "demo"]);
    const files = w.ledgerFiles();
    const refused = await json(w, NEW);
    expect(refused).toMatchObject({ code: 4, end: { code: "ADOPTION_REFUSED" } });
    for (const text of refused.end["do"] as string[])
      expect((await w.run(text.split(" ").slice(1))).code).toBe(0);
    w.setVault(w.sandbox.issue(), { ledger: "ab", seq: 3, h16: "0".repeat(16) });
    w.sandbox.fault({ kind: "500", count: Number.POSITIVE_INFINITY });
    expect(await json(w, NEW)).toMatchObject({ code: 1, end: { code: "ADOPTION_UNCLEAR" } });
    expect(w.ledgerFiles()).toEqual(files);
    expect(asides(w)).toEqual([]);
  });

  it("a live claim: exit 6, nothing is changed", async () => {
    const w = await world();
    await w.run(["adopt", "demo"]);
    const { claim } = await thisHost();
    const head = line(w, w.ledgerFiles().at(-1) ?? "");
    const sealed = seal({
      ...head.r,
      seq: head.r.seq + 1,
      prev: head.h,
      v: 1,
      ts: new Date().toISOString(),
      inst: claim.inst,
      actor: { kind: "person", id: "other" },
      events: [{ type: "claimed", ...claim }],
    });
    writeFileSync(join(w.ledgerDir, `0000000${head.r.seq + 1}.json`), sealed.line);
    w.setVault(w.sandbox.firstKey(), { ledger: "ab", seq: 3, h16: "0".repeat(16) });
    const { code, end } = await json(w, NEW);
    expect(code).toBe(6);
    expect(end).toMatchObject({ code: "LOCKED", do: ["imkit-rotator adopt demo --new-ledger --wait=5m"] });
    expect(asides(w)).toEqual([]);
  });

  it("set aside and nothing in its place: no other command begins one by itself, and it can be run again", async () => {
    const w = await world();
    await w.run(["adopt", "demo"]);
    const { r, h } = line(w, w.ledgerFiles().at(-1) ?? "");
    renameSync(w.ledgerDir, join(appDir(w), `ledger-${r.ledger}-1`));
    for (const args of [
      ["adopt", "demo"],
      ["rotate", "demo"],
      ["status", "demo"],
    ]) {
      const ran = await w.run([...args, "--json"]);
      expect(ran.code).toBe(5);
      expect(lastJson(ran.stdout)).toMatchObject({ do: ["imkit-rotator adopt demo --new-ledger"] });
    }
    expect((await stage(w, w.sandbox.issue())).code).toBe(5);
    expect(existsSync(w.ledgerDir)).toBe(false);
    expect((await json(w, NEW)).code).toBe(0);
    expect(genesis(w)).toMatchObject({ successorOf: { ledger: r.ledger, head: `${r.seq}:${h}` } });
    expect(asides(w)).toHaveLength(1);
  });
});
