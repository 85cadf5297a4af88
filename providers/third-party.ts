import { existsSync, readFileSync } from "node:fs";
import { createRequire, findPackageJSON } from "node:module";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { core } from "zod/mini";
import { type Applied, PROVIDER_CODES, type ProviderCode, ProviderError } from "../src/core/errors.ts";
import { Secret } from "../src/core/secret.ts";
import type {
  Check,
  Revision,
  Rollout,
  RolloutOp,
  RolloutState,
  Store,
  Stored,
  WriteOp,
} from "../src/ports.ts";
import {
  bounded,
  check,
  defineRollout,
  defineStore,
  durationMs,
  fromErrno,
  refused,
  resolvePath,
  type RolloutProvider,
  type StoreProvider,
  type Tools,
} from "./kit.ts";
import * as z from "./options.ts";

/** What a module that exports a function gets, so that it needs to install and import nothing. */
export type ProviderKit = typeof KIT;
const KIT = {
  z,
  Secret,
  ProviderError,
  defineStore,
  defineRollout,
  fromErrno,
  bounded,
  durationMs,
  resolvePath,
} as const;

type Found = readonly [type: string, configDir: string, unknown: () => ProviderError];

/** @throws ProviderError CONFIG, or what `unknown` makes when there is neither a file nor a package of that name */
export const thirdPartyStore = (...found: Found): Promise<StoreProvider<unknown>> =>
  foreign(guardStore, ...found);

export const thirdPartyRollout = (...found: Found): Promise<RolloutProvider<unknown>> =>
  foreign(guardRollout, ...found);

const foreign = async <T>(guard: (made: T, type: string) => T, ...[type, configDir, unknown]: Found) => {
  const provider = await load(type, configDir, unknown);
  const open = (config: unknown, tools: Tools) => guard(opened(provider, type, config, tools) as T, type);
  return { kind: type, schema: provider.schema, open };
};

type Loaded = { readonly schema: core.$ZodType; readonly open: (config: unknown, tools: Tools) => unknown };

const load = async (type: string, configDir: string, unknown: () => ProviderError): Promise<Loaded> => {
  const file = locate(type, configDir);
  if (file === null) throw unknown();
  let exported: unknown;
  try {
    const module = (await import(pathToFileURL(file).href)) as { readonly default?: unknown };
    exported = typeof module.default === "function" ? await module.default(KIT) : module.default;
  } catch {
    throw wrong(`${type} cannot be loaded; run "node ${file}" to see why`);
  }
  if (!isObject(exported) || typeof exported["kind"] !== "string" || typeof exported["open"] !== "function") {
    throw wrong(`the default export of ${type} is no provider: it needs kind, schema and open`);
  }
  const schema = asZod(exported["schema"]);
  if (schema === null) throw wrong(`${type}: schema is neither zod nor a Standard Schema`);
  // Called as a method: a provider may be an object that uses `this`.
  const provider = exported as { readonly open: Loaded["open"] };
  return { schema, open: (config, tools) => provider.open(config, tools) };
};

const locate = (type: string, configDir: string): string | null => {
  if (/^\.{1,2}\//.test(type) || isAbsolute(type)) {
    const file = resolve(configDir, type);
    return existsSync(file) ? file : null;
  }
  // Only a package: a bare name must never find one of Node's own modules.
  if (!/^(@[\w.-]+\/)?[\w-][\w.-]*(\/[\w./-]+)?$/.test(type)) return null;
  const base = join(configDir, "imkit-rotator.config.yaml");
  try {
    const found = createRequire(base).resolve(type);
    return isAbsolute(found) ? found : null;
  } catch {
    return importEntry(type, base);
  }
};

/** Packages that may only be imported (`exports` without `require`). */
const importEntry = (type: string, base: string): string | null => {
  try {
    const manifest = findPackageJSON(type, pathToFileURL(base));
    if (manifest === undefined) return null;
    const { exports, main } = JSON.parse(readFileSync(manifest, "utf8")) as {
      exports?: unknown;
      main?: unknown;
    };
    const root = isObject(exports) && "." in exports ? exports["."] : exports;
    const entry = isObject(root) ? (root["import"] ?? root["default"]) : (root ?? main);
    return typeof entry === "string" ? join(dirname(manifest), entry) : null;
  } catch {
    return null;
  }
};

type StandardResult = { readonly value?: unknown; readonly issues?: readonly { readonly message: string }[] };

/** The config room speaks zod; any Standard Schema that answers at once can be wrapped. */
const asZod = (schema: unknown): core.$ZodType | null => {
  if (!isObject(schema) && typeof schema !== "function") return null;
  const given = schema as {
    safeParse?: unknown;
    "~standard"?: { validate?: (value: unknown) => StandardResult };
  };
  if (typeof given.safeParse === "function") return schema as unknown as core.$ZodType;
  const standard = given["~standard"];
  if (typeof standard?.validate !== "function") return null;
  return z.unknown().transform((value, context) => {
    const result = standard.validate?.(value) ?? { issues: [{ message: "no answer" }] };
    for (const { message } of result.issues ?? []) context.addIssue({ code: "custom", message });
    return result.value;
  });
};

const opened = (provider: Loaded, type: string, config: unknown, tools: Tools): unknown => {
  try {
    const made = provider.open(config, tools);
    if (isObject(made) && typeof made["where"] === "string" && typeof made["preflight"] === "function")
      return made;
  } catch (error) {
    throw translated(error, "not_applied");
  }
  throw wrong(`${type}: open gave back neither a store nor a rollout`);
};

