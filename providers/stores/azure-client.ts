import { readFile } from "node:fs/promises";
import type { KeyVaultSecret, SecretClient, SecretProperties } from "@azure/keyvault-secrets";
import { ProviderError } from "../../src/core/errors.ts";
import { refused, resolvePath, type Tools, type ValueFrom } from "../kit.ts";
import { fromAnswer, fromThrown } from "./azure-errors.ts";

export type VaultOptions = {
  readonly vaultUrl: string;
  readonly secret: string;
  readonly caFile?: string | undefined;
  readonly verifyChallengeResource: boolean;
  readonly token?: ValueFrom | undefined;
};

/** One version of the secret, without its value. */
export type Version = {
  readonly id: string;
  readonly createdAt: number | null;
  readonly tags: Readonly<Record<string, string>>;
  readonly contentType: string | undefined;
  readonly notBefore: Date | undefined;
  readonly expiresOn: Date | undefined;
  /** Made by Key Vault itself for a certificate. */
  readonly managed: boolean;
};
export type Current = Version & { readonly value: string };

/** The calls that the store needs. Each rejects with a ProviderError; none is repeated by the SDK. */
export type Vault = {
  /** null = there is no live secret of that name. */
  current(signal: AbortSignal): Promise<Current | null>;
  /** In no order. Empty for a name that is not there. */
  versions(signal: AbortSignal): Promise<readonly Version[]>;
  /** `changing`: being deleted, or being recovered. */
  deleted(signal: AbortSignal): Promise<"yes" | "no" | "changing">;
  /** @returns id of the new version */
  set(
    value: string,
    like: Omit<Version, "id" | "createdAt" | "managed">,
    signal: AbortSignal,
  ): Promise<string>;
  disable(id: string, signal: AbortSignal): Promise<void>;
  /** Asks for it; it takes a while. */
  recover(signal: AbortSignal): Promise<void>;
  /** How far the vault's clock is ahead of ours, by its last answer, ms. */
  clockAhead(): number;
};

/** The marks of a write on the version that it made. */
export const OP_TAG = "imkit-rotator-op";
export const LEDGER_TAG = "imkit-rotator-ledger";
/** What the service allows to one version. */
export const MAX_TAGS = 15;
export const foreignTags = (tags: Version["tags"]): readonly (readonly [string, string])[] =>
  Object.entries(tags).filter(([name]) => name !== OP_TAG && name !== LEDGER_TAG);

/** A version id; a call with an empty one would mean the newest. */
const VERSION_ID = /^[0-9a-f]{32}$/;

/** Loads the SDK at its first call, and not before. */
export const openVault = (options: VaultOptions, tools: Tools): Vault => {
  const { secret: name } = options;
  let ahead = 0;
  let made: Promise<SecretClient> | null = null;
  const dates: Dates = new WeakMap();
  const client = (): Promise<SecretClient> => {
    const onDate = (date: number): void => void (ahead = date - Date.now());
    made ??= makeClient(options, tools, dates, onDate).catch((thrown: unknown) => {
      made = null;
      throw fromThrown(thrown, "GET");
    });
    return made;
  };

  const call = async <T>(method: string, work: (to: SecretClient) => Promise<T>): Promise<T> => {
    const to = await client();
    try {
      return await work(to);
    } catch (thrown) {
      throw fromThrown(thrown, method);
    }
  };
  const unless = async <T>(codes: readonly string[], work: () => Promise<T>): Promise<T | ProviderError> => {
    try {
      return await work();
    } catch (thrown) {
      if (thrown instanceof ProviderError && codes.includes(thrown.code)) return thrown;
      throw thrown;
    }
  };

  return {
    current: async (abortSignal) => {
      const found = await unless(["NOT_FOUND", "SOFT_DELETED"], () =>
        call("GET", async (to) => currentOf(await to.getSecret(name, { abortSignal }))),
      );
      return found instanceof ProviderError ? null : found;
    },
    versions: async (abortSignal) => {
      const all: Version[] = [];
      const found = await unless(["NOT_FOUND", "SOFT_DELETED"], () =>
        call("GET", async (to) => {
          const pages = to.listPropertiesOfSecretVersions(name, { abortSignal }).byPage({ maxPageSize: 25 });
          for await (const page of pages) all.push(...page.map(versionOf));
        }),
      );
      return found instanceof ProviderError ? [] : all;
    },
    deleted: async (abortSignal) => {
      const codes = ["NOT_FOUND", "SOFT_DELETED", "DISABLED"];
      const found = await unless(codes, () =>
        call("GET", async (to) => await to.getDeletedSecret(name, { abortSignal })),
      );
      if (!(found instanceof ProviderError)) return "yes";
      // A deleted secret that is also disabled is answered like this, and only once the deletion is over.
      if (found.code === "DISABLED") return "yes";
      return found.code === "SOFT_DELETED" ? "changing" : "no";
    },
    set: (value, { tags, contentType, notBefore, expiresOn }, abortSignal) =>
      call("PUT", async (to) => {
        dates.set(abortSignal, { notBefore, expiresOn });
        const more = contentType === undefined ? {} : { contentType };
        const { properties } = await to.setSecret(name, value, { tags: { ...tags }, ...more, abortSignal });
        return versionOf(properties).id;
      }),
    disable: (id, abortSignal) =>
      call("PATCH", async (to) => {
        if (!VERSION_ID.test(id)) throw refused("CONFIG", "that is no version of a secret");
        await to.updateSecretProperties(name, id, { enabled: false, abortSignal });
      }),
    recover: async (abortSignal) => {
      // The SDK looks at the secret before and after, where it is not there yet; and another one may have asked already.
      await unless(["NOT_FOUND", "SOFT_DELETED", "CONFLICT", "DISABLED", "CONFIG"], () =>
        call("POST", async (to) => await to.beginRecoverDeletedSecret(name, { abortSignal })),
      );
    },
    clockAhead: () => ahead,
  };
};

