import { loadStoreProvider, schemaOf, storeKinds, rolloutKinds } from "../../providers/index.ts";
import type { StoreProvider, Tools } from "../../providers/kit.ts";
import { ProviderError, RotatorError } from "../core/errors.ts";
import type { Secret } from "../core/secret.ts";
import {
  type AppConfig,
  type Config,
  findConfig,
  loadConfig,
  type StoreConfig,
  valueOf,
} from "../io/config.ts";
import type { Store } from "../ports.ts";

export type Env = Readonly<Record<string, string | undefined>>;
type Read = (signal: AbortSignal) => Promise<Secret | null>;
const READ_LIMIT_MS = 10_000;

/** Nothing of the rotator is behind a store that is only read: no escrow for a backup, no app. */
const toolsFor = (app: string, dir: string, env: Env): Tools => ({
  app,
  configDir: dir,
  env,
  valueOf: (source) => valueOf(source, { dir, env }),
  backup: () => Promise.reject(new ProviderError("UNSUPPORTED", "not_applied", "this program only reads")),
});

const readOf =
  (store: Store): Read =>
  async (signal) => {
    const stored = await store.read(AbortSignal.any([signal, AbortSignal.timeout(READ_LIMIT_MS)]));
    return stored?.secret ?? null;
  };

/** One store by its own config keys, as they stand in a config file. @throws ProviderError CONFIG */
export const readFromStore = async (
  { type, ...settings }: Readonly<Record<string, unknown>> & { readonly type: string },
  dir: string,
  env: Env,
): Promise<Read> => {
  const provider: StoreProvider<unknown> = await loadStoreProvider(type, dir);
  const { name: _name, required: _required, write: _write, ...own } = settings;
  const result = await provider.schema["~standard"].validate(own);
  if (result.issues !== undefined) {
    const where = result.issues
      .map((issue) => (issue.path ?? []).map(String).join(".") || "store")
      .join(", ");
    throw new ProviderError("CONFIG", "not_applied", `the store's settings are not right: ${where}`);
  }
  return readOf(provider.open(result.value, toolsFor("load", dir, env)));
};

/** The first store of an app that can be read, in the order of the config, or the one that is named. */
export const readFromApp = (config: Config, app: AppConfig, storeName: string | null, env: Env): Read => {
  const named = app.stores.filter((s) => storeName === null || s.name === storeName);
  if (named.length === 0) {
    throw new RotatorError("USAGE", {
      what: storeName === null ? `${app.name} has no stores.` : "The app has no store of that name.",
      why: `It has ${app.stores.map((s) => s.name).join(", ") || "none"}.`,
    });
  }
  const tools = toolsFor(app.name, config.dir, env);
  const open = async (target: StoreConfig): Promise<Read> =>
    readOf((await loadStoreProvider(target.type, config.dir)).open(target.settings, tools));
  const opened = new Map<string, Promise<Read>>();
  return async (signal) => {
    let failure: Error | null = null;
    for (const target of named) {
      try {
        const reading = opened.get(target.name) ?? open(target);
        opened.set(target.name, reading);
        const key = await (await reading)(signal);
        if (key !== null) return key;
      } catch (error) {
        opened.delete(target.name);
        failure ??= error instanceof Error ? error : new ProviderError("UNAVAILABLE", "not_applied");
      }
      if (signal.aborted) break;
    }
    if (failure !== null) throw failure;
    return null;
  };
};

/** @throws RotatorError CONFIG_MISSING, CONFIG_INVALID */
export const readConfigFor = async (flag: string | undefined, env: Env, cwd: string): Promise<Config> =>
  loadConfig(await findConfig({ flag, env, cwd }), {
    env,
    schemaOf,
    kindsOf: (half) => (half === "store" ? storeKinds : rolloutKinds),
  });
