import { randomInt } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { parseEnv } from "node:util";
import { type Daemon, FAST, startDaemon, until } from "../kit/daemon.ts";
import { findKey } from "../kit/leak.ts";
import { hookReceiver } from "../kit/receiver.ts";
import { jsonLines, lastJson, makeWorld, NO_RESTART, type World } from "../kit/world.ts";

export type Soak = {
  readonly kills: number;
  /** Rotations that ended, of all apps. */
  readonly rotations: number;
  /** What must not be; empty = all is well. */
  readonly findings: readonly string[];
};
type Person = { readonly app: string; readonly keys: string[]; rotations: number; issuedAt: number };

/**
 * `serve` over `apps` apps for `minutes`, killed by SIGKILL at random every 5 to 20 s and started again, while one person after the other issues
 * keys into inboxes and revokes what he is asked to. Afterwards it runs undisturbed until every open rotation has ended.
 */
export const soak = async ({
  minutes,
  apps,
}: {
  readonly minutes: number;
  readonly apps: number;
}): Promise<Soak> => {
  const hook = await hookReceiver();
  const people: Person[] = Array.from({ length: apps }, (_, n) => ({
    app: `app-${n}`,
    keys: [],
    rotations: 0,
    issuedAt: 0,
  }));
  const w = await makeWorld({ more: `${hook.config}\n${FAST}`, sandbox: { limit: 100_000 } });
  for (const p of people) {
    p.keys.push(w.sandbox.issue());
    for (const name of ["a", "b"]) w.setValue(`${p.app}-${name}`, p.keys[0] ?? "");
    writeFileSync(join(w.dir, `${p.app}-inbox.env`), "NEW_KEY=\n", { mode: 0o600 });
  }
  const config = readFileSync(w.configFile, "utf8").replace(
    /^ {2}demo:\n(?: {4}.*\n|\n)*/m,
    people.map((p) => appOf(w, p)).join(""),
  );
  writeFileSync(w.configFile, config);

  const printed: string[] = [];
  const findings: string[] = [];
  let [kills, daemon]: [number, Daemon | null] = [0, null];
  const over = new AbortController();
  const acting = (async () => {
    while (!over.signal.aborted) {
      for (const p of people) if (!over.signal.aborted) act(w, p, false);
      await pause(100);
    }
  })();
  const end = performance.now() + minutes * 60_000;
  try {
    while (performance.now() < end) {
      daemon = await startDaemon(w.dir);
      await pause(Math.min(randomInt(5_000, 20_000), Math.max(1_000, end - performance.now())));
      daemon.signal("SIGKILL");
      await daemon.ended;
      printed.push(daemon.printed());
      kills++;
    }
    over.abort();
    await acting;
    daemon = await startDaemon(w.dir);
    await until(
      "every open rotation ends",
      () => {
        for (const p of people) act(w, p, true);
        return people.every((p) => isAtRest(w, p));
      },
      180_000,
    );
    daemon.signal("SIGTERM");
    const { code } = await daemon.ended;
    if (code !== 143) findings.push(`the last daemon ended with ${code}`);
    printed.push(daemon.printed());
    for (const p of people) findings.push(...(await judge(w, p)));
    const ids = hook.got.map(({ id }) => id);
    // At least once; twice only where it was killed between the receiver's answer and the entry.
    if (ids.length - new Set(ids).size > kills * 4)
      findings.push(`${ids.length - new Set(ids).size} messages came twice`);
    const all = printed.join("") + hook.bodies.join("") + w.printed();
    for (const key of people.flatMap((p) => p.keys))
      if (all.includes(key)) findings.push("a key was printed");
    for (const key of [people[0]?.keys.at(-1) ?? ""])
      if (findKey(all, key).length > 0) findings.push("a piece of a key was printed");
    return { kills, rotations: people.reduce((sum, p) => sum + p.rotations, 0), findings };
  } finally {
    over.abort();
    daemon?.signal("SIGKILL");
    await daemon?.ended;
    await acting;
    await w.close();
    await hook.close();
  }
};

