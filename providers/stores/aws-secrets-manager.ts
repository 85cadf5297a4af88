import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod/mini";
import { ProviderError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Revision, Store, Stored, WriteOp } from "../../src/ports.ts";
import { bounded, CALL_LIMIT_MS, defineStore } from "../kit.ts";
import { checksOf } from "./aws-secrets-manager-checks.ts";
import { awsOf, type Login } from "./aws-secrets-manager-client.ts";
import { entryOf, withEntry } from "./aws-secrets-manager-entry.ts";
import {
  CURRENT,
  holderOf,
  isOurs,
  labelFor,
  ledgerOf,
  PENDING,
  PREVIOUS,
  tokenFor,
  witnessIn,
} from "./aws-secrets-manager-labels.ts";
import { type Found, finder, refusal } from "./aws-secrets-manager-find.ts";

const schema = z.strictObject({
  region: z
    .string()
    .check(
      z.regex(/^[a-z]{2,6}(-[a-z]+)+-\d{1,2}$/),
      z.describe("Region of the secret; of the primary one, where AWS copies it to others."),
    ),
  secretId: z
    .string()
    .check(
      z.regex(
        /^([A-Za-z0-9/_+=.@-]{1,512}|arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[A-Za-z0-9/_+=.@-]{1,519})$/,
      ),
      z.describe("Name or ARN of the secret."),
    ),
  jsonKey: z.optional(
    z
      .string()
      .check(
        z.regex(/^[A-Za-z0-9/_+=.@:-]{1,100}$/),
        z.describe(
          "Member of the JSON object in the secret that is the key. Without it the whole secret is the key.",
        ),
      ),
  ),
  create: z
    ._default(z.boolean(), false)
    .check(z.describe("Make the secret when it is not there, encrypted with the account's default key.")),
  replicas: z
    ._default(z.enum(["check", "ignore"]), "check")
    .check(
      z.describe("check: the key counts as stored when every region that AWS copies the secret to has it."),
    ),
  endpoint: z.optional(
    z
      .string()
      .check(
        z.regex(/^(https:\/\/|http:\/\/(127\.0\.0\.1|\[::1\]|localhost)(:|\/|$))[^\s@]*$/),
        z.describe(
          "Another address of the service (a VPC endpoint, an emulator). https, except on this machine.",
        ),
      ),
  ),
  profile: z.optional(
    z
      .string()
      .check(
        z.minLength(1),
        z.describe("Profile of the AWS config files to log in with. Without it: the SDK's own chain."),
      ),
  ),
});
type Config = z.infer<typeof schema>;

/**
 * One secret of AWS Secrets Manager, or one member of its JSON object. A write adds a version, labelled AWSPENDING and with the witness,
 * and then moves AWSCURRENT to it *from the version that was expected*: AWS refuses that when another has it by now.
 *
 * Known limits. AWS has no condition for the first of the two steps: an AWSPENDING that someone else sets between our look and our put,
 * milliseconds, is moved to our version. `retire` takes the labels off a superseded version; AWS deletes it in its own time, and until
 * then whoever may read the secret can read it by its id. The same holds for the version of a write that was refused.
 */
export default defineStore({ kind: "aws-secrets-manager", schema, open: (config) => openAws(config) });

