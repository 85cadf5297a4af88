import { setTimeout as pause } from "node:timers/promises";
import * as z from "zod/mini";
import { ProviderError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Revision, Store, Stored, WriteOp } from "../../src/ports.ts";
import { flag, nonEmpty, secretFrom } from "../config-keys.ts";
import {
  bounded,
  CALL_LIMIT_MS,
  defineStore,
  movedOn,
  refused,
  type Tools,
  witnessIn,
  witnessText,
} from "../kit.ts";
import { azureChecks } from "./azure-checks.ts";
import {
  type Current,
  foreignTags,
  LEDGER_TAG,
  MAX_TAGS,
  OP_TAG,
  openVault,
  type Vault,
  type Version,
} from "./azure-client.ts";
import { absent, softDeleted } from "./azure-errors.ts";

const AZURE_HOST = /\.(vault\.azure\.(net|cn)|vault\.usgovcloudapi\.net|vault\.microsoftazure\.de)$/i;
const hostOf = (url: string): string => (URL.canParse(url) ? new URL(url).hostname : "");

const schema = z
  .strictObject({
    vaultUrl: z.string().check(
      z.refine(
        (url) => /^https:\/\/[^/?#@\s]+\/?$/.test(url) && hostOf(url) !== "",
        "https:// and a host, nothing behind it",
      ),
      z.describe("Address of the vault, e.g. https://kv-chat.vault.azure.net."),
    ),
    secret: z
      .string()
      .check(
        z.regex(/^[0-9A-Za-z-]{1,127}$/, "letters, digits and hyphens, at most 127"),
        z.describe("Name of the secret; its whole value is the key."),
      ),
    create: flag(false, "Make the secret when the vault has none of that name."),
    recover: flag(false, "Recover the secret when it is deleted and can be, and write over it."),
    caFile: z.exactOptional(
      nonEmpty(
        "File with the certificate authority (PEM) of an emulator or private endpoint; the vault is then trusted by it alone.",
      ),
    ),
    verifyChallengeResource: flag(
      true,
      "false only for an emulator: the login is given to an address outside of Azure.",
    ),
    token: z.exactOptional(secretFrom("A fixed token for an emulator, instead of the Azure login.")),
  })
  .check(
    z.refine(
      (c) => c.verifyChallengeResource || !AZURE_HOST.test(hostOf(c.vaultUrl)),
      "verifyChallengeResource: false is for emulators, never for a vault of Azure",
    ),
    z.refine(
      (c) => c.token === undefined || !(c.verifyChallengeResource || AZURE_HOST.test(hostOf(c.vaultUrl))),
      "token is for emulators: it wants verifyChallengeResource: false, and never goes to a vault of Azure",
    ),
  );
export type Config = z.infer<typeof schema>;

/** What tests shorten, ms. */
export type Hooks = { readonly callMs?: number; readonly recoverMs?: number; readonly pollMs?: number };

const MAX_BYTES = 25_600;

/**
 * One secret of an Azure Key Vault. Each write makes a new version, which keeps tags, content type and dates of the one before it, and
 * is tagged with the op and the ledger entry that it came from.
 *
 * Known limits. Key Vault has no conditional write: the versions are listed before and after, so that a version that somebody else made
 * meanwhile is a CONFLICT, but by then ours is made too. No SDK call can try a write without one, so a preflight cannot prove the right
 * to set. A version cannot be deleted, only disabled.
 */
export default defineStore({
  kind: "azure-key-vault",
  schema,
  open: (config, tools) => openKeyVault(config, tools),
});

/** `hooks` are for tests. */
export const openKeyVault = (config: Config, tools: Tools, hooks: Hooks = {}): Store => {
  const vault = openVault(config, tools);
  const limit = hooks.callMs ?? CALL_LIMIT_MS;

  /** What no live secret means: null where that may be written over, else the error. */
  const absence = async (signal: AbortSignal): Promise<"absent" | "deleted"> => {
    const deleted = await vault.deleted(signal);
    if (deleted === "no") {
      if (config.create) return "absent";
      throw absent();
    }
    if (config.recover) return "deleted";
    throw softDeleted(deleted === "changing");
  };

  const read: Store["read"] = (signal) =>
    bounded(signal, limit, async (inner) => {
      const current = await vault.current(inner);
      if (current !== null) return storedIn(current);
      await absence(inner);
      return null;
    });

  const revive = async (signal: AbortSignal): Promise<Current> => {
    const until = performance.now() + (hooks.recoverMs ?? 45_000);
    for (;;) {
      if ((await vault.deleted(signal)) === "yes") await vault.recover(signal);
      const current = await vault.current(signal);
      if (current !== null) return current;
      if (performance.now() >= until)
        throw refused("TIMEOUT", "the secret is still being recovered; run again", 10_000);
      await pause(hooks.pollMs ?? 2_000, undefined, { signal });
    }
  };

  /** What stands there, after a recovery where that is wanted. Versions first: what is not among them came later. */
  const stand = async (signal: AbortSignal, expect: Revision | null) => {
    const versions = await vault.versions(signal);
    const current = await vault.current(signal);
    if (current !== null) return { versions, current, expect };
    if ((await absence(signal)) === "absent") return { versions, current, expect };
    const revived = await revive(signal);
    // Nobody could read it while it was deleted: who expected nothing there has expected this.
    return { versions: await vault.versions(signal), current: revived, expect: expect ?? idOf(revived) };
  };

  const write: Store["write"] = (next, expected, op, signal) =>
    bounded(signal, limit, async (inner, commit) => {
      const value = next.reveal();
      if (Buffer.byteLength(value) > MAX_BYTES)
        throw refused("TOO_LARGE", `Key Vault takes at most ${MAX_BYTES} bytes`);
      const { versions, current, expect } = await stand(inner, expected);
      if (current?.value === value) return current.id as Revision;
      if (versions.some(({ tags }) => tags[OP_TAG] === op.id))
        throw new ProviderError(
          "CONFLICT",
          "applied",
          "this write took place, and another version lies over it",
        );
      if (idOf(current) !== expect) throw movedOn();
      const like = tagged(current, op);
      commit();
      const id = await vault.set(value, like, inner);
      await onlyOurs(vault, versions, id, inner);
      return id as Revision;
    });

  const retire = (revision: Revision, signal: AbortSignal): Promise<void> =>
    bounded(signal, limit, async (inner, commit) => {
      if ((await vault.current(inner))?.id === revision)
        throw refused("CONFLICT", "that is the current version; only a superseded one is disabled");
      commit();
      await vault.disable(revision, inner);
    });

  return {
    where: `azure-key-vault:${new URL(config.vaultUrl).host}#${config.secret}`,
    caps: { staging: false, compareAndSwap: false, witness: true, retire: true },
    preflight: (signal) => azureChecks(config, vault, absence, (work) => bounded(signal, limit, work)),
    read,
    write,
    retire,
  };
};

/** An empty value is no key: it is filled. */
const idOf = (current: Current | null): Revision | null =>
  current === null || current.value === "" ? null : (current.id as Revision);

const storedIn = (current: Current): Stored | null => {
  const revision = idOf(current);
  if (revision === null) return null;
  const witness = witnessIn(current.tags[LEDGER_TAG] ?? "");
  return { secret: new Secret(current.value), revision, createdAt: current.createdAt, witness };
};

/** What the new version takes over from the one before it, and our marks. */
const tagged = (
  before: Current | null,
  { id, witness }: WriteOp,
): Omit<Version, "id" | "createdAt" | "managed"> => {
  if (before?.managed === true)
    throw refused("NOT_OWNED", "this secret belongs to a certificate; Key Vault itself manages it");
  const kept = foreignTags(before?.tags ?? {});
  const ours = [[OP_TAG, id], ...(witness === null ? [] : [[LEDGER_TAG, witnessText(witness)]])];
  if (kept.length + ours.length > MAX_TAGS)
    throw refused("QUOTA", `a version has at most ${MAX_TAGS} tags; ${ours.length} must be free`);
  return {
    tags: Object.fromEntries([...kept, ...ours]),
    contentType: before?.contentType,
    notBefore: before?.notBefore,
    expiresOn: before?.expiresOn,
  };
};

/** The one way to know that nobody wrote between the look and the write: ours is the one version that is new. */
const onlyOurs = async (
  vault: Vault,
  before: readonly Version[],
  ours: string,
  signal: AbortSignal,
): Promise<void> => {
  const known = new Set(before.map(({ id }) => id));
  const unsure = (code: ProviderError["code"]) =>
    new ProviderError(code, "unknown", "it is written, but whether somebody else wrote too cannot be said");
  const after = await vault.versions(signal).catch((thrown: unknown) => {
    throw unsure(thrown instanceof ProviderError ? thrown.code : "UNAVAILABLE");
  });
  const fresh = after.filter(({ id }) => !known.has(id)).map(({ id }) => id);
  if (!fresh.includes(ours)) throw unsure("UNAVAILABLE");
  if (fresh.length > 1)
    throw new ProviderError("CONFLICT", "applied", "somebody else wrote at the same time");
};
