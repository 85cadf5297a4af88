import { ProviderError } from "../../src/core/errors.ts";
import type { WriteOp } from "../../src/ports.ts";
import { refused } from "../kit.ts";
import type { Aws } from "./aws-secrets-manager-client.ts";
import {
  CURRENT,
  FOREIGN_PENDING,
  holderOf,
  isOurs,
  labelFor,
  ledgerOf,
  PENDING,
  PREVIOUS,
  tokenFor,
} from "./aws-secrets-manager-labels.ts";

/** Labels of each version that has one. */
type Labels = ReadonlyMap<string, readonly string[]>;
/** A new value beside the current one. `base` is the version that it is to follow, null = the secret has no value. */
export type Laid = { readonly version: string; readonly base: string | null; readonly isCurrent: boolean };

export type Versions = {
  readonly create: (text: string, op: WriteOp, signal: AbortSignal) => Promise<string>;
  /** @throws ProviderError CONFLICT where someone else's change is under way; `commit` is called before the first change */
  readonly lay: (
    before: { readonly base: string | null; readonly labels: Labels },
    text: string,
    op: WriteOp,
    signal: AbortSignal,
    commit: () => void,
  ) => Promise<Laid>;
  /** Makes it the current one if `base` still is. Refused, it is taken off again. */
  readonly promote: (laid: Laid, op: WriteOp, signal: AbortSignal) => Promise<void>;
  /** Takes our labels off it, so that AWS deletes it in its own time. */
  readonly withdraw: (version: string, op: WriteOp, signal: AbortSignal) => Promise<void>;
  /** @throws ProviderError CONFLICT: it is the current one */
  readonly retire: (revision: string, signal: AbortSignal, commit: () => void) => Promise<void>;
};

export const versionsOf = (aws: Aws, jsonKey: string | null): Versions => {
  /** A label that stays behind is taken off by the next write or `retire`. */
  const unlabel = (label: string, version: string, signal: AbortSignal): Promise<void> =>
    aws.label(label, { from: version }, signal).catch(() => {});

  /** AWSPENDING of a run of ours that did not end, and our labels on versions that are of no use any more. */
  const leftoversIn = (labels: Labels, except: readonly (string | null)[]) =>
    [...labels].flatMap(([from, its]) => {
      const mine = its.filter((one) => isOurs(one, { jsonKey }));
      if (mine.length === 0 || except.includes(from) || its.includes(PREVIOUS)) return [];
      return [...mine, ...(its.includes(PENDING) ? [PENDING] : [])].map((label) => ({ label, from }));
    });

  const withdraw: Versions["withdraw"] = async (version, op, signal) => {
    await Promise.all(
      [PENDING, labelFor(op.witness, jsonKey)].map((label) => unlabel(label, version, signal)),
    );
  };

  const move = async ({ version: to, base }: Laid, signal: AbortSignal): Promise<void> => {
    try {
      await aws.label(CURRENT, { from: base ?? undefined, to }, signal);
    } catch (thrown) {
      if (!(thrown instanceof ProviderError) || !["CONFIG", "NOT_FOUND", "CONFLICT"].includes(thrown.code))
        throw thrown;
      const { labels } = await aws.describe(signal).catch(() => {
        throw new ProviderError("UNAVAILABLE", "unknown", "which version is the current one cannot be told");
      });
      const holder = holderOf(labels, CURRENT);
      if (holder === to) return;
      if (holder === base) throw thrown;
      throw refused("CONFLICT", "another version is the current one by now");
    }
  };

  return {
    create: async (text, op, signal) => {
      const version = await aws.create(tokenFor(op, null), text, signal);
      try {
        await aws.label(labelFor(op.witness, jsonKey), { to: version }, signal);
      } catch (thrown) {
        throw inForce(thrown);
      }
      return version;
    },

    lay: async ({ base, labels: before }, text, op, signal, commit) => {
      const ours = { jsonKey, ledger: ledgerOf(op) };
      const token = tokenFor(op, base);
      const label = labelFor(op.witness, jsonKey);
      const pending = holderOf(before, PENDING);
      const isForeign = (id: string) => !before.get(id)?.some((one) => isOurs(one, ours));
      if (pending !== null && pending !== token && pending !== base && isForeign(pending))
        throw refused("CONFLICT", FOREIGN_PENDING);
      commit();
      await Promise.all(leftoversIn(before, [base, token]).map((at) => unlabel(at.label, at.from, signal)));
      const labels = await aws.put(token, text, [PENDING, label], signal);
      const isCurrent = labels.includes(CURRENT);
      // A repeat of a write that was given up finds its version without labels: AWS does nothing then.
      if (!isCurrent && !labels.includes(label))
        await aws.label(label, { to: token, from: holderOf(before, label) ?? undefined }, signal);
      return { version: token, base, isCurrent };
    },

    promote: async (laid, op, signal) => {
      try {
        if (!laid.isCurrent) await move(laid, signal);
      } catch (thrown) {
        if (thrown instanceof ProviderError && thrown.outcome === "not_applied")
          await withdraw(laid.version, op, signal);
        throw thrown;
      }
      await unlabel(PENDING, laid.version, signal);
    },

    withdraw,

    retire: async (revision, signal, commit) => {
      const { labels } = await aws.describe(signal);
      const current = holderOf(labels, CURRENT);
      if (revision === current) throw refused("CONFLICT", "that version is the current one");
      const mine = (labels.get(revision) ?? []).filter((one) => one === PREVIOUS || isOurs(one, { jsonKey }));
      const pending = holderOf(labels, PENDING);
      const isOwn = labels.get(pending ?? "")?.some((one) => isOurs(one, { jsonKey })) ?? false;
      commit();
      for (const label of mine) await aws.label(label, { from: revision }, signal);
      if (pending !== null && isOwn && (pending === revision || pending === current))
        await aws.label(PENDING, { from: pending }, signal);
      // What came late from a rotator that had been given up for dead.
      for (const { label, from } of leftoversIn(labels, [revision, current]))
        await unlabel(label, from, signal);
    },
  };
};

/** A failure after the value was in force. */
export const inForce = (thrown: unknown): unknown =>
  thrown instanceof ProviderError
    ? new ProviderError(thrown.code, "applied", thrown.hint, thrown.retryAfterMs)
    : thrown;
