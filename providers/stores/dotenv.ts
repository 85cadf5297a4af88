import { createHash } from "node:crypto";
import { dirname } from "node:path";
import * as z from "zod/mini";
import { ProviderError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Check, Revision, Store } from "../../src/ports.ts";
import { flag, nonEmpty, secretFrom } from "../config-keys.ts";
import { bounded, CALL_LIMIT_MS, check, defineStore, refused, resolvePath, type Tools } from "../kit.ts";
import { plainCoding } from "./dotenv-coding.ts";
import {
  createFile,
  type Hooks,
  inPlaceOf,
  loadFile,
  removeLeftover,
  replaceFile,
  type Swap,
  syncFile,
} from "./dotenv-file.ts";
import { type Calls, callsFor } from "./dotenv-calls.ts";
import { PUBLIC_KEY, sealedCoding, unknown } from "./dotenv-sealed.ts";
import {
  type EnvFile,
  lastLine,
  MAX_BYTES,
  readEnv,
  readsAs,
  withoutValue,
  withValue,
} from "./dotenv-text.ts";

const schema = z
  .strictObject({
    path: nonEmpty("The env file. `~/` is the home folder; a relative path starts at the config file."),
    key: z
      ._default(z.string().check(z.regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/)), "IMKIT_API_KEY")
      .check(z.describe("Name of the variable.")),
    create: flag(false, "Make the file (mode 0600) when it is not there."),
    encrypted: z.exactOptional(
      z.boolean().check(z.describe("An encrypted env file, as dotenvx makes it: the value is sealed.")),
    ),
    publicKey: z.exactOptional(
      z
        .string()
        .check(
          z.regex(PUBLIC_KEY),
          z.describe("What to seal with: 66 hex digits. Default: the DOTENV_PUBLIC_KEY of the file."),
        ),
    ),
    privateKey: z.exactOptional(
      secretFrom(
        "What to unseal with (DOTENV_PRIVATE_KEY). Without it the key can be written only.",
        "Path of a file: the private key, or a .env.keys file.",
      ),
    ),
  })
  .check(
    z.refine(
      (c) => c.encrypted === true || (c.publicKey === undefined && c.privateKey === undefined),
      "publicKey and privateKey are for encrypted: true",
    ),
    z.refine(
      (c) => c.encrypted !== true || !c.create || c.publicKey !== undefined,
      "create: true of an encrypted file wants its publicKey",
    ),
  );
type Config = z.infer<typeof schema>;

/**
 * One variable of an env file. Only the bytes of its value change. What common readers understand in different ways is refused with the
 * line, and an entry without a value counts as absent: it is filled.
 *
 * Known limits. There is no conditional write on plain files: between the last look and the rename, microseconds, an editor can slip
 * in. Mode, owner and group are kept, or the write is refused; extended attributes and ACLs cannot be kept by a rename (Node cannot
 * read them). A file that is a mount point (one file mounted into a container) or has hard links is written in place, after an
 * encrypted copy went beside the escrow: that is not all or nothing. Two *processes* at work on one file, for two apps, can meet in
 * the one temporary file: one of them then gets CONFLICT.
 */
export default defineStore({ kind: "dotenv", schema, open: (config, tools) => openDotenv(config, tools) });

