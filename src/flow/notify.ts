import { RotatorError } from "../core/errors.ts";
import type { LedgerEvent } from "../core/events.ts";
import { isOwed, type Notice, overEvents } from "../core/notice.ts";
import type { Phase } from "../core/outcome.ts";
import type { NextStep } from "../core/steps.ts";
import type { Message, Notifier } from "../ports.ts";
import { asError, type Hands } from "./hands.ts";
import type { Journal } from "./journal.ts";
import { settle } from "./open.ts";

export type Telling = {
  readonly phase: Phase;
  readonly owners: readonly string[];
  readonly next: readonly NextStep[];
  /** The notices are all that stands: what was told of failures and drift and is not among them is over. */
  readonly isWhole: boolean;
};

type Letter = { readonly notice: Notice; readonly notifier: Notifier };
/** So many fit into one entry. */
const MOST_AT_ONCE = 40;

/**
 * Sends each notice to each receiver that wants it, once. First the ledger says that it is being sent, which no second process can say too;
 * then it is sent; then the ledger says what came of it. Killed in between, it is sent again by whoever finds it unfinished after 3 minutes:
 * at least once, and twice only where the process died between the answer of the receiver and the entry. What failed is tried again by later
 * ticks. Never rejects: people who cannot be told stop nothing.
 */
export const tellPeople = async (
  hands: Hands,
  journal: Journal,
  notifiers: readonly Notifier[],
  notices: readonly Notice[],
  telling: Telling,
): Promise<void> => {
  try {
    const letters = await claim(hands, journal, notifiers, notices, telling.isWhole);
    if (letters.length === 0) return;
    const results = await Promise.all(letters.map((letter) => send(hands, journal, letter, telling)));
    await journal.record(results);
  } catch (thrown) {
    const error = asError(thrown);
    const why = error instanceof RotatorError ? error.code : "the ledger went on without this process";
    hands.tell({ kind: "note", text: `Nobody was notified, or it is not recorded: ${why}.` });
  }
};

/** What this process alone sends now. */
const claim = async (
  hands: Hands,
  journal: Journal,
  notifiers: readonly Notifier[],
  notices: readonly Notice[],
  isWhole: boolean,
): Promise<readonly Letter[]> => {
  let mine: readonly Letter[] = [];
  await settle(journal, (): readonly LedgerEvent[] => {
    const { news, salt } = journal.state();
    mine = [];
    // Without a ledger nothing can be recorded, so nothing is sent.
    if (salt === null || hands.signal.aborted) return [];
    const over = isWhole ? overEvents(news, notices) : [];
    mine = notices
      .flatMap((notice) => notifiers.map((notifier) => ({ notice, notifier })))
      .filter(({ notice, notifier }) => notifier.wants(notice.type, notice.about))
      .filter(({ notice, notifier }) => isOwed(news, notice.key, notifier.name, hands.clock.now()))
      .slice(0, MOST_AT_ONCE);
    return [
      ...over.slice(0, MOST_AT_ONCE),
      ...mine.map((letter) => told(letter, { ok: false, sending: true })),
    ];
  });
  return mine;
};

const told = (
  { notice, notifier }: Letter,
  how: { readonly ok: boolean; readonly sending?: true },
): LedgerEvent => ({
  type: "notified",
  key: notice.key,
  to: notifier.name,
  ...how,
  ...(notice.rotation === null ? {} : { rotation: notice.rotation }),
});

const send = async (
  hands: Hands,
  journal: Journal,
  letter: Letter,
  { phase, owners, next }: Telling,
): Promise<LedgerEvent> => {
  const { notice, notifier } = letter;
  const head = journal.head();
  const message: Message = {
    id: `${journal.ledgerId() ?? ""}/${notice.key}`,
    app: hands.app.name,
    type: notice.type,
    rotation: notice.rotation,
    state: phase,
    text: notice.text,
    at: new Date(hands.clock.now()).toISOString(),
    owners,
    head: head === null ? null : `${head.seq}:${head.h.slice(0, 16)}`,
    next,
  };
  const { ok, why } = await notifier
    .notify(message, hands.signal)
    .catch(() => ({ ok: false, why: "the notifier failed" }));
  if (!ok) hands.tell({ kind: "note", text: `${notifier.name} could not be told (${notice.type}): ${why}.` });
  return told(letter, { ok });
};
