import { RotatorError } from "../../core/errors.ts";
import { parseDuration, parseInstant } from "../../core/policy.ts";
import { isOpen } from "../../core/state.ts";
import type { Alarm } from "../../flow/emergency.ts";
import { openJournal } from "../../flow/journal.ts";
import { plan } from "../../flow/plan.ts";
import { type Rotated, type RotateOptions, rotate } from "../../flow/rotate.ts";
import { stage } from "../../flow/stage.ts";
import { asRotatorError } from "../fault.ts";
import { askYes, type Io, signalsHeard } from "../io.ts";
import { warnFirst } from "../warn-first.ts";
import type { Wired } from "../wire.ts";
import { isDue, type Outcome, printRefusal, printRotated } from "./rotate-result.ts";
import { dryRun } from "./rotate-plan.ts";
import { type Talk, waitingTalk } from "./rotate-talk.ts";
import { readKey } from "../key.ts";
import { besideWaiting, notifyPeople, takeKeys } from "./tell.ts";

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
  readonly emergency?: boolean;
  readonly order?: string;
  readonly leaked?: string;
  readonly leakedSince?: string;
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
  if (flags.emergency && flags.due)
    throw new RotatorError("USAGE", {
      what: "--emergency does not go with --due: a tick goes on with it by itself.",
    });
  const given = [flags.order && "--order", flags.leaked && "--leaked", flags.leakedSince && "--leaked-since"];
  const alone = flags.emergency ? undefined : given.find((flag) => flag !== undefined);
  if (alone !== undefined) throw new RotatorError("USAGE", { what: `${alone} goes with --emergency.` });
};

/** @throws RotatorError USAGE */
const alarmOf = (wired: Wired, flags: RotateFlags): Alarm | undefined => {
  if (!flags.emergency) return undefined;
  const { order = wired.config.emergencyOrder, leaked = null, leakedSince } = flags;
  const refuse = (what: string): never => {
    throw new RotatorError("USAGE", { what, do: ["imkit-rotator rotate --help"] });
  };
  if (order !== "revoke-first" && order !== "replace-first")
    return refuse("--order is revoke-first or replace-first.");
  if (leaked !== null && !/^[0-9a-f]{8,16}$/.test(leaked))
    return refuse("--leaked wants a fingerprint of 8 to 16 hex digits.");
  const since = leakedSince === undefined ? null : parseInstant(leakedSince);
  if (since === null && leakedSince !== undefined)
    return refuse("--leaked-since wants an RFC 3339 time with its zone, such as 2026-11-25T02:40:00+08:00.");
  if (since !== null && Date.parse(since) > wired.now()) return refuse("--leaked-since lies in the future.");
  return { leaked, since, order };
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
    if (flags.due) return await (await import("./tick.ts")).tickOne(io, wired, flags);
    const rotated = await work(io, wired, flags);
    await notifyPeople(wired);
    return await printRotated(io, wired, rotated, null);
  } catch (thrown) {
    const error = asRotatorError(thrown);
    if (!flags.due) await notifyPeople(wired, { error });
    return printRefusal(io, wired, error);
  }
};

const work = async (io: Io, wired: Wired, flags: RotateFlags): Promise<Rotated> => {
  const hands = await wired.hands();
  const alarm = alarmOf(wired, flags);
  const asks = io.interactive && flags.due !== true;
  if (asks && alarm === undefined) await begin(io, wired, flags);
  if (alarm !== undefined) await takeKeys(wired);
  return follow(io, wired, flags, (options) =>
    rotate(hands, alarm === undefined ? options : { ...options, alarm }),
  );
};

/** Runs what `start` begins, then goes on with it as long as a person on the terminal does his part and there is time. */
export const follow = async (
  io: Io,
  wired: Wired,
  flags: RotateFlags,
  start: (options: RotateOptions) => Promise<Rotated>,
): Promise<Rotated> => {
  const hands = await wired.hands();
  const asks = io.interactive && flags.due !== true;
  const until =
    hands.clock.monotonic() +
    (asks && flags.wait === undefined ? Number.POSITIVE_INFINITY : waitOf(flags.wait));
  const left = (): number => Math.max(0, until - hands.clock.monotonic());
  const talk = waitingTalk(io, wired, asks);
  const aside = besideWaiting(wired, !asks);
  const waiting: RotateOptions["waiting"] = (phase, ...rest) => {
    aside.look(phase);
    return talk.waiting(phase, ...rest);
  };
  const options = (again: boolean): RotateOptions => ({
    reason: flags.reason ?? null,
    ticket: flags.ticket ?? null,
    drop: again ? [] : (flags.drop ?? []),
    restarted: talk.takeRestarted() || (!again && flags.restarted === true),
    acceptApp: flags.acceptApp ?? null,
    confirm: false,
    waitMs: left(),
    waiting,
  });
  try {
    let rotated = await start(options(false));
    while (!io.signal.aborted && (talk.hasRestarted() || (await keyCame(io, wired, rotated, left, talk)))) {
      rotated = await rotate(hands, options(true));
    }
    return rotated;
  } finally {
    await Promise.all([talk.close(), aside.over(), signalsHeard()]);
  }
};

/** Due, and no key is staged: waits for one, as long as there is time. */
const keyCame = async (
  io: Io,
  wired: Wired,
  { phase, state, worked }: Rotated,
  left: () => number,
  talk: Talk,
): Promise<boolean> => {
  if (worked !== null || phase !== "idle" || !isDue(wired, state)) return false;
  const hands = await wired.hands();
  while (left() > 0 && !io.signal.aborted) {
    talk.say("waiting-key", state);
    await takeKeys(wired);
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
