import { RotatorError } from "../core/errors.ts";
import type { LedgerEvent, Verdict } from "../core/events.ts";
import { type Fp, findFp, type Secret, showFp } from "../core/secret.ts";
import type { Hands } from "./hands.ts";
import type { Journal } from "./journal.ts";
import type { Keys } from "./keys.ts";
import { ensureGenesis, settle } from "./open.ts";
import { asProviderError, patiently } from "./pass.ts";
import { compareApps, type Examined, examine, judgeBeside } from "./probing.ts";

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
 * Reads every store, probes each distinct value, and records which key is current. Writes no store.
 * @param choice a fingerprint prefix that a person named, or null.
 * @param pending the staged key: it is never taken for the current one while another value is there.
 * @throws RotatorError ADOPTION_UNCLEAR, ADOPTION_REFUSED, STORE_FAILED, STORE_REFUSED
 */
export const adopt = async (
  hands: Hands,
  journal: Journal,
  keys: Keys,
  options: { readonly choice: string | null; readonly pending: Fp | null },
): Promise<void> => {
  await ensureGenesis(hands, journal);
  const s = journal.state();
  const { reads, found } = await lookAround(hands, keys, s.salt ?? "", options.pending);
  const adoption = options.choice === null ? judgeAdoption(found) : chosen(hands, found, options.choice);
  if (typeof adoption === "string") throw refusal(hands, found, adoption);
  const alive = found.find((f) => f.verdict === "accepted");
  const identity = alive ? await compareApps(hands, s, alive.key, [], hands.signal) : null;
  await settle(journal, (): readonly LedgerEvent[] => {
    if (journal.state().adopted && options.choice === null) return [];
    return [
      {
        type: "adopted",
        by: options.choice === null ? "auto" : "operator",
        ...adoption,
        stores: reads.map(({ name, fp }) => ({ name, fp })),
        appFingerprint: identity?.appFingerprint ?? null,
      },
    ];
  });
};

/** What would stand in the way of adopting by itself, or null. Writes nothing, and needs no ledger. */
export const adoptionProblem = async (
  hands: Hands,
  journal: Journal,
  keys: Keys,
  pending: Fp | null,
): Promise<RotatorError | null> => {
  const { salt } = journal.state();
  const { found } = await lookAround(hands, keys, salt ?? "00".repeat(32), pending);
  const adoption = judgeAdoption(found);
  if (typeof adoption !== "string") return null;
  if (salt !== null) return refusal(hands, found, adoption);
  // Without a ledger there is no salt, so no fingerprint that anybody could name.
  return new RotatorError(adoption === "unclear" ? "ADOPTION_UNCLEAR" : "ADOPTION_REFUSED", {
    why: `The stores hold ${found.length} different keys.`,
    state: "Nothing was adopted and nothing was written.",
    do: [`imkit-rotator adopt ${hands.app.name}`],
  });
};

/** Every store's value, and IMKIT on each distinct one but the staged key. */
const lookAround = async (hands: Hands, keys: Keys, salt: string, pending: Fp | null) => {
  const reads = await readAll(hands, salt);
  const values = new Map<Fp, { key: Secret; stores: string[] }>();
  for (const { name, fp, key } of reads) {
    if (fp === null || key === null) continue;
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
  const found: readonly Found[] = await besidePending(hands, keys, asked, pending);
  return { reads, found };
};

/** A vague no of IMKIT counts beside the staged key, if that one is accepted and a made-up one gets the same answer. */
const besidePending = async (
  hands: Hands,
  keys: Keys,
  asked: readonly (Found & Examined)[],
  pending: Fp | null,
): Promise<readonly Found[]> => {
  const isVague = asked.some((f) => f.verdict === "unclear" && f.probe.verdict === "unclear");
  const key = isVague && pending !== null ? await keys.get(pending) : null;
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
  if (current === null) {
    throw new RotatorError("USAGE", {
      what: "No store holds a key with that fingerprint.",
      do: found.map((f) => `imkit-rotator adopt ${hands.app.name} --current ${showFp(f.fp)}`),
    });
  }
  const others = found.filter((f) => f.fp !== current);
  return {
    mode: "current",
    current,
    old: others.filter((f) => f.verdict !== "rejected").map((f) => f.fp),
    stale: others.filter((f) => f.verdict === "rejected").map((f) => f.fp),
  };
};

const readAll = (hands: Hands, salt: string) =>
  Promise.all(
    hands.app.stores.map(async ({ plan, store }) => {
      try {
        const stored = await patiently(hands, hands.signal, () => store.read(hands.signal));
        return { name: plan.name, key: stored?.secret ?? null, fp: stored?.secret.fingerprint(salt) ?? null };
      } catch (thrown) {
        const error = asProviderError(thrown);
        const refused = ["AUTHZ", "CONFLICT", "NOT_OWNED", "IMMUTABLE"].includes(error.code);
        throw new RotatorError(refused ? "STORE_REFUSED" : "STORE_FAILED", {
          what: `Could not read the store ${plan.name}.`,
          why: `${error.code}${error.hint ? `: ${error.hint}` : ""}`,
          do: [`imkit-rotator doctor ${hands.app.name}`],
        });
      }
    }),
  );

const refusal = (hands: Hands, found: readonly Found[], why: "unclear" | "ambiguous"): RotatorError => {
  const list = found.map((f) => `${showFp(f.fp)} (${f.verdict}) in ${f.stores.join(", ")}`).join("; ");
  if (why === "unclear") {
    return new RotatorError("ADOPTION_UNCLEAR", {
      why: `IMKIT gave no clear answer for a key that a store holds: ${list}.`,
      state: "Nothing was adopted and nothing was written.",
      do: [`imkit-rotator doctor ${hands.app.name}`, `imkit-rotator rotate ${hands.app.name}`],
    });
  }
  return new RotatorError("ADOPTION_REFUSED", {
    why: `The stores hold ${list}.`,
    state: "Nothing was adopted and nothing was written.",
    do: found
      .filter((f) => f.verdict === "accepted")
      .map((f) => `imkit-rotator adopt ${hands.app.name} --current ${showFp(f.fp)}`),
  });
};
