import type { Fp } from "./secret.ts";

/** A key that may still work and is not the new one. `done` needs `proved` or `waived` for each. */
export type OldKey = {
  readonly proved: boolean;
  readonly waived: boolean;
  readonly discarded: boolean;
};
export type OldKeys = ReadonlyMap<Fp, OldKey>;

export const amendOld = (old: OldKeys, fp: Fp, change: Partial<OldKey>): OldKeys => {
  const key = old.get(fp);
  return key === undefined ? old : new Map(old).set(fp, { ...key, ...change });
};
export const without = (set: ReadonlySet<Fp>, fp: Fp): ReadonlySet<Fp> =>
  set.has(fp) ? new Set([...set].filter((x) => x !== fp)) : set;
const FRESH_OLD: OldKey = { proved: false, waived: false, discarded: false };
export const join = (old: OldKeys, fp: Fp, discarded = false): OldKeys =>
  old.has(fp) ? old : new Map(old).set(fp, { ...FRESH_OLD, discarded });
export const leave = (old: OldKeys, fp: Fp): OldKeys => {
  if (!old.has(fp)) return old;
  const next = new Map(old);
  next.delete(fp);
  return next;
};
