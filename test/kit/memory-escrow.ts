import { RotatorError } from "../../src/core/errors.ts";
import type { Fp, Secret } from "../../src/core/secret.ts";
import type { Escrow } from "../../src/ports.ts";

/** An escrow for tests. `keys` is open to them; a fingerprint in `broken` cannot be opened. */
export const memoryEscrow = (): Escrow & {
  readonly keys: Map<Fp, Secret>;
  readonly broken: Set<Fp>;
} => {
  const keys = new Map<Fp, Secret>();
  const broken = new Set<Fp>();
  const checked = (fp: Fp): Fp => {
    if (!/^[0-9a-f]{16}$/.test(fp)) throw new RotatorError("ESCROW_FAILED");
    return fp;
  };
  return {
    keys,
    broken,
    where: "memory",
    list: async () => [...keys.keys()].sort(),
    put: async (fp, key) => {
      const before = keys.get(checked(fp));
      if (before !== undefined && !broken.has(fp) && !before.equals(key))
        throw new RotatorError("ESCROW_FAILED");
      broken.delete(fp);
      keys.set(fp, key);
    },
    get: async (fp) => {
      if (broken.has(checked(fp))) throw new RotatorError("ESCROW_FAILED");
      return keys.get(fp) ?? null;
    },
    remove: async (fp) => {
      keys.delete(checked(fp));
      broken.delete(fp);
    },
  };
};
