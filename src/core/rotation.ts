import type { LedgerEvent, Mode, PlannedRollout, PlannedStore, SameApp } from "./events.ts";
import type { Fp } from "./secret.ts";

/** Where one target of a plan stands. `tries` counts this run's intents; `open` is an intent without a sure end. */
type Progress = {
  readonly code: string | null;
  readonly open: { readonly id: string; readonly run: number; readonly unknown: boolean } | null;
  readonly tries: number;
  readonly retryAtMs: number | null;
  readonly preflight: { readonly run: number; readonly ok: boolean; readonly code: string | null } | null;
};
export type StoreProgress = PlannedStore &
  Progress & {
    readonly state: "pending" | "written" | "unchanged" | "failed" | "conflict" | "unknown" | "dropped";
    readonly revision: string | null;
    /** What stood there before this rotation wrote, as the preflight saw it; null = unknown, or not to be disabled later. */
    readonly standing: string | null;
    /** Position at which it was last read back holding the new key. */
    readonly seenAt: number;
  };
export type RolloutProgress = PlannedRollout &
  Progress & {
    readonly state: "pending" | "rolling" | "done" | "failed" | "held" | "dropped";
    readonly proof: number | null;
    readonly reason: string | null;
  };

/** What was promised to the ledger before an effect. `fp` is the key that it was for, which a later one may have replaced. */
export type Intent = {
  readonly target: string;
  readonly run: number;
  readonly opId: string;
  readonly fp: Fp;
  readonly at: number;
  /** The revision that it superseded, or meant to. */
  readonly replaced: string | null;
};

/** A leak, as a person reported it. */
export type Emergency = {
  readonly leaked: readonly Fp[];
  /** Since when the key may be in foreign hands, RFC 3339; null = nobody knows. */
  readonly since: string | null;
  readonly order: "revoke-first" | "replace-first";
  /** When it was reported. */
  readonly ts: string;
};

/** One run for one app, as its ledger tells it. Counters (`…At`) are positions in the ledger, 0 = never. */
export type Rotation = {
  readonly id: string;
  readonly openedTs: string;
  /** The keys that stood in stores when it was opened, as far as they were known. */
  readonly stood: ReadonlySet<Fp>;
  readonly run: number;
  readonly newFp: Fp | null;
  /** Since when that is the new key. */
  readonly newTs: string | null;
  readonly emergency: Emergency | null;
  /** The key that the rotation began with is the new one again. */
  readonly rolledBack: boolean;
  readonly usage: { readonly before: boolean; readonly after: boolean };
  readonly mode: Mode | null;
  readonly sameApp: SameApp | null;
  readonly acceptedApp: boolean;
  /** App of the new key, as IMKIT shows it. */
  readonly appFingerprint: Fp | null;
  readonly verified: { readonly run: number; readonly ok: boolean; readonly code: string | null } | null;
  readonly preflightRun: number;
  readonly stores: ReadonlyMap<string, StoreProgress>;
  readonly rollouts: ReadonlyMap<string, RolloutProgress>;
  readonly intents: ReadonlyMap<string, Intent>;
  readonly wroteAt: number;
  /** Instant of the last store written. */
  readonly wroteTs: string | null;
  /** The last time that a store came to hold the new key, whoever wrote it there. */
  readonly heldAt: number;
  readonly heldTs: string | null;
  readonly rolledAt: number;
  readonly rolledTs: string | null;
  /** Which restart of the workloads is wanted: one more each time a store changes after they were restarted. */
  readonly generation: number;
  readonly generationAt: number;
  readonly provedAt: number;
  readonly provedRun: number;
  readonly waitingFor: "key" | "restart" | "revoke" | "soak" | "mirror" | null;
  readonly wrongKey: boolean;
  /** IMKIT's last clear answer on the new key was no. */
  readonly newRejected: boolean;
  readonly closing: boolean;
  readonly ended: "done" | "abandoned" | null;
  /** Instant of the first acceptance, for the blackout figure. */
  readonly modeTs: string | null;
  readonly reason: string | null;
};

