/**
 * `imkit-rotator/load`: the current key for a service, from the same places that the rotator writes to. No ledger, no permission to write.
 *
 *     const keys = await createKeySource({ store: { type: "dotenv", path: "/srv/chat/.env", key: "IMKIT_API_KEY" } });
 *     const key = await keys.get();         // on each call to IMKIT
 *     const other = await keys.rejected();  // after INVALID_API_KEY, then try once more
 */
import { ProviderError, RotatorError } from "./core/errors.ts";
import { Secret } from "./core/secret.ts";
import { systemClock } from "./io/clock.ts";
import { pickApp } from "./io/config-app.ts";
import { type Env, readConfigFor, readFromApp, readFromStore } from "./load/open.ts";
import { type SecretSource, secretSource } from "./load/source.ts";

export type KeySourceOptions = {
  /** How long a key is served without a look, in ms. Default: 5 minutes. */
  readonly ttlMs?: number;
} & (
  | {
      /** A store, by the config keys of its kind; relative paths start at the working directory. */
      readonly store: Readonly<Record<string, unknown>> & { readonly type: string };
    }
  | {
      /** An app of the rotator's config: its first store that can be read, or the one that `store` names. */
      readonly app: string;
      readonly store?: string;
      /** Default: found as the command finds it. */
      readonly config?: string;
    }
  | {
      /** The name of an environment variable. */
      readonly env: string;
    }
);

export type KeySource = {
  /**
   * The key, as it was read at most `ttlMs` ago; the last good one while the store cannot be read.
   * @throws KeySourceError when there never was one, or after `close`
   */
  get(): Promise<string>;
  /**
   * Call it when IMKIT answers INVALID_API_KEY: reads anew, at most once in 10 s.
   * @returns the key that is current then, which may be the same.
   * @throws KeySourceError
   */
  rejected(): Promise<string>;
  /** Drops the key. */
  close(): void;
};

/** Its message is in our own words: no key, no text of a library or a server. */
export class KeySourceError extends Error {
  override readonly name = "KeySourceError";
  /** One of the codes of docs/errors.md, or of a store: NOT_FOUND, AUTHZ, UNAVAILABLE … */
  readonly code: string;

  constructor(code: string, why: string) {
    super(why === "" ? code : `${code}: ${why}`);
    this.code = code;
  }
}

const DEFAULT_TTL_MS = 300_000;

/**
 * Opens a source; the key is read at the first `get`.
 * @throws KeySourceError for a config or store settings that are not right
 */
export const createKeySource = async (options: KeySourceOptions): Promise<KeySource> => {
  const read = await inOurWords(() => readerOf(options));
  const { ttlMs = DEFAULT_TTL_MS } = options;
  const source: SecretSource = secretSource({
    read,
    ttlMs,
    monotonic: () => systemClock.monotonic(),
    sleep: (ms, signal) => systemClock.sleep(ms, signal),
  });
  return {
    get: () => inOurWords(async () => (await source.get()).reveal()),
    rejected: () => inOurWords(async () => (await source.rejected()).reveal()),
    close: source.close,
  };
};

const readerOf = async (options: KeySourceOptions) => {
  const { env } = process;
  if ("env" in options) return fromEnvironment(env, options.env);
  if ("app" in options) {
    const config = await readConfigFor(options.config, env, process.cwd());
    return readFromApp(config, pickApp(config, options.app), options.store ?? null, env);
  }
  return readFromStore(options.store, process.cwd(), env);
};

const fromEnvironment = (env: Env, name: string) => (): Promise<Secret | null> => {
  const text = env[name]?.trim() ?? "";
  return Promise.resolve(text === "" ? null : new Secret(text));
};

const inOurWords = async <T>(work: () => Promise<T>): Promise<T> => {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ProviderError) throw new KeySourceError(error.code, error.hint);
    if (error instanceof RotatorError)
      throw new KeySourceError(error.code, `${error.what} ${error.why}`.trim());
    throw new KeySourceError("UNAVAILABLE", "the store could not be read");
  }
};
