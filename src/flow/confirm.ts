import { RotatorError } from "../core/errors.ts";
import type { LedgerEvent, Verdict } from "../core/events.ts";
import type { Fp, Secret } from "../core/secret.ts";
import { showFp } from "../core/secret.ts";
import { type AppState, isOpen, unproved } from "../core/state.ts";
import type { Hands } from "./hands.ts";
import { type Journal, openJournal } from "./journal.ts";
import { type Keys, openKeys } from "./keys.ts";
import { settle } from "./open.ts";
import { type ProofEnd, probeKey, ripen, runTriads } from "./probing.ts";
import { prepare, type Rotated, work } from "./rotate.ts";

export type ConfirmOptions = {
  /** Keep asking until every old key is dead, at most this long. */
  readonly waitMs: number;
  /** `--waive --reason TEXT`: an old key that cannot be proved dead is attested. */
  readonly waive: string | null;
  /** An old key that escrow has lost, given by the person. */
  readonly key: Secret | null;
};
export type Confirmed = {
  /** The worst of all old keys; null = there was nothing to confirm. */
  readonly verdict: Verdict | null;
  readonly why: string;
  readonly proofs: readonly {
    readonly fp: Fp;
    readonly verdict: Verdict;
    readonly attested: boolean;
    readonly proved: boolean;
  }[];
  readonly rotated: Rotated | null;
  readonly state: AppState;
  readonly head: { readonly seq: number; readonly h: string } | null;
};

const DISCARD_POLL_MS = 5_000;

/** Proves every old key dead by triads; on success the loop runs on, to `done`. */
export const confirmRevoked = async (hands: Hands, options: ConfirmOptions): Promise<Confirmed> => {
  const journal = await openJournal(hands);
  const keys = openKeys(hands, journal);
  const s = journal.state();
  const before = [...s.old.keys()];
  if (s.salt === null || (!isOpen(s) && unproved(s).length === 0)) return nothing(journal);
  if (options.key !== null) await takeOldKey(journal, keys, options.key);
  if (!isOpen(s)) return proveDiscarded(hands, journal, keys, options);
  await prepare(hands, journal, keys);
  if (options.waive !== null) await waive(hands, journal, keys, options.waive);
  const rotated = await work(hands, journal, keys, {
    reason: null,
    ticket: null,
    drop: [],
    restarted: false,
    acceptApp: null,
    confirm: true,
    waitMs: options.waitMs,
  });
  return summary(journal, before, rotated.ends, rotated);
};

const nothing = (journal: Journal): Confirmed => {
  const s = journal.state();
  const proofs = (s.lastEnded?.old ?? []).map((fp) => ({
    fp,
    verdict: (s.dead.has(fp) ? "rejected" : "unclear") as Verdict,
    attested: !s.dead.has(fp),
    proved: s.dead.has(fp),
  }));
  return { verdict: null, why: "", proofs, rotated: null, state: s, head: journal.head() };
};

const summary = (
  journal: Journal,
  before: readonly Fp[],
  ends: ReadonlyMap<Fp, ProofEnd>,
  rotated: Rotated | null,
): Confirmed => {
  const s = journal.state();
  const all = [...new Set([...before, ...s.old.keys()])];
  // A proof needs a key that works beside the dead one: until there is one, the last plain answer is all that can be said.
  const lacksKey = isOpen(s) && s.rotation?.newFp === null;
  const proofs = all.map((fp) => {
    const proved = s.dead.has(fp) || s.old.get(fp)?.proved === true;
    // `done` leaves no key that was neither proved nor attested.
    const attested = s.old.get(fp)?.waived === true || (!s.old.has(fp) && !proved);
    const answer = ends.get(fp)?.verdict ?? (lacksKey ? s.verdicts.get(fp)?.verdict : undefined) ?? "unclear";
    return { fp, attested, verdict: proved ? ("rejected" as const) : answer, proved };
  });
  const open = proofs.filter((p) => !p.attested);
  const verdict = open.some((p) => p.verdict === "accepted")
    ? "accepted"
    : open.some((p) => p.verdict === "unclear")
      ? "unclear"
      : proofs.every((p) => p.attested)
        ? "unclear"
        : "rejected";
  const why = [...ends.values()].map((e) => e.why).find((w) => w !== "") ?? "";
  return { verdict: all.length === 0 ? null : verdict, why, proofs, rotated, state: s, head: journal.head() };
};

