import type { Decrypter, Encrypter } from "age-encryption";
import { readdirSync } from "node:fs";
import { isAbsolute, join, relative } from "node:path";
import { RotatorError } from "../../core/errors.ts";
import { errnoOf, whyNoFiles, writePrivate } from "../disk.ts";
import { failed, failedOn, hasPrivateFolder, readPrivate, removeLeftovers } from "./folder.ts";

/** The text of an age identity file. `make`: a missing one may be made (a key is to be written), else its absence is an error. */
export type IdentitySource = ((make: boolean) => Promise<string>) & {
  /** For one that is made when it is first wanted. @throws RotatorError ESCROW_FAILED when it is not there and could not be made */
  readonly check?: () => Promise<void>;
};

const MAX_BYTES = 64 * 1024;
const NAME = "escrow-identity.txt";
const CLOSED = {
  what: "A key in escrow cannot be opened, so nothing else was done.",
  state: "The stores hold what they held; the keys in escrow stay closed.",
};
const ADVICE = "Set escrow.identity in the config to an age identity (valueFrom).";

/**
 * The identities in an age identity file: one a line, blank lines and `#` comments between.
 * @throws RotatorError ESCROW_FAILED when there is none, or another line.
 */
export const parseIdentities = (text: string): readonly string[] => {
  const lines = text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  const isSound = lines.every((line) => /^AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]{20,}$/.test(line));
  if (lines.length === 0 || !isSound)
    throw failed("The escrow identity is not an age identity (a line that begins with AGE-SECRET-KEY-1).", {
      do: ["Name a file made by age-keygen in escrow.identity.", "imkit-rotator doctor"],
    });
  return lines;
};

export type DefaultIdentity = {
  /** $XDG_CONFIG_HOME, else ~/.config. */
  readonly configHome: string;
  /** The identity must not lie in here: a copy of it must not hold both the blobs and what opens them. */
  readonly stateDir: string;
};

/**
 * `<configHome>/imkit-rotator/escrow-identity.txt`, 0600, made once; of several processes that make it at a time one wins and all get its.
 * The source throws RotatorError ESCROW_FAILED.
 */
export const defaultIdentity = ({ configHome, stateDir }: DefaultIdentity): IdentitySource => {
  const dir = join(configHome, "imkit-rotator");
  const path = join(dir, NAME);
  const notMade = (code: string): RotatorError =>
    failed(`The escrow identity ${path} could not be made (${code}).`, { do: [ADVICE] });
  const source = async (make: boolean): Promise<string> => {
    if (isInside(path, stateDir))
      throw failed(`The escrow identity would lie inside the state directory (${path}).`, { do: [ADVICE] });
    try {
      if (await hasPrivateFolder(dir, make)) {
        const text = readIdentity(path) ?? (make ? await makeOnce(dir, path, stateDir) : null);
        if (text !== null && make) clear(dir);
        if (text !== null) return text;
      }
    } catch (error) {
      if (error instanceof RotatorError) throw error;
      throw notMade(errnoOf(error) || "unexpected failure");
    }
    throw failed(`The escrow identity ${path} is missing.`, {
      ...CLOSED,
      do: [`Put ${path} back from a backup.`, ADVICE, "imkit-rotator doctor"],
    });
  };
  const check = async (): Promise<void> => {
    const isThere = (await hasPrivateFolder(dir, false)) && readPrivate(path, MAX_BYTES) !== null;
    if (isThere || isInside(path, stateDir)) return void (await source(false));
    const why = await whyNoFiles(dir);
    if (why !== null) throw notMade(why);
  };
  return Object.assign(source, { check });
};

const makeOnce = async (dir: string, path: string, stateDir: string): Promise<string | null> => {
  const sealed = sealedFolders(stateDir);
  // Another process may have made it, and used it, since it was looked for.
  if (sealed.length > 0) return readIdentity(path) ?? lost(path, sealed);
  await writePrivate(dir, NAME, await newIdentity(), "keep").catch(unlessCleared);
  return readIdentity(path);
};

/** Once there is an identity, whatever was begun beside it is of no use. It harms nobody where it cannot be removed. */
const clear = (dir: string): void => {
  try {
    removeLeftovers(dir, NAME);
  } catch {}
};

