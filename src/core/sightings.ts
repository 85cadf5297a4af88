import type { Verdict } from "./events.ts";
import type { Fp } from "./secret.ts";

/**
 * IMKIT's last word on a key. The change from yes to no lies between the last time it was seen accepted and the first time it was seen
 * rejected after that; null = never seen so.
 */
export type Sighting = {
  readonly verdict: Verdict;
  readonly ts: string;
  readonly acceptedTs: string | null;
  readonly rejectedTs: string | null;
};
export type Sightings = ReadonlyMap<Fp, Sighting>;

/** One more answer. `acceptedTs`: when the one who tells it had asked for the last yes; the entry that tells it is younger. */
export const see = (
  all: Sightings,
  fp: Fp,
  {
    verdict,
    ts,
    acceptedTs,
  }: { readonly verdict: Verdict; readonly ts: string; readonly acceptedTs?: string },
): Sightings => {
  const before = all.get(fp);
  const firstNo = before?.rejectedTs ?? null;
  switch (verdict) {
    case "accepted":
      return new Map(all).set(fp, {
        verdict,
        ts,
        acceptedTs: latest(before?.acceptedTs ?? null, acceptedTs ?? ts),
        rejectedTs: null,
      });
    case "rejected": {
      const lastYes = latest(before?.acceptedTs ?? null, acceptedTs ?? null);
      return new Map(all).set(fp, { verdict, ts, acceptedTs: lastYes, rejectedTs: firstNo ?? ts });
    }
    case "unclear":
      return new Map(all).set(fp, {
        verdict,
        ts,
        acceptedTs: before?.acceptedTs ?? null,
        rejectedTs: firstNo,
      });
  }
};

/** RFC 3339 UTC instants of one form compare as text. */
const latest = (a: string | null, b: string | null): string | null =>
  a === null || (b !== null && b > a) ? b : a;
