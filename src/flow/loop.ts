import type { RotatorError } from "../core/errors.ts";
import type { LedgerEvent } from "../core/events.ts";
import { type Action, isUrgent, nameOf, next, type Run } from "../core/next.ts";
import type { Fp } from "../core/secret.ts";
import { type AppState, isOpen } from "../core/state.ts";
import { type Memory, perform, remember } from "./act.ts";
import { awaitFree, takenOver } from "./claim.ts";
import { asError, type Hands } from "./hands.ts";
import { isInterrupt, orElse } from "./interrupt.ts";
import { hex, type Journal, Moved, Superseded } from "./journal.ts";
import type { Keys } from "./keys.ts";
import { type Pass, rotationOf } from "./pass.ts";
import type { ProofEnd } from "./probing.ts";
import { runStart, settle as decideUntil } from "./open.ts";
import { observeStore } from "./push.ts";
import { type Slots, slotsFor, slotsOf } from "./slots.ts";

export type LoopOptions = {
  /** `confirm-revoked`: prove now. */
  readonly confirm: boolean;
  /** How long to wait for another rotator's claim. */
  readonly lockWaitMs: number;
  readonly acceptApp: string | null;
  /** The entry that opened the rotation began this run: the claim is ours. */
  readonly isBegun: boolean;
  /** What else is to be said in the entry that gives the claim back. */
  readonly parting: () => readonly LedgerEvent[];
};

/** What only looks, and changes nothing. */
const WATCHING: ReadonlySet<Action["do"]> = new Set(["probe", "reread", "usage"]);
/** An abort without a reason makes an error with a stack, for nobody. */
const OVER = "over";
const TICK_MS = 10_000;
const RENEW_AFTER_MS = 20_000;
/** Intents of one start share an entry; this many fit into 16 KiB. */
const MOST_AT_ONCE = 32;

/**
 * One pass: decide, write down, act, write down, until nothing may start and nothing runs. Killed at any point and called again it goes
 * on where it was. Holds the claim while it acts, none when it returns.
 * @returns how the triads of this pass ended, by old key.
 * @throws RotatorError LOCKED, LEDGER_BROKEN, LEDGER_UNWRITABLE, ESCROW_FAILED
 */
export const runLoop = async (
  hands: Hands,
  journal: Journal,
  keys: Keys,
  options: LoopOptions,
): Promise<ReadonlyMap<Fp, ProofEnd>> => {
  const ends = new Map<Fp, ProofEnd>();
  if (!options.isBegun) {
    if (!isOpen(journal.state())) return ends;
    await awaitFree(hands, journal, options.lockWaitMs);
    if (!isOpen(journal.state())) return ends;
  }
  await startPass(hands, journal, keys, options, ends).run();
  return ends;
};

type Late = { readonly action: Action & { readonly target: string }; readonly intent: string };

