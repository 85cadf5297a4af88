import { blackoutOf, exposureOf } from "../../core/exposure.ts";
import { span } from "../../core/incident-text.ts";
import type { AppState } from "../../core/state.ts";
import type { Rotated } from "../../flow/rotate.ts";
import type { Io } from "../io.ts";
import type { Wired } from "../wire.ts";

/** After an emergency: the report is written. @returns its path, or null where there was none */
export const reportLeak = async (
  io: Io,
  wired: Wired,
  { state, worked }: Pick<Rotated, "state" | "worked">,
): Promise<string | null> => {
  if (worked === null || state.rotation?.id !== worked || state.rotation.emergency === null) return null;
  const { reportIncident } = await import("../incident.ts");
  return (await reportIncident(io, wired, worked))?.markdown ?? null;
};

const bounds = (atLeast: number, atMost: number | null): string => {
  if (atMost === null) return `at least ${span(atLeast)}`;
  if (atLeast < 1_000) return `at most ${span(atMost)}`;
  return span(atLeast) === span(atMost) ? span(atMost) : `between ${span(atLeast)} and ${span(atMost)}`;
};

/** How long the leaked key worked and how long nothing did, as far as it is known; nothing without an emergency. */
export const leakLines = (s: AppState, { clock, now }: Pick<Wired, "clock" | "now">): readonly string[] => {
  const exposure = exposureOf(s);
  // An alarm that was taken back says nothing any more.
  if (exposure === null || s.rotation?.ended === "abandoned") return [];
  const since = `${exposure.fromKnown ? "the time that you gave" : "the opening of this rotation"} (${clock(exposure.from)})`;
  const lines =
    exposure.firstRejected === null
      ? [
          exposure.lastAccepted === null
            ? `Exposure: not known yet; IMKIT gave no clear answer on the leaked key. Counted from ${since}.`
            : `Exposure: the leaked key STILL WORKS, as far as anybody saw. Counted from ${since}.`,
        ]
      : [`Exposure: ${bounds(exposure.atLeastMs, exposure.atMostMs)}, counted from ${since}.`];
  const blackout = blackoutOf(s, new Date(now()).toISOString());
  if (blackout === null)
    return (s.rotation?.stood.size ?? 0) === 0
      ? lines
      : [...lines, "Blackout: not known; IMKIT gave no clear word on a key that was in use."];
  if (blackout.state === "unknown") {
    const most = span(blackout.atMostMs ?? 0);
    return [
      ...lines,
      `Blackout: not known, at most ${most}; a key that was in use could not be asked about when all had the new one.`,
    ];
  }
  if (blackout.state === "none")
    return [...lines, "Blackout: none; some working key was in place all the time."];
  const end = blackout.state === "over" ? "." : ", and it goes on.";
  return [
    ...lines,
    `Blackout: ${bounds(blackout.atLeastMs, blackout.atMostMs)} without a working key somewhere${end}`,
  ];
};
