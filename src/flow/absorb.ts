import { RotatorError } from "../core/errors.ts";
import type { LedgerEvent } from "../core/events.ts";
import type { Fp, Secret } from "../core/secret.ts";
import { showFp } from "../core/secret.ts";
import type { Hands } from "./hands.ts";
import type { Journal } from "./journal.ts";
import { isOpen } from "../core/state.ts";
import type { Keys } from "./keys.ts";
import { pendingKey, settle } from "./open.ts";
import { acceptedAt, compareApps, examine } from "./probing.ts";

/**
 * Keys that are in escrow and in no ledger entry. One that bears its own fingerprint was saved just before `stage` was killed, and is taken
 * in now. One that bears another name was kept under an earlier ledger, whose salt was another one: it may be anything, so it joins the old
 * keys and has to be proved dead; it is never written anywhere.
 */
export const absorbEscrow = async (hands: Hands, journal: Journal, keys: Keys): Promise<void> => {
  const { salt } = journal.state();
  if (salt === null) return;
  for (const name of await hands.escrow.list()) {
    if (isKnown(journal, name)) continue;
    const key = await open(hands, name);
    if (key === null) continue;
    const fp = key.fingerprint(salt);
    if (fp === name) await takeIn(hands, journal, fp, key);
    else await rename(hands, journal, keys, { name, fp, key });
  }
};

const isKnown = (journal: Journal, fp: Fp): boolean => {
  const s = journal.state();
  return s.known.has(fp) || s.forgotten.has(fp) || s.dead.has(fp);
};

/** What cannot be opened stays where it is: nobody here counts on it, and `doctor` names it. */
const open = async (hands: Hands, name: Fp): Promise<Secret | null> => {
  try {
    return await hands.escrow.get(name);
  } catch (error) {
    if (!(error instanceof RotatorError) || error.code !== "ESCROW_FAILED") throw error;
    const text = `The key ${showFp(name)} in escrow, which no ledger entry names, cannot be opened.`;
    hands.tell({ kind: "note", text });
    return null;
  }
};

const takeIn = async (hands: Hands, journal: Journal, fp: Fp, key: Secret): Promise<void> => {
  const examined = await examine(hands, key, hands.signal);
  const compared =
    examined.verdict === "accepted"
      ? await compareApps(hands, journal.state(), key, [], hands.signal)
      : { sameApp: "unproved" as const, appFingerprint: null };
  await settle(journal, () => {
    const s = journal.state();
    if (s.known.has(fp)) return [];
    // An emergency may have begun without a new key: this is the one that it waits for.
    const waits = isOpen(s) && s.rotation?.closing === false && s.rotation.newFp === null;
    const staged: LedgerEvent = {
      type: "staged",
      fp,
      verdict: examined.verdict,
      source: "escrow",
      ...compared,
      ...acceptedAt(examined.verdict, examined.askedTs),
      ...(waits ? { rotation: s.rotation.id } : {}),
    };
    // A second key beside a staged one is not chosen for anybody: it is kept, and must be revoked like an old key.
    return pendingKey(journal) === null ? [staged] : [{ type: "discarded", fp, forget: false }];
  });
  const text = "A key that was saved just before an interruption was taken in from escrow.";
  hands.tell({ kind: "note", text });
};

type Misnamed = { readonly name: Fp; readonly fp: Fp; readonly key: Secret };

/** First the ledger, then its own name, then the old name goes: killed between any two, the next start ends it. */
const rename = async (hands: Hands, journal: Journal, keys: Keys, { name, fp, key }: Misnamed) => {
  const s = journal.state();
  // Before adoption nobody can tell a key of the stores from one that is nowhere else.
  if (!s.adopted && !isKnown(journal, fp)) return;
  await settle(journal, () => (isKnown(journal, fp) ? [] : [{ type: "discarded", fp, forget: false }]));
  if (!s.known.has(fp)) {
    const text = `A key that was kept under an earlier ledger (now ${showFp(fp)}) was taken in from escrow: it has to be proved dead.`;
    hands.tell({ kind: "note", text });
  }
  const isOver = s.dead.has(fp) || s.forgotten.has(fp);
  const isPending = fp === pendingKey(journal);
  const isElsewhere =
    !isPending && (fp === s.current || s.stale.has(fp)) && (await keys.isStored(fp, hands.signal));
  if (!isOver && !isElsewhere) await keys.keep(fp, key);
  await hands.escrow.remove(name);
};
