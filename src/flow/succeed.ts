import { RotatorError } from "../core/errors.ts";
import type { LedgerEvent } from "../core/events.ts";
import { type Remains, readRemains } from "../core/remains.ts";
import { type Fp, findFp, type Secret, showFp } from "../core/secret.ts";
import { EMPTY } from "../core/state.ts";
import type { Ledger } from "../ports.ts";
import { absorbEscrow } from "./absorb.ts";
import { judgeAdoption, probeValues, readStores, type StoreRead, type Taken, tryAdopt } from "./adopt.ts";
import { unclear } from "./adopt-words.ts";
import { SILENCE_MS, takenOver } from "./claim.ts";
import type { Hands } from "./hands.ts";
import { hex, type Journal, Moved, openJournal } from "./journal.ts";
import { openKeys } from "./keys.ts";
import { pendingKey, settle } from "./open.ts";
import { compareApps, examine } from "./probing.ts";

/** The ledger that is to be followed by a new one, and the place where that one begins. */
export type Predecessor = {
  readonly ledger: Ledger;
  /** `aside`: it was set aside and nothing has its place yet; `none`: there is no trace of one. */
  look(): Promise<{
    readonly place: "here" | "aside" | "none";
    readonly where: string;
    readonly lines: readonly Uint8Array[];
    readonly seqs: readonly number[];
  }>;
  /** Takes it out of its place, whole and durably; nothing is deleted. Repeatable. @returns where it lies now */
  setAside(id: string | null): Promise<string | null>;
};
type Look = Awaited<ReturnType<Predecessor["look"]>>;

export type Succeeded = {
  /** What the new ledger quotes of the old one; null = a successor that was begun before was gone on with. */
  readonly successorOf: { readonly ledger: string | null; readonly head: string | null } | null;
  readonly aside: string | null;
  /** Why another ledger was needed, in our own words. */
  readonly why: string;
  readonly journal: Journal;
  readonly taken: Taken;
};

const LOOK_EVERY_MS = 1_000;

/**
 * Begins a ledger in place of one that is lost, broken, or contradicted by a store, carries the keys in escrow over, and adopts. The old
 * one is renamed, never changed but for a claim, never deleted. Killed anywhere and called again it comes to the same end.
 * @param choice fingerprint prefix under the old ledger, or null
 * @throws RotatorError ADOPTION_REFUSED while the ledger is sound and nothing contradicts it, LOCKED, ADOPTION_UNCLEAR, STORE_*
 */
export const succeed = async (
  plain: Hands,
  predecessor: Predecessor,
  options: { readonly choice: string | null; readonly waitMs: number },
): Promise<Succeeded> => {
  const hands: Hands = { ...plain, ledger: predecessor.ledger };
  const look = await awaitGone(hands, predecessor, options.waitMs);
  const old = readRemains(look.lines, look.seqs);
  const reads = await readStores(hands);
  // Killed before it was adopted: a second one would follow it for nothing.
  const isBegun = old.isSuccessor && !old.state.adopted && old.damage === null && !isOfAnother(hands, old);
  const why = look.place === "here" && isBegun ? "" : reasonFor(hands, look, old, reads);
  if (why === null) throw needless(hands, look);
  if (why === "") {
    return { ...(await finish(hands, options.choice)), successorOf: null, aside: null, why: "" };
  }
  const salt = hex(hands.entropy(32));
  const choice = options.choice === null ? null : translated(hands, old, reads, options.choice, salt);
  const carried = await carry(hands, old, reads, salt, look);
  if (choice === null) await refuseUnclear(hands, reads, salt, carried);
  const successorOf = quoted(old, reads);
  const aside = look.place === "here" ? await setAside(hands, predecessor, old) : null;
  await begin(hands, salt, successorOf, carried);
  return { ...(await finish(hands, choice)), successorOf, aside, why };
};

