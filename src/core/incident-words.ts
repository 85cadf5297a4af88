import type { Blackout } from "./exposure.ts";
import type { Incident } from "./incident.ts";
import {
  type Clock,
  evidenceTable,
  gapTable,
  keyTable,
  moment,
  stateWord,
  stepTable,
  storeTable,
  timelineTable,
  usageTable,
  workloadTable,
} from "./incident-tables.ts";
import { markdown as md, ours, span, zonedClock } from "./incident-text.ts";

/**
 * The report for people, as Markdown: five lines first, then what they rest on. It says what was answered to us and when, never what IMKIT
 * did. `clock` shows an instant in the app's time zone with its offset.
 */
export const incidentWords = (i: Incident, clock: Clock = zonedClock(i.timezone)): string =>
  [
    `# Incident report: ${md(i.app)}`,
    "",
    ...fiveLines(i, clock).map((line, n) => `${n + 1}. ${line}`),
    "",
    ...nextLines(i),
    ...about(i, clock),
    "",
    ...section("The vendor's four steps after a leak", stepTable(i, clock)),
    ...section("How long the leaked key worked, and how long services had none", boundLines(i, clock)),
    ...section(
      "Not proved",
      i.notProved.map((d) => `- ${md(d.text)}`),
    ),
    ...section("Keys that had to die", keyTable(i, clock)),
    ...section("Stores", storeTable(i, clock)),
    ...section("Workloads", workloadTable(i, clock)),
    ...section("What the app counted", [...usageTable(i, clock), "", ...USAGE_LIMITS]),
    ...section("Times without a record", gapLines(i, clock)),
    ...section("Evidence", evidenceTable(i, clock)),
    ...section("Timeline", timelineTable(i, clock)),
    ...section("How to check this report", checkLines(i, clock)),
  ].join("\n");

const section = (title: string, lines: readonly string[]): readonly string[] => [
  `## ${title}`,
  "",
  ...lines,
  "",
];

const leakedName = (i: Incident): string => {
  const { leaked } = i.emergency;
  if (leaked.length === 0) return "The old keys (which one leaked is not known)";
  return `Leaked ${leaked.length === 1 ? "key" : "keys"} ${leaked.map((fp) => `\`${fp}\``).join(", ")}`;
};

const fiveLines = (i: Incident, clock: Clock): readonly string[] => [
  verdictLine(i, clock),
  `**Exposure** (how long the leaked key worked): ${exposureWords(i, clock)}`,
  `**Outage** (some service had no working key): ${blackoutWords(i.blackout, clock)}`,
  `**Services:** ${stateWord(stepAt(i, 2))}. ${md(stepAt(i, 2).summary)}`,
  `**Not proved:** ${doubtWords(i)}`,
];

const NONE: Incident["steps"][number] = {
  id: "services-updated",
  title: "",
  state: "open",
  at: null,
  by: null,
  fingerprints: [],
  summary: "",
  evidence: [],
};
const stepAt = (i: Incident, n: number): Incident["steps"][number] => i.steps[n] ?? NONE;

const PHASES: Readonly<Record<Incident["phase"], string>> = {
  new: "Nothing is under way",
  idle: "Nothing is under way",
  staged: "A new key is there and was not written yet",
  rotating: "The rotation is at work or was interrupted",
  "waiting-key": "It waits for a new key",
  "waiting-restart": "It waits for a person to restart what reads the stores",
  "waiting-revoke": "It waits for a person to revoke the old key in the Dashboard",
  "wrong-key-revoked": "The NEW key was revoked and an old one still works",
  failed: "A step failed",
  blackout: "No key works",
};

const verdictLine = (i: Incident, clock: Clock): string => {
  const revoked = stepAt(i, 0);
  const name = leakedName(i);
  if (i.state === "abandoned") return `**Given up** before it was over. ${name}: ${deathWords(i, clock)}`;
  const isOver = i.state === "done" && i.steps.slice(0, 3).every((step) => step.state === "done");
  if (isOver) return `**Over.** ${name}: ${deathWords(i, clock)}`;
  if (i.state === "done") return `**Closed, but not everything is proved.** ${name}: ${deathWords(i, clock)}`;
  const at = `${PHASES[i.phase]} (\`${i.phase}\`), as of ${moment(i.ledger.at, clock)}.`;
  if (revoked.state === "done") return `**Not over yet.** ${at} ${name}: ${deathWords(i, clock)}`;
  return `**NOT OVER.** ${at} ${name}: ${deathWords(i, clock)}`;
};

