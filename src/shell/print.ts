import { styleText } from "node:util";
import type { RotatorError } from "../core/errors.ts";
import type { LedgerEvent } from "../core/events.ts";
import type { NextStep } from "../core/steps.ts";
import { showFp } from "../core/secret.ts";
import type { Told } from "../flow/hands.ts";
import { explained } from "./interrupt.ts";
import { type Io, isCommand } from "./io.ts";

type Style = "green" | "red" | "yellow" | "dim" | "bold" | "cyan";
export const paint = (io: Pick<Io, "colour">, style: Style, text: string): string =>
  io.colour ? styleText(style, text, { validateStream: false }) : text;

/** What, why, state, do, undo for a person, on stderr. */
export const printWords = (io: Io, thrown: RotatorError): void => {
  const error = explained(io, thrown);
  const width = io.width?.err;
  const many = (title: string, texts: readonly string[]): readonly string[] =>
    texts
      .flatMap((text) => (error.hints[text] === undefined ? [text] : [`${error.hints[text]}:`, text]))
      .flatMap((text, i) => block(i === 0 ? title : "", io.paste(text), isCommand(text) ? undefined : width));
  const lines = [
    `${paint(io, "red", "✖")} ${paint(io, "bold", error.code)}  ${error.what}`,
    ...(error.why ? block("Why", error.why, width) : []),
    ...(error.state ? block("State", error.state, width) : []),
    ...many("Do", error.do),
    ...many("Undo", error.undo),
  ];
  for (const line of lines) io.warn(line);
};

/** The last stdout line of a failed command under --json. */
export const errorLine = (io: Io, thrown: RotatorError, exit: number): string => {
  const error = explained(io, thrown);
  return JSON.stringify({
    ...error.toJSON(),
    do: error.do.map(io.command),
    undo: error.undo.map(io.command),
    exitCode: exit,
  });
};

export const printError = (io: Io, error: RotatorError, exit: number): void => {
  printWords(io, error);
  if (io.json) io.out(errorLine(io, error, exit));
};

const block = (title: string, text: string, width: number | undefined): readonly string[] =>
  text
    .split("\n")
    .flatMap((line) => fold(line, 9, width))
    .map((line, i) => `  ${(i === 0 ? title : "").padEnd(6)} ${line}`);

/** Broken between words, so that it fits a terminal behind an indent; what cannot be broken, and what is no sentence, is left as it is. */
const fold = (text: string, indent: number, width: number | undefined): readonly string[] => {
  if (width === undefined || indent + text.length <= width || width < 40) return [text];
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && indent + line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
};

export const printNext = (io: Io, steps: readonly NextStep[], write: (line: string) => void): void => {
  const width = write === io.out ? io.width?.out : io.width?.err;
  steps.forEach((step, i) => {
    const text = `${step.text}${step.command === null ? "." : `:`}`;
    fold(text, 5, width).forEach((line, at) => write(at === 0 ? `  ${i + 1}. ${line}` : `     ${line}`));
    if (step.command !== null) write(`       ${paint(io, "cyan", io.paste(step.command))}`);
  });
};

/** Lines that may be longer than a terminal is wide. */
export const printLines = (io: Io, lines: readonly string[], write: (line: string) => void): void => {
  const width = write === io.out ? io.width?.out : io.width?.err;
  for (const line of lines.flatMap((one) => fold(one, 0, width))) write(line);
};

/** `next` of a JSON answer. */
export const nextJson = (io: Io, steps: readonly NextStep[]): readonly NextStep[] =>
  steps.map((step) => ({ ...step, command: step.command === null ? null : io.command(step.command) }));

export const headText = (head: { readonly seq: number; readonly h: string } | null): string | null =>
  head === null ? null : `${head.seq}:${head.h.slice(0, 16)}`;

const FINGERPRINTS: ReadonlySet<string> = new Set([
  "fp",
  "current",
  "new",
  "old",
  "stale",
  "leaked",
  "to",
  "replaces",
  "appFingerprint",
]);

/** An event as people and programs see it: fingerprints by their first 8 digits; only the ledger itself and its export hold 16. */
export const shownEvent = (event: LedgerEvent): Record<string, unknown> => {
  const short = (value: unknown): unknown => {
    if (typeof value === "string") return showFp(value);
    return Array.isArray(value) ? value.map(short) : value;
  };
  return Object.fromEntries(
    Object.entries(event).map(([key, value]) => {
      if (FINGERPRINTS.has(key)) return [key, short(value)];
      if (event.type !== "adopted" || key !== "stores") return [key, value];
      return [key, event.stores.map(({ name, fp }) => ({ name, fp: short(fp) }))];
    }),
  );
};

