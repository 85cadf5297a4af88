import { setTimeout as sleep } from "node:timers/promises";
import type * as Library from "@aws-sdk/client-secrets-manager";
import { ProviderError } from "../../src/core/errors.ts";
import { refused } from "../kit.ts";
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
const LOOPBACK = /^(127\.0\.0\.1|localhost|\[?::1\]?)$/;
const TIMES = { connectionTimeout: 5_000, requestTimeout: 10_000, throwOnRequestTimeout: true };

type Client = { readonly sdk: typeof Library; readonly client: Library.SecretsManagerClient };
type Asked = {
  /** In our words: `read the secret`. */
  readonly doing: string;
  readonly signal: AbortSignal;
  readonly region?: string | undefined;
  /** May it change something? */
  readonly change?: boolean;
  /** Is it the same call when it is made again? */
  readonly again?: boolean;
};

/** Nothing is loaded, read or called before the first use. */
export const awsOf = (secretId: string, login: Login): Aws => {
  const regions = new Map<string, Promise<Client>>();
  const clientOf = (region: string): Promise<Client> => {
    const known = regions.get(region) ?? open(region, { ...login, endpoint: endpointIn(region, login) });
    regions.set(region, known);
    return known;
  };

  // The SDK's own tries are off: it also makes them where there is no token, and for seconds where AWS says that it is full.
  const ask = async <T>(asked: Asked, call: (client: Client) => Promise<T>): Promise<T> => {
    const { doing, signal, region = login.region, change = false, again = true } = asked;
    for (let nth = 1; ; nth++) {
      try {
        return await call(await clientOf(region));
      } catch (thrown) {
        const error = fromAws(thrown, { change, nth, doing, region });
        if (!again || nth === TRIES || error.code !== "UNAVAILABLE" || signal.aborted) throw error;
        await sleep(50 * nth);
      }
    }
  };

  return {
    get: (which, signal, region) =>
      ask({ doing: "read the secret", signal, region }, async ({ sdk, client }) => {
        const wanted = "label" in which ? { VersionStage: which.label } : { VersionId: which.version };
        const got = await client.send(
          new sdk.GetSecretValueCommand({ SecretId: idIn(secretId, region), ...wanted }),
          { abortSignal: signal },
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
      ask({ doing: "describe the secret", signal }, async ({ sdk, client }) => {
        const got = await client.send(new sdk.DescribeSecretCommand({ SecretId: secretId }), {
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
      ask({ doing: "create the secret", signal, change: true }, async ({ sdk, client }) => {
        const input = { Name: secretId, ClientRequestToken: token, SecretString: text };
        const got = await client.send(new sdk.CreateSecretCommand(input), { abortSignal: signal });
        return got.VersionId ?? token;
      }),
    put: (token, text, labels, signal) =>
      ask({ doing: "write the secret", signal, change: true }, async ({ sdk, client }) => {
        const input = {
          SecretId: secretId,
          ClientRequestToken: token,
          SecretString: text,
          VersionStages: [...labels],
        };
        const got = await client.send(new sdk.PutSecretValueCommand(input), { abortSignal: signal });
        if (got.VersionId !== token) throw noSense();
        return got.VersionStages ?? [];
      }),
    label: (label, { from, to }, signal) =>
      ask(
        { doing: "move a staging label of the secret", signal, change: true, again: false },
        async ({ sdk, client }) => {
          const input = {
            SecretId: secretId,
            VersionStage: label,
            RemoveFromVersionId: from,
            MoveToVersionId: to,
          };
          await client.send(new sdk.UpdateSecretVersionStageCommand(input), { abortSignal: signal });
        },
      ),
  };
};

const open = async (region: string, { endpoint, profile, credentials }: Login): Promise<Client> => {
  const sdk = await import("@aws-sdk/client-secrets-manager").catch(() => {
    throw refused("CONFIG", "the package @aws-sdk/client-secrets-manager cannot be loaded");
  });
  const client = new sdk.SecretsManagerClient({
    region,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(profile === undefined ? {} : { profile }),
    ...(credentials === undefined ? {} : { credentials }),
    requestHandler: TIMES,
    maxAttempts: 1,
  });
  // The SDK also takes addresses from the environment and from the profile.
  client.middlewareStack.add(
    (next) => (args) => {
      const { protocol, hostname } = args.request as {
        readonly protocol?: string;
        readonly hostname?: string;
      };
      if (protocol === "https:" || LOOPBACK.test(hostname ?? "")) return next(args);
      const why = "the AWS endpoint that the environment or the profile names is not https";
      throw refused("CONFIG", why);
    },
    { step: "finalizeRequest" },
  );
  return { sdk, client };
};

/** A replica has the same ARN but for the region. */
const idIn = (secretId: string, region: string | undefined): string =>
  region === undefined ? secretId : secretId.replace(/^(arn:[^:]+:secretsmanager):[^:]+:/, `$1:${region}:`);

/** An endpoint of one's own is one region's; an emulator on this machine has all of them. */
const endpointIn = (region: string, { region: home, endpoint }: Login): string | undefined =>
  region === home || endpoint?.startsWith("http://") ? endpoint : undefined;

const noSense = (): ProviderError =>
  new ProviderError("UNAVAILABLE", "unknown", "the answer of AWS makes no sense");
