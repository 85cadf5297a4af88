import type { Answers, OldKeyLine } from "./incident-keys.ts";
import { lastTold, type Mark, type Reading } from "./incident-read.ts";
import type { StoreReport, WorkloadReport } from "./incident-targets.ts";
import type { UsageReport } from "./incident-usage.ts";
import { showFp } from "./secret.ts";

/** One of the vendor's four steps after a leak. */
export type Step = {
  readonly id: "old-key-revoked" | "new-key-issued" | "services-updated" | "operations-checked";
  readonly title: string;
  readonly state: "done" | "open" | "not proved";
  /** When it was complete; null while it is not. */
  readonly at: string | null;
  readonly by: string | null;
  readonly fingerprints: readonly string[];
  /** Our words. */
  readonly summary: string;
  readonly evidence: readonly StepEvidence[];
};
/** An entry that says so. Nulls where a proof's details do not apply. */
export type StepEvidence = Mark & {
  readonly what: string;
  readonly fingerprint: string | null;
  readonly triads: number | null;
  readonly answers: readonly Answers[];
  readonly dates: readonly string[];
};

type Facts = {
  readonly keys: readonly OldKeyLine[];
  readonly stores: readonly StoreReport[];
  readonly workloads: readonly WorkloadReport[];
  readonly usage: UsageReport;
};

export const stepsOf = (reading: Reading, facts: Facts): readonly Step[] => [
  revoked(facts.keys),
  issued(reading),
  updated(reading, facts),
  checked(reading, facts.usage),
];

const evidence = (
  mark: Mark | null,
  what: string,
  more: Partial<StepEvidence> = {},
): readonly StepEvidence[] =>
  mark === null
    ? []
    : [
        {
          what,
          at: mark.at,
          by: mark.by,
          seq: mark.seq,
          h16: mark.h16,
          fingerprint: null,
          triads: null,
          answers: [],
          dates: [],
          ...more,
        },
      ];

/** The latest entry makes a step complete. */
const ended = (state: Step["state"], all: readonly StepEvidence[]): Pick<Step, "at" | "by"> => {
  const last = all.reduce<StepEvidence | null>((a, b) => (a === null || b.seq >= a.seq ? b : a), null);
  return state === "open" || last === null ? { at: null, by: null } : { at: last.at, by: last.by };
};

/** Never done without a proof of every key. */
const revoked = (keys: readonly OldKeyLine[]): Step => {
  const proved = keys.filter((k) => k.state === "proved");
  const open = keys.filter((k) => ["accepted", "rejected", "unknown"].includes(k.state));
  const state =
    open.length > 0 ? "open" : keys.length > 0 && proved.length === keys.length ? "done" : "not proved";
  const all = keys.flatMap((k) => [
    ...evidence(k.proof, "proof: rejected", {
      fingerprint: k.fingerprint,
      triads: k.proof?.triads ?? null,
      answers: k.proof?.answers ?? [],
      dates: k.proof?.dates ?? [],
    }),
    ...evidence(k.attested, "attested by a person, not proved", { fingerprint: k.fingerprint }),
  ]);
  const how =
    proved.length === 0 ? "." : ": IMKIT's answer was a rejection each time, while the new key was accepted.";
  const words =
    keys.length === 0
      ? "No old key is known to this rotator, so none could be asked about."
      : `${proved.length} of ${keys.length} old keys proved dead${how}`;
  return {
    id: "old-key-revoked",
    title: "Old key revoked",
    state,
    ...ended(state, all),
    fingerprints: keys.map((k) => k.fingerprint),
    summary: words,
    evidence: all,
  };
};

