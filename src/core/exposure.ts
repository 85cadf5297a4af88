import { rolloutsDone, storesDone } from "./next.ts";
import type { Rotation } from "./rotation.ts";
import type { Fp } from "./secret.ts";
import type { Sighting } from "./sightings.ts";
import { type AppState, oldOnes } from "./state.ts";

/** How long a leaked key worked. Only bounds are known: nobody asks IMKIT all the time. Instants are RFC 3339. */
export type Exposure = {
  /** Where the count begins. */
  readonly from: string;
  /** A person said so (`--leaked-since`); else it is when the rotation was opened, and says nothing of what was before. */
  readonly fromKnown: boolean;
  /** Last time that a leaked key was seen accepted; null = never by us. */
  readonly lastAccepted: string | null;
  /** First time that each leaked key had been seen rejected; null = not all of them: still open. */
  readonly firstRejected: string | null;
  readonly atLeastMs: number;
  /** null = it still goes on, or nobody can tell. */
  readonly atMostMs: number | null;
};

/** How long some workload had no working key, as bounds. */
export type Blackout = {
  /** `unknown`: it is over if there was one, and nobody asked about a key in use after its work was done. */
  readonly state: "none" | "going on" | "over" | "unknown";
  /** Last time that a key in use was seen accepted before it died; null = never by us. */
  readonly lastAccepted: string | null;
  /** From here on no key in use was accepted; null = none was seen dead. */
  readonly firstRejected: string | null;
  /** The last store written, or workload restarted, with the new key; null = that is still to come. */
  readonly ended: string | null;
  /** While it goes on: until `asOf`. */
  readonly atLeastMs: number;
  /** null = it goes on, or nobody saw the key work before it was dead. */
  readonly atMostMs: number | null;
};

/**
 * Of the leaked keys the worst; where nobody knows which one leaked, of all old keys.
 * @returns null where there is no emergency, or no key that could have leaked.
 */
export const exposureOf = (s: AppState, r: Rotation | null = s.rotation): Exposure | null => {
  const emergency = r?.emergency ?? null;
  if (r === null || emergency === null) return null;
  const keys = emergency.leaked.length > 0 ? emergency.leaked : oldOf(s, r);
  if (keys.length === 0) return null;
  const from = emergency.since ?? r.openedTs;
  const seen = keys.map((fp) => s.verdicts.get(fp));
  const yes = max(seen.map((sight) => sight?.acceptedTs ?? null));
  const noes = seen.map(deadSince);
  const no = noes.includes(null) ? null : max(noes);
  const atMostMs = no === null ? null : between(from, no);
  const atLeastMs = yes === null ? 0 : Math.min(between(from, yes), atMostMs ?? Number.POSITIVE_INFINITY);
  return {
    from,
    fromKnown: emergency.since !== null,
    lastAccepted: yes,
    firstRejected: no,
    atLeastMs,
    atMostMs,
  };
};

/**
 * Keys in use are the one that was current and whatever this rotation wrote before its new key. `asOf` (RFC 3339) is until when a blackout
 * that goes on is counted.
 * @returns null where nothing can be said: no key was in use as far as the ledger knows, or IMKIT gave no clear word on it.
 */
export const blackoutOf = (s: AppState, asOf: string | null = null): Blackout | null => {
  const r = s.rotation;
  if (r === null) return null;
  const used = usedOf(s, r);
  const seen = used.map((fp) => s.verdicts.get(fp)).filter((sight) => sight !== undefined);
  if (used.length === 0 || seen.length === 0) return null;
  const dead = seen.filter((sight) => deadSince(sight) !== null);
  const ended = endOf(s, r);
  const alive = [...used, ...besideOf(s, r)].filter((fp) => !isDead(s, fp)).map((fp) => s.verdicts.get(fp));
  const lived = livedUntil(alive);
  if (dead.length === 0) return lived === null ? null : quiet(lived, ended);
  const yeses = dead.map((sight) => sight.acceptedTs);
  const yes = yeses.includes(null) ? null : min(yeses);
  // Where one of them still works, who used which is not known: nothing is sure before all are dead.
  const no = dead.length === used.length ? max(dead.map(deadSince)) : null;
  const firstNo = no ?? min(dead.map(deadSince));
  const until = ended ?? asOf;
  const sure = no === null || until === null ? 0 : between(no, until);
  if (ended === null) {
    return {
      state: "going on",
      lastAccepted: yes,
      firstRejected: firstNo,
      ended,
      atLeastMs: sure,
      atMostMs: null,
    };
  }
  const isLate = yes !== null && between(yes, ended) === 0;
  if (isLate && alive.length > 0)
    return lived === null ? null : { ...quiet(lived, ended), firstRejected: firstNo };
  const atMostMs = yes === null || (lived === null && alive.length > 0) ? null : between(yes, ended);
  const atLeastMs = Math.min(sure, atMostMs ?? sure);
  const state = isLate ? "none" : "over";
  return { state, lastAccepted: yes, firstRejected: firstNo, ended, atLeastMs, atMostMs };
};

