import type { IssuedKey } from "./imkit.ts";
import { callLeak, goBack, stopLeak } from "./leak.ts";
import type { Ended, World } from "./world.ts";
import { PLAIN_ROTATE } from "../../kit/rotate-options.ts";

/** How the story of a world ended for its people. */
export type End = { readonly how: "done" | "stuck"; readonly rounds: number; readonly last: string };

/** Rounds of commands in which it has to end once nothing goes wrong any more; before that it may take what it takes. */
const PEACE_ROUNDS = 40;
const MOST_ROUNDS = 400;

/** The person who rotates the key: does what the program says, and errs as the scenario wants. */
export const operator = async (world: World): Promise<End> => {
  const { product, chance, scenario, imkit } = world;
  let mine = null as IssuedKey | null;
  let isStaged = false;
  let insists = false;
  let last = "";
  let peaceRounds = 0;

  const issue = (): IssuedKey => {
    const isWrong = !world.isCalm() && chance.chance(scenario.wrongApp);
    const key = imkit.issue(isWrong ? "app-2" : "app-1");
    world.trace(() => `a person issues ${world.show(key.text)}${isWrong ? " of another app" : ""}`);
    return key;
  };

  const stage = async (replace: boolean): Promise<void> => {
    mine ??= issue();
    const key = mine;
    const ended = await world.command("stage", (hands) =>
      product.stage(hands, new product.Secret(key.text), { source: "prompt", replace }),
    );
    last = `stage ${outcomeOf(ended)}`;
    if (ended.kind === "returned") {
      isStaged = true;
      world.checks.acknowledged(key.text);
    }
    if (ended.kind === "failed" && ended.code === "KEY_DEAD") mine = null;
    if (ended.kind === "failed" && ended.code === "KEY_STAGED_ALREADY") {
      if (chance.chance(0.5)) await stage(true);
      else isStaged = true;
    }
    // The key was shown once: who was told that it is safe may close the window, others try again or give it up.
    if (ended.kind === "killed" && chance.chance(0.1)) mine = null;
  };

  const revoke = (): void => {
    const s = world.state();
    const olds = [...s.old.keys()];
    for (const key of imkit.keys.values()) {
      if (key.revokedAt !== null) continue;
      if (olds.includes(world.fpOf(key.text))) {
        world.trace(() => `a person revokes ${world.show(key.text)}`);
        imkit.revoke(key.text);
      }
    }
  };

  const revokeWrong = (): void => {
    const fp = world.state().rotation?.newFp ?? "";
    for (const key of imkit.keys.values()) {
      if (world.fpOf(key.text) !== fp) continue;
      world.trace(() => `a person revokes the wrong key, ${world.show(key.text)}`);
      imkit.revoke(key.text);
    }
  };

  const options = (restarted: boolean, drop: readonly string[]) => ({
    reason: null,
    ticket: null,
    drop,
    restarted,
    // The first key that anybody took for ours may have been the stranger.
    acceptApp: insists
      ? new product.Secret("client-key-of-app-1").fingerprint(world.state().salt ?? "")
      : null,
    confirm: false,
    waitMs: chance.chance(0.2) ? chance.pick([10_000, 10_000, 10_000, 110_000]) : 0,
  });

  const rotate = async (restarted = false, drop: readonly string[] = []): Promise<string> => {
    const chosen = options(restarted, drop);
    const ended = await world.command("rotate", (hands) => product.rotate(hands, chosen));
    last = `rotate ${outcomeOf(ended)}`;
    if (ended.kind === "failed") return ended.code;
    if (ended.kind === "killed") return "killed";
    world.checks.returned(ended.proc, ended.value.state);
    if (ended.value.phase === "waiting-revoke" && product.isOpen(ended.value.state))
      world.checks.saysRevoke(ended.proc);
    return ended.value.phase;
  };

  const confirm = async (waive: string | null): Promise<void> => {
    const waitMs = chance.pick([0, 30_000]);
    const ended = await world.command("confirm", (hands) =>
      product.confirmRevoked(hands, { waitMs, waive, key: null }),
    );
    last = `confirm ${outcomeOf(ended)}`;
  };

  const waitMs = (): number => (chance.chance(0.15) ? 200_000 : chance.int(500, 30_000));

  for (let round = 1; round <= MOST_ROUNDS && peaceRounds <= PEACE_ROUNDS; round++) {
    if (world.violations().length > 0) return { how: "stuck", rounds: round, last };
    if (world.isCalm()) peaceRounds++;
    if (round === 1 && scenario.leak && chance.chance(0.3)) {
      last = `alarm ${await callLeak(world, "rotate", 0)}`;
      if (chance.chance(0.5)) stopLeak(world);
      if (chance.chance(0.1)) last = `rollback ${await goBack(world, "rollback", chance.chance(0.8))}`;
    }
    if (!isStaged) await stage(peaceRounds > 5);
    if (!world.isCalm() && scenario.leak && chance.chance(0.1))
      last = `alarm ${await callLeak(world, "rotate", 0, chance.chance(0.7) ? "pending" : "any")}`;
    if (!world.isCalm() && chance.chance(scenario.changesMind)) {
      const forget = chance.chance(0.3);
      const ended = await world.command("discard", (hands) => product.discard(hands, forget));
      last = `discard ${outcomeOf(ended)}`;
      if (ended.kind === "returned" && ended.value.fp !== null) {
        isStaged = false;
        mine = null;
        continue;
      }
    }
    if (!world.isCalm() && chance.chance(scenario.rollsBack))
      last = `rollback ${await goBack(world, "rollback", chance.chance(0.5))}`;
    const before = world.state();
    const answer = await rotate();
    switch (answer) {
      case "idle":
      case "new": {
        const s = world.state();
        const isOurs = mine !== null && s.current === world.fpOf(mine.text);
        if (s.rotation?.ended === "done" && s.staged === null && (isOurs || scenario.colleague > 0)) {
          return { how: "done", rounds: round, last };
        }
        isStaged = false;
        if (s.current === world.fpOf(mine?.text ?? "")) mine = null;
        break;
      }
      case "staged":
        break;
      case "waiting-key":
        if (world.state().rotation?.emergency?.order === "revoke-first" && chance.chance(0.7))
          stopLeak(world);
        mine = null;
        isStaged = false;
        break;
      case "wrong-key-revoked":
        if (
          chance.chance(0.6) &&
          (await goBack(world, "rollback", chance.chance(0.3))) !== "ROLLBACK_REFUSED"
        )
          break;
        mine = null;
        isStaged = false;
        break;
      case "PLAN_CHANGED": {
        const gone = [...world.missing];
        last = `${last} ${gone.join(" ")}`;
        // What is put back is as it was; what is dropped stays where it is.
        if (!world.isCalm() && chance.chance(0.5)) await rotate(false, gone);
        else world.missing.clear();
        break;
      }
      case "blackout":
        mine = null;
        isStaged = false;
        break;
      case "waiting-restart": {
        await world.sleep(waitMs());
        for (const w of world.workloads.values()) if (w.how === "manual") world.restart(w);
        await rotate(true);
        break;
      }
      case "waiting-revoke": {
        await world.sleep(waitMs());
        if (!world.isCalm() && chance.chance(scenario.never)) break;
        if (!world.isCalm() && chance.chance(scenario.revokesWrong)) revokeWrong();
        // Some ask first, and revoke then.
        else if (world.isCalm() || !chance.chance(0.1)) revoke();
        await world.sleep(chance.int(0, 20_000));
        await confirm(null);
        break;
      }
      case "failed": {
        const r = world.state().rotation;
        const code = r === null ? "" : (product.failureOf(r)?.code ?? "");
        last = `${last} ${code}`;
        const key = [...imkit.keys.values()].find((k) => world.fpOf(k.text) === r?.newFp);
        const isDoubted = code === "KEY_REJECTED" || code === "IMKIT_UNCLEAR";
        // Who still has the key gives it once more; else another one has to do.
        if (code === "ESCROW_LOST") {
          if (chance.chance(0.5)) mine = key?.revokedAt === null ? key : null;
          await stage(chance.chance(0.5) || world.isCalm());
        }
        if (code === "WRONG_APP" && key?.app === "app-1") insists = true;
        else if (code === "WRONG_APP" || (isDoubted && key?.revokedAt !== null)) {
          mine = null;
          await stage(true);
        }
        const isConflict =
          code === "STORE_CONFLICT" || (r !== null && product.failureOf(r)?.detail === "CONFLICT");
        if (isConflict && (world.isCalm() || chance.chance(0.3))) mend(world);
        await world.sleep(waitMs());
        break;
      }
      case "LOCKED":
        await world.sleep(chance.int(30_000, 110_000));
        break;
      case "ADOPTION_UNCLEAR":
      case "ADOPTION_REFUSED": {
        await world.sleep(waitMs());
        const values = [...world.stores.values()].flatMap((s) =>
          s.value === null || world.missing.has(s.plan.name) ? [] : [s.value],
        );
        const current =
          values.find((v) => v === world.first?.text) ?? values.find((v) => imkit.works(v)) ?? values[0];
        if (current === undefined) break;
        const choice = world.fpOf(current);
        const ended = await world.command("adopt", async (hands) => {
          const journal = await product.openJournal(hands);
          const pending = journal.state().staged?.fp ?? null;
          await product.adopt(hands, journal, product.openKeys(hands, journal), { choice, pending });
        });
        last = `adopt ${outcomeOf(ended)}`;
        break;
      }
      default:
        await world.sleep(waitMs());
    }
    if (world.isCalm() && peaceRounds > 6 && before.old.size > 0) await confirm("the key is gone");
  }
  return { how: "stuck", rounds: peaceRounds, last };
};

