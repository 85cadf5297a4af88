import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { type Daemon, FAST, startDaemon, until } from "../kit/daemon.ts";
import { findKey } from "../kit/leak.ts";
import { hookReceiver } from "../kit/receiver.ts";
import { makeWorld, NO_RESTART, type World, type WorldOptions } from "../kit/world.ts";

const open: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const close of open.toReversed()) await close();
});
const world = async (options: WorldOptions = {}): Promise<World> => {
  const w = await makeWorld({ ...options, more: `${options.more ?? ""}${FAST}` });
  open.push(w.close);
  return w;
};
const serving = async (w: World, ...args: string[]): Promise<Daemon> => {
  const d = await startDaemon(w.dir, args);
  open.push(async () => {
    d.signal("SIGKILL");
    await d.ended;
  });
  return d;
};
const stopped = async (d: Daemon, name: NodeJS.Signals = "SIGTERM") => {
  d.signal(name);
  return (await d.ended).code;
};
const inState = async (d: Daemon, state: string, app = "demo") =>
  (await d.metric(`imkit_rotator_rotation_state{app="${app}",state="${state}"}`)) === 1;
const stage = async (w: World): Promise<string> => {
  const key = w.sandbox.issue();
  expect((await w.run(["stage", "demo", "--from-stdin"], { stdin: key })).code).toBe(0);
  return key;
};
const INBOX = "    intake: [{ type: dotenv, path: ./inbox.env, key: NEW_KEY }]";

