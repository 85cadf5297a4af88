import { RotatorError } from "../core/errors.ts";
import type { LedgerEvent, Mode, SameApp, Verdict } from "../core/events.ts";
import { needsAnother } from "../core/next.ts";
import { type Fp, type Secret, showFp } from "../core/secret.ts";
import { type AppState, isOpen } from "../core/state.ts";
import { absorbEscrow } from "./absorb.ts";
import { adopt } from "./adopt.ts";
import type { Hands } from "./hands.ts";
import { isInterrupt } from "./interrupt.ts";
import { type Journal, openJournal } from "./journal.ts";
import { type Keys, openKeys } from "./keys.ts";
import { ensureGenesis, pendingKey, settle } from "./open.ts";
import { acceptedAt } from "./probing.ts";
import { type Look, look, newsOfOld, UNSEEN } from "./stage-look.ts";

export type StageOptions = {
  readonly source: "prompt" | "stdin" | "file" | "env" | "inbox";
  readonly replace: boolean;
};
export type StageResult = {
  readonly fp: Fp;
  readonly verdict: Verdict;
  readonly why: string;
  readonly mode: Mode | null;
  readonly sameApp: SameApp;
  readonly appFingerprint: string | null;
  readonly state: AppState;
  readonly head: { readonly seq: number; readonly h: string } | null;
};

/**
 * Takes a new key in: escrow first (it is the journal of the key), then IMKIT's verdict, then the ledger. When it returns the key is durable,
 * whatever the verdict. Adopts the stores' present state on the way if that is unambiguous, and never fails because of it.
 * @throws RotatorError KEY_DEAD, KEY_STAGED_ALREADY, ESCROW_FAILED, LEDGER_*; in each case nothing was stored.
 */
export const stage = async (hands: Hands, key: Secret, options: StageOptions): Promise<StageResult> => {
  const journal = await openJournal(hands);
  await ensureGenesis(hands, journal);
  const keys = openKeys(hands, journal);
  const fp = key.fingerprint(journal.state().salt ?? "");
  refuseKnown(hands, journal.state(), fp);
  refuseSecond(hands, journal, fp, options);
  // The rotation that is closing has it already, and takes it out of escrow.
  if (!isClosing(journal.state(), fp)) await keys.keep(fp, key);
  const seen = await lookAround(hands, journal, keys, { fp, key });
  let dropped: Fp | null = null;
  await settle(journal, async () => {
    try {
      refuseKnown(hands, journal.state(), fp);
      refuseSecond(hands, journal, fp, options);
    } catch (error) {
      // Someone else was faster. Where the ledger does not name this key, nobody counts on it.
      if (!journal.state().known.has(fp)) await hands.escrow.remove(fp);
      throw error;
    }
    // Whoever discarded it meanwhile took it out of escrow.
    const isGone = !isClosing(journal.state(), fp) && (await hands.escrow.get(fp)) === null;
    if (isGone) await hands.escrow.put(fp, key);
    const pending = pendingKey(journal);
    dropped = pending !== null && pending !== fp && isForeign(journal.state(), pending) ? pending : null;
    return [...stagedEvents(journal, fp, seen, options.source), ...newsOfOld(journal, keys, fp, seen.old)];
  });
  if (dropped !== null) await dropBlob(hands, journal, dropped);
  return {
    fp,
    verdict: seen.examined.verdict,
    why: seen.examined.why,
    mode: seen.mode,
    sameApp: seen.sameApp,
    appFingerprint: seen.appFingerprint,
    state: journal.state(),
    head: journal.head(),
  };
};

const lookAround = async (
  hands: Hands,
  journal: Journal,
  keys: Keys,
  { fp, key }: { readonly fp: Fp; readonly key: Secret },
): Promise<Look> => {
  try {
    await absorbEscrowBut(hands, journal, keys, fp);
    await adoptIfClear(hands, journal, keys, fp);
    if (journal.state().current === fp) {
      if (!isOpen(journal.state())) await hands.escrow.remove(fp);
      refuseKnown(hands, journal.state(), fp);
    }
    return await look(hands, journal, keys, key);
  } catch (error) {
    if (isInterrupt(error)) return UNSEEN;
    throw error;
  }
};

const stagedEvents = (
  journal: Journal,
  fp: Fp,
  seen: Look,
  source: StageOptions["source"],
): readonly LedgerEvent[] => {
  const s = journal.state();
  const pending = pendingKey(journal);
  const open = isOpen(s) && s.rotation?.closing === false ? s.rotation : null;
  const isThere = (open === null ? pending : open.newFp) === fp;
  const told = s.verdicts.get(fp)?.verdict === seen.examined.verdict;
  if ((isThere && (told || seen === UNSEEN)) || isClosing(s, fp)) return [];
  const into = open === null ? {} : { rotation: open.id };
  return [
    {
      type: "staged",
      fp,
      verdict: seen.examined.verdict,
      source,
      sameApp: seen.sameApp,
      appFingerprint: seen.appFingerprint,
      ...acceptedAt(seen.examined.verdict, seen.examined.askedTs),
      ...(pending !== null && pending !== fp && !isForeign(s, pending) ? { replaces: pending } : {}),
      ...into,
    },
  ];
};

