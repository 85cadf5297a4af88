/** `imkit-rotator/testkit`: what ours must pass, for stores and rollouts of your own (providers/README.md). */
export type { ProviderKit } from "../providers/third-party.ts";
export type { RolloutProvider, StoreProvider, Tools, ValueFrom } from "../providers/kit.ts";
export { loadRolloutProvider, loadStoreProvider } from "../providers/index.ts";
export {
  type RolloutUnderTest,
  rolloutContract,
  VENDOR_TEXT,
  type Workload,
} from "../test/contract/rollout.ts";
export { type Bench, type Place, storeContract, type StoreUnderTest } from "../test/contract/store.ts";
export { findKey, madeKey } from "../test/kit/leak.ts";
export { ProviderError } from "./core/errors.ts";
export { Secret } from "./core/secret.ts";
export type {
  Check,
  Revision,
  Rollout,
  RolloutOp,
  RolloutState,
  Staged,
  Store,
  Stored,
  WriteOp,
} from "./ports.ts";
