import { backoffLeft } from "../core/backoff.ts";
import { RotatorError } from "../core/errors.ts";
import { type Drift, noticesOf } from "../core/notice.ts";
import { type Phase, phaseOf } from "../core/outcome.ts";
import { dueAt } from "../core/policy.ts";
import type { NextStep } from "../core/steps.ts";
import { type AppState, isOpen } from "../core/state.ts";
import type { Notifier } from "../ports.ts";
import type { Hands } from "./hands.ts";
import { type Inbox, type InboxFind, takeInboxes } from "./inbox.ts";
import { isInterrupt } from "./interrupt.ts";
import { type Journal, openJournal } from "./journal.ts";
import { openKeys } from "./keys.ts";
import { tellPeople } from "./notify.ts";
import { asProviderError, patiently } from "./pass.ts";
import { probeKey } from "./probing.ts";
import { type Rotated, type RotateOptions, rotate } from "./rotate.ts";

/** Whom to tell, and in which words. */
export type People = {
  readonly notifiers: readonly Notifier[];
  readonly owners: readonly string[];
  readonly remindBeforeMs: readonly number[];
  /** 0 = nobody is told again. */
  readonly escalateAfterMs: number;
  readonly steps: (state: AppState, phase: Phase) => readonly NextStep[];
};

export type TickOptions = {
  readonly rotate: RotateOptions;
  readonly inboxes: readonly Inbox[];
  readonly people: People;
  /** The schedule allows this tick to open a rotation and to remind. */
  readonly mayOpen: boolean;
};

/** How a tick ended. */
export type Ticked = {
  readonly rotated: Rotated;
  /** What stopped it; `rotated` is then how things stood. */
  readonly error: RotatorError | null;
  /** `schedule`: a key is staged and waits for its time. `backoff`: the rotation failed a short while ago, and is left alone until `retryAt`. */
  readonly held: "schedule" | "backoff" | null;
  /** RFC 3339. */
  readonly retryAt: string | null;
  /** Stores of an idle app that do not hold its key. */
  readonly drift: readonly Drift[];
  readonly inbox: readonly InboxFind[];
};

/**
 * One unattended pass over one app: takes in what lies in the inboxes, goes on with an open rotation or opens one for a staged key, looks
 * at the stores of an idle app, and tells people what they have not been told. It asks nothing, and done twice it does nothing more.
 * @throws RotatorError LEDGER_*; every other one is in the result
 */
export const tick = async (hands: Hands, options: TickOptions): Promise<Ticked> => {
  const journal = await openJournal(hands);
  let error: RotatorError | null = null;
  let inbox: readonly InboxFind[] = [];
  let moved: Moved = { rotated: standing(journal), held: null, retryAt: null };
  try {
    inbox = await takeInboxes(hands, journal, options.inboxes);
    moved = await move(hands, journal, options);
  } catch (thrown) {
    if (!(thrown instanceof RotatorError)) throw thrown;
    error = thrown;
  }
  if (error !== null && error.code === "LEDGER_BROKEN") throw error;
  await journal.refresh();
  const s = journal.state();
  let drift: readonly Drift[] = [];
  try {
    if (s.adopted && !isOpen(s)) drift = await driftOf(hands, s);
  } catch (thrown) {
    if (!(thrown instanceof RotatorError)) throw thrown;
    // A rotation that is done is done, also where there was no time left to look on.
    if (!isInterrupt(thrown) || moved.rotated.worked === null) error ??= thrown;
  }
  const rotated = { ...moved.rotated, state: s, phase: phaseOf(s), head: journal.head() };
  // Who holds the claim tells people himself.
  if (error?.code !== "LOCKED")
    await tellAll(hands, journal, options.people, {
      drift,
      inbox,
      error,
      mayRemind: options.mayOpen,
      isWhole: error === null,
    });
  return { ...moved, rotated: { ...rotated, head: journal.head() }, error, drift, inbox };
};

type Moved = Pick<Ticked, "rotated" | "held" | "retryAt">;

const standing = (journal: Journal): Rotated => ({
  state: journal.state(),
  phase: phaseOf(journal.state()),
  worked: isOpen(journal.state()) ? (journal.state().rotation?.id ?? null) : null,
  head: journal.head(),
  ends: new Map(),
  lost: [],
});