/** No key in use was seen to die before all had the new one. Whether they lived so long is known of one that was asked after that. */
const quiet = (lived: string, ended: string | null): Blackout => {
  const atMostMs = ended === null ? 0 : between(lived, ended);
  const state = atMostMs === 0 ? "none" : "unknown";
  return { state, lastAccepted: lived, firstRejected: null, ended, atLeastMs: 0, atMostMs };
};

/** One number for a result line: what is sure of it. null while it goes on, where nothing is known, or where there was no key before. */
export const blackoutMs = (s: AppState): number | null => {
  if (s.rotation?.mode == null || s.rotation.mode === "first") return null;
  const found = blackoutOf(s);
  return found === null || found.state === "going on" ? null : found.atLeastMs;
};

/** The earliest of their last yeses; null = of one of them a yes is not the last word. */
const livedUntil = (alive: readonly (Sighting | undefined)[]): string | null =>
  alive.every((sight) => sight?.verdict === "accepted") ? min(alive.map((x) => x?.acceptedTs ?? null)) : null;

const oldOf = (s: AppState, r: Rotation): readonly Fp[] =>
  r.ended !== "done" ? oldOnes(s) : s.lastEnded?.rotation === r.id ? s.lastEnded.old : [];

/** What stood in stores before the new key, as far as it was seen to be in use or dead, and a new key that died. */
const usedOf = (s: AppState, r: Rotation): readonly Fp[] => {
  const before = r.ended !== "done" ? s.current : r.mode === "first" ? null : (oldOf(s, r)[0] ?? null);
  const written = [...r.intents.values()].filter((i) => r.stores.has(i.target)).map((i) => i.fp);
  const died = r.newFp !== null && written.includes(r.newFp) && isDead(s, r.newFp);
  const gone = besideOf(s, r).filter((fp) => isDead(s, fp));
  const all = new Set([...(before === null ? [] : [before]), ...written, ...gone]);
  return [...all].filter((fp) => fp !== r.newFp || died);
};

/** Every old key that stood in a store: some workload may have used it. */
const besideOf = (s: AppState, r: Rotation): readonly Fp[] => oldOf(s, r).filter((fp) => r.stood.has(fp));

const isDead = (s: AppState, fp: Fp): boolean => deadSince(s.verdicts.get(fp)) !== null;

/** When everything had the new key, and that key works. */
const endOf = (s: AppState, r: Rotation): string | null => {
  if (r.newFp === null || isDead(s, r.newFp) || !storesDone(r) || !rolloutsDone(r)) return null;
  return max([r.wroteTs, r.rolledTs]) ?? r.newTs;
};

/** A later word of doubt takes nothing back; a later yes does. */
const deadSince = (sight: Sighting | undefined): string | null =>
  sight === undefined || sight.verdict === "accepted" ? null : sight.rejectedTs;

const at = (ts: string): number => Date.parse(ts);
const between = (from: string, to: string): number => {
  const ms = at(to) - at(from);
  return Number.isFinite(ms) ? Math.max(0, ms) : 0;
};
const max = (all: readonly (string | null)[]): string | null =>
  all.reduce((a, b) => (a === null || (b !== null && at(b) > at(a)) ? b : a), null);
const min = (all: readonly (string | null)[]): string | null =>
  all.reduce((a, b) => (a === null || (b !== null && at(b) < at(a)) ? b : a), null);
