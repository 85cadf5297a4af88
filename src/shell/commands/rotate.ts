import { CODES, RotatorError } from "../../core/errors.ts";
import { failureOf, type Phase } from "../../core/outcome.ts";
import { dueAt, formatDuration, parseDuration } from "../../core/policy.ts";
import {
  blackoutMs,
  exitOf,
  nextSteps,
  oldFingerprints,
  storeLines,
  whereKeysAre,
  workloadLines,
} from "../../core/report.ts";
import { showFp } from "../../core/secret.ts";
import { type AppState, isOpen } from "../../core/state.ts";
import { plan } from "../../flow/plan.ts";
import { type Rotated, rotate } from "../../flow/rotate.ts";
import { stage } from "../../flow/stage.ts";
import type { Io } from "../io.ts";
import { askYes } from "../io.ts";
import { paint, printNext } from "../print.ts";
import { pressEnter } from "../terminal.ts";
import type { Wired } from "../wire.ts";
import { readKey } from "./stage.ts";

export type RotateFlags = {
  readonly dryRun?: boolean;
  readonly due?: boolean;
  readonly restarted?: boolean;
  readonly wait?: string | boolean;
  readonly drop?: readonly string[];
  readonly acceptApp?: string;
  readonly reason?: string;
  readonly ticket?: string;
  readonly yes?: boolean;
};

export type RotateStatus = "done" | "waiting" | "failed" | "refused" | "locked" | "nothing";

const DEFAULT_WAIT_MS = 30 * 60_000;
const TICK_WAIT_MS = 10 * 60_000;

export const waitOf = (wait: string | boolean | undefined): number => {
  if (wait === undefined || wait === false) return 0;
  if (wait === true) return DEFAULT_WAIT_MS;
  const ms = parseDuration(wait);
  if (ms === null) throw new RotatorError("USAGE", { what: `--wait=${wait}: not a duration such as 30m or 4h.` });
  return ms;
};

/** @returns the exit status of DESIGN section 9. */
export const rotateCommand = async (io: Io, wired: Wired, flags: RotateFlags): Promise<number> => {
  if (flags.dryRun) return dryRun(io, wired);
  return (await rotateOne(io, wired, flags)).exit;
};

/** One app's rotation with its result line. Throws what is not a result of the rotation itself. */
export const rotateOne = async (
  io: Io,
  wired: Wired,
  flags: RotateFlags,
): Promise<{ readonly exit: number; readonly status: RotateStatus }> => {
  if (flags.acceptApp !== undefined && !/^[0-9a-f]{8,16}$/.test(flags.acceptApp)) {
    throw new RotatorError("USAGE", { what: "--accept-app wants an app fingerprint of 8 to 16 hex digits." });
  }
  const hands = await wired.hands();
  const tick = flags.due === true;
  const waitMs = tick && flags.wait === undefined ? 0 : waitOf(flags.wait);
  const lockWait = tick ? Math.min(waitMs, TICK_WAIT_MS) : waitMs;
  if (io.interactive && !tick) await begin(io, wired, flags);
  const talk = waitingTalk(io, wired, tick);
  const run = (restarted: boolean): Promise<Rotated> =>
    rotate(hands, {
      reason: flags.reason ?? null,
      ticket: flags.ticket ?? null,
      drop: restarted ? [] : (flags.drop ?? []),
      restarted: restarted || flags.restarted === true,
      acceptApp: flags.acceptApp ?? null,
      confirm: false,
      waitMs: io.interactive && !tick && flags.wait === undefined ? Number.POSITIVE_INFINITY : lockWait,
      waiting: talk.waiting,
    });
  try {
    let rotated = await run(false);
    while (talk.restarted()) rotated = await run(true);
    return finish(io, wired, rotated, tick);
  } catch (error) {
    if (error instanceof RotatorError) await printRefusal(io, wired, error);
    throw error;
  }
};