/** `hooks` are for tests. */
export const openDotenv = (config: Config, tools: Tools, hooks: Hooks = {}): Store => {
  const { key, create, encrypted = false, publicKey, privateKey } = config;
  const path = resolvePath(config.path, tools);
  const where = `dotenv:${path}#${key}`;
  const coding = encrypted ? sealedCoding({ path, where, publicKey, privateKey }, tools) : plainCoding(where);

  let asked: Promise<Calls> | null = null;
  const files = async (): Promise<Calls> => hooks.calls ?? (await (asked ??= callsFor(path)));

  const understood = (bytes: Uint8Array): EnvFile => {
    const file = readEnv(bytes, key, encrypted);
    if ("code" in file) throw refused(file.code, `${path}:${file.line}: ${file.why}`);
    return file;
  };
  const edited = async (file: EnvFile, next: Secret) => {
    const { text, revision } = await coding.encode(file, next);
    const bytes = withValue(file, text, coding.quote);
    if (bytes === null)
      throw refused("UNSUPPORTED", "the key has a character that env files do not hold safely");
    if (readsAs(file, bytes, text)) return { bytes, revision };
    const spot = `${path}:${file.entry?.line ?? lastLine(file)}`;
    throw refused(
      "VERIFY_MISMATCH",
      `${spot}: with the new value in it, readers of env files would disagree on the file`,
    );
  };

  const read: Store["read"] = (signal) =>
    bounded(signal, CALL_LIMIT_MS, async () => {
      const loaded = await loadFile(await files(), path, MAX_BYTES);
      if (loaded === null && !create) throw absent(path);
      const held = loaded === null ? null : await coding.read(understood(loaded.bytes));
      if (held === null) return null;
      const { secret, revision } = held;
      if (secret === null) throw unknown(path);
      return { secret, revision, createdAt: null, witness: null };
    });

  const swapping = (commit: () => void): Swap => ({
    ...hooks,
    commit,
    backup: (bytes: Uint8Array) => tools.backup(backupName(where), bytes),
  });

  const write: Store["write"] = (next, expect, _op, signal) =>
    bounded(signal, CALL_LIMIT_MS, (_, commit) =>
      inTurn(path, async () => {
        const [calls, swap] = [await files(), swapping(commit)];
        const loaded = await loadFile(calls, path, MAX_BYTES);
        if (loaded === null) {
          if (!create) throw absent(path);
          if (expect !== null) throw refused("CONFLICT", `${path} is gone`);
          const { bytes, revision } = await edited(made(), next);
          await createFile(calls, path, bytes, swap);
          return revision;
        }
        const file = understood(loaded.bytes);
        const now = await coding.read(file);
        if (now?.secret?.equals(next)) {
          await removeLeftover(calls, loaded.path, 0);
          await syncFile(calls, loaded.path);
          return now.revision;
        }
        if ((now?.revision ?? null) !== expect)
          throw refused("CONFLICT", `${path} holds another value by now`);
        const { bytes, revision } = await edited(file, next);
        await replaceFile(calls, path, loaded, bytes, swap);
        return revision;
      }),
    );

  const remove = (expect: Revision, signal: AbortSignal): Promise<void> =>
    bounded(signal, CALL_LIMIT_MS, (_, commit) =>
      inTurn(path, async () => {
        const calls = await files();
        const loaded = await loadFile(calls, path, MAX_BYTES);
        const file = loaded === null ? null : understood(loaded.bytes);
        const now = file === null ? null : await coding.read(file);
        const bytes = file === null ? null : withoutValue(file);
        if (loaded === null || file === null || now === null || bytes === null) return;
        if (now.revision !== expect) throw refused("CONFLICT", `${path} holds another value by now`);
        if (!readsAs(file, bytes, ""))
          throw refused("VERIFY_MISMATCH", `${path}: without the value, readers would disagree on the file`);
        await replaceFile(calls, path, loaded, bytes, swapping(commit));
      }),
    );

  const made = (): EnvFile => understood(Buffer.from(coding.head));
  const preflight = async (signal: AbortSignal): Promise<readonly Check[]> => {
    const { failed, leftover, mayWrite, oddities, permission } = await import("./dotenv-checks.ts");
    try {
      return await bounded(signal, CALL_LIMIT_MS, async () => {
        const calls = await files();
        const loaded = await loadFile(calls, path, MAX_BYTES);
        if (loaded === null && !create) return [failed("file", absent(path))];
        const file = loaded === null ? made() : understood(loaded.bytes);
        const checks = await coding.check(file);
        await edited(file, SAMPLE);
        if (loaded === null) return [await mayWrite(calls, "folder", dirname(path)), ...checks];
        const inPlace = inPlaceOf(loaded);
        return [
          check.ok("file", `${path} is understood`),
          ...checks,
          await permission(calls, loaded, inPlace),
          ...oddities(loaded, inPlace),
          ...(await leftover(calls, loaded.path)),
        ];
      });
    } catch (error) {
      if (error instanceof ProviderError) return [failed("file", error)];
      return [check.unproved("file", `${path} cannot be checked`)];
    }
  };

  return {
    where,
    caps: { staging: false, compareAndSwap: false, witness: false, retire: false },
    preflight,
    read,
    write,
    remove,
  };
};

/** Writes of one process to one file, for several apps, wait for each other. */
const turns = new Map<string, Promise<unknown>>();
const inTurn = <T>(path: string, work: () => Promise<T>): Promise<T> => {
  const mine = (turns.get(path) ?? Promise.resolve()).then(work);
  turns.set(
    path,
    mine.catch(() => {}),
  );
  return mine;
};

const backupName = (where: string): string =>
  `dotenv-${createHash("sha256").update(where).digest("hex").slice(0, 16)}`;
/** Stands in for the key where a preflight tries the edit in memory. */
const SAMPLE = new Secret("A".repeat(60));
const absent = (path: string): ProviderError =>
  refused("NOT_FOUND", `${path} does not exist; create: true makes it`);