/** Holds a foreign store to the port: only our errors come out of it, and a doubtful answer is never "absent". */
const guardStore = (store: Store, type: string): Store => {
  const caps: Partial<Store["caps"]> = isObject(store.caps) ? store.caps : {};
  const { staging = false, compareAndSwap = false, witness = false, retire = false } = caps;
  return {
    where: plain(store.where),
    caps: { staging, compareAndSwap, witness, retire },
    preflight: (signal) => preflight(store, signal),
    read: async (signal: AbortSignal) => {
      const found = await calling("not_applied", () => store.read(signal));
      return found === null ? null : stored(found, type);
    },
    write: async (next: Secret, expect: Revision | null, op: WriteOp, signal: AbortSignal) =>
      revisionOf(await calling("unknown", () => store.write(next, expect, op, signal)), type),
    ...(staging && {
      stage: async (next: Secret, expect: Revision | null, op: WriteOp, signal: AbortSignal) => {
        const staged = await calling("not_applied", async () => store.stage?.(next, expect, op, signal));
        if (typeof staged?.commit !== "function" || typeof staged.drop !== "function")
          throw refused("UNAVAILABLE", `${type}: stage gave back nothing to commit`);
        return {
          commit: async (signal: AbortSignal) =>
            revisionOf(await calling("unknown", () => staged.commit(signal)), type),
          drop: (signal: AbortSignal) => calling("unknown", () => staged.drop(signal)).catch(() => {}),
        };
      },
    }),
    ...(retire && {
      retire: (revision: Revision, signal: AbortSignal) =>
        calling("unknown", async () => store.retire?.(revision, signal)),
    }),
    ...(typeof store.remove === "function" && {
      remove: (expect: Revision, signal: AbortSignal) =>
        calling("unknown", async () => store.remove?.(expect, signal)),
    }),
  };
};

const guardRollout = (rollout: Rollout, type: string): Rollout => {
  const state = async (outcome: Applied, call: () => Promise<RolloutState>): Promise<RolloutState> => {
    const answer: unknown = await calling(outcome, call);
    const known = isObject(answer) && ["rolling", "done", "failed", "held"].includes(String(answer["state"]));
    if (!known) throw new ProviderError("UNAVAILABLE", "unknown", `${type}: no state that the port knows`);
    const { state, proof, reason } = answer as RolloutState;
    return { state, proof: proof === 1 || proof === 2 ? proof : 0, reason: plain(reason) };
  };
  const guarded: Rollout = {
    where: plain(rollout.where),
    how: rollout.how ?? "auto",
    reason: plain(rollout.reason),
    preflight: (signal) => preflight(rollout, signal),
    trigger: (op: RolloutOp, signal: AbortSignal) => state("unknown", () => rollout.trigger(op, signal)),
  };
  const watch = rollout.watch?.bind(rollout);
  return watch === undefined
    ? guarded
    : { ...guarded, watch: (op, signal) => state("not_applied", () => watch(op, signal)) };
};

const preflight = async (target: Store | Rollout, signal: AbortSignal): Promise<readonly Check[]> => {
  try {
    const checks: unknown = await target.preflight(signal);
    if (Array.isArray(checks)) return checks as Check[];
  } catch {
    // Answered below: a doubt.
  }
  return [check.unproved("preflight", "the preflight gave no answer")];
};

const calling = async <T>(outcome: Applied, call: () => Promise<T>): Promise<T> => {
  try {
    return await call();
  } catch (error) {
    throw translated(error, outcome);
  }
};

/** By shape, not by class: a module may have a copy of this program of its own. All other text is dropped. */
const translated = (error: unknown, outcome: Applied): ProviderError => {
  if (error instanceof ProviderError) return error;
  if (!isObject(error) || error["name"] !== "ProviderError") return new ProviderError("UNAVAILABLE", outcome);
  const code =
    PROVIDER_CODES.find((known) => known === error["code"]) ?? ("UNAVAILABLE" satisfies ProviderCode);
  const said = (["not_applied", "applied", "unknown"] as const).find((known) => known === error["outcome"]);
  const wait = error["retryAfterMs"];
  return new ProviderError(
    code,
    said ?? outcome,
    plain(error["hint"]),
    typeof wait === "number" && wait >= 0 ? wait : null,
  );
};

const stored = (found: unknown, type: string): Stored => {
  if (isObject(found) && isRevision(found["revision"])) {
    const secret = asSecret(found["secret"]);
    const { createdAt, witness } = found as Partial<Stored>;
    if (secret !== null)
      return { secret, revision: found["revision"], createdAt: createdAt ?? null, witness: witness ?? null };
  }
  throw refused("UNAVAILABLE", `${type}: read gave back neither null nor { secret, revision }`);
};

const asSecret = (secret: unknown): Secret | null => {
  if (secret instanceof Secret) return secret;
  if (typeof secret === "string" || secret instanceof Uint8Array)
    return secret.length === 0 ? null : new Secret(secret);
  return null;
};

const revisionOf = (value: unknown, type: string): Revision => {
  if (isRevision(value)) return value;
  throw new ProviderError("UNAVAILABLE", "unknown", `${type}: write gave back no revision`);
};
const isRevision = (value: unknown): value is Revision =>
  typeof value === "string" && /^[ -~]{1,200}$/.test(value);
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null;
const plain = (text: unknown): string =>
  typeof text === "string" ? text.replaceAll(/[^ -~]/g, "?").slice(0, 300) : "";
const wrong = (hint: string): ProviderError => refused("CONFIG", hint);
