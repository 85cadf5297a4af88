import type { Usage } from "./events.ts";
import type { Incident } from "./incident.ts";
import type { OldKeyLine } from "./incident-keys.ts";
import type { Mark } from "./incident-read.ts";
import type { Step, StepEvidence } from "./incident-steps.ts";
import { literal, markdown as md, span, utc } from "./incident-text.ts";

/** Shows an instant in the app's time zone with its offset. */
export type Clock = (ts: string) => string;
type Cells = readonly string[];

/** Cells are Markdown already. */
export const table = (head: Cells, rows: readonly Cells[]): readonly string[] => {
  if (rows.length === 0) return ["None."];
  const line = (cells: Cells): string => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)];
};

/** An instant in words: local with its offset, then UTC. */
export const moment = (ts: string, clock: Clock): string => {
  const local = clock(ts);
  const z = utc(ts);
  return `${local} (${local.slice(0, 10) === z.slice(0, 10) ? z.slice(11) : z})`;
};

const times = (mark: { readonly at: string | null } | null, clock: Clock): Cells =>
  mark?.at == null ? ["-", "-"] : [clock(mark.at), utc(mark.at)];
const entry = (mark: Mark | null): string => (mark === null ? "-" : `${mark.seq} \`${mark.h16}\``);
const who = (by: string | null): string => (by === null ? "-" : md(by));

/** What was done in the fourth step is the counting, and it must not look like more. */
export const stateWord = (step: Step): string => {
  if (step.state === "done") return step.id === "operations-checked" ? "counted" : "done";
  return step.state === "open" ? "**OPEN**" : "**NOT PROVED**";
};

export const stepTable = ({ steps }: Incident, clock: Clock): readonly string[] =>
  table(
    ["Step", "State", "When", "UTC", "Who recorded it", "What was seen"],
    steps.map((step, i) => [
      `${i + 1}. ${step.title}`,
      stateWord(step),
      ...times(step, clock),
      who(step.by),
      md(step.summary),
    ]),
  );

/** A machine's word as it is; anything else as text. */
const codeWord = (code: string): string => (/^[A-Z0-9_]{1,60}$/.test(code) ? `\`${code}\`` : md(code));
const ASKED = { old: "old key", new: "new key", "made-up": "made-up key" } as const;
const answers = (e: StepEvidence): string => {
  const said = e.answers.map(
    ({ asked, status, code, times: n }) =>
      `${ASKED[asked]}: ${n} × HTTP ${status ?? "-"}${code === null ? "" : ` ${codeWord(code)}`}`,
  );
  const dates = e.dates.length === 0 ? [] : [`Date header: ${e.dates.map(md).join("; ")}`];
  return [...said, ...dates].join("<br>") || "-";
};

export const evidenceTable = ({ steps, newFingerprint }: Incident, clock: Clock): readonly string[] =>
  table(
    ["Step", "What", "Key", "When", "UTC", "Who recorded it", "Ledger entry", "IMKIT's answers to us"],
    steps.flatMap((step, i) =>
      step.evidence.map((e) => [
        String(i + 1),
        md(`${e.what}${e.triads === null ? "" : `, ${e.triads} ${e.triads === 1 ? "time" : "times"}`}`),
        e.fingerprint === null
          ? "-"
          : `${e.fingerprint === newFingerprint ? "new key" : "old key"} \`${e.fingerprint}\``,
        ...times(e, clock),
        who(e.by),
        entry(e),
        answers(e),
      ]),
    ),
  );

const ENDS: Readonly<Record<OldKeyLine["state"], string>> = {
  proved: "proved dead",
  attested: "**NOT proved**: a person attested it",
  forgotten: "**NOT proved**: discarded, no proof asked for",
  accepted: "**still accepted** when last asked",
  rejected: "**NOT proved**: rejected when last asked",
  unknown: "**NOT proved**: no clear answer",
};

export const keyTable = ({ oldKeys }: Incident, clock: Clock): readonly string[] =>
  table(
    ["Key", "What it was", "End", "Last seen accepted", "First seen rejected", "Remark"],
    oldKeys.map((k) => [
      `${k.leaked ? "leaked" : "old"} key \`${k.fingerprint}\``,
      k.role,
      ENDS[k.state],
      k.lastAccepted === null ? "never by us" : moment(k.lastAccepted, clock),
      k.firstRejected === null ? "not yet" : moment(k.firstRejected, clock),
      k.attested === null ? "-" : `${who(k.attested.by)}: ${md(k.attested.reason)}`,
    ]),
  );

export const storeTable = ({ stores }: Incident, clock: Clock): readonly string[] =>
  table(
    [
      "Store",
      "Place",
      "State",
      "Holds the new key since",
      "UTC",
      "Who recorded it",
      "Ledger entry",
      "Last read back",
    ],
    stores.map((t) => [
      `${md(t.name)}${t.required ? "" : " (not required)"}`,
      literal(t.where),
      `${t.written === null ? `**${t.state}**` : t.unchanged ? "held it already" : "written"}${t.code === null ? "" : ` ${codeWord(t.code)}`}`,
      ...times(t.written, clock),
      who(t.written?.by ?? null),
      entry(t.written),
      t.readBack === null ? "-" : clock(t.readBack.at),
    ]),
  );

export const workloadTable = ({ workloads }: Incident, clock: Clock): readonly string[] =>
  table(
    [
      "Workload",
      "How",
      "State",
      "Restarted",
      "UTC",
      "Who recorded it",
      "Ledger entry",
      "Proof (0-2)",
      "What that rests on",
    ],
    workloads.map((w) => [
      `${md(w.name)}${w.required ? "" : " (not required)"}`,
      md(w.type),
      w.state === "done" ? "done" : `**${w.state}**`,
      ...times(w.restarted, clock),
      who(w.restarted?.by ?? null),
      entry(w.restarted),
      w.proof === null || w.type === "none" ? "-" : String(w.proof),
      md(`${w.basis}${w.reason === null ? "" : `; ${w.reason}`}`),
    ]),
  );

const COUNTS: readonly (readonly [keyof Usage, string])[] = [
  ["users", "users seen"],
  ["rooms", "rooms in use"],
  ["totalRooms", "rooms in all"],
  ["messages", "messages"],
  ["peakConnections", "most connections at once"],
];

export const usageTable = ({ usage }: Incident, clock: Clock): readonly string[] => {
  const { before, after, difference } = usage;
  const n = (x: number | null | undefined): string => (x == null ? "-" : String(x));
  const change = (x: number | null | undefined): string => (x == null ? "-" : x > 0 ? `+${x}` : String(x));
  const when = (name: string, sample: typeof before): string => {
    if (sample === null) return `${name} (not taken)`;
    return `${name}, hour to ${moment(sample.at, clock)}${sample.counts === null ? " (IMKIT gave none)" : ""}`;
  };
  return table(
    ["Count", when("Before", before), when("After", after), "Difference"],
    COUNTS.map(([key, name]) => [
      name,
      n(before?.counts?.[key]),
      n(after?.counts?.[key]),
      change(difference?.[key]),
    ]),
  );
};

export const gapTable = ({ gaps }: Incident, clock: Clock): readonly string[] =>
  table(
    ["From", "To", "How long"],
    gaps.map((g) => [moment(g.from, clock), moment(g.to, clock), span(g.ms)]),
  );

export const timelineTable = ({ timeline }: Incident, clock: Clock): readonly string[] =>
  table(
    ["When", "UTC", "Entry", "Who recorded it", "What"],
    timeline.map((line) => [...times(line, clock), String(line.seq), who(line.by), md(line.text)]),
  );
