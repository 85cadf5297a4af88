import { ProviderError } from "../../src/core/errors.ts";
import { refused } from "../kit.ts";
import type { Aws, Description, Version } from "./aws-secrets-manager-client.ts";
import { CURRENT, holderOf } from "./aws-secrets-manager-labels.ts";

export type Found = {
  /** There is no secret at all; proven, and `create` is set. */
  readonly absent: boolean;
  /** The current version; null = there is none. */
  readonly version: (Version & { readonly text: string }) | null;
  /** null = this identity may not ask, or nobody wanted it. */
  readonly description: Description | null;
};

type Config = { readonly region: string; readonly create: boolean; readonly replicas: "check" | "ignore" };

export type Finder = {
  /**
   * @param whole with its description, whatever the config says; else a right to read the value is enough
   * @throws ProviderError NOT_FOUND (no secret, and `create` is not set), SOFT_DELETED, UNSUPPORTED (binary), every doubt
   */
  readonly find: (signal: AbortSignal, whole: boolean) => Promise<Found>;
  /** Does each region that AWS copies the secret to hold this version? Always true under `replicas: ignore`. */
  readonly sameInReplicas: (found: Found, signal: AbortSignal) => Promise<boolean>;
};

export const finder = (aws: Aws, { region, create, replicas }: Config): Finder => ({
  find: async (signal, whole) => {
    const [got, told] = await Promise.all([
      answer(aws.get({ label: CURRENT }, signal)),
      whole || replicas === "check" ? answer(aws.describe(signal)) : null,
    ]);
    if (!(got instanceof ProviderError)) {
      if (!(told instanceof ProviderError))
        return { absent: false, version: readable(got), description: told };
      if (whole || told.code !== "AUTHZ") throw told;
      return { absent: false, version: readable(got), description: null };
    }
    if (got.code !== "NOT_FOUND" && got.code !== "CONFIG") throw got;
    // No secret, no version of it, or one that is to be deleted: AWS says the same of all three.
    const description = told ?? (await answer(aws.describe(signal)));
    if (description instanceof ProviderError) {
      if (description.code !== "NOT_FOUND") throw description;
      if (create) return { absent: true, version: null, description: null };
      throw refused("NOT_FOUND", `there is no such secret in ${region}; create: true makes it`);
    }
    if (description.deleted) throw softDeleted();
    if (got.code === "CONFIG") throw got;
    if (holderOf(description.labels, CURRENT) !== null)
      throw refused("UNAVAILABLE", "AWS says that the secret has a value, and that it has none");
    return { absent: false, version: null, description };
  },

  sameInReplicas: async ({ version, description }, signal) => {
    if (replicas === "ignore" || version === null || description === null) return true;
    // A replica knows of the others, too; only the primary one answers for them.
    if (description.primaryRegion !== null && description.primaryRegion !== region) return true;
    const others = description.replicas.filter((other) => other !== region);
    const held = await Promise.all(
      others.map(async (other) => {
        const copy = await answer(aws.get({ label: CURRENT }, signal, other));
        if (!(copy instanceof ProviderError)) return copy.id === version.id && copy.text === version.text;
        if (copy.code === "NOT_FOUND") return false;
        throw copy;
      }),
    );
    return held.every(Boolean);
  },
});

/** Why a secret must not be written, whatever its value; null = nothing speaks against it. */
export const refusal = (
  { deleted, owned, rotates, primaryRegion }: Description,
  region: string,
): ProviderError | null => {
  if (deleted) return softDeleted();
  if (owned) return refused("NOT_OWNED", "another AWS service owns the secret and writes it");
  if (rotates) return refused("NOT_OWNED", "AWS rotates the secret itself, and would write over the key");
  if (primaryRegion !== null && primaryRegion !== region)
    return refused("CONFIG", `the secret in ${region} is a copy; only the primary one can be written`);
  return null;
};

const readable = (version: Version): Version & { readonly text: string } => {
  if (version.text === null)
    throw refused("UNSUPPORTED", "the secret is binary; a key is kept as text (SecretString)");
  return { ...version, text: version.text };
};

const answer = <T>(call: Promise<T>): Promise<T | ProviderError> =>
  call.catch((thrown: unknown) => {
    if (thrown instanceof ProviderError) return thrown;
    throw thrown;
  });

const softDeleted = (): ProviderError =>
  refused("SOFT_DELETED", "the secret is scheduled for deletion; restore it first");