/**
 * Progress: one short line on stderr for what a person wants to see pass; with `ndjson` (of `rotate --json`) each event as a line on
 * stdout too, in an envelope, because a ledger's `result` is not the result of the command. Every other command has one answer, and
 * nothing before it.
 */
export const teller = (io: Io, app: string, ndjson: boolean): ((told: Told) => void) => {
  const targets = new Map<string, string>();
  const heard = new Set<string>();
  const out = (line: unknown): void => {
    if (ndjson && io.json) io.out(JSON.stringify(line));
  };
  return (told) => {
    if (told.kind === "note") {
      io.say(`  ${paint(io, "yellow", "!")} ${told.text}`);
      out({ type: "note", app, text: told.text });
      return;
    }
    if (told.kind === "heard") {
      if (told.event.type !== "emergency-requested" || heard.has(told.id)) return;
      heard.add(told.id);
      out({ type: "event", app, seq: told.seq, event: shownEvent(told.event), foreign: true });
      io.say(`  ${lineOf(told.event, io, targets) ?? ""}, said by another process`);
      return;
    }
    out({ type: "event", app, seq: told.seq, event: shownEvent(told.event) });
    if (told.event.type === "intent") targets.set(told.id, told.event.target);
    const line = lineOf(told.event, io, targets);
    if (line !== null) io.say(`  ${line}`);
    else io.detail(`  ${paint(io, "dim", `· entry ${told.seq}: ${told.event.type}`)}`);
  };
};

const lineOf = (e: LedgerEvent, io: Io, targets: ReadonlyMap<string, string>): string | null => {
  const ok = (text: string): string => `${paint(io, "green", "✔")} ${text}`;
  const bad = (text: string): string => `${paint(io, "red", "✖")} ${text}`;
  switch (e.type) {
    case "adopted":
      return ok(
        e.current === null
          ? "Adopted: no store holds a working key"
          : `Adopted: the current key is ${showFp(e.current)}`,
      );
    case "opened":
      return ok(
        `Rotation ${e.rotation} opened for the new key ${e.new === null ? "(not yet given)" : showFp(e.new)}`,
      );
    case "mode-found":
      return ok(`New key ${showFp(e.fp)} accepted by IMKIT; mode ${e.mode}; same app: ${e.sameApp}`);
    case "intent":
      return e.action === "write" ? `… ${e.target}: writing` : `… ${e.target}: rolling out`;
    case "result":
      return resultLine(e, targets.get(e.intent) ?? "?", ok, bad);
    case "observed":
      if (e.what === "preflight" && e.outcome === "failed")
        return bad(`${e.target}: preflight failed (${e.code ?? "?"})`);
      if (e.what === "target" && e.outcome === "failed")
        return bad(`${e.target}: ${e.code ?? "cannot be read"}`);
      if (e.what === "verdict" && e.fp) return `  key ${showFp(e.fp)}: ${e.verdict ?? "unclear"}`;
      return null;
    case "restarted":
      return ok(`Restarted, as you say: ${e.targets.join(", ")}`);
    case "emergency-requested":
      return bad(
        `EMERGENCY: ${e.leaked === null ? "a key" : `the key ${showFp(e.leaked)}`} leaked (${e.order})`,
      );
    case "rollback-requested":
      return ok(`Going back to the key ${showFp(e.to)}`);
    case "wrong-key-revoked":
      return bad("The new key was revoked, and an old one still works");
    case "proof":
      return ok(`Old key ${showFp(e.fp)} is dead: ${e.triads.length} of ${e.triads.length} triads`);
    case "waived":
      return e.fp === undefined
        ? `${e.target ?? ""}: dropped from the plan`
        : `key ${showFp(e.fp)}: attested, not proved`;
    case "done":
      return ok(`Rotation ${e.rotation} done`);
    case "abandoned":
      return `Rotation ${e.rotation} abandoned: ${e.why}`;
    case "discarded":
      return `Key ${showFp(e.fp)} discarded`;
    case "waiting":
      return e.for === "soak" ? "… watching for a while, with both keys alive (soak)" : null;
    case "genesis":
    case "staged":
    case "plan-amended":
    case "run-started":
    case "claimed":
    case "renewed":
    case "released":
    case "notified":
    case "late-effect":
    case "closing":
      return null;
  }
};

const resultLine = (
  e: LedgerEvent & { type: "result" },
  target: string,
  ok: (text: string) => string,
  bad: (text: string) => string,
): string => {
  const reason = e.reason ? `: ${e.reason}` : "";
  if (e.code === "CANCELLED") return `  ${target}: called off before it began`;
  if (e.outcome !== "ok") return bad(`${target}: ${e.outcome}${e.code ? ` (${e.code})` : ""}${reason}`);
  if (e.changed === undefined) return ok(`${target}: rolled out${reason}`);
  return ok(`${target}: ${e.changed ? "written and read back" : "holds the new key already"}`);
};
