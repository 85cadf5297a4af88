import { ProviderError } from "../../src/core/errors.ts";
import type { Check } from "../../src/ports.ts";
import { foreignTags, MAX_TAGS, OP_TAG, type Current, type Vault, type Version } from "./azure-client.ts";
import { filled, fixOf, GRANT } from "./azure-errors.ts";

type Place = {
  readonly vaultUrl: string;
  readonly secret: string;
  readonly verifyChallengeResource: boolean;
};

/** May the secret be written? Nothing is. Reads it, lists its versions, and says what that cannot prove. */
export const azureChecks = async (
  place: Place,
  vault: Vault,
  absence: (signal: AbortSignal) => Promise<"absent" | "deleted">,
  within: <T>(work: (signal: AbortSignal) => Promise<T>) => Promise<T>,
): Promise<readonly Check[]> => {
  const az = (command: string, more: string): string =>
    filled(`az keyvault secret ${command} --vault-name {vault} --name {secret} ${more}`, place).trim();
  try {
    return await within(async (signal) => {
      const versions = await vault.versions(signal);
      const current = await vault.current(signal);
      const missing = current === null ? await absence(signal) : null;
      return [
        { id: "identity", status: "ok", message: "the vault takes this login" },
        standing(missing, az),
        ...(current === null ? [] : [owner(current), tags(current, az), ...dates(current, az)]),
        mayWrite(versions, place),
        ...clock(vault.clockAhead()),
        ...(place.verifyChallengeResource ? [] : [EMULATOR]),
      ];
    });
  } catch (thrown) {
    const { code, hint } = thrown instanceof ProviderError ? thrown : { code: "UNAVAILABLE", hint: "" };
    const id = IDS[code] ?? "vault";
    const message = hint === "" ? "the vault gave no answer in time" : hint;
    const known = thrown instanceof ProviderError ? fixOf(thrown, place) : null;
    if (PASSING.has(code))
      return [{ id, status: "unproved", message, fix: known ?? "Run doctor again in a minute." }];
    return [{ id, status: "fail", message, code, fix: known ?? "Mend what is named and run again." }];
  }
};

const IDS: Readonly<Record<string, string>> = {
  AUTHN: "identity",
  AUTHZ: "permission",
  DISABLED: "secret",
  NOT_FOUND: "secret",
  SOFT_DELETED: "soft-delete",
};
const PASSING: ReadonlySet<string> = new Set(["TIMEOUT", "UNAVAILABLE", "THROTTLED"]);

const EMULATOR: Check = {
  id: "challenge",
  status: "warn",
  message: "the login is given to an address outside of Azure; right for an emulator only",
  fix: "Remove verifyChallengeResource: false.",
};

const standing = (
  missing: "absent" | "deleted" | null,
  az: (command: string, more: string) => string,
): Check => {
  if (missing === null)
    return { id: "secret", status: "ok", message: "the secret can be read, and its versions listed" };
  if (missing === "absent")
    return { id: "secret", status: "ok", message: "there is no such secret; the first write makes it" };
  const message = "the secret is deleted; the first write recovers it, which takes up to 2 minutes";
  return { id: "soft-delete", status: "warn", message, fix: az("recover", "") };
};

const owner = ({ managed }: Current): Check =>
  managed
    ? {
        id: "owner",
        status: "fail",
        message: "this secret belongs to a certificate; Key Vault itself manages it",
        fix: "Name another secret in `secret`; create: true makes it.",
        code: "NOT_OWNED",
      }
    : { id: "owner", status: "ok", message: "the secret belongs to no certificate" };

const tags = (current: Current, az: (command: string, more: string) => string): Check => {
  const [count, room] = [foreignTags(current.tags).length, MAX_TAGS - 2];
  if (count <= room) return { id: "tags", status: "ok", message: "there is room for the tags of a write" };
  const message = `the secret has ${count} tags; a write needs 2 of ${MAX_TAGS}`;
  return {
    id: "tags",
    status: "fail",
    message,
    fix: az("set-attributes", `--tags NAME=VALUE …   # those that stay, ${room} at most; the others go`),
    code: "QUOTA",
  };
};

const dates = (
  { notBefore, expiresOn }: Current,
  az: (command: string, more: string) => string,
): readonly Check[] => {
  const now = Date.now();
  const expires: Check = {
    id: "expiry",
    status: "warn",
    message: `the secret expires at ${expiresOn?.toISOString()}, and a new version keeps that`,
    fix: az("set-attributes", `--expires "$(date -u -d '+1 year' +%Y-%m-%dT%H:%M:%SZ)"`),
  };
  const starts: Check = {
    id: "not-before",
    status: "warn",
    message: `the secret is not meant to be used before ${notBefore?.toISOString()}, and a new version keeps that`,
    fix: az("set-attributes", '--not-before "$(date -u +%Y-%m-%dT%H:%M:%SZ)"'),
  };
  return [
    ...(expiresOn !== undefined && expiresOn.getTime() < now + 7 * 86_400_000 ? [expires] : []),
    ...(notBefore !== undefined && notBefore.getTime() > now ? [starts] : []),
  ];
};

/** The service has no way to try a write without one. What was written before is as near as it gets. */
const mayWrite = (versions: readonly Version[], place: Place): Check =>
  versions.some((version) => version.tags[OP_TAG] !== undefined)
    ? { id: "permission", status: "ok", message: "imkit-rotator has written this secret before" }
    : {
        id: "permission",
        status: "warn",
        message: "that this identity may write shows only in the first write; Key Vault cannot be asked",
        fix: filled(GRANT, place),
      };

const clock = (aheadMs: number): readonly Check[] => {
  if (Math.abs(aheadMs) < 5 * 60_000) return [];
  const message = `the clock of this machine is ${Math.round(Math.abs(aheadMs) / 60_000)} min off; logins fail then`;
  return [{ id: "clock", status: "warn", message, fix: "timedatectl set-ntp true" }];
};