/** Waits until no live process claims the old ledger. One that nobody can prove gone is dead when nothing was written for 90 s. */
const awaitGone = async (hands: Hands, predecessor: Predecessor, waitMs: number): Promise<Look> => {
  const { clock, host, signal, app } = hands;
  const started = clock.monotonic();
  let count = -1;
  let changed = started;
  for (;;) {
    const look = await predecessor.look();
    const { claim } = readRemains(look.lines, look.seqs).state;
    if (look.place !== "here" || claim === null || claim.inst === host.claim.inst) return look;
    if (await host.isGone(claim)) return look;
    if (look.lines.length !== count) changed = clock.monotonic();
    count = look.lines.length;
    if (clock.monotonic() - changed >= SILENCE_MS) return look;
    if (signal.aborted) throw new RotatorError("INTERRUPTED");
    if (clock.monotonic() - started >= waitMs) {
      throw new RotatorError("LOCKED", {
        why: `Process ${claim.pid} on ${claim.host} holds the claim on the ledger.`,
        state: "That process goes on; this one wrote to no store.",
        do: [`imkit-rotator adopt ${app.name} --new-ledger --wait=5m`],
      });
    }
    await clock.sleep(LOOK_EVERY_MS, signal);
  }
};

const reasonFor = (
  hands: Hands,
  { place, where }: Look,
  old: Remains,
  reads: readonly StoreRead[],
): string | null => {
  if (place === "none") return "There is no ledger of this app here.";
  if (place === "aside") return `The ledger was set aside (${where}) and no other one was begun.`;
  if (old.damage !== null) return `The ledger is broken (${old.damage}).`;
  if (isOfAnother(hands, old)) return "The ledger belongs to another app.";
  for (const { name, stored } of reads) {
    const problem = stored?.witness ? old.quoteProblem(stored.witness) : null;
    if (problem === "LEDGER_FOREIGN") return `The store ${name} was written under another ledger.`;
    if (problem === "LEDGER_BEHIND")
      return `The store ${name} quotes an entry that the ledger does not hold.`;
  }
  return null;
};

const isOfAnother = (hands: Hands, { state }: Remains): boolean =>
  state.app !== null && state.app !== hands.app.name;

const needless = (hands: Hands, look: Look): RotatorError =>
  new RotatorError("ADOPTION_REFUSED", {
    what: "The ledger is sound and no store contradicts it, so no other one is begun.",
    why: `${look.where} holds ${look.lines.length} entries.`,
    state: "Nothing was changed.",
    do: [`imkit-rotator adopt ${hands.app.name}`, `imkit-rotator audit verify ${hands.app.name} --stores`],
  });

/** A fingerprint that a person read somewhere, under the salt of the new ledger. */
const translated = (
  hands: Hands,
  old: Remains,
  reads: readonly StoreRead[],
  choice: string,
  salt: string,
): string => {
  const { salt: before } = old.state;
  const keys = reads.flatMap(({ stored }) => (stored === null ? [] : [stored.secret]));
  const fps = before === null ? [] : keys.map((key) => key.fingerprint(before));
  const found = findFp(choice, fps);
  const key = found === null ? undefined : keys[fps.indexOf(found)];
  if (key !== undefined) return key.fingerprint(salt);
  throw new RotatorError("USAGE", {
    what: "No store holds a key with that fingerprint.",
    why: "The new ledger takes fingerprints anew; begin it first, it says what to choose from.",
    do: [`imkit-rotator adopt ${hands.app.name} --new-ledger`],
  });
};

type Carried = { readonly fp: Fp; readonly key: Secret; readonly as: "staged" | "old" };

/**
 * Keys in escrow that the new ledger has to name. The one that the old ledger calls staged stays so, but only where that ledger is whole:
 * of a damaged or shorter one nobody knows what came later, and a key that was given up meanwhile must not be written anywhere. Every
 * other key that no store holds joins the old ones, whatever IMKIT says of it. What a store holds, adoption judges.
 */
const carry = async (
  hands: Hands,
  old: Remains,
  reads: readonly StoreRead[],
  salt: string,
  look: Look,
): Promise<readonly Carried[]> => {
  const isWhole =
    look.place !== "none" &&
    old.damage === null &&
    !isOfAnother(hands, old) &&
    reads.every(({ stored }) => !stored?.witness || old.quoteProblem(stored.witness) !== "LEDGER_BEHIND");
  const found: Carried[] = [];
  for (const name of await hands.escrow.list()) {
    const key = await hands.escrow.get(name).catch((error: unknown) => {
      if (!(error instanceof RotatorError)) throw error;
      const text = `The key ${showFp(name)} in escrow cannot be opened; it stays where it is.`;
      hands.tell({ kind: "note", text });
      return null;
    });
    if (key === null || found.some((one) => one.key.equals(key))) continue;
    const before = old.state.salt === null ? null : key.fingerprint(old.state.salt);
    const isStaged = isWhole && before !== null && before === old.pending;
    const isHeld = reads.some(({ stored }) => stored?.secret.equals(key) === true);
    if (isStaged) found.push({ fp: key.fingerprint(salt), key, as: "staged" });
    else if (!isHeld) found.push({ fp: key.fingerprint(salt), key, as: "old" });
  }
  return found;
};

