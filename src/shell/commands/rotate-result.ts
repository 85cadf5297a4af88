import { blackoutMs, blackoutOf, exposureOf } from "../../core/exposure.ts";
import { CODES, type ErrorWords, RotatorError, type StoreStop } from "../../core/errors.ts";
import { type Failure, failureOf, type Phase } from "../../core/outcome.ts";
import { dueAt } from "../../core/policy.ts";
import {
  attestedFingerprints,
  exitOf,
  oldFingerprints,
  type StoreLine,
  storeLines,
  whereKeysAre,
  workloadLines,
} from "../../core/report.ts";
import { type NextStep, outageSteps } from "../../core/steps.ts";
import { showFp } from "../../core/secret.ts";
import { type AppState, oldOnes } from "../../core/state.ts";
import type { Rotated } from "../../flow/rotate.ts";
import { exitOfError, explained, undoOf } from "../interrupt.ts";
import { exitOfSignal, type Io, isCommand } from "../io.ts";
import { headText, nextJson, printLines, printNext, printWords } from "../print.ts";
import { hintsOf, linesOf, stepsOf } from "../steps.ts";
import type { Wired } from "../wire.ts";
import { leakLines, reportLeak } from "./leak-words.ts";

export type RotateStatus = "done" | "waiting" | "failed" | "refused" | "locked" | "nothing";
/** How one app ended; `error` is still to be shown. */
export type Outcome = {
  readonly exit: number;
  readonly status: RotateStatus;
  readonly error: RotatorError | null;
};

/** The word for an exit status that is no success. What was told to stop (130, 143) has not failed. */
export const statusOf = (exit: number): RotateStatus =>
  exit === 6 ? "locked" : exit === 4 ? "refused" : exit === 3 || exit > 128 ? "waiting" : "failed";

export const isDue = (wired: Wired, s: AppState): boolean => {
  if (wired.app.rotateEveryMs === null || !s.adopted) return false;
  const due = dueAt(s.freshTs, wired.app.rotateEveryMs);
  return due !== null && Date.parse(due) <= wired.now();
};

/** What a tick's result line has beside that of any rotation. */
export type TickEnd = {
  readonly more: Readonly<Record<string, unknown>>;
  /** A staged key waits for its time: nothing failed. */
  readonly isHeld?: boolean;
  /** Goes before the steps that follow from the state. */
  readonly first?: readonly NextStep[];
};

type End = {
  readonly status: RotateStatus;
  readonly exit: number;
  readonly next: readonly NextStep[];
  /** Path of the incident report. */
  readonly report?: string | null;
  /** Of a tick. */
  readonly more?: TickEnd["more"];
};

/** Prints how a rotation, or a tick, ended: the result line under --json, else words. */
export const printRotated = async (
  io: Io,
  wired: Wired,
  rotated: Rotated,
  tick: TickEnd | null,
): Promise<Outcome> => {
  const { state, phase, worked, head } = rotated;
  const { status, exit, next } = endOf(wired, rotated, tick);
  const report = await reportLeak(io, wired, rotated);
  const more = tick?.more ?? {};
  const lines = leakLines(state, wired);
  if (io.signal.aborted && !["done", "nothing"].includes(status)) {
    const stopped: End = {
      status: hasFailed(state) ? status : "waiting",
      exit: exitOfSignal(io),
      next,
      report,
      more,
    };
    if (io.json) io.out(resultLine(io, wired.name, state, stopped, worked, head));
    const words = { state: [whereKeysAre(state), ...lines].join("\n"), undo: undoOf(wired.name, state) };
    printWords(io, new RotatorError("INTERRUPTED", words));
    return { exit: stopped.exit, status: stopped.status, error: null };
  }
  const error = exit === 0 || exit === 3 ? null : failureWords(wired, rotated);
  if (io.json) io.out(resultLine(io, wired.name, state, { status, exit, next, report, more }, worked, head));
  else if (error === null) {
    const fp = state.current === null ? "no key" : showFp(state.current);
    if (status === "done") io.out(`Done: ${wired.name} runs on ${fp}; ${oldKeysWords(state)}.`);
    if (status === "nothing") io.out(`Nothing to do for ${wired.name}: ${fp} is current.`);
    if (status === "waiting") io.out(`Waiting for you: ${wired.name} is ${wordOf(phase)}.`);
    if (worked !== null) printLines(io, lines, io.out);
    printNext(io, next, io.out);
    if (head) io.say(`  Ledger head ${headText(head) ?? ""}`);
  }
  return { exit, status, error };
};