const move = async (hands: Hands, journal: Journal, options: TickOptions): Promise<Moved> => {
  await journal.refresh();
  const s = journal.state();
  const phase = phaseOf(s);
  const wait = isOpen(s) ? backoffLeft(s, phase, hands.clock.now()) : 0;
  if (wait > 0) {
    const retryAt = new Date(hands.clock.now() + wait).toISOString();
    return { rotated: standing(journal), held: "backoff", retryAt };
  }
  if (phase === "staged" && !options.mayOpen && !(await isDown(hands, journal)))
    return { rotated: standing(journal), held: "schedule", retryAt: null };
  return { rotated: await rotate(hands, options.rotate), held: null, retryAt: null };
};

/** The key in use is dead: services fail until the staged one is written, and that waits for no schedule. */
const isDown = async (hands: Hands, journal: Journal): Promise<boolean> => {
  const { current } = journal.state();
  const key = current === null ? null : await openKeys(hands, journal).find(current);
  return key !== null && (await probeKey(hands, key, hands.signal)).verdict === "rejected";
};

/** Every store that does not hold what it should, or cannot be read. */
const driftOf = async (hands: Hands, s: AppState): Promise<readonly Drift[]> => {
  const looked = await Promise.all(
    hands.app.stores.map(async ({ plan: { name }, store }): Promise<readonly Drift[]> => {
      try {
        const stored = await patiently(hands, hands.signal, () => store.read(hands.signal));
        const fp = stored?.secret.fingerprint(s.salt ?? "") ?? null;
        if (fp === s.current) return [];
        return [{ name, state: fp === null ? "absent" : "drift", fp, code: null }];
      } catch (thrown) {
        return [{ name, state: "error", fp: null, code: asProviderError(thrown).code }];
      }
    }),
  );
  return looked.flat();
};

type Seen = Pick<Ticked, "drift" | "inbox" | "error"> & {
  readonly mayRemind: boolean;
  readonly isWhole: boolean;
};

const tellAll = (hands: Hands, journal: Journal, people: People, seen: Seen): Promise<void> => {
  const s = journal.state();
  const phase = phaseOf(s);
  const { rotateEveryMs, name } = hands.app;
  const due = rotateEveryMs === null || !s.adopted ? null : dueAt(s.freshTs, rotateEveryMs);
  const notices = noticesOf({
    app: name,
    state: s,
    phase,
    nowMs: hands.clock.now(),
    dueAt: due,
    remindBeforeMs: people.remindBeforeMs,
    mayRemind: seen.mayRemind,
    escalateAfterMs: people.escalateAfterMs,
    drift: seen.drift,
    inbox: seen.inbox.flatMap((find) => (find.state === "rejected" ? [find] : [])),
    error: seen.error?.code ?? null,
  });
  const isDue = phase === "idle" && due !== null && Date.parse(due) <= hands.clock.now();
  const next = people.steps(s, isDue ? "waiting-key" : phase);
  const { notifiers, owners } = people;
  return tellPeople(hands, journal, notifiers, notices, { phase, owners, next, isWhole: seen.isWhole });
};

/** What a command of a person tells as well: how the rotation ended or stopped, and that a key leaked. While it waits, what it waits for. */
const BY_HAND: ReadonlySet<string> = new Set([
  "done",
  "failed",
  "refused",
  "emergency",
  "blackout",
  "wrong-key-revoked",
]);

/** Tells people of what a command that is no tick came to, or waits for (`waits`). Never rejects. */
export const tellOfRun = async (
  hands: Hands,
  people: People,
  { waits, error }: { readonly waits: boolean; readonly error: RotatorError | null },
): Promise<void> => {
  if (people.notifiers.length === 0) return;
  try {
    const journal = await openJournal(hands);
    const notifiers = people.notifiers.map((n) => ({
      ...n,
      wants: (...types: Parameters<Notifier["wants"]>) =>
        (waits || BY_HAND.has(types[0])) && n.wants(...types),
    }));
    await tellAll(
      hands,
      journal,
      { ...people, notifiers },
      {
        drift: [],
        inbox: [],
        error,
        mayRemind: false,
        isWhole: false,
      },
    );
  } catch {
    hands.tell({ kind: "note", text: "Nobody was notified: the ledger cannot be read." });
  }
};
