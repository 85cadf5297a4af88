import { chmodSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type { Incident } from "../../src/core/incident.ts";
import { type Reported, reportIncident } from "../../src/shell/incident.ts";
import type { Io } from "../../src/shell/io.ts";
import { pickApp, readConfig, wire } from "../../src/shell/wire.ts";
import { findKey } from "../kit/leak.ts";
import { cleanEnv, type Ran } from "../kit/program.ts";
import { lastJson, makeWorld, type World, type WorldOptions } from "../kit/world.ts";

const worlds: World[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));

const world = async (options?: WorldOptions): Promise<World> => {
  const made = await makeWorld({ app: "    timezone: Asia/Taipei", ...options });
  worlds.push(made);
  return made;
};
const stage = (w: World, key: string): Promise<Ran> =>
  w.run(["stage", "demo", "--from-stdin"], { stdin: key });
const rotate = async (w: World, ...more: readonly string[]): Promise<Record<string, unknown>> =>
  lastJson((await w.run(["rotate", "demo", "--json", ...more])).stdout);

/** The report of that rotation as this process makes it, and what it said. */
const report = async (
  w: World,
  rotation: unknown,
): Promise<{ readonly made: Reported | null; readonly said: string }> => {
  const said: string[] = [];
  const io = {
    say: (line: string) => void said.push(line),
    warn: (line: string) => void said.push(line),
    detail: () => {},
    command: (text: string) => text,
    env: cleanEnv(w.dir),
    cwd: w.dir,
    json: false,
    signal: new AbortController().signal,
  } as unknown as Io;
  const config = await readConfig(io, { config: w.configFile });
  const made = await reportIncident(io, await wire(io, config, pickApp(config, "demo")), String(rotation));
  return { made, said: said.join("\n") };
};
const steps = (i: Incident | undefined): readonly string[] | undefined => i?.steps.map((step) => step.state);

describe.concurrent("the report of a real emergency", () => {
  test("revoked first: open while the key is missing, then the whole story, and no key in it", async () => {
    const w = await world({ rollouts: '[{ name: api, type: exec, command: ["true"] }]' });
    const old = w.sandbox.firstKey();
    const first = await rotate(w, "--emergency", "--reason", "found in a log");
    expect(first).toMatchObject({ exitCode: 3 });
    const open = (await report(w, first["rotation"])).made;
    expect(open?.incident).toMatchObject({
      state: "open",
      phase: "waiting-key",
      blackout: { state: "none" },
    });
    expect(steps(open?.incident)).toEqual(["open", "open", "open", "open"]);

    w.sandbox.revoke(old);
    await rotate(w);
    const dark = (await report(w, first["rotation"])).made;
    expect(dark?.incident).toMatchObject({
      exposure: { firstRejected: expect.any(String) },
      blackout: { state: "going on" },
    });

    const fresh = w.sandbox.issue();
    await stage(w, fresh);
    const last = await rotate(w);
    expect(last).toMatchObject({ status: "done", rotation: first["rotation"] });
    const { made, said } = await report(w, first["rotation"]);
    expect(steps(made?.incident)).toEqual(["done", "done", "done", "done"]);
    expect(made?.incident).toMatchObject({
      state: "done",
      blackout: { state: "over" },
      usage: { before: { counts: { rooms: 3 } }, after: { counts: { rooms: 3 } } },
      workloads: [{ name: "api", state: "done" }],
    });
    expect(said).toContain(made?.markdown);
    const text = readFileSync(made?.markdown ?? "", "utf8");
    expect(text.split("\n")[2]).toMatch(
      /^1\. \*\*Over\.\*\* Leaked key `[0-9a-f]{8}`: proved dead\. .* \+08:00 \(/,
    );
    expect(statSync(made?.json ?? "").mode & 0o777).toBe(0o600);
    const all = [
      text,
      said,
      readFileSync(made?.json ?? "", "utf8"),
      readFileSync(open?.json ?? "", "utf8"),
    ].join("\n");
    for (const key of [old, fresh]) expect(findKey(all, key)).toEqual([]);
    // Made again it says the same.
    expect((await report(w, first["rotation"])).made?.incident).toEqual(made?.incident);
  });

  test("replaced first: no outage, and a person's word is no proof", async () => {
    const w = await world({ rollouts: null });
    const old = w.sandbox.firstKey();
    const first = await rotate(w, "--emergency", "--order", "replace-first");
    await stage(w, w.sandbox.issue());
    await rotate(w);
    await rotate(w, "--restarted");
    w.sandbox.revoke(old);
    expect(await rotate(w)).toMatchObject({ status: "done" });
    const { made } = await report(w, first["rotation"]);
    expect(steps(made?.incident)).toEqual(["done", "done", "not proved", "done"]);
    expect(made?.incident.blackout).toMatchObject({ atLeastMs: 0 });
    expect(made?.incident.notProved.map((d) => d.id)).toContain("restart-unproved");
    expect(readFileSync(made?.markdown ?? "", "utf8")).toContain(
      "1. **Closed, but not everything is proved.**",
    );
  });

  test("an ordinary rotation has none, and nothing is written", async () => {
    const w = await world();
    await stage(w, w.sandbox.issue());
    const first = await rotate(w);
    expect(await report(w, first["rotation"])).toEqual({ made: null, said: "" });
    expect(existsSync(join(w.dir, "state", "demo", "reports"))).toBe(false);
  });

  test("a report that cannot be written, or a ledger that is broken, is remarked and stops nothing", async () => {
    const w = await world();
    const { rotation } = await rotate(w, "--emergency");
    const folder = join(w.dir, "state", "demo", "reports");
    rmSync(folder, { recursive: true, force: true });
    writeFileSync(folder, "no folder");
    expect((await report(w, rotation)).said).toContain(`could not be written: ${folder}: ENOTDIR.`);
    const entry = join(w.ledgerDir, "00000001.json");
    chmodSync(entry, 0o600);
    writeFileSync(entry, readFileSync(entry, "utf8").replace('"ts":"20', '"ts":"19'));
    expect(await report(w, rotation)).toMatchObject({ made: null, said: expect.stringContaining("Entry 1") });
  });
});
