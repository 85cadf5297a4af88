import type { Exposure } from "./exposure.ts";
import type { OldKeyLine } from "./incident-keys.ts";
import { lastTold, type Reading } from "./incident-read.ts";
import type { StoreReport, WorkloadReport } from "./incident-targets.ts";
import type { UsageReport } from "./incident-usage.ts";
import { showFp } from "./secret.ts";

/** A time in which nothing was recorded, while a key that had to die was not seen dead. RFC 3339. */
export type Gap = { readonly from: string; readonly to: string; readonly ms: number };
/** One thing that was not proved. `id` is a stable word. */
export type Doubt = { readonly id: string; readonly text: string };

const GAP_MS = 10 * 60_000;
const MOST_GAPS = 10;
/** Store types that carry, beside the key, which ledger entry wrote it. */
const WITNESSES: ReadonlySet<string> = new Set([
  "aws-secrets-manager",
  "azure-key-vault",
  "kubernetes-secret",
]);

/**
 * Silences of 10 minutes and more until the last key was proved or attested; the longest ten, in order. Who saw a key rejected may have seen
 * it accepted before and said so: then somebody looked in between.
 */
export const gapsOf = ({ s, inside, old }: Reading): readonly Gap[] => {
  const isEnd = ({ event }: Reading["told"][number]): boolean =>
    (event.type === "proof" || event.type === "waived") && event.fp !== undefined && old.includes(event.fp);
  const settled = old.every((fp) => s.dead.has(fp) || s.old.get(fp)?.waived !== false);
  const last = settled ? inside.findLastIndex(isEnd) : inside.length - 1;
  const looks = inside
    .slice(0, last + 1)
    .flatMap(({ event, mark }) => {
      const seen = event.type === "observed" ? event.acceptedTs : undefined;
      return seen === undefined || seen < (inside[0]?.mark.at ?? "") ? [mark.at] : [seen, mark.at];
    })
    .filter((ts) => !Number.isNaN(Date.parse(ts)))
    .sort((a, b) => Date.parse(a) - Date.parse(b));
  const gaps = looks.flatMap((to, i): readonly Gap[] => {
    const from = looks[i - 1];
    const ms = from === undefined ? 0 : Date.parse(to) - Date.parse(from);
    return from === undefined || ms < GAP_MS ? [] : [{ from, to, ms }];
  });
  const longest = new Set([...gaps].sort((a, b) => b.ms - a.ms).slice(0, MOST_GAPS));
  return gaps.filter((gap) => longest.has(gap));
};

type Facts = {
  readonly keys: readonly OldKeyLine[];
  readonly stores: readonly StoreReport[];
  readonly workloads: readonly WorkloadReport[];
  readonly exposure: Exposure | null;
  readonly usage: UsageReport;
  readonly gaps: readonly Gap[];
};

/** What was not proved, the gravest first. Empty is never right: what others did with the key is in nobody's ledger. */
export const doubtsOf = (reading: Reading, facts: Facts): readonly Doubt[] => [
  ...newKeyDoubts(reading),
  ...facts.keys.flatMap(keyDoubts),
  ...targetDoubts(facts),
  ...scopeDoubts(reading, facts),
];

const keyDoubts = (k: OldKeyLine): readonly Doubt[] => {
  const fp = `Old key ${k.fingerprint} (${k.role})`;
  switch (k.state) {
    case "proved":
      if (k.proof?.control !== false) return [];
      return [
        {
          id: "control-off",
          text: `${fp} was rejected, but no made-up key was asked beside it (revoke.control is off): that this address rejects what is no key was not checked.`,
        },
      ];
    case "attested":
      return [
        {
          id: "key-attested",
          text: `${fp} was NOT shown to be dead: a person attested it. It may still work.`,
        },
      ];
    case "forgotten":
      return [
        { id: "key-forgotten", text: `${fp} was discarded and no proof was asked for. It may still work.` },
      ];
    case "accepted":
      return [{ id: "key-accepted", text: `${fp} still worked when IMKIT was last asked.` }];
    case "rejected":
      return [
        {
          id: "key-rejected-once",
          text: `${fp} was rejected when IMKIT was last asked, but the series of questions that counts as a proof was not made.`,
        },
      ];
    case "unknown":
      return [
        {
          id: "key-unknown",
          text: `${fp}: IMKIT gave no clear answer, or was not asked. It may still work.`,
        },
      ];
  }
};

