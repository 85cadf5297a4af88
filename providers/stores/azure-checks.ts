import { ProviderError } from "../../src/core/errors.ts";
import type { Check } from "../../src/ports.ts";
import { check } from "../kit.ts";
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
        check.ok("identity", "the vault takes this login"),
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
    if (PASSING.has(code)) return [check.unproved(id, message, known ?? "Run doctor again in a minute.")];
    return [check.fail(id, message, known ?? "Mend what is named and run again.", code)];
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

const EMULATOR: Check = check.warn(
  "challenge",
  "the login is given to an address outside of Azure; right for an emulator only",
  "Remove verifyChallengeResource: false.",
);

const standing = (
  missing: "absent" | "deleted" | null,
  az: (command: string, more: string) => string,
): Check => {
  if (missing === null) return check.ok("secret", "the secret can be read, and its versions listed");
  if (missing === "absent") return check.ok("secret", "there is no such secret; the first write makes it");
  const message = "the secret is deleted; the first write recovers it, which takes up to 2 minutes";
  return check.warn("soft-delete", message, az("recover", ""));
};

const owner = ({ managed }: Current): Check =>
  managed
    ? check.fail(
        "owner",
        "this secret belongs to a certificate; Key Vault itself manages it",
        "Name another secret in `secret`; create: true makes it.",
        "NOT_OWNED",
      )
    : check.ok("owner", "the secret belongs to no certificate");

const tags = (current: Current, az: (command: string, more: string) => string): Check => {
  const [count, room] = [foreignTags(current.tags).length, MAX_TAGS - 2];
  if (count <= room) return check.ok("tags", "there is room for the tags of a write");
  const message = `the secret has ${count} tags; a write needs 2 of ${MAX_TAGS}`;
  return check.fail(
    "tags",
    message,
    az("set-attributes", `--tags NAME=VALUE …   # those that stay, ${room} at most; the others go`),
    "QUOTA",
  );
};

const dates = (
  { notBefore, expiresOn }: Current,
  az: (command: string, more: string) => string,
): readonly Check[] => {
  const now = Date.now();
  const expires = check.warn(
    "expiry",
    `the secret expires at ${expiresOn?.toISOString()}, and a new version keeps that`,
    az("set-attributes", `--expires "$(date -u -d '+1 year' +%Y-%m-%dT%H:%M:%SZ)"`),
  );
  const starts = check.warn(
    "not-before",
    `the secret is not meant to be used before ${notBefore?.toISOString()}, and a new version keeps that`,
    az("set-attributes", '--not-before "$(date -u +%Y-%m-%dT%H:%M:%SZ)"'),
  );
  return [
    ...(expiresOn !== undefined && expiresOn.getTime() < now + 7 * 86_400_000 ? [expires] : []),
    ...(notBefore !== undefined && notBefore.getTime() > now ? [starts] : []),
  ];
};

/** The service has no way to try a write without one. What was written before is as near as it gets. */
const mayWrite = (versions: readonly Version[], place: Place): Check =>
  versions.some((version) => version.tags[OP_TAG] !== undefined)
    ? check.ok("permission", "imkit-rotator has written this secret before")
    : check.warn(
        "permission",
        "that this identity may write shows only in the first write; Key Vault cannot be asked",
        filled(GRANT, place),
      );

const clock = (aheadMs: number): readonly Check[] => {
  if (Math.abs(aheadMs) < 5 * 60_000) return [];
  const message = `the clock of this machine is ${Math.round(Math.abs(aheadMs) / 60_000)} min off; logins fail then`;
  return [check.warn("clock", message, "timedatectl set-ntp true")];
};
