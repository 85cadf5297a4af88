import { contradicted, quoteText } from "../core/contradiction.ts";
import { REFUSALS, RotatorError } from "../core/errors.ts";
import type { LedgerEvent, Verdict } from "../core/events.ts";
import { type Fp, findFp, type Secret } from "../core/secret.ts";
import { type AppState, isOpen } from "../core/state.ts";
import type { Stored } from "../ports.ts";
import { ambiguous, conflict, notHeld, rotationOpen, unclear } from "./adopt-words.ts";
import type { Hands } from "./hands.ts";
import type { Journal } from "./journal.ts";
import type { Keys } from "./keys.ts";
import { ensureGenesis, settle } from "./open.ts";
import { asProviderError, patiently } from "./pass.ts";
import { compareApps, type Examined, examine, judgeBeside } from "./probing.ts";
import { isOurs, witnessProblem } from "./push.ts";

export type Found = {
  readonly fp: Fp;
  readonly key: Secret;
  readonly stores: readonly string[];
  readonly verdict: Verdict;
};
export type Adoption = {
  readonly mode: "first" | "current";
  readonly current: Fp | null;
  readonly old: readonly Fp[];
  readonly stale: readonly Fp[];
};
/** What one store holds. */
export type StoreRead = { readonly name: string; readonly stored: Stored | null };
export type Taken = {
  /** `in-sync`: the ledger knew all of it, so nothing was recorded. */
  readonly outcome: "adopted" | "in-sync" | "refused";
  readonly refusal: RotatorError | null;
  readonly reads: readonly StoreRead[];
  /** Each distinct value that IMKIT was asked about. */
  readonly found: readonly Found[];
};
/** `choice`: a fingerprint prefix that a person named. `pending`: the staged key, never the current one while another value is there. */
export type AdoptOptions = { readonly choice: string | null; readonly pending: Fp | null };

/**
 * Which key is the current one, if the stores leave no doubt: none at all; one value; or one that IMKIT accepts while it rejects all
 * others. `unclear` = an answer is missing, `ambiguous` = a person must choose.
 */
export const judgeAdoption = (
  found: readonly Pick<Found, "fp" | "verdict">[],
): Adoption | "unclear" | "ambiguous" => {
  if (found.length === 0) return { mode: "first", current: null, old: [], stale: [] };
  if (found.some((f) => f.verdict === "unclear")) return "unclear";
  const [only] = found;
  if (found.length === 1 && only) return { mode: "current", current: only.fp, old: [], stale: [] };
  const accepted = found.filter((f) => f.verdict === "accepted");
  const stale = found.filter((f) => f.verdict === "rejected").map((f) => f.fp);
  if (accepted.length === 0) return { mode: "current", current: null, old: [], stale };
  const [one] = accepted;
  return accepted.length === 1 && one ? { mode: "current", current: one.fp, old: [], stale } : "ambiguous";
};

/**
 * Reads every store, probes each distinct value, and records which key is current. Writes no store. On an adopted ledger it only looks,
 * unless a person chooses.
 * @throws RotatorError STORE_FAILED, STORE_REFUSED, LEDGER_*, USAGE; every other no is `refused`
 */
export const tryAdopt = async (
  hands: Hands,
  journal: Journal,
  keys: Keys,
  options: AdoptOptions,
): Promise<Taken> => {
  const reads = await readStores(hands);
  const refused = (refusal: RotatorError, found: readonly Found[] = []): Taken => ({
    outcome: "refused",
    refusal,
    reads,
    found,
  });
  const begun = journal.isSuccessor() && !journal.state().adopted;
  const against = begun ? null : contradictionIn(hands, journal, reads);
  if (against !== null) return refused(against);
  await ensureGenesis(hands, journal);
  const s = journal.state();
  if (s.adopted && options.choice === null) {
    if (reads.every((read) => isExpected(s, read, options.pending)))
      return { outcome: "in-sync", refusal: null, reads, found: [] };
    const found = await probeValues(hands, keys, reads, s.salt ?? "", null);
    return refused(conflict(hands.app.name, s, reads, found), found);
  }
  const found = await probeValues(hands, keys, reads, s.salt ?? "", options.pending);
  const adoption = options.choice === null ? judgeAdoption(found) : chosen(hands, found, options.choice);
  if (adoption === "unclear") return refused(unclear(hands.app.name, found), found);
  if (adoption === "ambiguous") return refused(ambiguous(hands.app.name, found), found);
  const outcome = await record(hands, journal, reads, found, adoption, options.choice !== null);
  return { outcome, refusal: null, reads, found };
};