/** Who made it first has cleared away what this process began. */
const unlessCleared = (error: unknown): void => {
  if (errnoOf(error) !== "ENOENT") throw error;
};

/** Folders of keys that only the identity opens that was made for them. */
const sealedFolders = (stateDir: string): readonly string[] => {
  const names = (dir: string): readonly string[] => {
    try {
      return readdirSync(dir);
    } catch (error) {
      if (["ENOENT", "ENOTDIR"].includes(errnoOf(error))) return [];
      throw failedOn(error, `The folder ${dir} cannot be read`);
    }
  };
  const escrows = names(stateDir).map((app) => join(stateDir, app, "escrow"));
  return escrows.filter((dir) => names(dir).some((name) => name.endsWith(".age")));
};

/** A new identity beside old keys would hide that they are lost, and stand in the way of the old one when it comes back. */
const lost = (path: string, folders: readonly string[]): never => {
  throw failed(
    `The escrow identity ${path} is missing, and keys that only it opens lie in ${folders.join(", ")}.`,
    {
      state: "Nothing was stored. What the stores hold is untouched; the keys in escrow stay closed.",
      do: [
        `Put ${path} back from a backup, or name it in escrow.identity (valueFrom).`,
        "If it is lost for good, move what it sealed out of the way (doctor says what each key was), then run again:",
        ...folders.map((dir) => `mv ${shellPath(dir)} ${shellPath(`${dir}.lost`)}`),
      ],
    },
  );
};

const shellPath = (path: string): string =>
  /^[\w./@%+:,-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;

const isInside = (path: string, dir: string): boolean => {
  const way = relative(dir, path);
  return way !== "" && !isAbsolute(way) && way.split(/[\\/]/)[0] !== "..";
};

const readIdentity = (path: string): string | null => {
  const found = readPrivate(path, MAX_BYTES);
  if (found !== null && (found.mode & 0o077) !== 0)
    throw failed(`${path} may be read or written by others than its owner.`, { do: [`chmod 600 ${path}`] });
  return found?.bytes.toString("utf8") ?? null;
};

const newIdentity = async (): Promise<string> => {
  const age = await import("age-encryption");
  const identity = await age.generateX25519Identity();
  const recipient = await age.identityToRecipient(identity);
  return `# escrow identity of imkit-rotator: opens the keys of open rotations on this machine\n# public key: ${recipient}\n${identity}\n`;
};

type Ring = { readonly text: string; readonly opener: Decrypter; sealer: Promise<Encrypter> | null };

/** Made of the identities that were used last: that costs as much as using them, and each app of a run asks for the same ones. */
let last: Ring | null = null;

const ringOf = async (identities: readonly string[]): Promise<Ring> => {
  const age = await import("age-encryption");
  const text = identities.join("\n");
  if (last?.text === text) return last;
  const opener = new age.Decrypter();
  for (const identity of identities) opener.addIdentity(identity);
  last = { text, opener, sealer: null };
  return last;
};

const sealerFor = async (identity = ""): Promise<Encrypter> => {
  const age = await import("age-encryption");
  const sealer = new age.Encrypter();
  sealer.addRecipient(await age.identityToRecipient(identity));
  return sealer;
};

/** One identity of the file encrypts, each may open. */
export const sealWith = async (identities: readonly string[], bytes: Uint8Array): Promise<Uint8Array> => {
  try {
    const ring = await ringOf(identities);
    ring.sealer ??= sealerFor(identities[0]);
    return await (await ring.sealer).encrypt(bytes);
  } catch (error) {
    throw failedOn(error, "The escrow identity cannot encrypt");
  }
};

/** @throws RotatorError ESCROW_FAILED naming `path` when none of the identities opens the blob, or it is damaged. */
export const openWith = async (
  identities: readonly string[],
  blob: Uint8Array,
  path: string,
): Promise<Uint8Array> => {
  try {
    return await (await ringOf(identities)).opener.decrypt(blob);
  } catch {
    throw failed(`${path} is damaged, or was encrypted for another escrow identity.`, {
      ...CLOSED,
      do: ["Restore the escrow identity that was in use, or the file from a backup.", "imkit-rotator doctor"],
    });
  }
};
