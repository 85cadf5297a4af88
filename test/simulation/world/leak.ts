import type { Alarm } from "../../../src/flow/emergency.ts";
import type { RotateOptions } from "../../../src/flow/rotate.ts";
import type { IssuedKey } from "./imkit.ts";
import type { Ended, World } from "./world.ts";

const PLAIN: Omit<RotateOptions, "waitMs"> = {
  reason: null,
  ticket: null,
  drop: [],
  restarted: false,
  acceptApp: null,
  confirm: false,
};

/** What a person says who heard of a leak. He may be wrong about the key. */
const alarmOf = (world: World, isPending: boolean): Alarm => {
  const { chance } = world;
  const s = world.state();
  const pending = s.rotation?.ended === null ? s.rotation.newFp : (s.staged?.fp ?? null);
  const way = isPending ? 0.6 : chance.next();
  const any = [...s.known];
  const leaked =
    way < 0.5
      ? null
      : way < 0.75 && pending !== null
        ? pending
        : way < 0.9 && any.length > 0
          ? chance.pick(any)
          : null;
  return {
    leaked,
    since: chance.chance(0.3) ? "2026-03-01T08:00:00.000Z" : null,
    order: chance.pick(["revoke-first", "replace-first"]),
  };
};

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
  isPending = false,
): Promise<string> => {
  const alarm = alarmOf(world, isPending);
  world.trace(() => `${name} calls ${alarm.leaked?.slice(0, 8) ?? "the key in use"} leaked, ${alarm.order}`);
  const ended = await world.command(name, (hands) =>
    world.product.rotate(hands, { ...PLAIN, waitMs, alarm }),
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
    const rotated = await world.product.rollback(hands, { ...PLAIN, waitMs: 0, acceptLeaked });
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
  const call = (): void => {
    isCalled = true;
    void callLeak(world, "alarm", chance.pick([0, 0, 0, 20_000, 60_000]));
  };

  const turns: readonly (() => void)[] = [
    call,
    () => void goBack(world, "back", chance.chance(0.5)),
    () => void goBack(world, "back", true),
    () => void world.command("discard", (hands) => product.discard(hands, chance.chance(0.3))),
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

  world.onEntry(() => {
    if (isOver() || world.isCalm() || left === 0) return;
    const soon = chance.int(0, chance.pick([30, 300, 5_000]));
    if (!isCalled && chance.chance(0.06)) {
      left--;
      isCalled = true;
      time.after(soon, call);
    } else if (chance.chance(scenario.turns)) {
      left--;
      const turn = chance.pick(scenario.leak ? turns : turns.slice(1));
      time.after(soon, () => {
        if (!isOver() && !world.isCalm()) turn();
      });
    }
  });
};