/** The same for a use case that cannot go on without. @throws RotatorError ADOPTION_UNCLEAR, ADOPTION_REFUSED and as `tryAdopt` */
export const adopt = async (
  hands: Hands,
  journal: Journal,
  keys: Keys,
  options: AdoptOptions,
): Promise<void> => {
  const { refusal } = await tryAdopt(hands, journal, keys, options);
  // Someone else adopted meanwhile: what the stores hold now is looked at before the first write.
  if (refusal !== null && refusal.code !== "STORE_CONFLICT") throw refusal;
};

const record = async (
  hands: Hands,
  journal: Journal,
  reads: readonly StoreRead[],
  found: readonly Found[],
  adoption: Adoption,
  isChosen: boolean,
): Promise<"adopted" | "in-sync"> => {
  const alive = found.find((f) => f.verdict === "accepted");
  const identity = alive ? await compareApps(hands, journal.state(), alive.key, [], hands.signal) : null;
  const { salt } = journal.state();
  const stores = reads.map(({ name, stored }) => ({
    name,
    fp: stored?.secret.fingerprint(salt ?? "") ?? null,
  }));
  let outcome: "adopted" | "in-sync" = "in-sync";
  await settle(journal, (): readonly LedgerEvent[] => {
    const s = journal.state();
    outcome = "in-sync";
    if (s.adopted && (!isChosen || isKnownAlready(s, adoption, stores))) return [];
    if (isOpen(s)) throw rotationOpen(hands.app.name, s);
    outcome = "adopted";
    const overrules = s.adopted ? [] : quotesAgainst(journal, reads);
    return [
      {
        type: "adopted",
        by: isChosen ? "operator" : "auto",
        ...adoption,
        stores,
        appFingerprint: identity?.appFingerprint ?? null,
        ...(overrules.length > 0 ? { overrules } : {}),
      },
    ];
  });
  return outcome;
};

const isKnownAlready = (
  s: AppState,
  { current, old, stale }: Adoption,
  stores: readonly { readonly name: string; readonly fp: Fp | null }[],
): boolean =>
  s.current === current &&
  stores.every(({ name, fp }) => s.lastSeen.has(name) && s.lastSeen.get(name) === fp) &&
  old.every((fp) => s.old.has(fp)) &&
  stale.every((fp) => s.stale.has(fp) || s.dead.has(fp));

const isExpected = (s: AppState, { name, stored }: StoreRead, pending: Fp | null): boolean => {
  const fp = stored?.secret.fingerprint(s.salt ?? "") ?? null;
  return fp === pending || isOurs(s, name, fp);
};

/** What stores quote that this ledger does not hold: a person overrules it by beginning a successor. */
const quotesAgainst = (journal: Journal, reads: readonly StoreRead[]): readonly string[] => [
  ...new Set(
    reads.flatMap(({ stored }) =>
      stored?.witness && witnessProblem({ journal }, stored) !== null ? [quoteText(stored.witness)] : [],
    ),
  ),
];

/** LEDGER_BEHIND or LEDGER_FOREIGN, if a store says so. */
const contradictionIn = (
  hands: Hands,
  journal: Journal,
  reads: readonly StoreRead[],
): RotatorError | null => {
  const problems = reads.map(({ name, stored }) => ({ name, code: witnessProblem({ journal }, stored) }));
  for (const code of ["LEDGER_BEHIND", "LEDGER_FOREIGN"] as const) {
    const names = problems.filter((p) => p.code === code).map((p) => p.name);
    if (names.length > 0) return contradicted(hands.app.name, code, names, hands.ledger.where);
  }
  return null;
};

