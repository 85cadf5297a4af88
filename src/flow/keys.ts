import type { Fp, Secret } from "../core/secret.ts";
import type { Hands } from "./hands.ts";
import type { Journal } from "./journal.ts";

/** The keys behind fingerprints: from escrow, else read back from a store that holds them. */
export type Keys = {
  get(fp: Fp): Promise<Secret | null>;
  /** Makes sure that escrow holds it. */
  keep(fp: Fp, key: Secret): Promise<void>;
  /** When this process last saw each key accepted by IMKIT, RFC 3339. */
  readonly accepted: Map<Fp, string>;
  /** Knows it for this process only. */
  learn(fp: Fp, key: Secret): void;
};

export const openKeys = (hands: Hands, journal: Journal): Keys => {
  const known = new Map<Fp, Secret>();
  const kept = new Set<Fp>();

  const fromStores = async (fp: Fp): Promise<Secret | null> => {
    const salt = journal.state().salt ?? "";
    for (const { store } of hands.app.stores) {
      const stored = await store.read(hands.signal).catch(() => null);
      if (stored?.secret.fingerprint(salt) === fp) return stored.secret;
    }
    return null;
  };

  return {
    get: async (fp) => {
      const cached = known.get(fp);
      if (cached) return cached;
      try {
        const escrowed = await hands.escrow.get(fp);
        if (escrowed) kept.add(fp);
        const key = escrowed ?? (await fromStores(fp));
        if (key) known.set(fp, key);
        return key;
      } catch (error) {
        // A blob that cannot be opened is no loss while a store holds the key.
        const key = await fromStores(fp);
        if (key === null) throw error;
        known.set(fp, key);
        return key;
      }
    },
    keep: async (fp, key) => {
      known.set(fp, key);
      if (kept.has(fp) || (await hands.escrow.get(fp)) !== null) {
        kept.add(fp);
        return;
      }
      await hands.escrow.put(fp, key);
      kept.add(fp);
    },
    accepted: new Map(),
    learn: (fp, key) => void known.set(fp, key),
  };
};
