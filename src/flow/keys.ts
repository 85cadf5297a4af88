import { RotatorError } from "../core/errors.ts";
import type { Fp, Secret } from "../core/secret.ts";
import type { Hands } from "./hands.ts";
import { orElse } from "./interrupt.ts";
import type { Journal } from "./journal.ts";

/** The keys behind fingerprints: from escrow, else read back from a store that holds them. */
export type Keys = {
  /** null = it is nowhere. @throws RotatorError ESCROW_FAILED where escrow has it and cannot open it, and no store holds it */
  get(fp: Fp): Promise<Secret | null>;
  /** The same for a key without which one can go on: null also where it cannot be opened. */
  find(fp: Fp): Promise<Secret | null>;
  /** Makes sure that escrow holds it. @returns false where that was known already */
  keep(fp: Fp, key: Secret): Promise<boolean>;
  /** `keep` for those that this process has in hand. */
  keepKnown(fps: readonly Fp[]): Promise<boolean>;
  /** Whether a store shows it now. */
  isStored(fp: Fp, signal: AbortSignal): Promise<boolean>;
  /** Takes it out of escrow. */
  drop(fp: Fp): Promise<void>;
  /** When this process last saw each key accepted by IMKIT, RFC 3339. */
  readonly accepted: Map<Fp, string>;
  /** Knows it for this process only. */
  learn(fp: Fp, key: Secret): void;
};

export const openKeys = (hands: Hands, journal: Journal): Keys => {
  const known = new Map<Fp, Secret>();
  /** As of which rotation: its end takes out of escrow what nobody needs any more, whoever brings it about. */
  const kept = new Map<Fp, string>();
  const epoch = (): string => {
    const r = journal.state().rotation;
    return `${r?.id} ${r?.ended}`;
  };

  const fromStores = async (fp: Fp, signal = hands.signal): Promise<Secret | null> => {
    const salt = journal.state().salt ?? "";
    for (const { store } of hands.app.stores) {
      const stored = await orElse(store.read(signal), null);
      if (stored?.secret.fingerprint(salt) === fp) return stored.secret;
    }
    return null;
  };

  /** What cannot be opened is as good as not there: it is written anew. */
  const holds = async (fp: Fp): Promise<boolean> =>
    (await hands.escrow.get(fp).catch((error: unknown) => {
      if (error instanceof RotatorError && error.code === "ESCROW_FAILED") return null;
      throw error;
    })) !== null;

  const get = async (fp: Fp): Promise<Secret | null> => {
    const cached = known.get(fp);
    if (cached) return cached;
    const since = epoch();
    try {
      const escrowed = await hands.escrow.get(fp);
      if (escrowed) kept.set(fp, since);
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
  };

  const keep = async (fp: Fp, key: Secret): Promise<boolean> => {
    known.set(fp, key);
    const since = epoch();
    if (kept.get(fp) === since) return false;
    if (!(await holds(fp))) await hands.escrow.put(fp, key);
    kept.set(fp, since);
    return true;
  };

  return {
    get,
    keep,
    keepKnown: async (fps) => {
      const inHand = fps.flatMap((fp) => {
        const key = known.get(fp);
        return key === undefined ? [] : [keep(fp, key)];
      });
      return (await Promise.all(inHand)).includes(true);
    },
    find: (fp) =>
      get(fp).catch((error: unknown) => {
        if (error instanceof RotatorError && error.code === "ESCROW_FAILED") return null;
        throw error;
      }),
    isStored: async (fp, signal) => (await fromStores(fp, signal)) !== null,
    drop: async (fp) => {
      kept.delete(fp);
      await hands.escrow.remove(fp);
    },
    accepted: new Map(),
    learn: (fp, key) => void known.set(fp, key),
  };
};