const newKeyDoubts = ({ s, r }: Reading): readonly Doubt[] => {
  if (r.newFp === null) return [];
  const fp = showFp(r.newFp);
  const doubt = (id: string, text: string): readonly Doubt[] => [{ id, text }];
  const leaked = s.leaked.has(r.newFp)
    ? doubt(
        "new-key-leaked",
        `Key ${fp}, which the stores shall hold, is itself one that a person called leaked.`,
      )
    : [];
  const sight = s.verdicts.get(r.newFp)?.verdict;
  const works =
    sight === "accepted"
      ? []
      : doubt("new-key-unproved", `IMKIT's last answer on the new key ${fp} was not a yes.`);
  return [...leaked, ...works, ...appDoubts(r, fp, doubt)];
};

const appDoubts = (
  r: Reading["r"],
  fp: string,
  doubt: (id: string, text: string) => readonly Doubt[],
): readonly Doubt[] => {
  switch (r.sameApp) {
    case "proved":
    case null:
      return [];
    case "remembered":
      return doubt(
        "app-remembered",
        `That the new key ${fp} is of the same IMKIT app was compared with this ledger's memory, not with a key that worked at the time.`,
      );
    case "unproved":
      return doubt("app-unproved", `That the new key ${fp} is of the same IMKIT app was not shown.`);
    case "different":
      return doubt(
        "app-different",
        `IMKIT shows another app for the new key ${fp}${r.acceptedApp ? "; a person accepted that" : ""}.`,
      );
  }
};

const targetDoubts = ({ stores, workloads }: Facts): readonly Doubt[] => [
  ...stores.flatMap((t): readonly Doubt[] => {
    if (t.state === "dropped")
      return [
        {
          id: "store-dropped",
          text: `Store ${t.name} was left out by a person: which key it holds is not known.`,
        },
      ];
    if (t.written === null)
      return [{ id: "store-open", text: `Store ${t.name} was not seen with the new key.` }];
    return [];
  }),
  ...workloads.flatMap((w): readonly Doubt[] => {
    if (w.state === "dropped")
      return [
        {
          id: "workload-dropped",
          text: `Workload ${w.name} was left out by a person: which key it uses is not known.`,
        },
      ];
    if (w.state !== "done")
      return [{ id: "workload-open", text: `Workload ${w.name} was not restarted yet.` }];
    if ((w.proof ?? 0) > 0) return [];
    return [{ id: "restart-unproved", text: `Workload ${w.name}: ${w.basis}.` }];
  }),
];

const scopeDoubts = ({ r, inside }: Reading, facts: Facts): readonly Doubt[] => {
  const doubts: Doubt[] = [];
  const add = (id: string, text: string): void => void doubts.push({ id, text });
  if (facts.exposure?.fromKnown === false)
    add(
      "since-unknown",
      "Since when the key was in foreign hands was not said; the count begins where the rotation was opened.",
    );
  if (r.emergency !== null && r.emergency.leaked.length === 0)
    add("leak-unknown", "Which key leaked is not known: every old key is counted as leaked.");
  if (facts.gaps.length > 0)
    add(
      "gaps",
      "There were times in which nothing was recorded while an old key was not proved dead (see Times without a record).",
    );
  const { before, after } = facts.usage;
  if (before?.counts == null) add("usage-before", "The app's counts before the emergency are missing.");
  if (after?.counts == null) add("usage-after", "The app's counts after the emergency are missing.");
  if (lastTold(inside, (e) => e.type === "late-effect") !== undefined)
    add(
      "late-effect",
      "A rotator that had been given up for dead may have written a store late (see Timeline).",
    );
  if (!facts.stores.some((t) => WITNESSES.has(t.type) && t.state !== "dropped"))
    add(
      "no-witness",
      "No store carries a witness of this ledger: that entries were cut off its end would show only against a head that was quoted elsewhere.",
    );
  add(
    "foreign-use",
    "What others did with the leaked key was not seen: this rotator has no access to IMKIT's own records of operations.",
  );
  return doubts;
};
