import type { Evidence, LedgerEvent, TriadEvidence } from "./events.ts";
import { lastTold, type Mark, type Reading } from "./incident-read.ts";
import { plain } from "./incident-text.ts";
import { type Fp, showFp } from "./secret.ts";
import { judgeTriad } from "./verdict.ts";

/** Answers of one kind in a proof. */
export type Answers = {
  readonly asked: "old" | "new" | "made-up";
  readonly status: number | null;
  readonly code: string | null;
  readonly times: number;
};
export type Proof = Mark & {
  readonly triads: number;
  /** A made-up key was asked beside it, each time. */
  readonly control: boolean;
  readonly answers: readonly Answers[];
  /** `Date` headers of the answers to the old key, as IMKIT's servers wrote them. */
  readonly dates: readonly string[];
};
export type KeyState = "proved" | "attested" | "forgotten" | "accepted" | "rejected" | "unknown";
export type OldKeyLine = {
  readonly fingerprint: string;
  readonly role: string;
  readonly leaked: boolean;
  readonly state: KeyState;
  readonly lastAccepted: string | null;
  readonly firstRejected: string | null;
  readonly proof: Proof | null;
  readonly attested: (Mark & { readonly reason: string }) | null;
};

/** One line for each key that had to die. */
export const oldKeyLines = (reading: Reading): readonly OldKeyLine[] =>
  reading.old.map((fp) => {
    const sight = reading.s.verdicts.get(fp);
    const base = {
      fingerprint: showFp(fp),
      role: roleOf(reading, fp),
      leaked: reading.r.emergency?.leaked.includes(fp) === true,
      lastAccepted: sight?.acceptedTs ?? null,
      firstRejected: sight === undefined || sight.verdict === "accepted" ? null : sight.rejectedTs,
    };
    return { ...base, ...endOf(reading, fp) };
  });

const roleOf = ({ before, wasNew, r }: Reading, fp: Fp): string => {
  if (fp === before) return "in use when the rotation began";
  if (wasNew.has(fp)) return "new key for a while, then replaced";
  return r.emergency?.leaked.includes(fp) === true ? "called leaked" : "an older key that might still work";
};

type End = Pick<OldKeyLine, "state" | "proof" | "attested">;

const endOf = ({ s, told }: Reading, fp: Fp): End => {
  const at = told.findLastIndex(({ event }) => event.type === "proof" && event.fp === fp);
  const found = told[at];
  // A key that was accepted after its proof is alive, whatever the proof says.
  const again = told.slice(at + 1).some(({ event }) => isYes(event, fp));
  const proof = found === undefined || again ? null : proofOf(found.event, found.mark);
  if (proof !== null) return { state: "proved", proof, attested: null };
  const waived = lastTold(told, (e) => e.type === "waived" && e.fp === fp);
  if (waived?.event.type === "waived" && s.old.get(fp)?.waived !== false) {
    return { state: "attested", proof, attested: { ...waived.mark, reason: plain(waived.event.reason) } };
  }
  if (s.forgotten.has(fp)) return { state: "forgotten", proof, attested: null };
  const verdict = s.verdicts.get(fp)?.verdict;
  return {
    state: verdict === undefined || verdict === "unclear" ? "unknown" : verdict,
    proof,
    attested: null,
  };
};

const isYes = (e: LedgerEvent, fp: Fp): boolean =>
  e.type === "observed" && e.what === "verdict" && e.fp === fp && e.verdict === "accepted";

/** Only what is a proof by its own evidence: each time the new key accepted, the old one rejected, and a made-up one too where it was asked. */
const proofOf = (e: LedgerEvent, mark: Mark): Proof | null => {
  if (e.type !== "proof" || e.triads.length === 0 || !e.triads.every((t) => isTriad(t, e.control)))
    return null;
  const olds = e.triads.map((t) => t.old);
  return {
    ...mark,
    triads: e.triads.length,
    control: e.control && e.triads.every((t) => t.control !== null),
    answers: [
      ...count("old", olds),
      ...count(
        "new",
        e.triads.map((t) => t.new),
      ),
      ...count(
        "made-up",
        e.triads.flatMap((t) => t.control ?? []),
      ),
    ],
    dates: [...new Set(olds.flatMap(({ date }) => (date === null ? [] : [plain(date, 64)])))],
  };
};

const isTriad = (t: TriadEvidence, control: boolean): boolean =>
  (!control || t.control !== null) && judgeTriad(t) === "rejected";

const count = (asked: Answers["asked"], all: readonly Evidence[]): readonly Answers[] => {
  const kinds = new Map<string, Answers>();
  for (const { status, code } of all) {
    const name = `${status} ${code}`;
    const shown = code === null ? null : plain(code, 60);
    kinds.set(name, { asked, status, code: shown, times: (kinds.get(name)?.times ?? 0) + 1 });
  }
  return [...kinds.values()];
};