/** Of the set that runs under a signal. */
type Dates = WeakMap<object, Pick<Version, "notBefore" | "expiresOn">>;

/** The SDK cuts dates down to 32 bits: an expiry after 2038 would come out in the past. So they go into the body here. */
const withDates = (
  body: string,
  { notBefore, expiresOn }: Pick<Version, "notBefore" | "expiresOn">,
): string => {
  const seconds = (date: Date | undefined) =>
    date === undefined ? undefined : Math.floor(date.getTime() / 1_000);
  return JSON.stringify({
    ...JSON.parse(body),
    attributes: { nbf: seconds(notBefore), exp: seconds(expiresOn) },
  });
};

const makeClient = async (
  { vaultUrl, caFile, verifyChallengeResource, token }: VaultOptions,
  tools: Tools,
  dates: Dates,
  onDate: (date: number) => void,
): Promise<SecretClient> => {
  const loading = import("@azure/keyvault-secrets");
  const own = caFile === undefined ? null : await certificates(resolvePath(caFile, tools));
  const credential =
    token === undefined
      ? await azureLogin(own, !verifyChallengeResource)
      : { getToken: async () => await fixedToken(token, tools) };
  const { SecretClient } = await loading;
  return new SecretClient(vaultUrl, credential, {
    ...(own === null ? {} : { tlsOptions: { ca: own } }),
    // A repeated set makes a second version, so nothing is repeated here; the rotator does that, after a look.
    retryOptions: { maxRetries: 0 },
    redirectOptions: { maxRetries: 0 },
    userAgentOptions: { userAgentPrefix: "imkit-rotator" },
    disableChallengeResourceVerification: !verifyChallengeResource,
    additionalPolicies: [
      {
        position: "perCall",
        policy: {
          name: "imkit-rotator answers",
          // Outside of the login: it sees the last answer, before the SDK makes an error of it that holds bodies and tokens.
          sendRequest: async (request, next) => {
            const { method, abortSignal } = request;
            const exact = abortSignal === undefined ? undefined : dates.get(abortSignal);
            if (method === "PUT" && exact !== undefined && typeof request.body === "string")
              request.body = withDates(request.body, exact);
            const answer = await next(request).catch((thrown: unknown) => {
              throw fromThrown(thrown, method);
            });
            const date = Date.parse(answer.headers.get("date") ?? "");
            if (Number.isFinite(date)) onDate(date);
            if (answer.status >= 200 && answer.status < 300) return answer;
            const retryAfter = answer.headers.get("retry-after");
            throw fromAnswer({ method, status: answer.status, retryAfter, text: answer.bodyAsText ?? "" });
          },
        },
      },
    ],
  });
};

/** The chain of the Azure SDK: environment, workload identity, managed identity, az login, and so on. */
const azureLogin = async (own: string | null, elsewhere: boolean) => {
  const { DefaultAzureCredential } = await import("@azure/identity");
  // The login may be made elsewhere than the vault: the usual authorities stay.
  const ca = own === null ? null : [...(await import("node:tls")).getCACertificates("default"), own];
  return new DefaultAzureCredential({
    ...(ca === null ? {} : { tlsOptions: { ca } }),
    ...(elsewhere ? { disableInstanceDiscovery: true } : {}),
  });
};

const fixedToken = async (source: ValueFrom, tools: Tools) => {
  const token = (await tools.valueOf(source).catch(() => "")).trim();
  if (token === "") throw refused("CONFIG", "the token cannot be read, or is empty");
  return { token, expiresOnTimestamp: Date.now() + 600_000 };
};

const certificates = async (path: string): Promise<string> => {
  const text = await readFile(path, "utf8").catch(() => "");
  if (text.includes("-----BEGIN CERTIFICATE-----")) return text;
  throw refused("CONFIG", `${path} holds no certificate, or cannot be read`);
};

const senseless = (): Error => new Error("no answer that makes sense");

const versionOf = (found: SecretProperties): Version => {
  const { version, createdOn, tags, contentType, notBefore, expiresOn, managed } = found;
  if (typeof version !== "string" || !VERSION_ID.test(version)) throw senseless();
  return {
    id: version,
    createdAt: createdOn?.getTime() ?? null,
    tags: tags ?? {},
    contentType,
    notBefore,
    expiresOn,
    managed: managed === true,
  };
};

const currentOf = ({ value, properties }: KeyVaultSecret): Current => {
  if (typeof value !== "string") throw senseless();
  return { ...versionOf(properties), value };
};
