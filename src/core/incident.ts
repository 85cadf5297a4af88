import type { Entry, Mode, SameApp } from "./events.ts";
import { type Blackout, blackoutOf, type Exposure, exposureOf } from "./exposure.ts";
import { type Doubt, doubtsOf, type Gap, gapsOf } from "./incident-doubts.ts";
import { type OldKeyLine, oldKeyLines } from "./incident-keys.ts";
import { type Mark, readRotation } from "./incident-read.ts";
import { type Step, stepsOf } from "./incident-steps.ts";
import { type StoreReport, storeReports, type WorkloadReport, workloadReports } from "./incident-targets.ts";
import { plain, zonedClock } from "./incident-text.ts";
import { type TimelineLine, timelineOf } from "./incident-timeline.ts";
import { type UsageReport, usageReport } from "./incident-usage.ts";
import { type Phase, phaseOf } from "./outcome.ts";
import { showFp } from "./secret.ts";
import { type NextStep, nextSteps } from "./steps.ts";

/** What one emergency comes to, ready for JSON. Fingerprints by their first 8 digits, instants RFC 3339 UTC, times in ms. */
export type Incident = {
  readonly schemaVersion: 1;
  readonly kind: "incident";
  readonly app: string;
  /** Host of the base URL. */
  readonly host: string;
  readonly timezone: string;
  readonly rotation: string;
  readonly state: "open" | "done" | "abandoned";
  /** Where an open one stands, as `status` says it. */
  readonly phase: Phase;
  /** The last entry that this report knows. */
  readonly ledger: { readonly id: string; readonly head: string; readonly at: string };
  readonly opened: Mark & { readonly reason: string | null; readonly ticket: string | null };
  readonly emergency: Mark & {
    readonly order: "revoke-first" | "replace-first";
    readonly leaked: readonly string[];
    readonly leakedSince: string | null;
  };
  readonly mode: Mode | null;
  readonly sameApp: SameApp | null;
  readonly rolledBack: boolean;
  readonly newFingerprint: string | null;
  readonly steps: readonly Step[];
  readonly oldKeys: readonly OldKeyLine[];
  readonly stores: readonly StoreReport[];
  readonly workloads: readonly WorkloadReport[];
  readonly exposure: Exposure | null;
  readonly blackout: Blackout | null;
  readonly usage: UsageReport;
  readonly notProved: readonly Doubt[];
  readonly gaps: readonly Gap[];
  readonly timeline: readonly TimelineLine[];
  readonly next: readonly NextStep[];
  /** The command that checks the ledger behind this report. */
  readonly check: string;
};

export type IncidentContext = {
  readonly app: string;
  /** Host of the base URL; no address with anything in it. */
  readonly host: string;
  readonly timezone: string;
  /** A command of ours as it can be pasted; default: as it is. */
  readonly command?: (text: string) => string;
};

/**
 * Reads one rotation out of its ledger, also one that is still open. Same entries, same answer.
 * @returns null when there is no such rotation, or it was no emergency
 * @throws Error for entries that no rotator wrote
 */
export const incident = (
  entries: readonly Entry[],
  rotation: string,
  context: IncidentContext,
): Incident | null => {
  const reading = readRotation(entries, rotation);
  if (reading === null) return null;
  const { s, r, ledger, head, inside } = reading;
  const opened = inside[0];
  const declared = inside.find(({ event }) => event.type === "emergency-requested");
  if (r.emergency === null || declared === undefined || opened?.event.type !== "opened") return null;
  const { reason, ticket } = opened.event;
  const phase = phaseOf(s);
  const keys = oldKeyLines(reading);
  const stores = storeReports(reading);
  const workloads = workloadReports(reading);
  const exposure = exposureOf(s);
  const usage = usageReport(reading);
  const gaps = gapsOf(reading);
  const command = context.command ?? ((line: string): string => line);
  const next = r.ended === null ? nextSteps(context.app, s, phase, zonedClock(context.timezone)) : [];
  const ledgerHead = `${head.seq}:${head.h16}`;
  return {
    schemaVersion: 1,
    kind: "incident",
    app: plain(context.app, 60),
    host: plain(context.host),
    timezone: context.timezone,
    rotation: plain(r.id, 80),
    state: r.ended ?? "open",
    phase,
    ledger: { id: plain(ledger, 80), head: ledgerHead, at: head.at },
    opened: { ...opened.mark, reason: text(reason), ticket: text(ticket) },
    emergency: {
      ...declared.mark,
      order: r.emergency.order,
      leaked: r.emergency.leaked.map(showFp),
      leakedSince: text(r.emergency.since),
    },
    mode: r.mode,
    sameApp: r.sameApp,
    rolledBack: r.rolledBack,
    newFingerprint: r.newFp === null ? null : showFp(r.newFp),
    steps: stepsOf(reading, { keys, stores, workloads, usage }),
    oldKeys: keys,
    stores,
    workloads,
    exposure: exposure === null ? null : { ...exposure, from: plain(exposure.from, 40) },
    blackout: blackoutOf(s, head.at),
    usage,
    notProved: doubtsOf(reading, { keys, stores, workloads, exposure, usage, gaps }),
    gaps,
    timeline: timelineOf(reading),
    next: next.map((step) => ({ ...step, command: step.command === null ? null : command(step.command) })),
    check: command(`imkit-rotator audit verify ${context.app} --head ${ledgerHead}`),
  };
};

const text = (value: string | null): string | null => (value === null ? null : plain(value) || null);