/** @throws RotatorError USAGE when it is none of the old keys. */
const takeOldKey = async (journal: Journal, keys: Keys, key: Secret): Promise<void> => {
  const s = journal.state();
  const fp = key.fingerprint(s.salt ?? "");
  if (!s.old.has(fp)) {
    throw new RotatorError("USAGE", {
      what: "The key that was given is none of the old keys of this rotation. It was not stored.",
      why: `Old keys: ${[...s.old.keys()].map(showFp).join(", ") || "none"}.`,
    });
  }
  await keys.keep(fp, key);
};

/** @throws RotatorError STILL_ACCEPTED while IMKIT accepts a key that was to be waived. */
const waive = async (hands: Hands, journal: Journal, keys: Keys, reason: string): Promise<void> => {
  const fps = unproved(journal.state());
  for (const fp of fps) {
    const key = await keys.find(fp);
    if (key === null) continue;
    const probe = await probeKey(hands, key, hands.signal, true);
    if (probe.verdict === "accepted") {
      throw new RotatorError("STILL_ACCEPTED", {
        why: `IMKIT still accepts ${showFp(fp)}, so it cannot be waived.`,
        state: "The rotation stays open.",
        do: ["Revoke it in the Dashboard", `imkit-rotator confirm-revoked ${hands.app.name}`],
      });
    }
  }
  const rotation = isOpen(journal.state()) ? (journal.state().rotation?.id ?? null) : null;
  await settle(journal, () => {
    const left = unproved(journal.state()).filter((fp) => fps.includes(fp));
    return left.map(
      (fp): LedgerEvent => ({ type: "waived", fp, reason, ...(rotation === null ? {} : { rotation }) }),
    );
  });
};

/** With no rotation open: keys that were discarded, by triads with the current key as the one that must work. */
const proveDiscarded = async (
  hands: Hands,
  journal: Journal,
  keys: Keys,
  options: ConfirmOptions,
): Promise<Confirmed> => {
  const s = journal.state();
  const before = unproved(s);
  if (options.waive !== null) await waive(hands, journal, keys, options.waive);
  const fresh = s.staged !== null ? s.staged.fp : s.current;
  const freshKey = fresh === null ? null : await keys.get(fresh);
  const until = hands.clock.monotonic() + options.waitMs;
  let ends = new Map<Fp, ProofEnd>();
  for (;;) {
    const left = unproved(journal.state());
    const held = await Promise.all(left.map(async (fp) => ({ fp, key: await keys.find(fp) })));
    const able = held.flatMap(({ fp, key }) => (key === null ? [] : [{ fp, key }]));
    if (freshKey === null || able.length === 0) break;
    await ripen(hands, journal.state(), left, hands.signal);
    ends = new Map((await runTriads(hands, freshKey, able, hands.signal)).map((end) => [end.fp, end]));
    const dead = [...ends.values()].filter((e) => e.verdict === "rejected");
    await journal.record(
      dead.map(({ fp, triads }) => ({ type: "proof", fp, control: hands.app.revoke.control, triads })),
    );
    for (const { fp } of dead) await keys.drop(fp);
    if (unproved(journal.state()).length === 0 || hands.clock.monotonic() >= until || hands.signal.aborted)
      break;
    await hands.clock.sleep(DISCARD_POLL_MS, hands.signal);
  }
  return summary(journal, before, ends, null);
};