const appOf = (w: World, { app }: Person): string => `  ${app}:
    baseUrl: ${w.sandbox.url}
    intake: [{ type: dotenv, path: ./${app}-inbox.env, key: NEW_KEY }]
    stores:
      - { name: a, type: dotenv, path: ./${app}-a.env, key: IMKIT_API_KEY }
      - { name: b, type: dotenv, path: ./${app}-b.env, key: IMKIT_API_KEY }
    rollouts: ${NO_RESTART}
    revoke: { probes: 3, every: 10ms }
`;

const held = (w: World, app: string, name: string, key = "IMKIT_API_KEY"): string =>
  parseEnv(readFileSync(join(w.dir, `${app}-${name}.env`), "utf8"))[key] ?? "";
const eventsOf = (w: World, app: string): readonly Record<string, unknown>[] => {
  const dir = join(w.dir, "state", app, "ledger");
  const events: Record<string, unknown>[] = [];
  for (let seq = 0; ; seq++) {
    try {
      const { r } = JSON.parse(readFileSync(join(dir, `${String(seq).padStart(8, "0")}.json`), "utf8")) as {
        readonly r: { readonly events: readonly Record<string, unknown>[] };
      };
      events.push(...r.events);
    } catch {
      return events;
    }
  }
};

/** Does what the ledger says is waited for. `last`: no further rotation is begun. */
const act = (w: World, p: Person, last: boolean): void => {
  const events = eventsOf(w, p.app);
  const open =
    events.filter((e) => e["type"] === "opened").length - events.filter((e) => e["type"] === "done").length;
  p.rotations = events.filter((e) => e["type"] === "done").length;
  const given = p.keys.length - 1;
  if (open === 0 && p.rotations === given) {
    if (last || events.length === 0 || performance.now() < p.issuedAt + 3_000) return;
    const key = w.sandbox.issue();
    p.keys.push(key);
    p.issuedAt = performance.now();
    writeFileSync(join(w.dir, `${p.app}-inbox.env`), `NEW_KEY=${key}\n`, { mode: 0o600 });
    return;
  }
  const waits = events.findLast((e) => e["type"] === "waiting");
  if (open === 1 && waits?.["for"] === "revoke") w.sandbox.revoke(p.keys.at(-2) ?? "");
};

const isAtRest = (w: World, p: Person): boolean =>
  p.rotations === p.keys.length - 1 && held(w, p.app, "inbox", "NEW_KEY") === "";

/** Nothing is lost and nothing doubled. */
const judge = async (w: World, p: Person): Promise<readonly string[]> => {
  const findings: string[] = [];
  const bad = (what: string): void => void findings.push(`${p.app}: ${what}`);
  const newest = p.keys.at(-1) ?? "";
  for (const name of ["a", "b"])
    if (held(w, p.app, name) !== newest) bad(`the store ${name} does not hold the newest key`);
  const verified = lastJson((await w.run(["audit", "verify", p.app, "--json"])).stdout);
  if (verified["ok"] !== true || verified["open"] !== 0) bad(`ledger: ${JSON.stringify(verified)}`);
  const status = jsonLines((await w.run(["status", p.app, "--json"])).stdout)[0] as {
    readonly apps: readonly { readonly state: string }[];
  };
  if (status.apps[0]?.state !== "idle") bad(`state ${status.apps[0]?.state ?? "?"}`);
  const events = eventsOf(w, p.app);
  const count = (type: string) => events.filter((e) => e["type"] === type).length;
  for (const type of ["opened", "done"])
    if (count(type) !== p.keys.length - 1) bad(`${count(type)} ${type} for ${p.keys.length - 1} keys`);
  if (count("staged") !== p.keys.length - 1) bad(`${count("staged")} staged for ${p.keys.length - 1} keys`);
  const written = events.filter((e) => e["type"] === "result" && e["changed"] === true).length;
  if (written > 2 * (p.keys.length - 1)) bad(`${written} writes for ${p.keys.length - 1} keys in two stores`);
  return findings;
};
