import { randomBytes } from "node:crypto";
import { userInfo } from "node:os";
import { join } from "node:path";
import { loadRolloutProvider, loadStoreProvider, rolloutKinds, storeKinds } from "../../providers/index.ts";
import type { Tools } from "../../providers/kit.ts";
import { ProviderError, RotatorError } from "../core/errors.ts";
import { EMPTY, type AppState } from "../core/state.ts";
import type { App, Hands } from "../flow/hands.ts";
import { openJournal } from "../flow/journal.ts";
import { systemClock } from "../io/clock.ts";
import {
  type AppConfig,
  type Config,
  configHome,
  findConfig,
  loadConfig,
  type RolloutConfig,
  type StoreConfig,
  valueOf,
} from "../io/config.ts";
import { defaultIdentity, fileEscrow } from "../io/escrow/file.ts";
import { thisHost } from "../io/host.ts";
import { imkitPlatform } from "../io/imkit.ts";
import { fileLedger } from "../io/ledger/file.ts";
import { nearest } from "../io/suggest.ts";
import type { Globals, Io } from "./io.ts";
import { teller } from "./print.ts";

/** One app of the config with everything that its use cases need. */
export type Wired = {
  readonly name: string;
  readonly config: AppConfig;
  readonly app: App;
  readonly hands: () => Promise<Hands>;
  /** An instant as the operator's clock shows it: `14:02`, with the date when it was not today. */
  readonly clock: (ts: string) => string;
  readonly now: () => number;
  /** State for a refusal's result line, read anew; empty when the ledger cannot be read. */
  readonly lastState: () => Promise<{
    readonly state: AppState;
    readonly head: { seq: number; h: string } | null;
  }>;
};

const isModule = (type: string): boolean => /^[./@]|\//.test(type);

const schemaOf = async (half: "store" | "rollout", type: string, configDir: string) => {
  try {
    const load = half === "store" ? loadStoreProvider : loadRolloutProvider;
    return (await load(type, configDir)).schema;
  } catch (error) {
    if (isModule(type)) throw error;
    return null;
  }
};

/** @throws RotatorError CONFIG_MISSING, CONFIG_INVALID */
export const readConfig = async (io: Io, globals: Globals): Promise<Config> =>
  loadConfig(await findConfig({ flag: globals.config, env: io.env, cwd: io.cwd }), {
    env: io.env,
    schemaOf,
    kindsOf: (half) => (half === "store" ? storeKinds : rolloutKinds),
  });

/** The one app that is meant: by name, or the only one. @throws RotatorError APP_UNKNOWN */
export const pickApp = (config: Config, name: string | undefined): AppConfig => {
  const names = [...config.apps.keys()];
  const [only] = names;
  const wanted = name ?? (names.length === 1 ? only : undefined);
  if (wanted === undefined) {
    throw new RotatorError("USAGE", {
      what: names.length === 0 ? "The config has no apps." : "Which app?",
      why:
        names.length === 0 ? `Add one under apps in ${config.path}.` : `The config has ${names.join(", ")}.`,
    });
  }
  const app = config.apps.get(wanted);
  if (app !== undefined) return app;
  const near = nearest(wanted, names);
  throw new RotatorError("APP_UNKNOWN", {
    what: "The config has no app of that name.",
    why: near === null ? `It has ${names.join(", ")}.` : `Did you mean "${near}"?`,
  });
};

export const appDir = (config: Config, name: string): string => join(config.stateDir, name);
export const ledgerDir = (config: Config, name: string): string => join(appDir(config, name), "ledger");

/** Opens one app's targets and hands. Nothing is read or written yet. `ndjson`: under --json each event is a line on stdout. */
export const wire = async (io: Io, config: Config, app: AppConfig, ndjson = false): Promise<Wired> => {
  const escrow = fileEscrow({
    dir: join(appDir(config, app.name), "escrow"),
    identity: identityOf(io, config),
  });
  const tools: Tools = {
    app: app.name,
    configDir: config.dir,
    env: io.env,
    valueOf: (source) => valueOf(source, { dir: config.dir, env: io.env }),
    backup: (name, bytes) => escrow.encryptBackup(name, bytes),
  };
  const opened = await openTargets(app, tools);
  const hands = lazily(
    async (): Promise<Hands> => ({
      app: opened,
      ledger: fileLedger(ledgerDir(config, app.name)),
      escrow,
      platform: imkitPlatform({ baseUrl: app.baseUrl, clock: systemClock }),
      clock: systemClock,
      host: await thisHost(),
      entropy: (n) => randomBytes(n),
      actor: { kind: "person", id: actorId(io) },
      signal: io.signal,
      tell: teller(io, app.name, ndjson),
    }),
  );
  return {
    name: app.name,
    config: app,
    app: opened,
    hands,
    clock: clockIn(app.timezone),
    now: () => systemClock.now(),
    lastState: async () => {
      try {
        const journal = await openJournal(await hands());
        return { state: journal.state(), head: journal.head() };
      } catch {
        return { state: EMPTY, head: null };
      }
    },
  };
};

const lazily = <T>(make: () => Promise<T>): (() => Promise<T>) => {
  let made: Promise<T> | null = null;
  return () => {
    made ??= make();
    return made;
  };
};

const identityOf = (io: Io, config: Config) => {
  const { escrowIdentity } = config;
  if (escrowIdentity !== null) return () => valueOf(escrowIdentity, { dir: config.dir, env: io.env });
  return defaultIdentity({ configHome: configHome(io.env), stateDir: config.stateDir });
};

const openTargets = async (app: AppConfig, tools: Tools): Promise<App> => {
  const stores = await Promise.all(
    app.stores.map(async (target) => {
      const store = await opening(target, async () =>
        (await loadStoreProvider(target.type, tools.configDir)).open(target.settings, tools),
      );
      const { name, type, required, write } = target;
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
  const written: readonly RolloutConfig[] =
    app.rollouts.length > 0
      ? app.rollouts
      : [
          {
            name: "manual",
            type: "manual",
            required: true,
            settings: {},
            position: app.position,
            canary: false,
            after: [],
          },
        ];
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

const opening = async <T>(target: StoreConfig | RolloutConfig, open: () => Promise<T>): Promise<T> => {
  try {
    return await open();
  } catch (error) {
    if (error instanceof RotatorError) throw error;
    const why = error instanceof ProviderError ? error.hint || error.code : "it could not be opened";
    throw new RotatorError("CONFIG_INVALID", { why: `${target.position}: ${target.name}: ${why}` });
  }
};

/** The login name; a number where the user has none (containers). Other text is percent-encoded by the ledger. */
const actorId = (io: Io): string => {
  try {
    return io.env["SUDO_USER"] ?? userInfo().username;
  } catch {
    return String(process.getuid?.() ?? "unknown");
  }
};

const clockIn = (timeZone: string) => {
  const time = new Intl.DateTimeFormat("en-GB", { timeZone, hour: "2-digit", minute: "2-digit" });
  const day = new Intl.DateTimeFormat("en-CA", {
    timeZone,
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
  });
  return (ts: string): string => {
    const at = new Date(ts);
    const today = day.format(new Date()) === day.format(at);
    return today ? time.format(at) : `${day.format(at)} ${time.format(at)}`;
  };
};
