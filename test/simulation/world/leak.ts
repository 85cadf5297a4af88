import type { Entry } from "../../../src/core/events.ts";
import type { Alarm } from "../../../src/flow/emergency.ts";
import type { IssuedKey } from "./imkit.ts";
import type { Ended, World } from "./world.ts";
import { PLAIN_ROTATE } from "../../kit/rotate-options.ts";

/** Which key a person takes for the leaked one: he may be wrong. */
export type Guess = "any" | "pending" | "stale";

const guess = (world: World, which: Guess): string | null => {
  const { chance } = world;
  const s = world.state();
  const pending = s.rotation?.ended === null ? s.rotation.newFp : (s.staged?.fp ?? null);
  const [discarded] = [...s.old].find(([, key]) => key.discarded) ?? [null];
  if (which === "pending") return pending;
  if (which === "stale") return chance.pick([...s.stale, null]);
  const way = chance.next();
  if (way < 0.45) return null;
  if (way < 0.65) return pending;
  if (way < 0.75) return discarded;
  return chance.pick([...s.known, null]);
};

const alarmOf = (world: World, which: Guess): Alarm => ({
  leaked: guess(world, which),
  since: world.chance.chance(0.3) ? "2026-03-01T08:00:00.000Z" : null,
  order: world.chance.pick(["revoke-first", "replace-first"]),
});

type Says = { readonly phase: string };

/** Reads what a command says at its end, and takes it at its word. */
const heard = (world: World, ended: Ended<Says & { readonly state: ReturnType<World["state"]> }>): string => {
  if (ended.kind === "failed") return ended.code;
  if (ended.kind === "killed") return "killed";
  const { phase, state } = ended.value;
  world.checks.returned(ended.proc, state);
  if (phase === "waiting-revoke" && world.product.isOpen(state)) world.checks.saysRevoke(ended.proc);
  return phase;
};

/** @returns what it came to: a phase or an error code */
export const callLeak = async (
  world: World,
  name: string,
  waitMs: number,
  which: Guess = "any",
): Promise<string> => {
  const alarm = alarmOf(world, which);
  world.trace(() => `${name} calls ${alarm.leaked?.slice(0, 8) ?? "the key in use"} leaked, ${alarm.order}`);
  const ended = await world.command(name, (hands) =>
    world.product.rotate(hands, { ...PLAIN_ROTATE, waitMs, alarm }),
  );
  const { rotation } = world.state();
  const isUnheard = rotation?.ended === null && !rotation.closing && rotation.emergency === null;
  const says = heard(world, ended);
  if (says === "LOCKED" && isUnheard) world.violated(`${name} calls a key leaked and is turned away`);
  return says;
};

export const goBack = async (world: World, name: string, acceptLeaked: boolean): Promise<string> => {
  const ended = await world.command(name, async (hands) => {
    if (acceptLeaked) world.checks.acceptsLeaked(hands.host.claim.inst);
    const rotated = await world.product.rollback(hands, { ...PLAIN_ROTATE, waitMs: 0, acceptLeaked });
    return { phase: rotated?.phase ?? "nothing", state: rotated?.state ?? world.state() };
  });
  return heard(world, ended);
};

const keysOf = (world: World, fps: readonly (string | null | undefined)[]): readonly IssuedKey[] =>
  [...world.imkit.keys.values()].filter((k) => k.revokedAt === null && fps.includes(world.fpOf(k.text)));

const revokeAll = (world: World, why: string, keys: readonly IssuedKey[]): void => {
  for (const key of keys) {
    world.trace(() => `a person revokes ${world.show(key.text)}: ${why}`);
    world.imkit.revoke(key.text);
  }
};

/** The vendor's order: whatever leaked is revoked at once. */
export const stopLeak = (world: World): void => {
  const { emergency, newFp } = world.state().rotation ?? { emergency: null, newFp: null };
  const leaked = (emergency?.leaked ?? []).filter((fp) => fp !== newFp);
  revokeAll(world, "it leaked", keysOf(world, leaked));
};

