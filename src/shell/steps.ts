import type { Phase } from "../core/outcome.ts";
import { type NextStep, nextSteps } from "../core/steps.ts";
import type { Fp } from "../core/secret.ts";
import type { AppState } from "../core/state.ts";
import type { Wired } from "./wire.ts";

/** Nothing at all, or that IMKIT wants to be left alone until a certain time. */
export const pauseSteps = (wired: Wired): readonly NextStep[] => {
  const until = wired.pauseUntil();
  if (until === null) return [];
  const seconds = Math.ceil((until - wired.now()) / 1000);
  const at = wired.clock(new Date(until).toISOString());
  const text = `IMKIT asks for a pause (429): wait until ${at}, ${seconds} s from now`;
  return [{ who: "you", text, command: null }];
};

/** What happens next and who does it. */
export const stepsOf = (
  wired: Wired,
  state: AppState,
  phase: Phase,
  lost: readonly Fp[] = [],
): readonly NextStep[] => [...pauseSteps(wired), ...nextSteps(wired.name, state, phase, wired.clock, lost)];

/** The same as lines of an error's `do`. */
export const linesOf = (steps: readonly NextStep[]): readonly string[] =>
  steps.map((step) => step.command ?? step.text);

/** What each of these lines is for. */
export const hintsOf = (steps: readonly NextStep[]): Readonly<Record<string, string>> =>
  Object.fromEntries(steps.flatMap(({ text, command }) => (command === null ? [] : [[command, text]])));

/** A short phrase of ours as a sentence. */
export const sentence = (text: string): string =>
  text === "" ? "" : `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
