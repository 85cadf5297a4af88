import { linkSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { startVault, type VaultServer } from "../kit/azure/server.ts";
import type { VaultRequest } from "../kit/azure/vault.ts";
import type { Ran } from "../kit/program.ts";
import type { Held, Passing } from "./four/gate.ts";
import { type Four, makeFour, movesCurrent, type StoreName, STORES, type Started } from "./four/world.ts";
import { kubernetes } from "./kubernetes.ts";

// A rotator that is silent for 90 s counts as dead, and nothing shortens that: these take about two minutes, side by side.
const kube = kubernetes(inject("kubernetes"));
const moto = inject("aws").moto;
const open = new Set<Four>();
let vault: VaultServer;
const holding = new Map<string, (request: VaultRequest) => void>();
beforeAll(async () => {
  vault = await startVault();
  vault.fault = (request) => {
    const took = request.method === "PUT" ? holding.get(request.path) : undefined;
    if (took === undefined) return null;
    holding.delete(request.path);
    took(request);
    return { how: "hang" };
  };
});
afterAll(async () => {
  await Promise.all([...open].map(async (four) => await four.close()));
  await vault?.close();
});

const ROTATE = ["rotate", "demo", "--json"];
const all = <T>(value: T) => Object.fromEntries(STORES.map((name) => [name, value]));
const must = async (ran: Promise<Ran>, code: number): Promise<Ran> => {
  const { stdout, stderr, ...end } = await ran;
  if (end.code !== code) throw new Error(`exit ${end.code}, not ${code}\n${stdout}\n${stderr}`);
  return { stdout, stderr, ...end };
};
const until = async (what: () => boolean, limitMs: number): Promise<void> => {
  const end = performance.now() + limitMs;
  while (!what()) {
    if (performance.now() > end) throw new Error(`not in ${limitMs} ms: ${String(what)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

/** What is on its way to a store when its sender stops. */
type Stopped = { readonly process: Started; readonly held: Held | null };
type Place = { readonly store: StoreName; readonly start: (w: Four) => Promise<Stopped> };

const atGate =
  (gate: "aws" | "k8s", fits: (request: Passing) => boolean) =>
  async (w: Four): Promise<Stopped> => {
    const held = w[gate].hold(fits);
    const process = await w.start(ROTATE);
    return { process, held: await held };
  };
const isPut = ({ headers }: Passing) => headers["x-amz-target"] === "secretsmanager.PutSecretValue";
const isPatch = ({ method, path }: Passing) => method === "PATCH" && !path.includes("dryRun");

const PLACES: Readonly<Record<string, Place>> = {
  "aws, the new version": { store: "aws", start: atGate("aws", isPut) },
  "aws, the switch to it": { store: "aws", start: atGate("aws", movesCurrent) },
  kubernetes: { store: "k8s", start: atGate("k8s", isPatch) },
  azure: {
    store: "azure",
    start: async (w) => {
      const { promise, resolve } = Promise.withResolvers<VaultRequest>();
      holding.set(`/secrets/${w.azure}`, resolve);
      const process = await w.start(ROTATE);
      const request = await promise;
      return { process, held: { release: async () => vault.vault.handle(request).status } };
    },
  },
  dotenv: {
    store: "env",
    // Two names: such a file is written in place. The system call itself is held for longer than everything else here takes.
    start: async (w) => {
      linkSync(join(w.dir, "env.env"), join(w.dir, "second-name"));
      const hold = [
        "-etrace=pwrite64",
        "-einject=pwrite64:delay_enter=150s:when=1",
        "-P",
        join(w.dir, "env.env"),
      ];
      const process = await w.traced(ROTATE, hold);
      await until(() => process.log().includes("pwrite64("), 60_000);
      return { process, held: null };
    },
  },
};
/** Where the store itself refuses what comes late. */
const REFUSED: readonly string[] = ["aws, the switch to it", "kubernetes"];
/** Where it lands, and puts an older key back. */
const LANDS: readonly string[] = ["azure", "dotenv"];

test.concurrent.each(Object.entries(PLACES))(
  "%s: stopped while its write is on the way, woken after another one took over and went on",
  { timeout: 420_000 },
  async (name, { store, start }) => {
    const w = await makeFour({ moto, kube, vault });
    open.add(w);
    const [first, second] = [w.sandbox.firstKey(), w.sandbox.issue()];
    await must(w.run(["stage", "demo", "--from-stdin"], second), 0);
    const { process: paused, held } = await start(w);
    const claim = w.claim();
    process.kill(claim.pid, "SIGSTOP");

    const away = await must(w.run(ROTATE), 6);
    expect(away.stdout).toContain('"code":"LOCKED"');
    await must(w.run([...ROTATE, "--wait=100s"]), 3);
    expect(await w.values()).toEqual(all(second));
    w.sandbox.revoke(first);
    await must(w.run(["confirm-revoked", "demo"]), 0);
    const third = w.sandbox.issue();
    await must(w.run(["stage", "demo", "--from-stdin"], third), 0);
    await must(w.run(ROTATE), 3);
    expect(await w.values()).toEqual(all(third));

    const status = await held?.release();
    if (store === "env") await until(() => w.value() === second, 150_000);
    expect(status === undefined || status >= 400).toBe(REFUSED.includes(name) || store === "env");
    expect(await w.values()).toEqual({ ...all(third), ...(LANDS.includes(name) ? { [store]: second } : {}) });
    const seen = await w.status();
    expect([seen.code, w.stateOf(seen, store)]).toEqual(LANDS.includes(name) ? [5, "drift"] : [0, "in-sync"]);
    // Somebody revokes all the same: nothing ends as long as a store holds a key that is dead by then.
    w.sandbox.revoke(second);
    if (LANDS.includes(name)) await w.run(["confirm-revoked", "demo"]);
    const ends = w.events().filter(({ type }) => type === "done").length;
    expect(ends === 1 || (await w.values())[store] === third).toBe(true);

    process.kill(claim.pid, "SIGCONT");
    const woken = await must(paused.ended, 6);
    expect(woken.stdout).toContain('"code":"LOCKED"');
    expect(w.lateEffects(claim.inst)).toContain(store);

    await w.run(ROTATE);
    await w.run(["confirm-revoked", "demo"]);
    expect(await w.values()).toEqual(all(third));
    await must(w.status(), 0);
    expect(w.events().filter(({ type }) => type === "done")).toHaveLength(2);
    await must(w.run(["audit", "verify", "demo", "--stores"]), 0);
    // What landed late is not left in use beside the current version.
    const versions = vault.vault.versions(w.azure);
    expect(versions.filter(({ attributes, value }) => attributes.enabled && value !== third)).toEqual([]);
    expect(
      Object.values(await w.labels())
        .flat()
        .filter((label) => label.startsWith("AWS")),
    ).toEqual(["AWSCURRENT"]);
    expect(w.leaks()).toEqual([]);
  },
);