/** Of the keys that leaked; where that is not known, of all. */
const deathWords = (i: Incident, clock: Clock): string => {
  const leaked = i.oldKeys.filter((k) => k.leaked);
  const keys = leaked.length > 0 ? leaked : i.oldKeys;
  if (keys.length === 0) return "no old key is known to this rotator.";
  const bad = keys.filter((k) => k.state !== "proved");
  const last = keys
    .flatMap((k) => k.proof?.at ?? [])
    .sort()
    .at(-1);
  if (bad.length === 0 && last !== undefined) {
    const n = Math.min(...keys.map((k) => k.proof?.triads ?? 0));
    return `proved dead. IMKIT's answer was a rejection ${n} of ${n} times, recorded ${moment(last, clock)}.`;
  }
  if (bad.some((k) => k.state === "accepted")) return "**STILL ACCEPTED** when IMKIT was last asked.";
  if (bad.some((k) => k.state === "unknown")) return "**NOT proved dead**: IMKIT gave no clear answer on it.";
  if (bad.some((k) => k.state === "rejected"))
    return "rejected when IMKIT was last asked, but **not proved dead** yet.";
  return "**NOT proved dead**: that rests on a person's word.";
};

/** Two bounds as people say them. */
const boundWords = (least: number, most: number | null): string => {
  if (most === null) return least < 1000 ? "how long is not known" : `at least ${span(least)}`;
  if (least < 1000) return most < 1000 ? "under 1 s" : `at most ${span(most)}`;
  return span(least) === span(most) ? span(most) : `between ${span(least)} and ${span(most)}`;
};

const exposureWords = ({ exposure: e, emergency }: Incident, clock: Clock): string => {
  if (e === null) return "not known: no key that could have leaked is known to this rotator.";
  const from = moment(e.from, clock);
  // A rotation that was open already when the leak was reported may be older than the leak.
  const isEarlier = Date.parse(emergency.at) - Date.parse(e.from) > 60_000;
  const rest = e.fromKnown
    ? " That time was reported by a person."
    : ` That is when the rotation was opened: nobody said since when it leaked, so the true time may be ${isEarlier ? "shorter or longer" : "longer"}.`;
  if (e.firstRejected === null) {
    if (e.lastAccepted === null) return "not known: it was seen neither accepted nor rejected.";
    const least = e.atLeastMs < 1000 ? "" : `, at least ${span(e.atLeastMs)}`;
    return `**STILL OPEN as far as is known**${least}: last seen accepted ${moment(e.lastAccepted, clock)}, counted from ${from}.${rest}`;
  }
  if (e.atMostMs === 0)
    return `none after ${from}: first seen rejected ${moment(e.firstRejected, clock)}.${rest}`;
  return `${boundWords(e.atLeastMs, e.atMostMs)}, counted from ${from}.${rest}`;
};

const blackoutWords = (b: Blackout | null, clock: Clock): string => {
  if (b === null)
    return "not known: IMKIT was not asked, or gave no clear word, on a key that the services used.";
  if (b.state === "unknown") {
    const [seen, all] = [b.lastAccepted, b.ended].map((ts) => (ts === null ? "?" : moment(ts, clock)));
    return `not known. A key in use was last seen accepted ${seen}, and could not be asked about when everything had the new one (${all}). At most ${span(b.atMostMs ?? 0)}.`;
  }
  if (b.state === "none")
    return b.ended === null
      ? "none seen so far: the key in use was accepted when IMKIT was last asked."
      : "none seen: the key in use was accepted until everything had the new one.";
  const dead = b.firstRejected === null ? "not seen" : moment(b.firstRejected, clock);
  if (b.state === "going on") {
    const least = b.atLeastMs < 1000 ? "" : `, at least ${span(b.atLeastMs)} until this report`;
    return `**GOING ON**${least}: the key in use was first seen rejected ${dead}.`;
  }
  const end = b.ended === null ? "?" : moment(b.ended, clock);
  const isLate = b.firstRejected !== null && b.ended !== null && b.firstRejected >= b.ended;
  if (isLate && b.lastAccepted !== null)
    return `perhaps none, at most ${span(b.atMostMs ?? 0)}. The key in use was seen accepted ${moment(b.lastAccepted, clock)}, and was first seen rejected after everything had the new one (${end}); when in between it died is not known.`;
  const longer = b.atMostMs === null ? " It may be longer: we never saw that key work." : "";
  return `${boundWords(b.atLeastMs, b.atMostMs)}. The key in use was first seen rejected ${dead}; the last store or workload had the new one ${end}.${longer}`;
};