const issued = ({ s, r, told }: Reading): Step => {
  const base = { id: "new-key-issued", title: "New key issued" } as const;
  const fp = r.newFp;
  if (fp === null) {
    const summary = "No new key was given to the rotator yet.";
    return { ...base, state: "open", at: null, by: null, fingerprints: [], summary, evidence: [] };
  }
  const given = lastTold(told, (e) => e.type === "staged" && e.fp === fp);
  const found = lastTold(told, (e) => e.type === "mode-found" && e.fp === fp);
  const verdict = s.verdicts.get(fp)?.verdict;
  const works = verdict === "accepted" && !s.leaked.has(fp);
  const state = !works && r.ended === null ? "open" : works && !r.rolledBack ? "done" : "not proved";
  const all = [
    ...evidence(given?.mark ?? null, "given to the rotator", { fingerprint: showFp(fp) }),
    ...evidence(found?.mark ?? null, "accepted by IMKIT", { fingerprint: showFp(fp) }),
  ];
  const words = r.rolledBack
    ? "The rotation was turned back: the stores shall hold the key that it began with."
    : works
      ? "Given to the rotator and accepted by IMKIT. When it was issued in the Dashboard is not recorded here."
      : "Given to the rotator; IMKIT's last answer on it was not a yes, or it is called leaked.";
  return { ...base, state, ...ended(state, all), fingerprints: [showFp(fp)], summary: words, evidence: all };
};

const updated = ({ r }: Reading, { stores, workloads }: Facts): Step => {
  const live = [...stores, ...workloads].filter((t) => t.required);
  const isMissing = stores.some((t) => t.required && t.state !== "dropped" && t.written === null);
  const isStale = workloads.some((w) => w.required && !["done", "dropped"].includes(w.state));
  const isWord = (w: WorkloadReport): boolean => w.type === "manual" && w.proof === 0;
  const weak = live.some((t) => t.state === "dropped") || workloads.some((w) => w.required && isWord(w));
  const state =
    r.newFp === null || isMissing || isStale ? "open" : weak || live.length === 0 ? "not proved" : "done";
  const wrote = stores.filter((t) => t.written !== null);
  const started = workloads.filter((w) => w.state === "done" && w.type !== "none").length;
  const still = workloads.filter((w) => w.type === "none" && w.state !== "dropped").length;
  const restarts = workloads.length - still;
  const all = [
    ...stores.flatMap((t) =>
      evidence(t.written, `store ${t.name}: ${t.unchanged ? "held it already" : "written"}`),
    ),
    ...workloads.flatMap((w) => evidence(w.restarted, `workload ${w.name}: ${w.basis}`)),
  ];
  const said = workloads.filter(isWord).length;
  const byWord = said === 0 ? "" : ` (${said} of them by a person's word alone)`;
  return {
    id: "services-updated",
    title: "Every service updated",
    state,
    ...ended(state, all),
    fingerprints: r.newFp === null ? [] : [showFp(r.newFp)],
    summary: [
      `${wrote.length} of ${stores.length} stores hold the new key`,
      ...(restarts > 0 ? [`${started} of ${restarts} workloads restarted${byWord}`] : []),
      ...(still > 0 ? [`${still} without a restart, as the config says`] : []),
    ]
      .join("; ")
      .concat("."),
    evidence: all,
  };
};

/** What is done here is the counting: whose operations they were, a person has to judge. */
const checked = ({ r }: Reading, { before, after }: UsageReport): Step => {
  const both = before?.counts != null && after?.counts != null;
  const state = both ? "done" : r.ended === null ? "open" : "not proved";
  const all = [
    ...evidence(before, "counts before", { fingerprint: before?.fingerprint ?? null }),
    ...evidence(after, "counts after", { fingerprint: after?.fingerprint ?? null }),
  ];
  const words = both
    ? "The app's counts of one hour were taken before and after. Whether any of it was abnormal is for a person to judge."
    : `The app's counts ${before?.counts == null ? "before" : "after"} the emergency are missing${r.ended === null ? " so far" : ""}.`;
  return {
    id: "operations-checked",
    title: "Abnormal operations checked",
    state,
    ...ended(state, all),
    fingerprints: [],
    summary: words,
    evidence: all,
  };
};
