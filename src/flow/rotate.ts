import type { LedgerEvent } from "../core/events.ts";
import { isBlackout, soakLeft } from "../core/next.ts";
import { type Phase, phaseOf } from "../core/outcome.ts";
import { type Fp, showFp } from "../core/secret.ts";
import { type AppState, isOpen, unproved } from "../core/state.ts";
import { absorbEscrow } from "./absorb.ts";
import { adopt } from "./adopt.ts";
import { awaitFree } from "./claim.ts";
import { type Alarm, declareEmergency } from "./emergency.ts";
import { freshKeyPatience } from "./fresh-key.ts";
import type { Hands } from "./hands.ts";
import { type Journal, openJournal } from "./journal.ts";
import { type Keys, openKeys } from "./keys.ts";
import { runLoop } from "./loop.ts";
import { isHeld, recordRestart, type Said } from "./restart.ts";
import { ensureGenesis, type OpenOptions, openRotation, pendingKey, settle } from "./open.ts";
import type { ProofEnd } from "./probing.ts";

export type RotateOptions = OpenOptions & {
  /** A key leaked: no claim, no canary, no soak stands in the way. Absent: an ordinary call; an open emergency stays one. */
  readonly alarm?: Alarm;
  /** The person says that every manual workload was restarted. */
  readonly restarted: boolean;
  readonly acceptApp: string | null;
  readonly confirm: boolean;
  /** How long to wait for a person: key, restart, revocation. 0 = not at all. */
  readonly waitMs: number;
  /** Called each time before the wait goes on; ends it by returning true. `lost` as in `Rotated`. */
  readonly waiting?: (phase: Phase, state: AppState, lost: readonly Fp[]) => Promise<boolean> | boolean;
};

/** `follows`: another process may go on with what was recorded here; it is waited for, however long it works. */
type WorkOptions = RotateOptions & { readonly follows?: boolean };

export type Rotated = {
  readonly state: AppState;
  readonly phase: Phase;
  /** The rotation that this call worked on, ended or not. */
  readonly worked: string | null;
  readonly head: { readonly seq: number; readonly h: string } | null;
  readonly ends: ReadonlyMap<Fp, ProofEnd>;
  /** Old keys that wait for their revocation and are in no place that can be read, so that nobody can prove them dead. */
  readonly lost: readonly Fp[];
};

/** Between two looks at IMKIT while a person is waited for; the ledger is looked at more often. */
const POLL_MS = 10_000;
const LEDGER_POLL_MS = 2_000;
/** The same while nothing may work: what a person stages is picked up at once. */
const URGENT_POLL_MS = 250;
/** An emergency without a fingerprint, this soon after one that is over, is the same one. */
const SAID_AGAIN_MS = 3_600_000;
/** An entry says again that a leaked key still works, when the last one is older than this. */
const SAY_AGAIN_MS = 60_000;
/** A soak up to this long is waited for unasked; both keys are probed every 10 s meanwhile. */
const SOAK_PATIENCE_MS = 600_000;
const SOAK_LOOK_MS = 10_000;
const WAITS: readonly Phase[] = ["waiting-key", "waiting-restart", "waiting-revoke", "blackout"];

/** Brings a ledger to where a rotation can begin: genesis, keys left in escrow, adoption. */
export const prepare = async (hands: Hands, journal: Journal, keys: Keys): Promise<void> => {
  await ensureGenesis(hands, journal);
  await absorbEscrow(hands, journal, keys);
  if (!journal.state().adopted)
    await adopt(hands, journal, keys, { choice: null, pending: pendingKey(journal) });
};

/**
 * Goes on with the open rotation, or opens one for the staged key, and works until nothing is left but for a person.
 * @throws RotatorError as runLoop and adopt do.
 */
export const rotate = async (hands: Hands, options: RotateOptions): Promise<Rotated> => {
  const ms = hands.clock.now();
  const journal = await openJournal(hands);
  const keys = openKeys(hands, journal);
  const began = hands.clock.monotonic();
  const said = { heldAt: journal.state().rotation?.heldAt ?? 0, ms };
  const id = journal.state().rotation?.id ?? null;
  // A restart is a person's word and needs no claim: whoever holds that goes on with it.
  const isTried = options.restarted && isHeld(hands, journal);
  const follows = isTried && (await recordRestart(hands, journal, said));
  const told = { ...options, restarted: options.restarted && !isTried, follows };
  const alarmed = await begin(hands, journal, keys, told);
  // One wait for all: what the other rotator took of it is gone.
  const waitMs = Math.max(0, options.waitMs - (hands.clock.monotonic() - began));
  return work(hands, journal, keys, { ...told, waitMs }, alarmed ?? (follows ? id : null), said);
};