/** More than that it was stopped in the middle of something. */
const hasFailed = ({ rotation }: AppState): boolean => {
  const failure = rotation === null ? null : failureOf(rotation);
  return rotation?.wrongKey === true || (failure !== null && failure.detail !== "INTERRUPTED");
};

/** There was nothing to do, and nothing was asked. */
export const printNothing = (
  io: Io,
  wired: Wired,
  state: AppState,
  head: { readonly seq: number; readonly h: string } | null,
): Outcome => {
  const end: End = { status: "nothing", exit: 0, next: [] };
  if (io.json) io.out(resultLine(io, wired.name, state, end, null, head));
  else io.out(`Nothing to do for ${wired.name}: no rotation is open.`);
  return { exit: 0, status: "nothing", error: null };
};

/** How the old keys ended: proved, or only attested, which is never called proved. */
export const oldKeysWords = (s: AppState): string => {
  const attested = attestedFingerprints(s);
  const proved = oldFingerprints(s).filter((fp) => !attested.includes(fp));
  if (attested.length + proved.length === 0) return "there was no old key";
  return [
    ...(proved.length > 0 ? [`proved dead: ${proved.map(showFp).join(", ")}`] : []),
    ...(attested.length > 0 ? [`attested by a person, NOT proved: ${attested.map(showFp).join(", ")}`] : []),
  ].join("; ");
};

const wordOf = (phase: Phase): string =>
  phase === "idle" ? "due" : phase === "blackout" ? "in blackout: no key works" : phase;

const endOf = (wired: Wired, { state, phase, worked, lost }: Rotated, tick: TickEnd | null): End => {
  const ended = worked !== null && state.rotation?.id === worked ? state.rotation.ended : null;
  if (ended === "done") return { status: "done", exit: 0, next: [] };
  if (phase === "idle" || phase === "new") {
    if (!isDue(wired, state)) return { status: "nothing", exit: 0, next: [] };
    return {
      status: "waiting",
      exit: tick === null ? 3 : 0,
      next: stepsOf(wired, state, "waiting-key"),
    };
  }
  const next = [...(tick?.first ?? []), ...stepsOf(wired, state, phase, lost)];
  if (tick?.isHeld) return { status: "waiting", exit: 0, next: tick.first ?? [] };
  const exit = exitOf(state, phase);
  return { status: statusOf(exit), exit: exit === 3 && tick !== null ? 0 : exit, next };
};

const failureWords = (wired: Wired, { state, phase }: Rotated): RotatorError => {
  const failure = state.rotation === null ? null : failureOf(state.rotation);
  const code = phase === "wrong-key-revoked" ? "WRONG_KEY_REVOKED" : (failure?.code ?? "INTERNAL");
  const target = failure?.target ?? null;
  const where = wired.app.stores.find((t) => t.plan.name === target)?.plan.where;
  const reason = target === null ? undefined : state.rotation?.rollouts.get(target)?.reason;
  const [remark = "", fix] = (target === null ? "" : (wired.notes(target)[0] ?? "")).split("  Fix: ");
  const steps = stepsOf(wired, state, phase);
  const lines = linesOf(steps);
  const urgent = linesOf(outageSteps(wired.name, state)).filter((line) => lines.includes(line));
  return new RotatorError(code, {
    what: target === null ? CODES[code].what : `${CODES[code].what.replace(/\.$/, "")}: ${target}.`,
    why: [
      ...(failure?.detail && failure.detail !== code
        ? [`${failure.detail}${where === undefined ? "" : ` at ${where}`}`]
        : []),
      ...(reason ? [reason] : []),
      ...(remark === "" ? [] : [remark]),
    ].join("\n"),
    state: whereKeysAre(state),
    do: [...new Set([...urgent, ...wayOut(wired, state, failure, fix), ...lines])],
    hints: hintsOf(steps),
  });
};

