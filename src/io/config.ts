import { dirname, resolve } from "node:path";
import { RotatorError } from "../core/errors.ts";
import { parseDuration } from "../core/policy.ts";
import { checkApp, checkWhole } from "./config-check.ts";
import { configPath, defaultStateDir, type Env } from "./config-find.ts";
import { idOf, type Path, parseConfigText, type Source } from "./config-parse.ts";
import { droppedKeys, type Issue, problem, problemLines, valueAt } from "./config-problems.ts";
import { configInvalid, readConfigText } from "./config-read.ts";
import { type Cluster, clusterOf } from "./config-room.ts";
import {
  type AppInput,
  appShape,
  type ConfigInput,
  configShape,
  type NotifyConfig,
} from "./config-schema.ts";
import { type ServeConfig, toServe } from "./config-serve.ts";
import type { ValueFrom } from "./config-value.ts";
import { didYouMean } from "../core/suggest.ts";

export { type ConfigSearch, configHome, type Env, findConfig } from "./config-find.ts";
export type { Cluster } from "./config-room.ts";
export type { NotifyConfig } from "./config-schema.ts";
export { type ValueFrom, valueOf } from "./config-value.ts";

/** `position` is `<path>:<line>:<column>`; `settings` is what the provider's own schema made of the keys that are not ours. */
type Target = {
  readonly name: string;
  readonly type: string;
  readonly required: boolean;
  readonly settings: unknown;
  readonly position: string;
};
/** `write: false` is a mirror that another controller fills. */
export type StoreConfig = Target & { readonly write: boolean };
export type RolloutConfig = Target & { readonly canary: boolean; readonly after: readonly string[] };
export type IntakeConfig = Pick<Target, "type" | "settings" | "position">;

export type AppConfig = {
  readonly name: string;
  readonly baseUrl: string;
  readonly owners: readonly string[];
  readonly intake: readonly IntakeConfig[];
  readonly stores: readonly StoreConfig[];
  /** As written: the implicit `manual` of an app without rollouts is not in it. */
  readonly rollouts: readonly RolloutConfig[];
  readonly soakMs: number;
  readonly revoke: {
    readonly probes: number;
    readonly everyMs: number;
    readonly control: boolean;
    readonly escalateAfterMs: number;
  };
  readonly emergencyOrder: "revoke-first" | "replace-first";
  readonly rotateEveryMs: number;
  /** Cron line of five fields; null = at every tick. */
  readonly schedule: string | null;
  readonly timezone: string;
  readonly remindBeforeMs: readonly number[];
  readonly position: string;
};

export type Config = {
  readonly path: string;
  /** Folder of the config file: relative paths start here. */
  readonly dir: string;
  readonly stateDir: string;
  /** null = files in `stateDir`; the same for the escrow. */
  readonly ledger: Cluster | null;
  readonly escrow: Cluster | null;
  /** null = the identity that is made once in the user's config folder; in a cluster, none. */
  readonly escrowIdentity: ValueFrom | null;
  readonly apps: ReadonlyMap<string, AppConfig>;
  readonly notify: readonly NotifyConfig[];
  readonly serve: ServeConfig;
};

/** Any Standard Schema; zod's are. */
export type Schema = {
  readonly "~standard": { readonly validate: (value: unknown) => SchemaResult | Promise<SchemaResult> };
};
type SchemaResult =
  | { readonly value: unknown; readonly issues?: undefined }
  | { readonly issues: readonly Issue[] };

export type Providers = {
  /** The schema of one kind's own keys; null or a rejection when there is no such kind or module. */
  readonly schemaOf: (half: "store" | "rollout", type: string, configDir: string) => Promise<Schema | null>;
  /** Names of the built-in kinds, for "did you mean". */
  readonly kindsOf?: (half: "store" | "rollout") => readonly string[];
};

/**
 * Reads and checks a config file; every problem of it is told at once.
 * @throws RotatorError CONFIG_INVALID, its `why` one `<path>:<line>:<column>: message` a line, without any value of the file
 */
export const loadConfig = async (
  path: string,
  providers: Providers & { readonly env: Env },
): Promise<Config> => {
  const file = resolve(path);
  const source = parseConfigText(file, readConfigText(file));
  const whole = configShape.safeParse(source.value);
  const targets = await readTargets(source, dirname(file), providers);
  const lines = [...targets.lines];
  if (!whole.success)
    lines.push(...problemLines(whole.error.issues, { source, base: [], schema: configShape, alsoKnown: [] }));
  for (const name of namesAt(source, ["apps"])) {
    // An app that is sound by itself is looked at further, even if the rest of the file is not.
    const { data: app } = appShape.safeParse(valueAt(source.value, ["apps", name]));
    if (app !== undefined) lines.push(...(await checkApp(source, ["apps", name], app)));
  }
  lines.push(...(await checkWhole(source)));
  if (!whole.success || lines.length > 0) throw configInvalid(lines);
  return assemble(source, file, whole.data, targets.settings, providers.env);
};

const HALVES = { intake: "store", stores: "store", rollouts: "rollout" } as const;
const OWN_KEYS = {
  intake: ["type"],
  stores: ["name", "type", "required", "write"],
  rollouts: ["name", "type", "required", "canary", "after"],
} as const satisfies Record<keyof typeof HALVES, readonly string[]>;

