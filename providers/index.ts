import type { core } from "zod/mini";
import { ProviderError } from "../src/core/errors.ts";
import { didYouMean } from "../src/core/suggest.ts";
import { refused, type RolloutProvider, type StoreProvider } from "./kit.ts";

type Loader<P> = () => Promise<{ readonly default: P }>;
type AnyStore = StoreProvider<unknown>;
type AnyRollout = RolloutProvider<unknown>;

/** THE list of stores. Each is loaded when a config names it, and not before. */
const STORES: Readonly<Record<string, Loader<unknown>>> = {
  "aws-secrets-manager": () => import("./stores/aws-secrets-manager.ts"),
  "azure-key-vault": () => import("./stores/azure-key-vault.ts"),
  dotenv: () => import("./stores/dotenv.ts"),
  exec: () => import("./stores/exec.ts"),
  "kubernetes-secret": () => import("./stores/kubernetes-secret.ts"),
};

/** THE list of rollouts. */
const ROLLOUTS: Readonly<Record<string, Loader<unknown>>> = {
  exec: () => import("./rollouts/exec.ts"),
  kubernetes: () => import("./rollouts/kubernetes.ts"),
  manual: () => import("./rollouts/manual.ts"),
  none: () => import("./rollouts/none.ts"),
  webhook: () => import("./rollouts/webhook.ts"),
};

export const storeKinds: readonly string[] = Object.keys(STORES);
export const rolloutKinds: readonly string[] = Object.keys(ROLLOUTS);

/**
 * The provider that `type` names: one of `storeKinds`, else a module by path (`./x.store.ts`, absolute) or package name, found from the
 * config's folder. `open` wants what its `schema` gave back.
 * @throws ProviderError CONFIG: no such kind or module, or a module that is no store provider
 */
export const loadStoreProvider = async (type: string, configDir: string): Promise<AnyStore> => {
  const own = builtin(STORES, type);
  if (own !== null) return (await own()).default as AnyStore;
  const { thirdPartyStore } = await import("./third-party.ts");
  return await thirdPartyStore(type, configDir, () => unknownKind("store", type, storeKinds));
};

/** As `loadStoreProvider`, for rollouts. */
export const loadRolloutProvider = async (type: string, configDir: string): Promise<AnyRollout> => {
  const own = builtin(ROLLOUTS, type);
  if (own !== null) return (await own()).default as AnyRollout;
  const { thirdPartyRollout } = await import("./third-party.ts");
  return await thirdPartyRollout(type, configDir, () => unknownKind("rollout", type, rolloutKinds));
};

/** What checks one kind's own config keys; null where a word names no kind. A module that cannot be loaded rejects. */
export const schemaOf = async (
  half: "store" | "rollout",
  type: string,
  configDir: string,
): Promise<core.$ZodType | null> => {
  try {
    const load = half === "store" ? loadStoreProvider : loadRolloutProvider;
    return (await load(type, configDir)).schema;
  } catch (error) {
    if (/^[./@]|\//.test(type)) throw error;
    return null;
  }
};

/** The built-in kinds' own config keys, for the JSON Schema of the whole config. Loads every provider. */
export const builtinSchemas = async (): Promise<{
  readonly stores: Readonly<Record<string, core.$ZodType>>;
  readonly rollouts: Readonly<Record<string, core.$ZodType>>;
}> => ({ stores: await schemasOf(STORES), rollouts: await schemasOf(ROLLOUTS) });

const schemasOf = async (
  list: Readonly<Record<string, Loader<unknown>>>,
): Promise<Record<string, core.$ZodType>> => {
  const loaded = Object.entries(list).map(async ([kind, load]) => {
    const provider = (await load()).default as { readonly schema: core.$ZodType };
    return [kind, provider.schema] as const;
  });
  return Object.fromEntries(await Promise.all(loaded));
};

const builtin = <P>(list: Readonly<Record<string, Loader<P>>>, type: string): Loader<P> | null =>
  Object.hasOwn(list, type) ? (list[type] ?? null) : null;

const unknownKind = (what: string, type: string, kinds: readonly string[]): ProviderError => {
  const guess = didYouMean(type, kinds);
  const ways = `Known: ${kinds.join(", ")}; or the path (./x.${what}.ts) or package name of a module of your own.`;
  return refused("CONFIG", `there is no ${what} type "${type.slice(0, 80)}"${guess} ${ways}`);
};
