import { createHash } from "node:crypto";
import type { Witness, WriteOp } from "../../src/ports.ts";

export const CURRENT = "AWSCURRENT";
export const PENDING = "AWSPENDING";
export const PREVIOUS = "AWSPREVIOUS";
/** AWS allows no more labels than these on all versions of a secret. */
export const MOST_LABELS = 20;

/** What is said of a label AWSPENDING that somebody else set. */
export const FOREIGN_PENDING = "another change is under way: a version labelled AWSPENDING that is not ours";

const OURS = /^imkit-rotator\/([^/]{1,64})\/(\d{1,15}|-)\/([0-9a-f]{16}|-)(?:\/(.+))?$/;
const NO_LEDGER = "-";

type Labels = readonly string[];
/** Two apps may keep their keys in one JSON secret: each sees only the labels of its own member. */
type Own = { readonly jsonKey: string | null; readonly ledger?: string | undefined };

/** `imkit-rotator/<ledger>/<seq>/<h16>`, with `/<jsonKey>` where the secret is JSON: at most 180 of the 256 characters that AWS allows. */
export const labelFor = (witness: Witness | null, jsonKey: string | null): string => {
  const { ledger, seq, h16 } = witness ?? { ledger: NO_LEDGER, seq: "-", h16: "-" };
  return `imkit-rotator/${ledger}/${seq}/${h16}${jsonKey === null ? "" : `/${jsonKey}`}`;
};

/** What the labels of one version quote for our entry; the latest, if there are several. */
export const witnessIn = (labels: Labels, jsonKey: string | null): Witness | null => {
  const quoted = labels.flatMap((label): Witness[] => {
    const [, ledger = "", seq = "", h16 = "", tag] = OURS.exec(label) ?? [];
    return (tag ?? null) === jsonKey && /^\d/.test(seq) && h16 !== "-"
      ? [{ ledger, seq: Number(seq), h16 }]
      : [];
  });
  return quoted.sort((a, b) => b.seq - a.seq)[0] ?? null;
};

/** Was it set for our entry: by any ledger, or by that one? */
export const isOurs = (label: string, { jsonKey, ledger }: Own): boolean => {
  const [found, of, , , tag] = OURS.exec(label) ?? [];
  return found !== undefined && (tag ?? null) === jsonKey && (ledger === undefined || of === ledger);
};

export const ledgerOf = (op: WriteOp): string => op.witness?.ledger ?? NO_LEDGER;

/** The id of the version that one write makes: the same for every try of it over the same base, so that a repeat is the same write. */
export const tokenFor = (op: WriteOp, base: string | null): string =>
  createHash("sha256")
    .update(`imkit-rotator/aws-version/v1\0${op.id}\0${base ?? ""}`)
    .digest("hex");

export const holderOf = (labels: ReadonlyMap<string, Labels>, label: string): string | null => {
  for (const [version, its] of labels) if (its.includes(label)) return version;
  return null;
};