/** What would stand in the way of adopting by itself, or null. Writes nothing, and needs no ledger. */
export const adoptionProblem = async (
  hands: Hands,
  journal: Journal,
  keys: Keys,
  pending: Fp | null,
): Promise<RotatorError | null> => {
  const { salt } = journal.state();
  const reads = await readStores(hands);
  const found = await probeValues(hands, keys, reads, salt ?? "00".repeat(32), pending);
  const adoption = judgeAdoption(found);
  if (typeof adoption !== "string") return null;
  if (salt !== null)
    return adoption === "unclear" ? unclear(hands.app.name, found) : ambiguous(hands.app.name, found);
  // Without a ledger there is no salt, so no fingerprint that anybody could name.
  return new RotatorError(adoption === "unclear" ? "ADOPTION_UNCLEAR" : "ADOPTION_REFUSED", {
    why: `The stores hold ${found.length} different keys.`,
    state: "Nothing was adopted and nothing was written.",
    do: [`imkit-rotator adopt ${hands.app.name}`],
  });
};

/** IMKIT on each distinct value but the staged key. */
export const probeValues = async (
  hands: Hands,
  keys: Pick<Keys, "find" | "learn">,
  reads: readonly StoreRead[],
  salt: string,
  pending: Fp | null,
): Promise<readonly Found[]> => {
  const values = new Map<Fp, { key: Secret; stores: string[] }>();
  for (const { name, stored } of reads) {
    if (stored === null) continue;
    const key = stored.secret;
    const fp = key.fingerprint(salt);
    keys.learn(fp, key);
    const value = values.get(fp) ?? { key, stores: [] };
    value.stores.push(name);
    values.set(fp, value);
  }
  if (values.size > 1 && pending !== null) values.delete(pending);
  const asked = await Promise.all(
    [...values].map(async ([fp, { key, stores }]) => ({
      fp,
      key,
      stores,
      ...(await examine(hands, key, hands.signal)),
    })),
  );
  return besidePending(hands, keys, asked, pending);
};

/** A vague no of IMKIT counts beside the staged key, if that one is accepted and a made-up one gets the same answer. */
const besidePending = async (
  hands: Hands,
  keys: Pick<Keys, "find">,
  asked: readonly (Found & Examined)[],
  pending: Fp | null,
): Promise<readonly Found[]> => {
  const isVague = asked.some((f) => f.verdict === "unclear" && f.probe.verdict === "unclear");
  const key = isVague && pending !== null ? await keys.find(pending) : null;
  if (key === null) return asked;
  const fresh = await examine(hands, key, hands.signal);
  return asked.map((f) =>
    f.probe.verdict === "unclear"
      ? { ...f, verdict: judgeBeside(fresh.probe, fresh.control, f.probe).verdict }
      : f,
  );
};

const chosen = (hands: Hands, found: readonly Found[], choice: string): Adoption => {
  const current = findFp(
    choice,
    found.map((f) => f.fp),
  );
  if (current === null) throw notHeld(hands.app.name, found);
  const others = found.filter((f) => f.fp !== current);
  return {
    mode: "current",
    current,
    old: others.filter((f) => f.verdict !== "rejected").map((f) => f.fp),
    stale: others.filter((f) => f.verdict === "rejected").map((f) => f.fp),
  };
};

/** Every store of the app. @throws RotatorError STORE_FAILED, STORE_REFUSED, with every one that cannot be read */
export const readStores = async (hands: Hands): Promise<readonly StoreRead[]> => {
  const asked = await Promise.all(
    hands.app.stores.map(async ({ plan: { name }, store }) => {
      try {
        return { name, stored: await patiently(hands, hands.signal, () => store.read(hands.signal)) };
      } catch (thrown) {
        return { name, error: asProviderError(thrown) };
      }
    }),
  );
  const failed = asked.flatMap((one) => (one.error === undefined ? [] : [one]));
  if (failed.length === 0) return asked.map(({ name, stored = null }) => ({ name, stored }));
  const isRefused = failed.some(({ error }) => REFUSALS.has(error.code));
  const names = failed.map(({ name }) => name);
  const whys = failed.map(({ error: { code, hint } }) => `${code}${hint === "" ? "" : `: ${hint}`}`);
  throw new RotatorError(isRefused ? "STORE_REFUSED" : "STORE_FAILED", {
    what: `Could not read the store${names.length > 1 ? "s" : ""} ${names.join(", ")}.`,
    why: whys.length === 1 ? whys.join("") : whys.map((why, nth) => `${names[nth]}: ${why}`).join("\n"),
    do: [`imkit-rotator doctor ${hands.app.name}`],
    stores: asked.map(({ name, error }) => ({ name, code: error?.code ?? null })),
  });
};
