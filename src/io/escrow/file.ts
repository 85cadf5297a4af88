import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { RotatorError } from "../../core/errors.ts";
import { type Fp, Secret } from "../../core/secret.ts";
import type { Escrow } from "../../ports.ts";
import { ELSEWHERE, syncFolder, whyNoFiles, writePrivate } from "../disk.ts";
import { failed, failedOn, hasPrivateFolder, readPrivate, removePrivate } from "./folder.ts";
import { type IdentitySource, openWith, parseIdentities, sealWith } from "./identity.ts";

export { defaultIdentity } from "./identity.ts";

export type FileEscrowOptions = {
  /** `<state.dir>/<app>/escrow`, made 0700 at the first write. */
  readonly dir: string;
  readonly identity: IdentitySource;
};

export interface FileEscrow extends Escrow {
  /**
   * Durable encrypted copy of a file as `<name>.bak.age` in the same folder, replacing an older one; read back and compared.
   * @throws RotatorError ESCROW_FAILED
   */
  encryptBackup(name: string, bytes: Uint8Array): Promise<void>;
}

const MAX_KEY_BLOB = 64 * 1024;
const MAX_BACKUP_BLOB = 16 * 1024 * 1024;

/**
 * Keys of open rotations as `<fp>.age`: the age format (X25519), so that `age --decrypt -i escrow-identity.txt` opens them without us.
 * Nothing is loaded or touched before the first call.
 */
export const fileEscrow = ({ dir, identity }: FileEscrowOptions): FileEscrow => {
  const identities = async (make: boolean): Promise<readonly string[]> =>
    parseIdentities(await identity(make));

  /** Encrypts, writes, and proves by opening what is on disk now. */
  const keep = async (name: string, bytes: Uint8Array, maxBytes: number): Promise<void> => {
    const path = join(dir, name);
    const keys = await identities(true);
    const blob = await sealWith(keys, bytes);
    if (blob.length > maxBytes) throw failed(`${path} would be too large.`);
    await hasPrivateFolder(dir, true);
    try {
      await writePrivate(dir, name, blob, "replace");
    } catch (error) {
      throw failedOn(error, `${path} cannot be written`);
    }
    const written = readPrivate(path, maxBytes);
    const opened = written === null ? null : await openWith(keys, written.bytes, path);
    if (opened === null || !Buffer.from(opened).equals(bytes))
      throw failed(`${path} does not hold what was written to it.`);
    opened.fill(0);
  };

  const get = async (fp: Fp): Promise<Secret | null> => {
    const path = join(dir, blobName(fp));
    if (!(await hasPrivateFolder(dir, false))) return null;
    const found = readPrivate(path, MAX_KEY_BLOB);
    if (found === null) return null;
    const opened = await openWith(await identities(false), found.bytes, path);
    if (opened.length === 0) throw failed(`${path} is empty inside.`);
    const secret = new Secret(opened);
    opened.fill(0);
    return secret;
  };

  return {
    where: `file:${dir}`,
    get,
    list: async () => {
      if (!(await hasPrivateFolder(dir, false))) return [];
      try {
        const names = readdirSync(dir);
        return names.flatMap((name) => /^([0-9a-f]{16})\.age$/.exec(name)?.[1] ?? []).sort();
      } catch (error) {
        throw failedOn(error, `The folder ${dir} cannot be read`);
      }
    },
    put: async (fp, key) => {
      const name = blobName(fp);
      const before = await get(fp).catch(() => null);
      if (before?.equals(key)) return settle(dir);
      if (before !== null) throw failed(`${join(dir, name)} holds another key.`);
      const bytes = Buffer.from(key.reveal());
      try {
        await keep(name, bytes, MAX_KEY_BLOB);
      } catch (error) {
        throw error instanceof RotatorError ? notSaved(error) : error;
      } finally {
        bytes.fill(0);
      }
    },
    remove: async (fp) => {
      const name = blobName(fp);
      if (!(await hasPrivateFolder(dir, false))) return;
      try {
        await removePrivate(dir, name);
      } catch (error) {
        throw failedOn(error, `${join(dir, name)} cannot be removed`);
      }
    },
    preflight: async () => {
      const why = await whyNoKeys(dir, identity);
      if (why === null) return [{ id: "writable", status: "ok", message: `Keys can be kept in ${dir}.` }];
      const fix = why.do[0] ?? "";
      return [
        {
          id: "writable",
          status: "fail",
          message: `No key can be kept. ${why.why}`,
          fix,
          code: "UNAVAILABLE",
        },
      ];
    },
    encryptBackup: (name, bytes) => keep(`${backupName(name)}.bak.age`, bytes, MAX_BACKUP_BLOB),
  };
};

const notSaved = (error: RotatorError): RotatorError =>
  failed(error.why, {
    do: error.do,
    hints: error.hints,
    state: "The key was NOT saved.",
  });

const whyNoKeys = async (dir: string, identity: IdentitySource): Promise<RotatorError | null> => {
  try {
    if (identity.check === undefined) parseIdentities(await identity(false));
    else await identity.check();
    await hasPrivateFolder(dir, false);
    const why = await whyNoFiles(dir);
    return why === null ? null : failed(`No file can be made in ${dir} (${why}).`, { do: [ELSEWHERE] });
  } catch (error) {
    if (error instanceof RotatorError) return error;
    return failed("The escrow identity cannot be read.", { do: ["Look at escrow.identity in the config"] });
  }
};

/** A process may have died between the rename and its fsync: only now is that blob's name sure to last. */
const settle = async (dir: string): Promise<void> => {
  try {
    await syncFolder(dir);
  } catch (error) {
    throw failedOn(error, `The folder ${dir} cannot be used`);
  }
};

const blobName = (fp: Fp): string => {
  if (!/^[0-9a-f]{16}$/.test(fp)) throw failed("A fingerprint is not 16 hex digits.");
  return `${fp}.age`;
};

/** Any text as a file name; a hash keeps apart what would become the same. */
const backupName = (name: string): string => {
  if (/^[A-Za-z0-9][\w.-]{0,63}$/.test(name)) return name;
  const readable = name
    .replaceAll(/[^\w.-]+/g, "_")
    .replace(/^[.]+/, "")
    .slice(-48);
  return `${readable}-${createHash("sha256").update(name).digest("hex").slice(0, 8)}`;
};
