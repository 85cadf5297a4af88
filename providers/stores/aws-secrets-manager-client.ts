import type * as Library from "@aws-sdk/client-secrets-manager";
import { ProviderError } from "../../src/core/errors.ts";
import { fromAws } from "./aws-secrets-manager-errors.ts";

export type Login = {
  readonly region: string;
  readonly endpoint?: string | undefined;
  readonly profile?: string | undefined;
  /** For tests; else the SDK's own chain. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
};

/** One version of the secret, as it came. */
export type Version = {
  readonly id: string;
  /** null = binary. */
  readonly text: string | null;
  readonly labels: readonly string[];
  /** Epoch milliseconds. */
  readonly createdAt: number | null;
};

export type Description = {
  readonly deleted: boolean;
  readonly rotates: boolean;
  readonly owned: boolean;
  readonly primaryRegion: string | null;
  /** Other regions that AWS copies it to. */
  readonly replicas: readonly string[];
  /** Labels of each version that has one. */
  readonly labels: ReadonlyMap<string, readonly string[]>;
};

/** The six calls that we make. Each rejects with `ProviderError` only. */
export type Aws = {
  readonly get: (
    which: { readonly label: string } | { readonly version: string },
    signal: AbortSignal,
    region?: string,
  ) => Promise<Version>;
  readonly describe: (signal: AbortSignal) => Promise<Description>;
  /** Gives back the version's id. May be repeated: `token` makes it one. */
  readonly create: (token: string, text: string, signal: AbortSignal) => Promise<string>;
  /** Gives back the labels that the version has now. May be repeated: `token` makes it one. */
  readonly put: (
    token: string,
    text: string,
    labels: readonly string[],
    signal: AbortSignal,
  ) => Promise<readonly string[]>;
  /** Moves, attaches (`from` undefined) or removes (`to` undefined) one label. Tried once: AWS has no token for it. */
  readonly label: (
    label: string,
    move: { readonly from?: string | undefined; readonly to?: string | undefined },
    signal: AbortSignal,
  ) => Promise<void>;
};

const TRIES = 3;
const TIMES = { connectionTimeout: 5_000, requestTimeout: 10_000, throwOnRequestTimeout: true };

type Clients = {
  readonly sdk: typeof Library;
  readonly patient: Library.SecretsManagerClient;
  readonly once: Library.SecretsManagerClient;
};

/** Nothing is loaded, read or called before the first use. */
export const awsOf = (secretId: string, login: Login): Aws => {
  const regions = new Map<string, Promise<Clients>>();
  const clientsOf = (region: string): Promise<Clients> => {
    const known = regions.get(region) ?? open(region, { ...login, endpoint: endpointIn(region, login) });
    regions.set(region, known);
    return known;
  };

  const ask = async <T>(
    doing: string,
    {
      region = login.region,
      change = false,
    }: { readonly region?: string | undefined; readonly change?: boolean },
    call: (clients: Clients) => Promise<T>,
  ): Promise<T> => {
    try {
      return await call(await clientsOf(region));
    } catch (thrown) {
      throw fromAws(thrown, change, doing, region);
    }
  };

  return {
    get: (which, signal, region) =>
      ask("read the secret", { region }, async ({ sdk, patient }) => {
        const wanted = "label" in which ? { VersionStage: which.label } : { VersionId: which.version };
        const got = await patient.send(
          new sdk.GetSecretValueCommand({ SecretId: idIn(secretId, region), ...wanted }),
          {
            abortSignal: signal,
          },
        );
        if (got.VersionId === undefined) throw noSense();
        return {
          id: got.VersionId,
          text: got.SecretString ?? (got.SecretBinary === undefined ? "" : null),
          labels: got.VersionStages ?? [],
          createdAt: got.CreatedDate?.getTime() ?? null,
        };
      }),
    describe: (signal) =>
      ask("describe the secret", {}, async ({ sdk, patient }) => {
        const got = await patient.send(new sdk.DescribeSecretCommand({ SecretId: secretId }), {
          abortSignal: signal,
        });
        return {
          deleted: got.DeletedDate instanceof Date,
          rotates: got.RotationEnabled === true,
          owned: got.OwningService !== undefined && got.OwningService !== "",
          primaryRegion: got.PrimaryRegion ?? null,
          replicas: (got.ReplicationStatus ?? []).flatMap(({ Region }) => Region ?? []),
          labels: new Map(Object.entries(got.VersionIdsToStages ?? {})),
        };
      }),
    create: (token, text, signal) =>
      ask("create the secret", { change: true }, async ({ sdk, patient }) => {
        const input = { Name: secretId, ClientRequestToken: token, SecretString: text };
        const got = await patient.send(new sdk.CreateSecretCommand(input), { abortSignal: signal });
        return got.VersionId ?? token;
      }),
    put: (token, text, labels, signal) =>
      ask("write the secret", { change: true }, async ({ sdk, patient }) => {
        const input = {
          SecretId: secretId,
          ClientRequestToken: token,
          SecretString: text,
          VersionStages: [...labels],
        };
        const got = await patient.send(new sdk.PutSecretValueCommand(input), { abortSignal: signal });
        if (got.VersionId !== token) throw noSense();
        return got.VersionStages ?? [];
      }),
    label: (label, { from, to }, signal) =>
      ask("move a staging label of the secret", { change: true }, async ({ sdk, once }) => {
        const input = {
          SecretId: secretId,
          VersionStage: label,
          RemoveFromVersionId: from,
          MoveToVersionId: to,
        };
        await once.send(new sdk.UpdateSecretVersionStageCommand(input), { abortSignal: signal });
      }),
  };
};

const open = async (region: string, { endpoint, profile, credentials }: Login): Promise<Clients> => {
  const sdk = await import("@aws-sdk/client-secrets-manager").catch(() => {
    throw new ProviderError(
      "CONFIG",
      "not_applied",
      "the package @aws-sdk/client-secrets-manager cannot be loaded",
    );
  });
  const given = {
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(profile === undefined ? {} : { profile }),
    ...(credentials === undefined ? {} : { credentials }),
  };
  const patient = new sdk.SecretsManagerClient({
    region,
    ...given,
    requestHandler: TIMES,
    maxAttempts: TRIES,
  });
  // The same connections and the same login: only its patience is another.
  const { requestHandler, credentials: shared } = patient.config;
  const once = new sdk.SecretsManagerClient({
    region,
    ...given,
    requestHandler,
    credentials: shared,
    maxAttempts: 1,
  });
  return { sdk, patient, once };
};

/** A replica has the same ARN but for the region. */
const idIn = (secretId: string, region: string | undefined): string =>
  region === undefined ? secretId : secretId.replace(/^(arn:[^:]+:secretsmanager):[^:]+:/, `$1:${region}:`);

/** An endpoint of one's own is one region's; an emulator on this machine has all of them. */
const endpointIn = (region: string, { region: home, endpoint }: Login): string | undefined =>
  region === home || endpoint?.startsWith("http://") ? endpoint : undefined;

const noSense = (): ProviderError =>
  new ProviderError("UNAVAILABLE", "unknown", "the answer of AWS makes no sense");