describe.concurrent("serve", () => {
  it("a whole rotation: a key in the inbox, its ticks, revocation; numbers follow, and no output holds a key or a fingerprint label", async () => {
    const w = await world({ app: INBOX });
    const d = await serving(w, "-v");
    await until("ready", async () => (await d.get("/readyz")).status === 200);
    expect(await d.get("/healthz")).toEqual({ status: 200, body: "ok\n" });
    expect(JSON.parse((await d.get("/readyz")).body)).toEqual({ ready: true, why: [] });
    expect(await inState(d, "idle")).toBe(true);
    expect(await d.metric('imkit_rotator_store_in_sync{app="demo",store="env"}')).toBe(1);
    expect(await d.metric('imkit_rotator_old_key_accepted{app="demo"}')).toBe(0);
    expect(await d.metric('imkit_rotator_usage{app="demo",count="rooms"}')).toBeGreaterThanOrEqual(0);
    const due = (await d.metric('imkit_rotator_key_due_timestamp_seconds{app="demo"}')) ?? 0;
    expect(due - Date.now() / 1_000).toBeGreaterThan(89 * 86_400);

    const [oldKey, newKey] = [w.sandbox.firstKey(), w.sandbox.issue()];
    writeFileSync(join(w.dir, "inbox.env"), `NEW_KEY=${newKey}\n`);
    await until("the key is asked to be revoked", () => inState(d, "waiting-revoke"));
    expect(w.value()).toBe(newKey);
    expect(await d.metric('imkit_rotator_old_key_accepted{app="demo"}')).toBe(1);
    const waits = 'imkit_rotator_waiting_for_human_seconds{app="demo"}';
    await until("time passes", async () => ((await d.metric(waits)) ?? 0) > 0.5);
    expect(await d.metric('imkit_rotator_step_duration_seconds_count{app="demo",action="write"}')).toBe(1);

    w.sandbox.revoke(1);
    await until("it is done", () => inState(d, "idle"));
    expect(await d.metric('imkit_rotator_rotations_total{app="demo",result="done"}')).toBe(1);
    expect(await d.metric(waits)).toBe(0);
    expect(await d.metric('imkit_rotator_ledger_entries_total{app="demo"}')).toBe(w.ledgerFiles().length);
    expect(d.lines().map(({ msg }) => msg)).toEqual(
      expect.arrayContaining(["adopted", "staged", "opened", "proof", "done"]),
    );

    const { body } = await d.get("/metrics");
    expect(body.match(/="[0-9a-f]{8,}"/g)).toBeNull();
    expect(await stopped(d)).toBe(143);
    for (const key of [oldKey, newKey]) expect(findKey(d.printed() + body, key)).toEqual([]);
    expect(d.stderr()).toBe("");
    for (const line of d.lines())
      expect(line).toMatchObject({
        level: expect.any(String),
        time: expect.any(String),
        msg: expect.any(String),
      });
    expect((await w.run(["audit", "verify", "demo"])).code).toBe(0);
  });

  it("a signal in the middle of a step: the step ends, the claim is given back, the exit status says so, the next start goes on", async () => {
    const begun = `[{ name: api, type: exec, command: [sh, -c, "touch begun; sleep 2"] }]`;
    const w = await world({ rollouts: begun });
    await stage(w);
    const d = await serving(w);
    await until("the rollout runs", () =>
      w.events().some((e) => e["type"] === "intent" && e["action"] === "roll"),
    );
    expect(await stopped(d)).toBe(143);
    const [claims, releases] = ["claimed", "released"].map(
      (t) => w.events().filter((e) => e["type"] === t).length,
    );
    expect(claims).toBe(releases);
    expect(d.lines().at(-1)).toMatchObject({ msg: "stopped" });

    const again = await serving(w);
    await until("it is asked to revoke", () => inState(again, "waiting-revoke"));
    expect(await stopped(again, "SIGINT")).toBe(130);
    expect(w.events().filter((e) => e["type"] === "opened")).toHaveLength(1);
  });

  it("two daemons, and a tick from cron again and again beside them: one rotation, each store written once, each message sent once", async () => {
    const hook = await hookReceiver();
    open.push(hook.close);
    const w = await world({ app: INBOX, more: `${hook.config}\n`, stores: ["env", "second"] });
    const both = await Promise.all([serving(w), serving(w)]);
    writeFileSync(join(w.dir, "inbox.env"), `NEW_KEY=${w.sandbox.issue()}\n`);
    const ticks: (number | null)[] = [];
    const ticking = async (done: () => boolean): Promise<void> => {
      while (!done()) ticks.push((await w.run(["rotate", "demo", "--due"])).code);
    };
    const has = (type: string) => w.events().some((e) => e["type"] === type);
    const told = (type: string) => hook.types().includes(type);
    await ticking(() => told("waiting-revoke"));
    w.sandbox.revoke(1);
    await ticking(() => has("done") && told("done"));
    for (const d of both) expect(await stopped(d)).toBe(143);
    expect(ticks.filter((code) => code !== 0 && code !== 6)).toEqual([]);
    expect(hook.types()).toEqual(["waiting-revoke", "done"]);
    const count = (type: string) => w.events().filter((e) => e["type"] === type).length;
    expect(["staged", "opened", "done"].map(count)).toEqual([1, 1, 1]);
    expect(w.events().filter((e) => e["type"] === "intent" && e["action"] === "write")).toHaveLength(2);
    expect((await w.run(["audit", "verify", "demo"])).code).toBe(0);
  });

  it("what stops one app is said, and stops no other; a ledger that cannot be read makes it unready", async () => {
    const w = await world();
    w.setValue("other", w.sandbox.firstKey());
    const more = `  other:
    baseUrl: ${w.sandbox.url}
    stores: [{ name: env, type: dotenv, path: ./other.env, key: IMKIT_API_KEY }]
    rollouts: ${NO_RESTART}
`;
    writeFileSync(w.configFile, readFileSync(w.configFile, "utf8").replace(/^apps:\n/m, `apps:\n${more}`));
    expect((await w.run(["rotate", "--all", "--due"])).code).toBe(0);
    writeFileSync(join(w.ledgerDir, "00000001.json"), "torn");
    const d = await serving(w);
    await until("unready", async () =>
      (await d.get("/readyz")).body.includes("the ledger of demo cannot be read"),
    );
    expect((await d.get("/readyz")).status).toBe(503);
    expect((await d.get("/healthz")).status).toBe(200);
    expect(await d.metric('imkit_rotator_ledger_readable{app="demo"}')).toBe(0);
    expect(await inState(d, "failed")).toBe(true);
    expect(await inState(d, "idle", "other")).toBe(true);
    const said = d.lines().find(({ level }) => level === "error");
    expect(said).toMatchObject({ app: "demo", code: "LEDGER_BROKEN" });
    expect(await stopped(d)).toBe(143);
  });

  it("a config that changed is said once, and counts from the next start", async () => {
    const w = await world();
    const d = await serving(w);
    expect(await d.metric("imkit_rotator_config_changed")).toBe(0);
    const text = readFileSync(w.configFile, "utf8");
    writeFileSync(w.configFile, `${text}# another line\n`);
    await until("it is seen", async () => (await d.metric("imkit_rotator_config_changed")) === 1);
    const ticks = (await d.metric("imkit_rotator_tick_duration_seconds_count")) ?? 0;
    await until(
      "two more ticks",
      async () => ((await d.metric("imkit_rotator_tick_duration_seconds_count")) ?? 0) >= ticks + 2,
    );
    expect(d.lines().filter(({ msg }) => /config file was changed.*restart/.test(String(msg)))).toHaveLength(
      1,
    );
    writeFileSync(w.configFile, text);
    await until("it is as it was", async () => (await d.metric("imkit_rotator_config_changed")) === 0);
    expect(await stopped(d)).toBe(143);
  });

  it("its pages are read only; a config or an address that cannot be used ends it with 2", async () => {
    const w = await world();
    const d = await serving(w);
    for (const method of ["POST", "PUT", "DELETE"])
      expect((await d.get("/metrics", method)).status).toBe(405);
    expect((await d.get("/")).status).toBe(404);
    expect(await d.get("/healthz", "HEAD")).toEqual({ status: 200, body: "" });
    expect(await stopped(d)).toBe(143);

    const taken = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => taken.once("listening", resolve));
    const { port } = taken.address() as { readonly port: number };
    const text = readFileSync(w.configFile, "utf8");
    writeFileSync(w.configFile, text.replace("127.0.0.1:0", `127.0.0.1:${port}`));
    const busy = await w.run(["serve"]);
    await new Promise((resolve) => taken.close(resolve));
    expect([busy.code, busy.stderr]).toMatchObject([2, expect.stringContaining("EADDRINUSE")]);
    writeFileSync(w.configFile, text.replace("every: 1s", "every: 7m"));
    const odd = await w.run(["serve"]);
    expect([odd.code, odd.stderr]).toMatchObject([
      2,
      expect.stringContaining("must be a duration that divides a minute"),
    ]);
    expect(odd.stdout).toBe("");
  });
});