/** `credentials` are for tests. */
export const openAws = (config: Config, credentials?: Login["credentials"]): Store => {
  const { region, secretId, create, endpoint, profile } = config;
  const jsonKey = config.jsonKey ?? null;
  const arnRegion = secretId.startsWith("arn:") ? secretId.split(":")[3] : null;
  if (arnRegion !== null && arnRegion !== region)
    throw refused("CONFIG", `the ARN is of region ${arnRegion}, and region says ${region}`);
  if (arnRegion !== null && create)
    throw refused("CONFIG", "create: true needs a name; a secret that has an ARN is there already");
  const aws = awsOf(secretId, { region, endpoint, profile, credentials });
  const place = finder(aws, config);

  const storedIn = (found: Found): Stored | null => {
    if (found.version === null) return null;
    const entry = entryOf(found.version.text, jsonKey);
    if (entry === null) return null;
    const { id, createdAt, labels } = found.version;
    return {
      secret: new Secret(entry),
      revision: id as Revision,
      createdAt,
      witness: witnessIn(labels, jsonKey),
    };
  };

  const read = (signal: AbortSignal): Promise<Stored | null> =>
    bounded(signal, CALL_LIMIT_MS, async (signal) => {
      const found = await place.find(signal, false);
      const stored = storedIn(found);
      if (stored !== null && !(await place.sameInReplicas(found, signal)))
        throw refused("UNAVAILABLE", "a replica of the secret does not hold the same version yet");
      return stored;
    });

  const write = (
    next: Secret,
    expect: Revision | null,
    op: WriteOp,
    signal: AbortSignal,
  ): Promise<Revision> =>
    bounded(signal, CALL_LIMIT_MS, async (signal, commit) => {
      const found = await place.find(signal, true);
      const now = storedIn(found);
      if (now?.secret.equals(next)) return now.revision;
      if ((now?.revision ?? null) !== expect) throw refused("CONFLICT", "it holds another value by now");
      const text = withEntry(found.version?.text ?? "", jsonKey, next.reveal());
      const { description } = found;
      if (description === null) return await createSecret(text, op, signal, commit);
      const no = refusal(description, region);
      if (no !== null) throw no;
      const id = await replace(found.version?.id ?? null, description.labels, text, op, signal, commit);
      const written = { absent: false, description, version: { id, text, labels: [], createdAt: null } };
      await replicated(written, signal);
      return id as Revision;
    });

  const createSecret = async (text: string, op: WriteOp, signal: AbortSignal, commit: () => void) => {
    commit();
    const version = await aws.create(tokenFor(op, null), text, signal);
    try {
      await aws.label(labelFor(op.witness, jsonKey), { to: version }, signal);
    } catch (thrown) {
      throw done(thrown);
    }
    return version as Revision;
  };

  const replace = async (
    base: string | null,
    before: ReadonlyMap<string, readonly string[]>,
    text: string,
    op: WriteOp,
    signal: AbortSignal,
    commit: () => void,
  ): Promise<string> => {
    const ours = { jsonKey, ledger: ledgerOf(op) };
    const token = tokenFor(op, base);
    const label = labelFor(op.witness, jsonKey);
    const pending = holderOf(before, PENDING);
    const isForeign = (id: string) => !before.get(id)?.some((one) => isOurs(one, ours));
    if (pending !== null && pending !== token && pending !== base && isForeign(pending))
      throw refused(
        "CONFLICT",
        "another change is under way: a version labelled AWSPENDING that is not ours",
      );

    commit();
    await Promise.all(leftoversIn(before, [base, token]).map((at) => unlabel(at.label, at.from, signal)));
    const labels = await aws.put(token, text, [PENDING, label], signal);
    if (labels.includes(CURRENT)) {
      await settle(token, signal);
      return token;
    }
    try {
      // A repeat of a write that was given up finds its version without labels: AWS does nothing then.
      if (!labels.includes(label))
        await aws.label(label, { to: token, from: holderOf(before, label) ?? undefined }, signal);
      commit();
      await promote(token, base ?? undefined, signal);
    } catch (thrown) {
      if (!(thrown instanceof ProviderError) || thrown.outcome !== "not_applied") throw thrown;
      await Promise.all([PENDING, label].map((one) => unlabel(one, token, signal)));
      throw thrown;
    }
    await settle(token, signal);
    return token;
  };

  const promote = async (to: string, from: string | undefined, signal: AbortSignal): Promise<void> => {
    try {
      await aws.label(CURRENT, { from, to }, signal);
    } catch (thrown) {
      if (!(thrown instanceof ProviderError) || !["CONFIG", "NOT_FOUND", "CONFLICT"].includes(thrown.code))
        throw thrown;
      const { labels } = await aws.describe(signal).catch(() => {
        throw new ProviderError("UNAVAILABLE", "unknown", "which version is the current one cannot be told");
      });
      const holder = holderOf(labels, CURRENT);
      if (holder === to) return;
      if (holder === (from ?? null)) throw thrown;
      throw refused("CONFLICT", "another version is the current one by now");
    }
  };

  /** The new value is in force; a label that stays behind is taken off by the next write or `retire`. */
  const settle = (version: string, signal: AbortSignal): Promise<void> => unlabel(PENDING, version, signal);
  const unlabel = (label: string, version: string, signal: AbortSignal): Promise<void> =>
    aws.label(label, { from: version }, signal).catch(() => {});

  /** AWSPENDING of a run of ours that did not end, and our labels on versions that are of no use any more. */
  const leftoversIn = (labels: ReadonlyMap<string, readonly string[]>, except: readonly (string | null)[]) =>
    [...labels].flatMap(([from, its]) => {
      const mine = its.filter((one) => isOurs(one, { jsonKey }));
      if (mine.length === 0 || except.includes(from) || its.includes(PREVIOUS)) return [];
      return [...mine, ...(its.includes(PENDING) ? [PENDING] : [])].map((label) => ({ label, from }));
    });

  const replicated = async (written: Found, signal: AbortSignal): Promise<void> => {
    try {
      while (!(await place.sameInReplicas(written, signal)))
        await sleep(REPLICA_EVERY_MS, undefined, { signal });
    } catch (thrown) {
      throw done(thrown);
    }
  };

  const retire = (revision: Revision, signal: AbortSignal): Promise<void> =>
    bounded(signal, CALL_LIMIT_MS, async (signal, commit) => {
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
    });

  const at = `aws-secrets-manager:${profile === undefined ? "" : `${profile}@`}${region}/${secretId}`;
  const via = endpoint === undefined ? "" : ` via ${endpoint}`;
  return {
    where: `${at}${jsonKey === null ? "" : `#${jsonKey}`}${via}`,
    caps: { staging: true, compareAndSwap: true, witness: true, retire: true },
    preflight: (signal) => checksOf(aws, place, config, signal),
    read,
    write,
    retire,
  };
};

const REPLICA_EVERY_MS = 250;
const refused = (code: ProviderError["code"], hint: string): ProviderError =>
  new ProviderError(code, "not_applied", hint);
/** A failure after the value was in force. */
const done = (thrown: unknown): unknown =>
  thrown instanceof ProviderError
    ? new ProviderError(thrown.code, "applied", thrown.hint, thrown.retryAfterMs)
    : thrown;