/** Somebody else takes a wrong turn or a way back in the worst moment. */
export const wrongTurns = (world: World, isOver: () => boolean): void => {
  const { chance, scenario, time, imkit, product } = world;
  if (scenario.calm || (scenario.turns === 0 && !scenario.leak)) return;
  let left = chance.int(1, 4);
  let isCalled = !scenario.leak;
  const call = (which: Guess = "any"): void => {
    isCalled = true;
    void callLeak(world, "alarm", chance.pick([0, 0, 0, 20_000, 60_000]), which);
  };

  const turns: readonly (() => void)[] = [
    () => call(),
    () => void goBack(world, "back", chance.chance(0.5)),
    () => void goBack(world, "back", true),
    () => void world.command("discard", (hands) => product.discard(hands, chance.chance(0.5))),
    () => revokeAll(world, "the wrong one", keysOf(world, [world.state().rotation?.newFp])),
    () => revokeAll(world, "an old one", keysOf(world, [chance.pick([...world.state().old.keys(), null])])),
    () => revokeAll(world, "both", keysOf(world, [world.state().rotation?.newFp, world.state().current])),
    () => stopLeak(world),
    () => {
      const held = [...world.stores.values()].flatMap((s) => (s.value === null ? [] : [s.value]));
      if (held.length === 0) return;
      const choice = world.fpOf(chance.pick(held));
      void world.command("adopt", async (hands) => {
        const journal = await product.openJournal(hands);
        const pending = journal.state().staged?.fp ?? null;
        await product.adopt(hands, journal, product.openKeys(hands, journal), { choice, pending });
      });
    },
    () => {
      const blobs = [...world.escrow.blobs.keys()];
      if (blobs.length === 0) return;
      const fp = chance.pick(blobs);
      world.checks.taken(fp);
      world.escrow.lose(fp);
    },
    () => world.restart(chance.pick([...world.workloads.values()])),
    () => {
      const { current } = world.state();
      const known = [...imkit.keys.values()].find((k) => world.fpOf(k.text) === current);
      world.edit(chance.pick([...world.stores.values()]), known?.text ?? null);
    },
    () => {
      const third = Object.assign(imkit.issue("app-1"), { worksAt: 0 });
      if (chance.chance(0.5)) imkit.revoke(third.text);
      world.edit(chance.pick([...world.stores.values()]), third.text);
    },
    () => {
      const key = imkit.issue("app-1");
      void world
        .command("colleague", (hands) =>
          product.stage(hands, new product.Secret(key.text), { source: "prompt", replace: true }),
        )
        .then((ended) => {
          if (ended.kind === "returned") world.checks.acknowledged(key.text);
        });
    },
    () => {
      const name = chance.pick([...world.stores.keys(), ...world.workloads.keys()]);
      // An app needs a store, and a mirror what it follows.
      const isNeeded = [...world.stores.values()].some((s) => s.follows === name || world.stores.size === 1);
      if (isNeeded && world.stores.has(name)) return;
      if (!world.missing.delete(name)) world.missing.add(name);
      world.trace(() => `the config ${world.missing.has(name) ? "loses" : "gets"} ${name}`);
    },
  ];

  /** The worst moments for it to be called out. */
  const moment = ({ events }: Entry): Guess | null => {
    if (events.some((e) => e.type === "closing")) return "pending";
    const isWrite = events.some((e) => e.type === "intent" && e.action === "write");
    return isWrite && world.state().stale.size > 0 ? "stale" : null;
  };

  world.onEntry((_, entry) => {
    if (isOver() || world.isCalm() || left === 0) return;
    const soon = chance.int(0, chance.pick([30, 300, 5_000]));
    const worst = isCalled ? null : moment(entry);
    if (!isCalled && chance.chance(worst === null ? 0.05 : 0.3)) {
      left--;
      isCalled = true;
      time.after(worst === null ? soon : chance.int(0, 400), () => call(worst ?? "any"));
    } else if (chance.chance(scenario.turns)) {
      left--;
      const turn = chance.pick(scenario.leak ? turns : turns.slice(1));
      time.after(soon, () => {
        if (!isOver() && !world.isCalm()) turn();
      });
    }
  });
};