/** On a terminal: a missing key is asked for, and the plan is shown before anything is written. */
const begin = async (io: Io, wired: Wired, flags: RotateFlags): Promise<void> => {
  const hands = await wired.hands();
  const seen = await plan(hands);
  const s = seen.state;
  if (!isOpen(s) && s.staged === null && isDue(wired, s)) {
    const { key, source } = await readKey(io, {}, wired.name);
    await stage(hands, key, { source, replace: false });
  }
  if (isOpen(s) || flags.yes || (s.staged === null && !isDue(wired, s))) return;
  io.say(`Plan for ${wired.name}`);
  for (const step of seen.steps) io.say(`  ${step.action.padEnd(8)} ${step.target}  (${step.kind}, ${step.check})`);
  if (!(await askYes("Go on?"))) throw new RotatorError("INTERRUPTED", { what: "Stopped before anything was written." });
};

const isDue = (wired: Wired, s: AppState): boolean => {
  if (wired.app.rotateEveryMs === null) return false;
  const due = dueAt(s.freshTs, wired.app.rotateEveryMs);
  return due === null || Date.parse(due) <= wired.now();
};

/** While `rotate` waits: says what for, once each time it changes; on a terminal Enter says that all was restarted. */
const waitingTalk = (io: Io, wired: Wired, tick: boolean) => {
  let said: Phase | null = null;
  let entered = false;
  return {
    waiting: async (phase: Phase, state: AppState): Promise<boolean> => {
      if (said !== phase) {
        said = phase;
        io.say(paint(io, "bold", `■ Your turn: ${wired.name} is ${phase}.  Ctrl-C is safe: nothing is lost.`));
        printNext(io, nextSteps(wired.name, state, phase, wired.clock), io.say);
        if (io.interactive && phase === "waiting-restart") io.say("  Or press Enter here when all was restarted.");
      }
      if (io.interactive && !tick && phase === "waiting-restart") entered = await pressEnter(io, 5_000);
      return entered;
    },
    /** Whether Enter was pressed since the last call. */
    restarted: (): boolean => {
      const was = entered;
      entered = false;
      return was;
    },
  };
};

const finish = (
  io: Io,
  wired: Wired,
  rotated: Rotated,
  tick: boolean,
): { exit: number; status: RotateStatus } => {
  const { state, phase, worked } = rotated;
  if (io.signal.aborted && phase !== "idle") throw new RotatorError("INTERRUPTED", { state: whereKeysAre(state) });
  const { status, exit } = resultOf(wired, rotated, tick);
  const failure = status === "failed" || phase === "wrong-key-revoked" ? failureWords(wired, rotated, exit) : null;
  const next = status === "done" ? [] : nextSteps(wired.name, state, phase, wired.clock);
  if (io.json) io.out(resultLine(wired.name, state, status, exit, worked, rotated.head, next));
  else if (status === "done" || status === "nothing") {
    const fp = state.current === null ? "no key" : showFp(state.current);
    io.out(status === "done" ? `Done: ${wired.name} runs on ${fp}; every old key is proved dead or attested.` : `Nothing to do for ${wired.name}: ${fp} is current.`);
    if (rotated.head) io.say(`  Ledger head ${headText(rotated.head)}`);
  } else if (failure === null) {
    io.out(`Waiting for you: ${wired.name} is ${phase}.`);
    printNext(io, next, io.out);
    if (rotated.head) io.say(`  Ledger head ${headText(rotated.head)}`);
  }
  if (failure !== null) throw failure;
  return { exit, status };
};

const headText = (head: { readonly seq: number; readonly h: string }): string => `${head.seq}:${head.h.slice(0, 16)}`;

const resultOf = (wired: Wired, { state, phase, worked }: Rotated, tick: boolean): { status: RotateStatus; exit: number } => {
  const ended = worked !== null && state.rotation?.id === worked ? state.rotation.ended : null;
  if (ended === "done") return { status: "done", exit: 0 };
  if (phase === "idle" || phase === "new") {
    return isDue(wired, state) && state.adopted ? { status: "waiting", exit: tick ? 0 : 3 } : { status: "nothing", exit: 0 };
  }
  const exit = exitOf(state, phase);
  if (exit === 3) return { status: "waiting", exit: tick ? 0 : 3 };
  const failure = state.rotation === null ? null : failureOf(state.rotation);
  const refused = exit === 4 && failure?.code !== "STORE_CONFLICT" && failure?.code !== "STORE_REFUSED";
  return { status: refused && phase !== "wrong-key-revoked" ? "refused" : "failed", exit };
};