/** What stands in the five lines already, or in every report of such an app, is not counted. */
const SAID_ELSEWHERE: ReadonlySet<string> = new Set(["foreign-use", "no-witness", "since-unknown"]);

const doubtWords = (i: Incident): string => {
  const own = i.notProved.filter((d) => !SAID_ELSEWHERE.has(d.id));
  const always = "What others did with the leaked key was not seen by this rotator.";
  const [first] = own;
  if (first === undefined) return always;
  const more = own.length === 1 ? "" : ` And ${own.length - 1} more below.`;
  return `${md(first.text)}${more} ${always}`;
};

const nextLines = (i: Incident): readonly string[] => {
  if (i.next.length === 0) return [];
  const steps = i.next.map(
    ({ text, command }) => `- ${ours(text)}${command === null ? "." : `: \`${command}\``}`,
  );
  return ["**What to do now**", "", ...steps, ""];
};

const about = (i: Incident, clock: Clock): readonly string[] => [
  `Rotation ${md(i.rotation)} of app ${md(i.app)} at ${md(i.host)}. Emergency declared ${moment(i.emergency.at, clock)} by ${md(i.emergency.by)}, order ${i.emergency.order}.`,
  ...(i.opened.reason === null ? [] : [`Reason that was given: ${md(i.opened.reason)}.`]),
  ...(i.opened.ticket === null ? [] : [`Ticket: ${md(i.opened.ticket)}.`]),
  `New key: ${i.newFingerprint === null ? "none yet" : `\`${i.newFingerprint}\``}. Times are of the clock of the machine that ran the rotator, in ${md(i.timezone)}, and in UTC; a ledger entry is written some moments after what it tells.`,
  "A fingerprint of 8 digits stands for a key and is no part of it.",
];

const boundLines = (i: Incident, clock: Clock): readonly string[] => {
  const { exposure: e, blackout: b } = i;
  const at = (ts: string | null, none: string): string => (ts === null ? none : moment(ts, clock));
  return [
    "Nobody asks IMKIT all the time: the change from accepted to rejected lies between two questions, so each figure is a bound.",
    "",
    `- Exposure: ${exposureWords(i, clock)}`,
    ...(e === null
      ? []
      : [
          `  - last seen accepted: ${at(e.lastAccepted, "never by this rotator")}`,
          `  - first seen rejected: ${at(e.firstRejected, "not yet")}`,
        ]),
    `- Outage: ${blackoutWords(b, clock)}`,
    ...(b === null
      ? []
      : [
          `  - key in use last seen accepted: ${at(b.lastAccepted, "never by this rotator")}`,
          `  - key in use first seen rejected: ${at(b.firstRejected, "not seen")}`,
          `  - last store written or workload restarted: ${at(b.ended, "still to come")}`,
        ]),
    "",
    "The outage is a time in which a service had no key that IMKIT accepts; whether a call failed in it was not seen.",
  ];
};

const USAGE_LIMITS: readonly string[] = [
  "Both are counts of one hour, as IMKIT gave them. They can show that something large happened in those two hours. They cannot show who did it, what was read, or anything outside of those hours; a difference may be the time of day. A person has to look at the app itself.",
];

const gapLines = (i: Incident, clock: Clock): readonly string[] => [
  "Ten minutes and longer without an entry, while an old key was not proved dead. A rotator that waits asks on without writing, so somebody may have looked; it is not recorded.",
  "",
  ...gapTable(i, clock),
];

const checkLines = (i: Incident, clock: Clock): readonly string[] => [
  `Made from ledger ${md(i.ledger.id)} up to its entry \`${i.ledger.head}\` (number and first 16 digits of its hash), ${moment(i.ledger.at, clock)}.`,
  "",
  `    ${i.check}`,
  "",
  "A sound ledger shows what this rotator recorded, in which order, unchanged since a head that is quoted elsewhere. It does not show what IMKIT did.",
];
