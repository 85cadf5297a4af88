import { loadRolloutProvider, loadStoreProvider } from "../../providers/index.ts";
import type { Tools } from "../../providers/kit.ts";
import { ProviderError, RotatorError } from "../core/errors.ts";
import type { App } from "../flow/hands.ts";
import type { Inbox } from "../flow/inbox.ts";
import { stoppableStore } from "../flow/interrupt.ts";
import { IMPLICIT } from "../io/config-check.ts";
import type { AppConfig, RolloutConfig, StoreConfig } from "../io/config.ts";
import type { Store } from "../ports.ts";

const MANUAL = { name: IMPLICIT, type: "manual", required: true, canary: false, after: [], settings: {} };

/** Opens every store and rollout of an app. @throws RotatorError CONFIG_INVALID */
export const openTargets = async (app: AppConfig, tools: Tools): Promise<App> => {
  const stores = await Promise.all(
    app.stores.map(async (target) => {
      const opened = await opening(target, async () =>
        (await loadStoreProvider(target.type, tools.configDir)).open(target.settings, tools),
      );
      const { name, type, required, write } = target;
      const store = write ? opened : mirror(opened);
      return { store, plan: { name, type, where: store.where, required, write } };
    }),
  );
  const places = new Map<string, string>();
  for (const { plan } of stores) {
    const other = places.get(plan.where);
    if (other !== undefined) {
      const at = app.stores.find((s) => s.name === plan.name)?.position ?? "";
      throw new RotatorError("CONFIG_INVALID", { why: `${at}: ${plan.name} is the same place as ${other}` });
    }
    places.set(plan.where, plan.name);
  }
  const written = app.rollouts.length > 0 ? app.rollouts : [{ ...MANUAL, position: app.position }];
  const rollouts = await Promise.all(
    written.map(async (target) => {
      const rollout = await opening(target, async () =>
        (await loadRolloutProvider(target.type, tools.configDir)).open(target.settings, tools),
      );
      const { name, type, required, canary, after } = target;
      return { rollout, plan: { name, type, where: rollout.where, required, canary, after } };
    }),
  );
  return {
    name: app.name,
    stores,
    rollouts,
    soakMs: app.soakMs,
    revoke: { probes: app.revoke.probes, everyMs: app.revoke.everyMs, control: app.revoke.control },
    rotateEveryMs: app.rotateEveryMs,
  };
};

/** A store that somebody else fills: only read, so nobody asks whether it may be written. */
const mirror = (store: Store): Store => ({
  where: store.where,
  caps: { ...store.caps, staging: false, retire: false },
  preflight: async () => [],
  read: (signal) => store.read(signal),
  write: async () => {
    throw new ProviderError("UNSUPPORTED", "not_applied", "write: false");
  },
});

/** Opens an app's inboxes. @throws RotatorError CONFIG_INVALID, also for one that is a store of the app */
export const openInboxes = (app: AppConfig, { stores }: App, tools: Tools): Promise<readonly Inbox[]> =>
  Promise.all(
    app.intake.map(async (target) => {
      const store = await opening({ ...target, name: "the inbox" }, async () =>
        (await loadStoreProvider(target.type, tools.configDir)).open(target.settings, tools),
      );
      const same = stores.find(({ plan }) => plan.where === store.where);
      if (same !== undefined)
        throw new RotatorError("CONFIG_INVALID", {
          why: `${target.position}: the inbox is the same place as the store ${same.plan.name}`,
        });
      return { name: store.where, store: stoppableStore(store) };
    }),
  );

type Opening = Pick<StoreConfig | RolloutConfig, "name" | "position">;

const opening = async <T>(target: Opening, open: () => Promise<T>): Promise<T> => {
  try {
    return await open();
  } catch (error) {
    if (error instanceof RotatorError) throw error;
    const why = error instanceof ProviderError ? error.hint || error.code : "it could not be opened";
    throw new RotatorError("CONFIG_INVALID", { why: `${target.position}: ${target.name}: ${why}` });
  }
};