/** A stranger's value is taken out of the way by hand: the key that the ledger calls current is put back. */
const mend = (world: World): void => {
  const s = world.state();
  const current = [...world.imkit.keys.values()].find((k) => world.fpOf(k.text) === s.current);
  for (const store of world.stores.values()) {
    const fp = store.value === null ? null : world.fpOf(store.value);
    const isKnown =
      fp === null || fp === s.current || fp === s.rotation?.newFp || s.lastSeen.get(store.plan.name) === fp;
    if (!isKnown) world.edit(store, current?.text ?? null);
  }
};

const outcomeOf = (ended: Ended<unknown>): string => {
  if (ended.kind === "failed") return ended.code;
  if (ended.kind === "killed") return "killed";
  const { value } = ended;
  return typeof value === "object" && value !== null && "phase" in value ? String(value.phase) : "ok";
};

/** Unattended passes beside the person. */
export const cron = async (world: World, isOver: () => boolean): Promise<void> => {
  const { chance, scenario, product } = world;
  if (scenario.cronEvery === 0) return;
  const options = {
    ...PLAIN_ROTATE,
    waitMs: chance.pick([0, 0, 0, 0, 25_000, 100_000]),
  };
  while (!isOver() && !world.isCalm()) {
    await world.sleep(chance.int(1_000, 2 * scenario.cronEvery));
    const tick = world
      .command("cron", (hands) => product.rotate(hands, options))
      .then((ended) => {
        if (ended.kind !== "returned" || ended.value.phase !== "waiting-revoke") return;
        if (product.isOpen(ended.value.state)) world.checks.saysRevoke(ended.proc);
      });
    if (!chance.chance(0.2)) await tick;
  }
};