/** @returns the rotation that is an emergency now, or null */
const begin = async (
  hands: Hands,
  journal: Journal,
  keys: Keys,
  options: WorkOptions,
): Promise<string | null> => {
  const { alarm } = options;
  if (alarm === undefined) {
    if (journal.state().claim !== null) await awaitFree(hands, journal, lockWaitOf(options));
    await prepare(hands, journal, keys);
    return null;
  }
  let id: string | null = null;
  while (id === null) {
    // What only has to be cleared away is no rotation to make an emergency of.
    if (journal.state().rotation?.closing === true && isOpen(journal.state()))
      await runLoop(hands, journal, keys, loopOptions(hands, journal, options));
    if (!isOpen(journal.state())) await prepare(hands, journal, keys);
    const over = justOver(hands, journal.state(), alarm);
    if (over !== null) return over;
    id = await declareEmergency(hands, journal, alarm, options);
    if (hands.signal.aborted) return id;
  }
  const { claim } = journal.state();
  if (claim !== null && claim.inst !== hands.host.claim.inst) {
    const text = `Process ${claim.pid} on ${claim.host} is at work: it goes on as an emergency, and this one follows.`;
    hands.tell({ kind: "note", text });
  }
  return id;
};

/** The same command again when all is over is no second leak. @returns the rotation that ended */
const justOver = (hands: Hands, s: AppState, alarm: Alarm): string | null => {
  const r = s.rotation;
  const isSaidAgain =
    alarm.leaked === null && s.staged === null && r?.ended === "done" && r.emergency !== null;
  if (!isSaidAgain || hands.clock.now() - Date.parse(s.freshTs ?? "") > SAID_AGAIN_MS) return null;
  const key = s.current === null ? "" : ` --leaked ${showFp(s.current)}`;
  const text = `This emergency is over. If the new key leaked too: imkit-rotator rotate ${hands.app.name} --emergency${key}`;
  hands.tell({ kind: "note", text });
  return r.id;
};

const lockWaitOf = ({ alarm, follows, waitMs }: WorkOptions): number =>
  alarm === undefined && follows !== true ? waitMs : Number.POSITIVE_INFINITY;

const loopOptions = (hands: Hands, journal: Journal, options: WorkOptions, isBegun = false) => ({
  confirm: options.confirm,
  isBegun,
  lockWaitMs: lockWaitOf(options),
  acceptApp: options.acceptApp,
  parting: () => waitingNews(hands, journal),
});

/**
 * `rotate` on a ledger that is prepared. `mine`: the rotation that this is about; no other one is opened then.
 */
export const work = async (
  hands: Hands,
  journal: Journal,
  keys: Keys,
  options: WorkOptions,
  mine: string | null = null,
  said: Said = { heldAt: 0, ms: 0 },
): Promise<Rotated> => {
  const started = hands.clock.monotonic();
  const ends = new Map<Fp, ProofEnd>();
  const fresh = freshKeyPatience(hands);
  let worked = mine;
  let first = true;
  let lost: readonly Fp[] = [];
  let { confirm, restarted, follows = false } = options;
  for (;;) {
    const mayOpen = worked === null || isOpen(journal.state());
    const isBegun =
      mayOpen && (await openRotation(hands, journal, first ? options : { ...options, drop: [] }));
    first = false;
    const open = isOpen(journal.state()) ? (journal.state().rotation?.id ?? null) : null;
    worked ??= open;
    // Whoever waits beside this one may act on it first.
    if (restarted) follows = await recordRestart(hands, journal, said);
    restarted = false;
    const loop = { ...loopOptions(hands, journal, { ...options, follows }, isBegun), confirm };
    for (const [fp, end] of await runLoop(hands, journal, keys, loop)) ends.set(fp, end);
    // While it waits a probe, which writes nothing, comes before the next triads.
    confirm = false;
    if (hands.signal.aborted) break;
    const before = { phase: phaseOf(journal.state()), entries: journal.entries() };
    lost = await lookForLost(journal, keys);
    if (hands.signal.aborted) break;
    if (journal.entries() !== before.entries && mayGoOn(journal.state(), before.phase)) continue;
    await settle(journal, () => waitingNews(hands, journal));
    const phase = phaseOf(journal.state());
    const left = options.waitMs - (hands.clock.monotonic() - started);
    const soak = soakOf(hands, journal.state());
    if (soak > 0 && soak <= Math.max(left, SOAK_PATIENCE_MS)) {
      await hands.clock.sleep(Math.min(SOAK_LOOK_MS, soak), hands.signal);
      await journal.refresh();
      continue;
    }
    if (left <= 0) break;
    const again = fresh(journal.state(), phase);
    if (!WAITS.includes(phase) && again === null) break;
    if (again === null && (await options.waiting?.(phase, journal.state(), lost))) break;
    await watchLedger(hands, journal, Math.min(again ?? POLL_MS, left));
  }
  await sayStillAccepted(journal, keys);
  return {
    state: journal.state(),
    phase: phaseOf(journal.state()),
    worked,
    head: journal.head(),
    ends,
    lost: hands.signal.aborted ? [] : lost,
  };
};