/** What comes before the steps that are always right. */
const wayOut = (
  wired: Wired,
  s: AppState,
  failure: Failure | null,
  fix: string | undefined,
): readonly string[] => {
  if (fix !== undefined) return [fix];
  if (failure?.code !== "STORE_CONFLICT" || s.current === null) return [];
  return [
    `imkit-rotator status ${wired.name}`,
    `Find out who changed ${failure.target ?? "it"}, and put the key ${showFp(s.current)} back there`,
  ];
};

/** The last line of `rotate --json`, before the error of a failed one. */
const resultLine = (
  io: Io,
  app: string,
  s: AppState,
  { status, exit, next, report = null, more = {} }: End,
  rotation: string | null,
  head: { readonly seq: number; readonly h: string } | null,
  stops: readonly StoreStop[] = [],
): string => {
  const r = s.rotation !== null && s.rotation.id === rotation ? s.rotation : null;
  const olds = r === null ? [] : (r.ended === null ? oldOnes(s) : oldFingerprints(s)).map(showFp);
  const fresh = r?.newFp ?? (status === "nothing" ? null : (s.staged?.fp ?? null));
  return JSON.stringify({
    type: "result",
    schemaVersion: 1,
    status,
    exitCode: exit,
    app,
    rotation,
    mode: r?.mode ?? null,
    sameApp: r?.sameApp ?? null,
    oldFingerprint: olds[0] ?? null,
    oldFingerprints: olds,
    newFingerprint: fresh === null ? null : showFp(fresh),
    attested: r === null ? [] : attestedFingerprints(s).map(showFp),
    exposureMs: (r === null ? null : exposureOf(s))?.atMostMs ?? null,
    blackoutMs: r === null ? null : blackoutMs(s),
    exposure: r === null ? null : exposureOf(s),
    blackout: r === null ? null : blackoutOf(s),
    stores: r === null ? stops.map(lineOf) : storeLines(s),
    workloads: r === null ? [] : workloadLines(s),
    report,
    ...more,
    head: headText(head),
    next: nextJson(io, next),
  });
};

/** Before there is a rotation. */
const lineOf = ({ name, code }: StoreStop): StoreLine => ({
  name,
  state: code === null ? "pending" : "failed",
  code,
});

/** A run that ended in an error: it has a result line too, before the error. */
export const printRefusal = async (
  io: Io,
  wired: Pick<Wired, "name" | "lastState">,
  thrown: RotatorError,
  { more }: TickEnd = { more: {} },
): Promise<Outcome> => {
  const error = explained(io, thrown);
  const exit = exitOfError(io, error);
  const status = statusOf(exit);
  const last = await wired.lastState();
  const isOpened = last.state.rotation !== null && last.state.rotation.ended === null;
  const undo = error.code === "INTERRUPTED" ? undoOf(wired.name, last.state) : [];
  const told = isOpened
    ? new RotatorError(error.code, {
        ...wordsOf(error),
        state: stateOf(error, last.state),
        ...(undo.length > 0 ? { undo } : {}),
      })
    : error;
  const next = error.do.map((line): NextStep => {
    const command = isCommand(line) ? line : null;
    return { who: "you", text: command === null ? line : error.what, command };
  });
  const id = isOpened ? (last.state.rotation?.id ?? null) : null;
  if (io.json)
    io.out(resultLine(io, wired.name, last.state, { status, exit, next, more }, id, last.head, error.stores));
  if (error.code !== "INTERRUPTED") return { exit, status, error: told };
  printWords(io, told);
  return { exit, status, error: null };
};

/** "Nothing was changed" is too little where a rotation is under way, and so is what is said of the ledger alone. */
const stateOf = ({ code, state }: RotatorError, s: AppState): string => {
  if (code === "LEDGER_UNWRITABLE") return `${whereKeysAre(s)} ${state}`;
  return state === new RotatorError(code).state ? whereKeysAre(s) : state;
};

const wordsOf = ({ what, why, do: steps, hints, undo }: RotatorError): ErrorWords => ({
  what,
  why,
  do: steps,
  hints,
  undo,
});