/** Takes a key out of escrow that was given up, unless somebody has taken it in again by now. */
const dropBlob = async (hands: Hands, journal: Journal, fp: Fp): Promise<void> => {
  await journal.refresh();
  const key = journal.state().old.get(fp);
  const isNeeded = pendingKey(journal) === fp || (key !== undefined && !key.proved && !key.waived);
  if (!isNeeded) await hands.escrow.remove(fp);
};

const isClosing = (s: AppState, fp: Fp): boolean =>
  isOpen(s) && s.rotation?.closing === true && s.rotation.newFp === fp;

/** @throws RotatorError KEY_STAGED_ALREADY for a key beside another one that still has a future. */
const refuseSecond = (hands: Hands, journal: Journal, fp: Fp, options: StageOptions): void => {
  const before = pendingKey(journal);
  if (before === null || before === fp || options.replace || needsAnother(journal.state())) return;
  throw new RotatorError("KEY_STAGED_ALREADY", {
    why: `The key ${showFp(before)} is staged and is not the one that was given.`,
    state: "The staged key stays; the one that was given was not stored.",
    do: [
      `imkit-rotator rotate ${hands.app.name}                # go on with ${showFp(before)}`,
      `imkit-rotator stage ${hands.app.name} --replace       # take the other one instead`,
    ],
  });
};

/** A key of another app never joins the old set; IMKIT could not prove it dead by our app anyway. */
const isForeign = (s: AppState, fp: Fp): boolean =>
  (s.staged?.fp === fp && s.staged.sameApp === "different") ||
  (isOpen(s) && s.rotation?.newFp === fp && s.rotation.sameApp === "different" && !s.rotation.acceptedApp);

const refuseKnown = (hands: Hands, s: AppState, fp: Fp): void => {
  const r = s.rotation;
  const isNew = isOpen(s) && r?.newFp === fp;
  const why =
    s.current === fp && !isNew
      ? "It is the current key, which the stores hold already."
      : s.dead.has(fp)
        ? "This ledger saw that key die: IMKIT rejected it."
        : s.leaked.has(fp)
          ? "It is marked as leaked in this ledger."
          : null;
  if (why === null) return;
  throw new RotatorError("KEY_DEAD", {
    what: "That key cannot be staged. Nothing was stored.",
    why,
    do: ["Issue a new API Key in the Dashboard", `imkit-rotator stage ${hands.app.name}`],
  });
};

const absorbEscrowBut = async (hands: Hands, journal: Journal, keys: Keys, fp: Fp): Promise<void> => {
  const list = async () => (await hands.escrow.list()).filter((blob) => blob !== fp);
  await absorbEscrow({ ...hands, escrow: { ...hands.escrow, list } }, journal, keys);
};

const adoptIfClear = async (hands: Hands, journal: Journal, keys: Keys, fp: Fp): Promise<void> => {
  if (journal.state().adopted) return;
  try {
    await adopt(hands, journal, keys, { choice: null, pending: fp });
  } catch (error) {
    const isGrave = (code: string): boolean =>
      code === "INTERNAL" ||
      code === "INTERRUPTED" ||
      (code.startsWith("LEDGER") && code !== "LEDGER_FOREIGN");
    if (!(error instanceof RotatorError) || isGrave(error.code)) throw error;
    hands.tell({ kind: "note", text: `The stores were not adopted yet: ${error.what} ${error.why}` });
  }
};

/**
 * Takes a staged key back, before the first store write only. It works in IMKIT, so it is kept and waits for its revocation; `forget` drops it.
 * @throws RotatorError TOO_LATE
 */
export const discard = async (
  hands: Hands,
  forget: boolean,
): Promise<{ readonly fp: Fp | null; readonly state: AppState }> => {
  const journal = await openJournal(hands);
  let dropped: Fp | null = null;
  let foreign = false;
  await settle(journal, () => {
    const s = journal.state();
    const r = isOpen(s) ? s.rotation : null;
    dropped = pendingKey(journal);
    foreign = dropped !== null && isForeign(s, dropped);
    if (dropped === null) {
      // A leak is not forgotten: that key has to be proved dead, or waived.
      dropped = forget ? ([...s.old].find(([fp, k]) => k.discarded && !s.leaked.has(fp))?.[0] ?? null) : null;
      return dropped === null ? [] : [{ type: "discarded", fp: dropped, forget: true }];
    }
    if (r !== null && r.newFp === dropped && (r.intents.size > 0 || r.rolledBack)) {
      throw new RotatorError("TOO_LATE", {
        what: r.rolledBack
          ? "The rotation goes back to the old key; there is no staged key to discard."
          : "The staged key is in a store already and cannot be discarded.",
        why: r.rolledBack ? "" : `Rotation ${r.id} has begun to write it.`,
        state: "The rotation stays open.",
        do: [`imkit-rotator rotate ${hands.app.name}`],
        undo: [`imkit-rotator rollback ${hands.app.name}`],
      });
    }
    const inRotation = r !== null && r.newFp === dropped ? { rotation: r.id } : {};
    return [
      { type: "discarded", fp: dropped, forget: forget || foreign, ...inRotation },
      ...(r !== null && r.newFp === dropped && r.emergency === null
        ? [{ type: "abandoned" as const, rotation: r.id, why: "the staged key was discarded" }]
        : []),
    ];
  });
  if (dropped !== null && (forget || foreign)) await dropBlob(hands, journal, dropped);
  return { fp: dropped, state: journal.state() };
};
