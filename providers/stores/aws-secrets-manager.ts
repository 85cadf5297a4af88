import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod/mini";
import { ProviderError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Revision, Staged, Store, Stored, WriteOp } from "../../src/ports.ts";
import { flag, nonEmpty } from "../config-keys.ts";
import { bounded, CALL_LIMIT_MS, defineStore, movedOn, refused } from "../kit.ts";
import { checksOf } from "./aws-secrets-manager-checks.ts";
import { awsOf, type Description, type Login } from "./aws-secrets-manager-client.ts";
import { entryOf, withEntry } from "./aws-secrets-manager-entry.ts";
import { tokenFor, witnessIn } from "./aws-secrets-manager-labels.ts";
import { type Found, finder, refusal } from "./aws-secrets-manager-find.ts";
import { inForce, type Laid, versionsOf } from "./aws-secrets-manager-versions.ts";

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
  create: flag(false, "Make the secret when it is not there, encrypted with the account's default key."),
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
    nonEmpty("Profile of the AWS config files to log in with. Without it: the SDK's own chain."),
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
  const versions = versionsOf(aws, jsonKey);

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

  const read: Store["read"] = (signal) =>
    bounded(signal, CALL_LIMIT_MS, async (signal) => {
      const found = await place.find(signal, false);
      const stored = storedIn(found);
      if (stored !== null && !(await place.sameInReplicas(found, signal)))
        throw refused("UNAVAILABLE", "a replica of the secret does not hold the same version yet");
      return stored;
    });

  /** What is to be written over, and how: or that it is there already. */
  const prepare = async (next: Secret, expect: Revision | null, signal: AbortSignal) => {
    const found = await place.find(signal, true);
    const now = storedIn(found);
    if (now?.secret.equals(next)) return { there: now.revision } as const;
    if ((now?.revision ?? null) !== expect) throw movedOn();
    const { description, version } = found;
    const text = withEntry(version?.text ?? "", jsonKey, next.reveal());
    if (description === null) return { text, over: null } as const;
    const no = refusal(description, region);
    if (no !== null) throw no;
    return { text, description, over: { base: version?.id ?? null, labels: description.labels } } as const;
  };

  const switchTo = async (
    laid: Laid,
    text: string,
    description: Description,
    op: WriteOp,
    signal: AbortSignal,
  ): Promise<Revision> => {
    await versions.promote(laid, op, signal);
    const version = { id: laid.version, text, labels: [], createdAt: null };
    await replicated({ absent: false, description, version }, signal);
    return laid.version as Revision;
  };

  const write: Store["write"] = (next, expect, op, signal) =>
    bounded(signal, CALL_LIMIT_MS, async (signal, commit) => {
      const found = await prepare(next, expect, signal);
      if (found.there !== undefined) return found.there;
      if (found.over === null) {
        commit();
        return (await versions.create(found.text, op, signal)) as Revision;
      }
      const laid = await versions.lay(found.over, found.text, op, signal, commit);
      commit();
      return await switchTo(laid, found.text, found.description, op, signal);
    });

  const stage = (next: Secret, expect: Revision | null, op: WriteOp, signal: AbortSignal): Promise<Staged> =>
    bounded(signal, CALL_LIMIT_MS, async (signal) => {
      const found = await prepare(next, expect, signal);
      // The first version of a secret is the current one at once.
      if (found.there !== undefined || found.over === null || found.over.base === null)
        return { commit: (signal) => write(next, expect, op, signal), drop: async () => {} };
      const { text, description, over } = found;
      let begun = false;
      const begin = () => {
        begun = true;
      };
      const laid = await versions.lay(over, text, op, signal, begin).catch(async (thrown: unknown) => {
        if (begun) await versions.withdraw(tokenFor(op, over.base), op, signal);
        throw thrown instanceof ProviderError
          ? new ProviderError(thrown.code, "not_applied", thrown.hint, thrown.retryAfterMs)
          : thrown;
      });
      return {
        commit: (signal) =>
          bounded(signal, CALL_LIMIT_MS, async (signal, commit) => {
            commit();
            return await switchTo(laid, text, description, op, signal);
          }),
        drop: (signal) => versions.withdraw(laid.version, op, signal),
      };
    });

  const replicated = async (written: Found, signal: AbortSignal): Promise<void> => {
    try {
      while (!(await place.sameInReplicas(written, signal)))
        await sleep(REPLICA_EVERY_MS, undefined, { signal });
    } catch (thrown) {
      throw inForce(thrown);
    }
  };

  const retire = (revision: Revision, signal: AbortSignal): Promise<void> =>
    bounded(signal, CALL_LIMIT_MS, (signal, commit) => versions.retire(revision, signal, commit));

  const at = `aws-secrets-manager:${profile === undefined ? "" : `${profile}@`}${region}/${secretId}`;
  const via = endpoint === undefined ? "" : ` via ${endpoint}`;
  return {
    where: `${at}${jsonKey === null ? "" : `#${jsonKey}`}${via}`,
    caps: { staging: true, compareAndSwap: true, witness: true, retire: true },
    preflight: (signal) => checksOf(aws, place, config, signal),
    read,
    write,
    stage,
    retire,
  };
};

const REPLICA_EVERY_MS = 250;