/** What is said to a person is said of the ledger as it is now, not as it was before a long look. Nothing when it was told to stop. */
const lookForLost = async (journal: Journal, keys: Keys): Promise<readonly Fp[]> => {
  for (;;) {
    const phase = phaseOf(journal.state());
    const lost = await lostKeys(journal, keys).catch(() => []);
    await journal.refresh();
    const left = unproved(journal.state());
    if (phaseOf(journal.state()) === phase) return lost.filter((fp) => left.includes(fp));
  }
};

const lostKeys = async (journal: Journal, keys: Keys): Promise<readonly Fp[]> => {
  const s = journal.state();
  if (phaseOf(s) !== "waiting-revoke") return [];
  const found = await Promise.all(unproved(s).map(async (fp) => ({ fp, key: await keys.find(fp) })));
  return found.flatMap(({ fp, key }) => (key === null ? [fp] : []));
};

/** Somebody gave what was waited for, or took away what was, while this one looked. */
const mayGoOn = (s: AppState, before: Phase): boolean => {
  const phase = phaseOf(s);
  return isOpen(s) && !WAITS.includes(phase) && (phase === "rotating" || WAITS.includes(before));
};

/** Until somebody writes to the ledger, or the time is over. */
const watchLedger = async (hands: Hands, journal: Journal, ms: number): Promise<void> => {
  const until = hands.clock.monotonic() + ms;
  const before = journal.entries();
  while (journal.entries() === before && !hands.signal.aborted) {
    const left = until - hands.clock.monotonic();
    if (left <= 0) return;
    const isUrgent = journal.state().rotation?.emergency != null || isBlackout(journal.state());
    await hands.clock.sleep(Math.min(isUrgent ? URGENT_POLL_MS : LEDGER_POLL_MS, left), hands.signal);
    await journal.refresh();
  }
};

/** Whoever stops looking in an emergency writes down until when he saw each key work that has to die. Not once it is proved dead. */
const sayStillAccepted = async (journal: Journal, keys: Keys): Promise<void> => {
  if (!journal.superseded()) await settle(journal, () => stillAccepted(journal.state(), keys));
};

const stillAccepted = (s: AppState, keys: Keys): readonly LedgerEvent[] => {
  const r = s.rotation;
  if (r === null || r.emergency === null || !isOpen(s)) return [];
  const fps = new Set([...r.emergency.leaked, ...unproved(s)]);
  return [...fps].flatMap((fp): LedgerEvent[] => {
    const seen = keys.accepted.get(fp);
    const told = s.verdicts.get(fp);
    if (seen === undefined || told?.verdict !== "accepted") return [];
    const last = told.acceptedTs ?? told.ts;
    // Whether anything was without a key is told by an answer from after the last change.
    const isNews = [r.wroteTs, r.rolledTs].some((ts) => ts !== null && last < ts && ts < seen);
    if (!isNews && Date.parse(seen) - Date.parse(last) < SAY_AGAIN_MS) return [];
    return [
      {
        type: "observed",
        what: "verdict",
        rotation: r.id,
        run: r.run,
        fp,
        verdict: "accepted",
        acceptedTs: seen,
      },
    ];
  });
};

const WAITING_FOR: Partial<
  Record<Phase, LedgerEvent & { type: "waiting" } extends { for: infer F } ? F : never>
> = {
  "waiting-key": "key",
  blackout: "key",
  "waiting-restart": "restart",
  "waiting-revoke": "revoke",
};

/** Once for each new thing that is waited for. */
const waitingNews = (hands: Hands, journal: Journal): readonly LedgerEvent[] => {
  const s = journal.state();
  const r = s.rotation;
  const what = soakOf(hands, s) > 0 ? "soak" : WAITING_FOR[phaseOf(s)];
  if (hands.signal.aborted || what === undefined || r === null || !isOpen(s) || r.waitingFor === what)
    return [];
  return [{ type: "waiting", rotation: r.id, for: what }];
};

const soakOf = (hands: Hands, s: AppState): number =>
  soakLeft(s, { soakMs: hands.app.soakMs, wallMs: hands.clock.now() });
