import { RotatorError } from "../core/errors.ts";
import { type Fp, showFp } from "../core/secret.ts";
import { type AppState, isOpen, unproved } from "../core/state.ts";
import { awaitFree, takenOver } from "./claim.ts";
import { maySpare } from "./close.ts";
import type { Hands } from "./hands.ts";
import { isInterrupt } from "./interrupt.ts";
import { type Journal, openJournal, Superseded } from "./journal.ts";
import { type Keys, openKeys } from "./keys.ts";
import { pendingKey, settle } from "./open.ts";
import { examine } from "./probing.ts";
import { prepare, type RotateOptions, type Rotated, work } from "./rotate.ts";

export type RollbackOptions = Omit<RotateOptions, "alarm" | "confirm"> & {
  /** A person accepts to go back to a key that is known to have leaked. */
  readonly acceptLeaked: boolean;
};

/**
 * Swaps the roles inside the open rotation: the key that it began with is the new one again, and the other one has to die. Then the same loop.
 * Said again, it goes on with it.
 * @returns null when nothing is open
 * @throws RotatorError ROLLBACK_REFUSED, and as `rotate` does
 */
export const rollback = async (hands: Hands, options: RollbackOptions): Promise<Rotated | null> => {
  const ms = hands.clock.now();
  const journal = await openJournal(hands);
  if (!isOpen(journal.state())) return null;
  const said = { heldAt: journal.state().rotation?.heldAt ?? 0, ms };
  const until = hands.clock.monotonic() + options.waitMs;
  const left = (): number => Math.max(0, until - hands.clock.monotonic());
  if (journal.state().claim !== null) await awaitFree(hands, journal, left());
  const keys = openKeys(hands, journal);
  if (!isOpen(journal.state())) return null;
  await prepare(hands, journal, keys);
  const id = journal.state().rotation?.id ?? null;
  await settle(journal, async () => {
    await awaitFree(hands, journal, left());
    const s = journal.state();
    const r = isOpen(s) ? s.rotation : null;
    if (r === null || r.id !== id || r.rolledBack) return [];
    const to = await wayBack(hands, s, keys, options.acceptLeaked);
    if (r.newFp === null && r.intents.size === 0)
      return [
        // The next rotation may want in escrow what this one takes out.
        { type: "claimed", ...hands.host.claim, rotation: r.id },
        { type: "abandoned", rotation: r.id, why: "the leak was taken back before anything was written" },
      ];
    return [{ type: "rollback-requested", rotation: r.id, to }];
  });
  const { rotation, claim } = journal.state();
  if (rotation?.ended === "abandoned" && claim?.inst === hands.host.claim.inst)
    await clearEscrow(hands, journal, keys, rotation.id);
  return work(hands, journal, keys, { ...options, waitMs: left(), confirm: false }, id, said);
};

/**
 * The key in use leaves escrow while a store shows it and no rotation needs it there any more. Told to stop, it stays: the next rotation takes
 * it out.
 */
const clearEscrow = async (hands: Hands, journal: Journal, keys: Keys, rotation: string): Promise<void> => {
  const { inst } = hands.host.claim;
  const pass = { hands, journal, keys, looking: hands.signal };
  const isOver = (fp: Fp): boolean => {
    const s = journal.state();
    return fp === s.current && fp !== pendingKey(journal) && !unproved(s).includes(fp);
  };
  try {
    for (const fp of await hands.escrow.list())
      if (isOver(fp) && (await maySpare(pass, fp, true)) && isOver(fp)) await keys.drop(fp);
  } catch (error) {
    if (error instanceof Superseded) throw takenOver(hands.app.name);
    if (!isInterrupt(error)) throw error;
  } finally {
    await settle(journal, () =>
      journal.state().claim?.inst === inst ? [{ type: "released", inst, rotation }] : [],
    ).catch(() => {});
  }
};

/** The key to go back to. @throws RotatorError ROLLBACK_REFUSED */
const wayBack = async (hands: Hands, s: AppState, keys: Keys, acceptLeaked: boolean): Promise<Fp> => {
  const app = hands.app.name;
  const fp = s.current;
  const refuse = (why: string, steps: readonly string[]): never => {
    throw new RotatorError("ROLLBACK_REFUSED", {
      why,
      state: "The rotation stays as it was; nothing was written.",
      do: steps,
    });
  };
  const forward = [`imkit-rotator rotate ${app}`];
  const another = [
    "Issue another API Key in the Dashboard",
    `imkit-rotator stage ${app} --replace`,
    ...forward,
  ];
  if (fp === null)
    return refuse("There was no key before this rotation, so there is none to go back to.", forward);
  if (s.rotation?.closing === true)
    return refuse(`The old key ${showFp(fp)} is proved dead; the rotation is closing.`, forward);
  if (s.leaked.has(fp) && !acceptLeaked) {
    const isDead = s.rotation?.newFp != null && s.verdicts.get(s.rotation.newFp)?.verdict === "rejected";
    return refuse(`The old key ${showFp(fp)} is marked as leaked.`, [
      ...(isDead ? another : forward),
      `imkit-rotator rollback ${app} --accept-leaked   # only if the leak was a false alarm`,
    ]);
  }
  const key = await keys.get(fp);
  if (key === null) return refuse(`The old key ${showFp(fp)} is neither in escrow nor in a store.`, another);
  const { verdict, why } = await examine(hands, key, hands.signal);
  if (verdict === "accepted") {
    await keys.keep(fp, key);
    return fp;
  }
  return verdict === "rejected"
    ? refuse(`IMKIT rejects the old key ${showFp(fp)}: it is dead, and no way leads back to it.`, another)
    : refuse(`IMKIT gave no clear answer on the old key ${showFp(fp)}${why === "" ? "" : ` (${why})`}.`, [
        `imkit-rotator doctor ${app}`,
        `imkit-rotator rollback ${app}`,
      ]);
};