const failureWords = (wired: Wired, { state, phase }: Rotated, exit: number): RotatorError => {
  const failure = state.rotation === null ? null : failureOf(state.rotation);
  const steps = nextSteps(wired.name, state, phase, wired.clock).flatMap((n) => n.command ?? []);
  const code = phase === "wrong-key-revoked" ? "WRONG_KEY_REVOKED" : (failure?.code ?? "INTERNAL");
  const target = failure?.target ?? null;
  return new RotatorError(code, {
    what: target === null ? CODES[code].what : `${CODES[code].what.replace(/\.$/, "")}: ${target}.`,
    why: failure?.detail ? `${failure.detail}${hintOf(wired, target)}` : "",
    state: whereKeysAre(state),
    do: exit === 0 ? [] : steps,
  });
};

const hintOf = (wired: Wired, target: string | null): string => {
  const where = target === null ? undefined : wired.app.stores.find((s) => s.plan.name === target)?.plan.where;
  return where === undefined ? "" : ` at ${where}`;
};

/** The last line of `rotate --json`. */
export const resultLine = (
  app: string,
  s: AppState,
  status: RotateStatus,
  exitCode: number,
  rotation: string | null,
  head: { readonly seq: number; readonly h: string } | null,
  next: readonly unknown[],
): string => {
  const r = s.rotation !== null && s.rotation.id === rotation ? s.rotation : null;
  const olds = r === null ? [] : oldFingerprints(s).map(showFp);
  const fresh = r?.newFp ?? (status === "nothing" ? null : (s.staged?.fp ?? null));
  return JSON.stringify({
    type: "result",
    schemaVersion: 1,
    status,
    exitCode,
    app,
    rotation,
    mode: r?.mode ?? null,
    sameApp: r?.sameApp ?? null,
    oldFingerprint: olds[0] ?? null,
    oldFingerprints: olds,
    newFingerprint: fresh === null ? null : showFp(fresh),
    exposureMs: null,
    blackoutMs: r === null ? null : blackoutMs(s),
    stores: r === null ? [] : storeLines(s),
    workloads: r === null ? [] : workloadLines(s),
    head: head === null ? null : headText(head),
    next,
  });
};

/** Refusals and locks have a result line too, before the error. */
const printRefusal = async (io: Io, wired: Wired, error: RotatorError): Promise<void> => {
  if (!io.json || error.code === "INTERRUPTED") return;
  const status = error.code === "LOCKED" ? "locked" : error.exit === 4 ? "refused" : null;
  if (status === null) return;
  const next = error.do.map((command) => ({ who: "you", text: error.what, command }));
  const last = await wired.lastState();
  io.out(resultLine(wired.name, last.state, status, error.exit, last.state.rotation?.id ?? null, last.head, next));
};

const dryRun = async (io: Io, wired: Wired): Promise<number> => {
  const seen = await plan(await wired.hands());
  if (io.json) {
    io.out(
      JSON.stringify({
        type: "plan",
        schemaVersion: 1,
        app: wired.name,
        mode: seen.mode,
        steps: seen.steps,
        people: seen.people,
        exitCode: seen.exit,
      }),
    );
  } else {
    io.out(`Plan for ${wired.name} (mode ${seen.mode ?? "not known yet"}); nothing was written.`);
    for (const step of seen.steps) io.out(`  ${step.action.padEnd(8)} ${step.target}  (${step.kind}): ${step.check}`);
    for (const person of seen.people) io.out(`  you      ${person}`);
    if (wired.app.soakMs > 0) io.out(`  soak     ${formatDuration(wired.app.soakMs)}`);
  }
  if (seen.exit !== 0) throw new RotatorError(seen.code ?? "STORE_FAILED", { why: seen.why, do: [`imkit-rotator doctor ${wired.name}`] });
  return 0;
};
