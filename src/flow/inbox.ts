import { RotatorError } from "../core/errors.ts";
import type { LedgerEvent } from "../core/events.ts";
import { checkSecret } from "../core/intake.ts";
import { toldKey } from "../core/news.ts";
import { type BadValue, inboxKey, keptKey } from "../core/notice.ts";
import { type Fp, type Secret, showFp } from "../core/secret.ts";
import { type AppState, isOpen } from "../core/state.ts";
import type { Store, Stored } from "../ports.ts";
import type { Hands } from "./hands.ts";
import type { Journal } from "./journal.ts";
import { ensureGenesis, pendingKey, settle } from "./open.ts";
import { asProviderError, patiently } from "./pass.ts";
import { stage } from "./stage.ts";

/** A place where a person may lay a new key down. `name` is the kind and address of the place. */
export type Inbox = { readonly name: string; readonly store: Store };

/** What one inbox held. `isNews` is false for a bad value that was reported before. */
export type InboxFind =
  | { readonly inbox: string; readonly state: "taken"; readonly fp: Fp; readonly removed: boolean }
  | (BadValue & { readonly state: "rejected"; readonly isNews: boolean })
  | { readonly inbox: string; readonly state: "error"; readonly code: string };

/** The store says no for good, until a person changes something. */
const DENIED: ReadonlySet<string> = new Set(["AUTHZ", "UNSUPPORTED", "IMMUTABLE", "NOT_OWNED", "CONFIG"]);
/** What `stage` says of a key that is none for this app now. */
const REFUSED: ReadonlySet<string> = new Set(["KEY_DEAD", "KEY_STAGED_ALREADY", "KEY_MALFORMED"]);

/**
 * Takes in what lies in the inboxes: a value that nobody here knows goes the way of `stage`, and that one entry is removed. A value that is no
 * key for this app stays where it is, and is reported once.
 * @throws RotatorError ESCROW_FAILED, LEDGER_*; an inbox that cannot be read is a find
 */
export const takeInboxes = async (
  hands: Hands,
  journal: Journal,
  inboxes: readonly Inbox[],
): Promise<readonly InboxFind[]> => {
  const finds: InboxFind[] = [];
  for (const inbox of inboxes) {
    if (hands.signal.aborted) break;
    const find = await takeOne(hands, journal, inbox);
    if (find !== null) finds.push(find);
  }
  return finds;
};

const takeOne = async (hands: Hands, journal: Journal, inbox: Inbox): Promise<InboxFind | null> => {
  let stored: Stored | null;
  try {
    stored = await patiently(hands, hands.signal, () => inbox.store.read(hands.signal));
  } catch (thrown) {
    const { code } = asProviderError(thrown);
    // An inbox need not be there as long as nobody has anything to lay down.
    if (code === "NOT_FOUND") return null;
    hands.tell({ kind: "note", text: `The inbox ${inbox.name} cannot be read: ${code}.` });
    return { inbox: inbox.name, state: "error", code };
  }
  if (stored === null || stored.secret.length === 0) return null;
  await ensureGenesis(hands, journal);
  const { salt } = journal.state();
  const raw = stored.secret.fingerprint(salt ?? "");
  const checked = checkSecret(stored.secret);
  if (!checked.ok) return reject(hands, journal, inbox, raw, checked.why);
  const fp = checked.secret.fingerprint(salt ?? "");
  // It was taken in, and could not be removed: that was said.
  if (journal.state().news.told.has(toldKey(keptKey(fp)))) return null;
  const given = await give(hands, journal, checked.secret, fp);
  if (given.bad !== null) {
    const bad = await reject(hands, journal, inbox, raw, given.bad);
    if (!given.isDurable) return bad;
    await remove(hands, journal, inbox, stored, fp);
    return bad;
  }
  return {
    inbox: inbox.name,
    state: "taken",
    fp,
    removed: await remove(hands, journal, inbox, stored, fp),
  };
};

type Given = { readonly bad: string | null; readonly isDurable: boolean };

/** The way of `stage`, for a key that has not come this way yet. */
const give = async (hands: Hands, journal: Journal, key: Secret, fp: Fp): Promise<Given> => {
  const s = journal.state();
  if (s.news.inbox.has(fp) || pendingKey(journal) === fp) {
    const isInUse = fp === s.current || fp === pendingKey(journal) || fp === s.rotation?.newFp;
    const bad = "It was taken in before, and has been given up since.";
    return isInUse ? { bad: null, isDurable: true } : { bad, isDurable: false };
  }
  try {
    const { verdict, why, sameApp } = await stage(hands, key, { source: "inbox", replace: isHopeless(s) });
    await journal.refresh();
    hands.tell({
      kind: "note",
      text: `A new key (${showFp(fp)}) was taken in from an inbox; IMKIT's answer: ${verdict}.`,
    });
    const other = sameApp === "different" ? "IMKIT shows another app for it than for the current key." : null;
    const no =
      verdict === "rejected" ? `IMKIT rejects it${why === "" ? "" : ` (${why})`}; it is kept.` : null;
    return { bad: other ?? no, isDurable: true };
  } catch (error) {
    if (!(error instanceof RotatorError) || !REFUSED.has(error.code)) throw error;
    await journal.refresh();
    return { bad: `${error.what} ${error.why}`, isDurable: false };
  }
};

/** The staged key was never written anywhere, and IMKIT says no to it: the next one takes its place unasked. */
const isHopeless = (s: AppState): boolean => {
  const r = isOpen(s) ? s.rotation : null;
  if (r !== null && (r.intents.size > 0 || r.rolledBack || r.closing)) return false;
  const fp = r?.newFp ?? s.staged?.fp ?? null;
  if (fp === null) return false;
  const isForeign = (r?.sameApp ?? s.staged?.sameApp) === "different";
  return isForeign || s.verdicts.get(fp)?.verdict === "rejected";
};

const reject = async (
  hands: Hands,
  journal: Journal,
  { name }: Inbox,
  fp: Fp,
  why: string,
): Promise<InboxFind> => {
  const isNews = await remember(journal, inboxKey(fp));
  if (isNews)
    hands.tell({ kind: "note", text: `The value in the inbox ${name} (${showFp(fp)}) is not taken: ${why}` });
  return { inbox: name, state: "rejected", fp, why, isNews };
};

/** @returns whether nobody had recorded it before */
const remember = async (journal: Journal, key: string): Promise<boolean> => {
  let isNews = false;
  await settle(journal, (): readonly LedgerEvent[] => {
    isNews = !journal.state().news.told.has(toldKey(key));
    return isNews ? [{ type: "notified", key, ok: true }] : [];
  });
  return isNews;
};

/** @returns whether it is gone from the inbox. A removal that was denied is said once, and not tried again. */
const remove = async (
  hands: Hands,
  journal: Journal,
  { name, store }: Inbox,
  { revision }: Stored,
  fp: Fp,
): Promise<boolean> => {
  let code = "UNSUPPORTED";
  try {
    if (store.remove !== undefined) {
      await store.remove(revision, hands.signal);
      return true;
    }
  } catch (thrown) {
    code = asProviderError(thrown).code;
  }
  const isFinal = DENIED.has(code);
  if (!isFinal || (await remember(journal, keptKey(fp)))) {
    const then = isFinal ? "remove it there by hand; it is not taken in again" : "the next tick tries again";
    hands.tell({
      kind: "note",
      text: `The key ${showFp(fp)} was taken in and still lies in the inbox ${name} (${code}): ${then}.`,
    });
  }
  return false;
};
