import type { LedgerEvent } from "../core/events.ts";
import { soakLeft } from "../core/next.ts";
import { type Phase, phaseOf } from "../core/outcome.ts";
import type { Fp } from "../core/secret.ts";
import { type AppState, isOpen } from "../core/state.ts";
import { adopt } from "./adopt.ts";
import { awaitFree } from "./claim.ts";
import type { Hands } from "./hands.ts";
import { type Journal, openJournal } from "./journal.ts";
import { type Keys, openKeys } from "./keys.ts";
import { runLoop } from "./loop.ts";
import { absorbEscrow, ensureGenesis, type OpenOptions, openRotation, pendingKey, settle } from "./open.ts";
import type { ProofEnd } from "./probing.ts";

export type RotateOptions = OpenOptions & {
  /** The person says that every manual workload was restarted. */
  readonly restarted: boolean;
  readonly acceptApp: string | null;
  readonly confirm: boolean;
  /** How long to wait for a person: key, restart, revocation. 0 = not at all. */
  readonly waitMs: number;
  /** Called each time before the wait goes on; ends it by returning true. */
  readonly waiting?: (phase: Phase, state: AppState) => Promise<boolean> | boolean;
};

export type Rotated = {
  readonly state: AppState;
  readonly phase: Phase;
  /** The rotation that this call worked on, ended or not. */
  readonly worked: string | null;
  readonly head: { readonly seq: number; readonly h: string } | null;
  readonly ends: ReadonlyMap<Fp, ProofEnd>;
};

const POLL_MS = 5_000;
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
  const journal = await openJournal(hands);
  const keys = openKeys(hands, journal);
  const began = hands.clock.monotonic();
  if (journal.state().claim !== null) await awaitFree(hands, journal, options.waitMs);
  await prepare(hands, journal, keys);
  // One wait for all: what the other rotator took of it is gone.
  const waitMs = Math.max(0, options.waitMs - (hands.clock.monotonic() - began));
  return work(hands, journal, keys, { ...options, waitMs });
};

/** `rotate` on a ledger that is prepared. */
export const work = async (
  hands: Hands,
  journal: Journal,
  keys: Keys,
  options: RotateOptions,
): Promise<Rotated> => {
  const started = hands.clock.monotonic();
  const ends = new Map<Fp, ProofEnd>();
  let worked: string | null = null;
  let confirm = options.confirm;
  let restarted = options.restarted;
  for (;;) {
    await openRotation(hands, journal, worked === null ? options : { ...options, drop: [] });
    const open = isOpen(journal.state()) ? (journal.state().rotation?.id ?? null) : null;
    worked ??= open;
    if (restarted) await recordRestart(hands, journal);
    restarted = false;
    for (const [fp, end] of await runLoop(hands, journal, keys, {
      confirm,
      lockWaitMs: options.waitMs,
      acceptApp: options.acceptApp,
      parting: () => waitingNews(hands, journal),
    })) {
      ends.set(fp, end);
    }
    // While it waits a probe, which writes nothing, comes before the next triads.
    confirm = false;
    if (hands.signal.aborted) break;
    // What is said to a person is said of the ledger as it is now, not as it was before a long look.
    await journal.refresh();
    await settle(journal, () => waitingNews(hands, journal));
    const phase = phaseOf(journal.state());
    const left = options.waitMs - (hands.clock.monotonic() - started);
    const soak = soakOf(hands, journal.state());
    if (soak > 0 && soak <= Math.max(left, SOAK_PATIENCE_MS)) {
      await hands.clock.sleep(Math.min(SOAK_LOOK_MS, soak), hands.signal);
      await journal.refresh();
      continue;
    }
    if (!WAITS.includes(phase) || left <= 0) break;
    if (await options.waiting?.(phase, journal.state())) break;
    await hands.clock.sleep(Math.min(POLL_MS, left), hands.signal);
    await journal.refresh();
  }
  return { state: journal.state(), phase: phaseOf(journal.state()), worked, head: journal.head(), ends };
};

/** Only what was missing can have been restarted: before every store holds the new key a restart proves nothing. */
const recordRestart = (hands: Hands, journal: Journal): Promise<void> =>
  settle(journal, () => {
    const s = journal.state();
    const r = s.rotation;
    if (r === null || !isOpen(s) || phaseOf(s) !== "waiting-restart") {
      hands.tell({
        kind: "note",
        text: "--restarted: no restart is being waited for, so nothing was recorded.",
      });
      return [];
    }
    const left = [...r.rollouts.values()].filter((w) => w.type === "manual" && w.state === "pending");
    return [{ type: "restarted", rotation: r.id, targets: left.map((w) => w.name) }];
  });

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