/** The state of one pass: the only place where actions run side by side. */
const startPass = (
  hands: Hands,
  journal: Journal,
  keys: Keys,
  options: LoopOptions,
  ends: Map<Fp, ProofEnd>,
): { readonly run: () => Promise<void> } => {
  const { clock } = hands;
  const { inst } = hands.host.claim;
  const stop = new AbortController();
  const look = new AbortController();
  const running = new Map<string, Promise<void>>();
  const memory: Memory = { tried: new Set(), probedAt: null };
  const late: Late[] = [];
  let failure: Error | null = null;
  let wake = (): void => {};
  let claimed = options.isBegun;
  let slots: Slots = slotsOf(new Map());
  let number = rotationOf({ journal }).run + (claimed ? 0 : 1);
  const pass: Pass = {
    hands,
    journal,
    keys,
    acceptApp: options.acceptApp,
    signal: stop.signal,
    looking: look.signal,
    ends,
    get run() {
      return number;
    },
  };

  const view = (): Run => ({
    number,
    running: new Set(running.keys()),
    tried: memory.tried,
    monoMs: clock.monotonic(),
    wallMs: clock.now(),
    probedAt: memory.probedAt,
    confirm: options.confirm,
    soakMs: hands.app.soakMs,
  });

  /** Everything but a look at what a waiting person did needs the claim. @returns true when everything has to be decided again. */
  const claim = async (actions: readonly Action[]): Promise<boolean> => {
    if (claimed || actions.every((a) => WATCHING.has(a.do))) return false;
    await awaitFree(hands, journal, options.lockWaitMs);
    if (!isOpen(journal.state())) return true;
    const { run, id } = rotationOf(pass);
    number = run + 1;
    await journal.decide(runStart(hands, id, number));
    claimed = true;
    return true;
  };

  const intentOf = (action: Action): LedgerEvent | null => {
    const r = rotationOf(pass);
    if (action.do === "close") return { type: "closing", rotation: r.id };
    if (action.do !== "write" && action.do !== "roll") return null;
    const { do: kind, target } = action;
    const opId = hex(hands.entropy(16));
    return { type: "intent", rotation: r.id, run: number, target, action: kind, opId, fp: r.newFp ?? "" };
  };

  /** No effect before its intent is durable. */
  const start = async (actions: readonly Action[]): Promise<void> => {
    if (await claim(actions)) return;
    const planned = actions.map((action) => ({ action, event: intentOf(action) }));
    const events = planned.flatMap(({ event }) => (event === null ? [] : [event]));
    const at = events.length === 0 ? null : await journal.decide(events);
    const writes = actions.flatMap((a) => (a.do === "write" ? [a.target] : []));
    if (writes.length > 0) slots = slotsFor(pass, writes);
    for (const { action, event } of planned) {
      const intent = at === null || event === null ? "" : `${at.seq}.${at.first + events.indexOf(event)}`;
      if (action.do !== "close") launch(action, intent);
    }
  };

  /** What was seen without the claim is old once somebody else said more of that key: it is not written. @returns whether it was news */
  const tellSeen = async (facts: readonly LedgerEvent[], before: AppState["verdicts"]): Promise<boolean> => {
    let isNews = true;
    await decideUntil(journal, () => {
      const { verdicts } = journal.state();
      isNews = facts.every((e) => !("fp" in e) || verdicts.get(e.fp ?? "") === before.get(e.fp ?? ""));
      return isNews ? facts : [];
    });
    return isNews;
  };

  const launch = (action: Action, intent: string): void => {
    const name = nameOf(action);
    const together = slots;
    const work = async (): Promise<void> => {
      const { verdicts } = journal.state();
      const facts = await perform(pass, action, intent, together);
      try {
        if (claimed || action.do !== "probe") await journal.record(facts);
        else if (!(await tellSeen(facts, verdicts))) return;
        remember(memory, action, clock.monotonic());
      } catch (error) {
        if (error instanceof Superseded && intent !== "" && "target" in action) late.push({ action, intent });
        throw error;
      }
    };
    const done = work()
      .catch((error: unknown) => {
        // It left no fact, as if this process had been killed: what was intended is looked at by the next one.
        if (!isInterrupt(error)) failure ??= asError(error);
      })
      .finally(() => {
        running.delete(name);
        wake();
      });
    running.set(name, done);
  };

  /** Waits for one action to end; renews the claim and looks up every few seconds meanwhile. */
  const settle = async (): Promise<void> => {
    if (hands.signal.aborted) return;
    const nap = new AbortController();
    wake = () => nap.abort(OVER);
    await clock.sleep(TICK_MS, nap.signal);
    if (!claimed || failure !== null) return;
    // An emergency may have been declared meanwhile, by somebody who does not wait for us.
    await journal.refresh();
    if (journal.superseded()) throw new Superseded();
    if (isUrgent(journal.state(), rotationOf(pass))) slots.release();
    await renew();
  };

  const renew = async (): Promise<void> => {
    if (!claimed || journal.ownHeadAgeMs() < RENEW_AFTER_MS) return;
    await journal.decide([{ type: "renewed", inst }]);
  };

  /** Nothing new starts; what runs is given a moment to end by itself, then is told to stop. */
  const drain = async (): Promise<void> => {
    const all = Promise.all(running.values());
    let left = running.size;
    void all.then(() => {
      left = 0;
    });
    if (failure !== null) halt();
    const isLeft = (): boolean => left > 0;
    while (isLeft()) {
      const patience = new AbortController();
      await Promise.race([all, clock.sleep(TICK_MS, patience.signal)]);
      patience.abort(OVER);
      halt();
      // What does not stop by itself is still ours.
      if (isLeft() && failure === null) await renew().catch(failed);
    }
  };

  const failed = (error: unknown): void => {
    if (!(error instanceof Moved) && !isInterrupt(error)) failure ??= asError(error);
  };

  const turn = async (): Promise<"go on" | "over"> => {
    const actions = next(journal.state(), view()).slice(0, MOST_AT_ONCE);
    if (actions.length === 0 && running.size === 0) return "over";
    await (actions.length > 0 ? start(actions) : settle());
    return "go on";
  };

  const halt = (): void => {
    stop.abort();
    look.abort();
  };

  const heard = (): void => {
    look.abort(hands.signal.reason);
    wake();
  };

  const work = async (): Promise<void> => {
    const isFine = (): boolean => failure === null && !hands.signal.aborted;
    if (hands.signal.aborted) heard();
    hands.signal.addEventListener("abort", heard);
    while (isFine()) {
      try {
        if ((await turn()) === "over") break;
      } catch (error) {
        failed(error);
      }
    }
    await drain();
    hands.signal.removeEventListener("abort", heard);
  };

  const release = (parting: () => readonly LedgerEvent[]): Promise<void> =>
    decideUntil(journal, () => {
      if (!claimed || journal.state().claim?.inst !== inst) return [];
      return [...parting(), { type: "released", inst, rotation: rotationOf(pass).id }];
    });

  /** Someone took over while we slept: say what we may have done late, then leave. */
  const confess = async (): Promise<RotatorError> => {
    for (const { action, intent } of late) {
      // This pass was told to stop; the last look was not.
      const last: Pass = { ...pass, looking: hands.signal };
      const found = action.do === "write" ? await orElse(observeStore(last, action.target, intent), []) : [];
      const fp = found[0]?.type === "observed" ? (found[0].fp ?? null) : null;
      const event: LedgerEvent = {
        type: "late-effect",
        rotation: rotationOf(pass).id,
        intent,
        target: action.target,
        fp,
      };
      await journal.record([event], { late: true }).catch(() => {});
    }
    return takenOver(hands.app.name);
  };

  const run = async (): Promise<void> => {
    await work();
    if (failure === null && journal.superseded()) throw takenOver(hands.app.name);
    if (failure === null) return release(options.parting);
    if (failure instanceof Superseded) throw await confess();
    await release(() => []).catch(() => {});
    throw failure;
  };
  return { run };
};