const FRESH: Progress = { code: null, open: null, tries: 0, retryAtMs: null, preflight: null };
export const freshStore = (s: PlannedStore): StoreProgress => ({
  ...s,
  ...FRESH,
  state: "pending",
  revision: null,
  standing: null,
  seenAt: 0,
});
export const freshRollout = (r: PlannedRollout): RolloutProgress => ({
  ...r,
  ...FRESH,
  state: r.type === "none" ? "done" : "pending",
  proof: null,
  reason: null,
});
const byName = <T extends { readonly name: string }>(list: readonly T[]): ReadonlyMap<string, T> =>
  new Map(list.map((item) => [item.name, item]));

export const openRotation = (
  e: LedgerEvent & { type: "opened" },
  ts: string,
  stores: Iterable<Fp | null>,
): Rotation => ({
  id: e.rotation,
  openedTs: ts,
  stood: new Set([...stores].filter((fp) => fp !== null)),
  run: 0,
  newFp: e.new,
  newTs: e.new === null ? null : ts,
  emergency: null,
  rolledBack: false,
  usage: { before: false, after: false },
  mode: null,
  sameApp: null,
  acceptedApp: false,
  appFingerprint: null,
  verified: null,
  preflightRun: 0,
  stores: byName(e.stores.map(freshStore)),
  rollouts: byName(e.rollouts.map(freshRollout)),
  intents: new Map(),
  wroteAt: 0,
  wroteTs: null,
  heldAt: 0,
  heldTs: null,
  rolledAt: 0,
  rolledTs: null,
  generation: 0,
  generationAt: 0,
  provedAt: 0,
  provedRun: 0,
  waitingFor: null,
  wrongKey: false,
  newRejected: false,
  closing: false,
  ended: null,
  modeTs: null,
  reason: e.reason,
});

/** Revisions of one store that this rotation wrote over, oldest first. */
export const supersededIn = (r: Rotation, store: string): readonly string[] => [
  ...new Set(
    [...r.intents.values()].flatMap((i) => (i.target === store && i.replaced !== null ? [i.replaced] : [])),
  ),
];

/** Whatever was restarted until now was restarted for another content of the stores. */
export const nextGeneration = (r: Rotation): Rotation =>
  r.rolledAt > r.generationAt ? { ...r, generation: r.generation + 1, generationAt: r.rolledAt } : r;

/** Another key, or none yet, takes the place of the new one: every target has to be done again, what is known of the old ones stays. */
export const rekey = (r: Rotation, fp: Fp | null, ts: string): Rotation => ({
  ...nextGeneration(r),
  newFp: fp,
  newTs: fp === null ? null : ts,
  rolledBack: false,
  mode: null,
  sameApp: null,
  acceptedApp: false,
  appFingerprint: null,
  verified: null,
  preflightRun: 0,
  stores: new Map(
    [...r.stores].map(([name, s]) => [name, s.state === "dropped" ? s : { ...freshStore(s), open: s.open }]),
  ),
  rollouts: new Map(
    [...r.rollouts].map(([name, w]) => [
      name,
      w.state === "dropped" ? w : { ...freshRollout(w), open: w.open },
    ]),
  ),
  wrongKey: false,
  newRejected: false,
  waitingFor: null,
});

/** Positions count the events of a ledger; an entry has room for this many. */
const PER_ENTRY = 4096;
export const positionOf = (seq: number, index: number): number => seq * PER_ENTRY + index + 1;
/** After every event of that entry. */
export const lastOf = (seq: number): number => positionOf(seq + 1, -1);

export type Position = { readonly at: number; readonly id: string; readonly ts: string };

export const setStore = (r: Rotation, s: StoreProgress): Rotation => ({
  ...r,
  stores: new Map(r.stores).set(s.name, s),
});
export const setRollout = (r: Rotation, w: RolloutProgress): Rotation => ({
  ...r,
  rollouts: new Map(r.rollouts).set(w.name, w),
});