/** Another person who also has a new key, and takes it in whatever is going on. */
export const colleague = async (world: World): Promise<void> => {
  const { chance, scenario, product } = world;
  if (!chance.chance(scenario.colleague)) return;
  for (let tries = chance.int(1, 3); tries > 0 && !world.isCalm(); tries--) {
    await world.sleep(chance.int(500, chance.pick([5_000, 60_000])));
    const key = world.imkit.issue("app-1");
    world.trace(() => `a colleague issues ${world.show(key.text)}`);
    const ended = await world.command("colleague", (hands) =>
      product.stage(hands, new product.Secret(key.text), { source: "prompt", replace: chance.chance(0.7) }),
    );
    if (ended.kind === "returned") world.checks.acknowledged(key.text);
  }
};

/** Those who know nothing of the rotation: they edit stores, revoke keys, and IMKIT has bad days. */
export const strangers = (world: World): void => {
  const { chance, scenario, time, imkit } = world;
  if (scenario.calm) return;
  const soon = (): number => chance.int(1_000, chance.pick([30_000, 120_000, 600_000]));
  for (let i = 0; i < scenario.strangers; i++) {
    time.after(soon(), () => {
      if (world.isCalm()) return;
      const store = chance.pick([...world.stores.values()]);
      const old = world.first?.text ?? null;
      const value = chance.pick([old, old, null, "foreign"]);
      if (value !== "foreign") return world.edit(store, value);
      const key = Object.assign(imkit.issue("app-1"), { worksAt: 0 });
      if (chance.chance(0.5)) imkit.revoke(key.text);
      world.edit(store, key.text);
    });
  }
  if (chance.chance(scenario.revokesEarly)) {
    time.after(soon(), () => {
      if (world.first === null || world.isCalm()) return;
      const { text } = world.first;
      world.trace(() => `a person revokes ${world.show(text)} early`);
      imkit.revoke(text);
    });
  }
  for (const kind of ["down", "throttled", "flapping"] as const) {
    if (!chance.chance(0.12)) continue;
    const from = soon();
    imkit.trouble(from, from + chance.int(2_000, 120_000), kind);
  }
  if (chance.chance(0.05)) world.ledger.full(soon(), time.now() + chance.int(10_000, 200_000));
};
