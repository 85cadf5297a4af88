import { RotatorError } from "../../core/errors.ts";
import type { Phase } from "../../core/outcome.ts";
import { parseDuration } from "../../core/policy.ts";
import { nextSteps } from "../../core/steps.ts";
import { type AppState, isOpen } from "../../core/state.ts";
import { openJournal } from "../../flow/journal.ts";
import { plan } from "../../flow/plan.ts";
import { type Rotated, rotate } from "../../flow/rotate.ts";
import { stage } from "../../flow/stage.ts";
import { asRotatorError } from "../fault.ts";
import { askYes, type Io } from "../io.ts";
import { paint, printNext } from "../print.ts";
import { pressEnter } from "../terminal.ts";
import { warnFirst } from "../warn-first.ts";
import type { Wired } from "../wire.ts";
import { isDue, type Outcome, printRefusal, printRotated } from "./rotate-result.ts";
import { dryRun } from "./rotate-plan.ts";
import { readKey } from "../key.ts";

export type RotateFlags = {
  readonly dryRun?: boolean;
  readonly due?: boolean;
  readonly restarted?: boolean;
  readonly wait?: string;
  readonly drop?: readonly string[];
  readonly acceptApp?: string;
  readonly reason?: string;
  readonly ticket?: string;
  readonly yes?: boolean;
};

const KEY_POLL_MS = 5_000;

/** How long to wait, in ms; 0 when the flag was not given. @throws RotatorError USAGE */
export const waitOf = (wait: string | undefined): number => {
  if (wait === undefined) return 0;
  const ms = parseDuration(wait);
  if (ms === null) throw new RotatorError("USAGE", { what: "--wait wants a duration such as 30m or 4h." });
  return ms;
};

/** @throws RotatorError USAGE */
export const checkFlags = (flags: RotateFlags): void => {
  if (flags.acceptApp !== undefined && !/^[0-9a-f]{8,16}$/.test(flags.acceptApp)) {
    throw new RotatorError("USAGE", { what: "--accept-app wants an app fingerprint of 8 to 16 hex digits." });
  }
  waitOf(flags.wait);
};

/** @returns the exit status of DESIGN section 9. */
export const rotateCommand = async (io: Io, wired: Wired, flags: RotateFlags): Promise<number> => {
  checkFlags(flags);
  const { exit, error } = flags.dryRun
    ? await dryRun(io, wired, flags.drop)
    : await rotateOne(io, wired, flags);
  if (error !== null) throw error;
  return exit;
};

/** One app's rotation with its result line. Never rejects: what was thrown is in the outcome. */
export const rotateOne = async (io: Io, wired: Wired, flags: RotateFlags): Promise<Outcome> => {
  try {
    return printRotated(io, wired, await work(io, wired, flags), flags.due === true);
  } catch (error) {
    return printRefusal(io, wired, asRotatorError(error));
  }
};

const work = async (io: Io, wired: Wired, flags: RotateFlags): Promise<Rotated> => {
  const hands = await wired.hands();
  const tick = flags.due === true;
  const asks = io.interactive && !tick;
  if (asks) await begin(io, wired, flags);
  const until =
    hands.clock.monotonic() +
    (asks && flags.wait === undefined ? Number.POSITIVE_INFINITY : waitOf(flags.wait));
  const left = (): number => Math.max(0, until - hands.clock.monotonic());
  const talk = waitingTalk(io, wired, asks);
  const run = (again: boolean): Promise<Rotated> =>
    rotate(hands, {
      reason: flags.reason ?? null,
      ticket: flags.ticket ?? null,
      drop: again ? [] : (flags.drop ?? []),
      restarted: talk.takeRestarted() || (!again && flags.restarted === true),
      acceptApp: flags.acceptApp ?? null,
      confirm: false,
      waitMs: left(),
      waiting: talk.waiting,
    });
  let rotated = await run(false);
  while (!io.signal.aborted && (talk.hasRestarted() || (await keyCame(io, wired, rotated, left, talk)))) {
    rotated = await run(true);
  }
  return rotated;
};

/** Due, and no key is staged: waits for one, as long as there is time. */
const keyCame = async (
  io: Io,
  wired: Wired,
  { phase, state, worked }: Rotated,
  left: () => number,
  talk: ReturnType<typeof waitingTalk>,
): Promise<boolean> => {
  if (worked !== null || phase !== "idle" || !isDue(wired, state)) return false;
  const hands = await wired.hands();
  while (left() > 0 && !io.signal.aborted) {
    talk.say("waiting-key", state);
    await hands.clock.sleep(Math.min(KEY_POLL_MS, left()), io.signal);
    const now = (await openJournal(hands)).state();
    if (now.staged !== null || isOpen(now)) return true;
  }
  return false;
};

/** On a terminal: a missing key is asked for, and the plan is shown before anything is written. */
const begin = async (io: Io, wired: Wired, flags: RotateFlags): Promise<void> => {
  const hands = await wired.hands();
  const before = (await openJournal(hands)).state();
  if (isOpen(before)) return;
  if (before.staged === null) {
    if (!isDue(wired, before)) return;
    await warnFirst(io, wired);
    const { key, source } = await readKey(io, {}, wired.name);
    await stage(hands, key, { source, replace: false });
  }
  if (flags.yes) return;
  const { steps } = await plan(hands);
  io.say(`Plan for ${wired.name}`);
  for (const step of steps)
    io.say(`  ${step.action.padEnd(8)} ${step.target}  (${step.kind}): ${step.check}`);
  if (await askYes("Go on?", io.signal)) return;
  throw new RotatorError("INTERRUPTED", {
    what: "Stopped before anything was written.",
    state: "The new key is safe in escrow; no store was touched.",
  });
};

/** While `rotate` waits: says what for, once each time it changes; on a terminal Enter says that all was restarted. */
const waitingTalk = (io: Io, wired: Wired, asks: boolean) => {
  let said: Phase | null = null;
  let entered = false;
  const say = (phase: Phase, state: AppState): void => {
    if (said === phase) return;
    said = phase;
    io.say(paint(io, "bold", `■ Your turn: ${wired.name} is ${phase}. Ctrl-C is safe: nothing is lost.`));
    printNext(io, nextSteps(wired.name, state, phase, wired.clock), io.say);
    if (asks && phase === "waiting-restart") io.say("  Or press Enter here when all was restarted.");
  };
  return {
    say,
    waiting: async (phase: Phase, state: AppState): Promise<boolean> => {
      say(phase, state);
      if (asks && phase === "waiting-restart") entered = await pressEnter(io, 5_000);
      return entered;
    },
    hasRestarted: (): boolean => entered,
    /** Whether Enter was pressed since the last call. */
    takeRestarted: (): boolean => {
      const was = entered;
      entered = false;
      return was;
    },
  };
};