/** Before anything is changed: an answer that is missing now may be there in a minute. */
const refuseUnclear = async (
  hands: Hands,
  reads: readonly StoreRead[],
  salt: string,
  carried: readonly Carried[],
): Promise<void> => {
  const keys = new Map<Fp, Secret>(carried.map(({ fp, key }) => [fp, key]));
  const pending = carried.find((one) => one.as === "staged")?.fp ?? null;
  const known = {
    find: async (fp: Fp) => keys.get(fp) ?? null,
    learn: (fp: Fp, key: Secret) => void keys.set(fp, key),
  };
  const found = await probeValues(hands, known, reads, salt, pending);
  if (judgeAdoption(found) !== "unclear") return;
  const { why } = unclear(hands.app.name, found);
  throw new RotatorError("ADOPTION_UNCLEAR", {
    why,
    state: "Nothing was changed; the old ledger is where it was.",
    do: [`imkit-rotator doctor ${hands.app.name}`, `imkit-rotator adopt ${hands.app.name} --new-ledger`],
  });
};

/** The old ledger as far as it can be read; of one that is lost, what the stores quote of it. */
const quoted = (old: Remains, reads: readonly StoreRead[]) => {
  if (old.ledger !== null)
    return { ledger: old.ledger, head: old.head === null ? null : `${old.head.seq}:${old.head.h}` };
  const quotes = reads.flatMap(({ stored }) => (stored?.witness ? [stored.witness] : []));
  const [last] = [...quotes].sort((a, b) => b.seq - a.seq);
  return last === undefined
    ? { ledger: null, head: null }
    : { ledger: last.ledger, head: `${last.seq}:${last.h16}` };
};

/** A claim of ours is the last word of a ledger that can still be written: whoever works with it stops. */
const setAside = async (hands: Hands, predecessor: Predecessor, old: Remains): Promise<string | null> => {
  if (old.damage === null) {
    const journal = await openJournal(hands);
    if (journal.head()?.h !== old.head?.h) throw takenOver(hands.app.name);
    try {
      await journal.decide([{ type: "claimed", ...hands.host.claim }]);
    } catch (error) {
      if (error instanceof Moved) throw takenOver(hands.app.name);
      throw error;
    }
  }
  return predecessor.setAside(old.ledger);
};

/** One entry: what the new ledger follows, who works on it, and every key that was carried over. */
const begin = async (
  hands: Hands,
  salt: string,
  successorOf: { readonly ledger: string | null; readonly head: string | null },
  carried: readonly Carried[],
): Promise<void> => {
  const staged = carried.find((one) => one.as === "staged");
  const examined = staged === undefined ? null : await examine(hands, staged.key, hands.signal);
  const compared =
    staged !== undefined && examined?.verdict === "accepted"
      ? await compareApps(hands, { ...EMPTY, salt }, staged.key, [], hands.signal)
      : { sameApp: "unproved" as const, appFingerprint: null };
  const keys = carried.map(({ fp, as }): LedgerEvent => {
    if (as === "old") return { type: "discarded", fp, forget: false };
    return { type: "staged", fp, verdict: examined?.verdict ?? "unclear", source: "escrow", ...compared };
  });
  const journal = await openJournal(hands);
  try {
    await journal.decide([
      { type: "genesis", app: hands.app.name, salt, successorOf },
      { type: "claimed", ...hands.host.claim },
      ...keys,
    ]);
  } catch (error) {
    if (error instanceof Moved) throw takenOver(hands.app.name);
    throw error;
  }
};

/** Keys get their new names in escrow, the stores are adopted, the claim is given back. */
const finish = async (
  hands: Hands,
  choice: string | null,
): Promise<{ readonly journal: Journal; readonly taken: Taken }> => {
  const journal = await openJournal(hands);
  const keys = openKeys(hands, journal);
  const { inst } = hands.host.claim;
  try {
    await absorbEscrow(hands, journal, keys);
    const taken = await tryAdopt(hands, journal, keys, { choice, pending: pendingKey(journal) });
    await absorbEscrow(hands, journal, keys);
    return { journal, taken };
  } finally {
    await settle(journal, () =>
      journal.state().claim?.inst === inst ? [{ type: "released", inst }] : [],
    ).catch(() => {});
  }
};