type Targets = { readonly lines: readonly string[]; readonly settings: ReadonlyMap<string, unknown> };

/** Every target of every app, given to its provider's schema. */
const readTargets = async (source: Source, dir: string, providers: Providers): Promise<Targets> => {
  const lines: string[] = [];
  const settings = new Map<string, unknown>();
  for (const app of namesAt(source, ["apps"])) {
    for (const group of ["intake", "stores", "rollouts"] as const) {
      for (const index of namesAt(source, ["apps", app, group])) {
        const path = ["apps", app, group, Number(index)];
        const made = await readTarget(source, path, group, dir, providers);
        if (made === null) continue;
        lines.push(...made.lines);
        settings.set(idOf(path), made.settings);
      }
    }
  }
  return { lines, settings };
};

const readTarget = async (
  source: Source,
  path: Path,
  group: keyof typeof HALVES,
  dir: string,
  providers: Providers,
): Promise<{ readonly lines: readonly string[]; readonly settings: unknown } | null> => {
  const raw = valueAt(source.value, path);
  const type = valueAt(raw, ["type"]);
  if (typeof raw !== "object" || raw === null || typeof type !== "string" || type === "") return null;
  const half = HALVES[group];
  // What a failed load says may quote the config, so it is dropped.
  const schema = await providers.schemaOf(half, type, dir).catch(() => null);
  if (schema === null) {
    const hint = didYouMean(type, providers.kindsOf?.(half) ?? []);
    const why = `is not a known kind of ${half}, nor a module that can be loaded${hint}`;
    return { lines: [problem(source, [...path, "type"], why)], settings: null };
  }
  const own: readonly string[] = OWN_KEYS[group];
  const isOwn = (key: string, value: unknown): boolean =>
    own.includes(key) && !(key === "write" && Array.isArray(value));
  const given = Object.fromEntries(Object.entries(raw).filter(([key, value]) => !isOwn(key, value)));
  const result = await schema["~standard"].validate(given);
  const dropped = droppedKeys(schema, given);
  const issues: readonly Issue[] = [
    ...(result.issues ?? []),
    ...(dropped.length > 0 ? [{ code: "unrecognized_keys", message: "", keys: dropped }] : []),
  ];
  const lines = problemLines(issues, { source, base: path, schema, alsoKnown: own });
  return { lines, settings: result.issues === undefined ? result.value : null };
};

const namesAt = (source: Source, path: Path): readonly string[] => {
  const found = valueAt(source.value, path);
  return typeof found === "object" && found !== null ? Object.keys(found) : [];
};

const assemble = (
  source: Source,
  path: string,
  input: ConfigInput,
  settings: ReadonlyMap<string, unknown>,
  env: Env,
): Config => {
  const dir = dirname(path);
  return {
    path,
    dir,
    stateDir: input.state.dir === undefined ? defaultStateDir(env) : configPath(input.state.dir, dir, env),
    ledger: clusterOf(input.ledger),
    escrow: clusterOf(input.escrow),
    escrowIdentity: input.escrow.identity ?? null,
    apps: new Map(
      Object.entries(input.apps).map(([name, app]) => [
        name,
        toApp(source, name, app, input.defaults, settings),
      ]),
    ),
    notify: input.notify,
    serve: toServe(input.serve),
  };
};

const toApp = (
  source: Source,
  name: string,
  app: AppInput,
  defaults: ConfigInput["defaults"],
  settings: ReadonlyMap<string, unknown>,
): AppConfig => {
  const placed = (group: keyof typeof HALVES, index: number): Pick<Target, "settings" | "position"> => {
    const path = ["apps", name, group, index];
    return { settings: settings.get(idOf(path)), position: source.at(path, "value") };
  };
  return {
    name,
    baseUrl: app.baseUrl,
    owners: app.owners,
    intake: app.intake.map(({ type }, index) => ({ type, ...placed("intake", index) })),
    stores: app.stores.map(({ name, type, required, write }, index) => ({
      name,
      type,
      required,
      write: write !== false,
      ...placed("stores", index),
    })),
    rollouts: app.rollouts.map(({ name, type, required, canary, after }, index) => ({
      name,
      type,
      required,
      canary,
      after,
      ...placed("rollouts", index),
    })),
    soakMs: toMs(app.soak),
    revoke: {
      probes: app.revoke.probes,
      everyMs: toMs(app.revoke.every),
      control: app.revoke.control,
      escalateAfterMs: toMs(app.revoke.escalateAfter),
    },
    emergencyOrder: app.emergency.order,
    rotateEveryMs: toMs(app.rotateEvery ?? defaults.rotateEvery),
    schedule: app.schedule ?? defaults.schedule ?? null,
    timezone: app.timezone ?? defaults.timezone,
    remindBeforeMs: (app.remindBefore ?? defaults.remindBefore).map(toMs),
    position: source.at(["apps", name], "key"),
  };
};

/** The schema has seen to it that it is a duration. */
const toMs = (text: string): number => {
  const ms = parseDuration(text);
  if (ms === null) throw new RotatorError("INTERNAL");
  return ms;
};
