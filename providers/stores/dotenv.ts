import { createHash, createHmac, randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { dirname } from "node:path";
import * as z from "zod/mini";
import { ProviderError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Check, Revision, Store, Stored, WriteOp } from "../../src/ports.ts";
import { bounded, CALL_LIMIT_MS, defineStore, resolvePath, type Tools } from "../kit.ts";
import {
  createFile,
  type Hooks,
  type Loaded,
  loadFile,
  removeLeftover,
  replaceFile,
  syncFile,
  temporaryOf,
} from "./dotenv-file.ts";
import { type EnvFile, lastLine, MAX_BYTES, readEnv, readsAs, withValue } from "./dotenv-text.ts";

const schema = z.strictObject({
  path: z
    .string()
    .check(
      z.minLength(1),
      z.describe("The env file. `~/` is the home folder; a relative path starts at the config file."),
    ),
  key: z
    ._default(z.string().check(z.regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/)), "IMKIT_API_KEY")
    .check(z.describe("Name of the variable.")),
  create: z._default(z.boolean(), false).check(z.describe("Make the file (mode 0600) when it is not there.")),
});
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
export const openDotenv = ({ path: given, key, create }: Config, tools: Tools, hooks: Hooks = {}): Store => {
  const path = resolvePath(given, tools);
  const where = `dotenv:${path}#${key}`;

  const understood = (loaded: Loaded): EnvFile => {
    const file = readEnv(loaded.bytes, key);
    if ("code" in file)
      throw new ProviderError(file.code, "not_applied", `${path}:${file.line}: ${file.why}`);
    return file;
  };
  const storedIn = (file: EnvFile): Stored | null => {
    if (file.entry === null || file.entry.value === "") return null;
    const secret = new Secret(Buffer.from(file.entry.value, "latin1"));
    return { secret, revision: revisionOf(where, secret), createdAt: null, witness: null };
  };
  const edited = (file: EnvFile, next: Secret): Uint8Array => {
    const bytes = withValue(file, next.reveal());
    if (bytes === null)
      throw refused("UNSUPPORTED", "the key has a character that env files do not hold safely");
    if (readsAs(file, bytes, next.reveal())) return bytes;
    const spot = `${path}:${file.entry?.line ?? lastLine(file)}`;
    throw refused(
      "VERIFY_MISMATCH",
      `${spot}: with the new value in it, readers of env files would disagree on the file`,
    );
  };

  const read = (signal: AbortSignal): Promise<Stored | null> =>
    bounded(signal, CALL_LIMIT_MS, async () => {
      const loaded = await loadFile(path, MAX_BYTES);
      if (loaded !== null) return storedIn(understood(loaded));
      if (create) return null;
      throw absent(path);
    });

  const write = (
    next: Secret,
    expect: Revision | null,
    _op: WriteOp,
    signal: AbortSignal,
  ): Promise<Revision> =>
    bounded(signal, CALL_LIMIT_MS, (_, commit) =>
      inTurn(path, async () => {
        const swap = {
          ...hooks,
          commit,
          backup: (bytes: Uint8Array) => tools.backup(backupName(where), bytes),
        };
        const loaded = await loadFile(path, MAX_BYTES);
        if (loaded === null) {
          if (!create) throw absent(path);
          if (expect !== null) throw refused("CONFLICT", `${path} is gone`);
          await createFile(path, edited({ text: "", key, entry: null, eol: "\n" }, next), swap);
          return revisionOf(where, next);
        }
        const file = understood(loaded);
        const now = storedIn(file);
        if (now?.secret.equals(next)) {
          await removeLeftover(loaded.path, 0);
          await syncFile(loaded.path);
          return now.revision;
        }
        if ((now?.revision ?? null) !== expect)
          throw refused("CONFLICT", `${path} holds another value by now`);
        await replaceFile(path, loaded, edited(file, next), swap);
        return revisionOf(where, next);
      }),
    );

  const preflight = async (signal: AbortSignal): Promise<readonly Check[]> => {
    try {
      return await bounded(signal, CALL_LIMIT_MS, async () => {
        const loaded = await loadFile(path, MAX_BYTES);
        if (loaded === null)
          return create ? [await mayWrite("folder", dirname(path))] : [failed("file", absent(path))];
        edited(understood(loaded), SAMPLE);
        return [
          { id: "file", status: "ok", message: `${path} is understood` },
          await permission(loaded),
          ...oddities(loaded),
          ...(await leftover(loaded.path)),
        ];
      });
    } catch (error) {
      if (error instanceof ProviderError) return [failed("file", error)];
      return [{ id: "file", status: "unproved", message: `${path} cannot be checked` }];
    }
  };

  return {
    where,
    caps: { staging: false, compareAndSwap: false, witness: false, retire: false },
    preflight,
    read,
    write,
  };
};

const permission = async ({ path, stat, inPlace }: Loaded): Promise<Check> => {
  if (inPlace !== null) return await mayWrite("permission", path);
  const [user, groups] = [process.geteuid?.() ?? 0, process.getgroups?.() ?? []];
  const keepsOwner =
    user === 0 || (Number(stat.uid) === user && [...groups, process.getegid?.()].includes(Number(stat.gid)));
  if (keepsOwner) return await mayWrite("permission", dirname(path));
  const message = `${path} belongs to ${stat.uid}:${stat.gid}, and this user cannot keep that`;
  return { id: "permission", status: "fail", message, fix: `Run as that user, or as root.`, code: "AUTHZ" };
};

const mayWrite = async (id: string, path: string): Promise<Check> => {
  const allowed = await access(path, constants.W_OK).then(
    () => true,
    () => false,
  );
  if (allowed) return { id, status: "ok", message: `${path} may be written` };
  return {
    id,
    status: "fail",
    message: `this user may not write to ${path}`,
    fix: `Give it write access to ${path}.`,
    code: "AUTHZ",
  };
};

const oddities = ({ path, stat, inPlace }: Loaded): readonly Check[] => {
  const mode = Number(stat.mode & 0o777n);
  const open: Check = {
    id: "mode",
    status: "warn",
    message: `${path} is open to others (mode ${mode.toString(8).padStart(4, "0")})`,
    fix: `chmod 0640 ${path}`,
  };
  const why = inPlace === "mount" ? "is mounted by itself" : "has hard links";
  const place: Check = {
    id: "in-place",
    status: "warn",
    message: `${path} ${why}, so it is written in place, after an encrypted copy; a crash can leave it half written`,
    fix:
      inPlace === "mount" ? "Mount its folder instead of the file." : "Replace the hard links by symlinks.",
  };
  return [...((mode & 0o037) === 0 ? [] : [open]), ...(inPlace === null ? [] : [place])];
};

/** A call ends in under 60 s: what is older belongs to nobody. */
const leftover = async (path: string): Promise<readonly Check[]> => {
  if ((await removeLeftover(path, 60_000)) !== "kept") return [];
  const fix = `The next write removes it. If nothing is running: rm ${temporaryOf(path)}`;
  return [
    {
      id: "leftover",
      status: "warn",
      message: "a temporary file of a run that is at work, or was killed",
      fix,
    },
  ];
};

const failed = (id: string, error: ProviderError): Check => ({
  id,
  status: "fail",
  message: error.hint,
  fix: FIXES[error.code] ?? "Mend what is named and run again.",
  code: error.code,
});
const FIXES: Readonly<Record<string, string>> = {
  NOT_FOUND: "Create the file, or set create: true.",
  AUTHZ: "Give this user access to the file and its folder.",
  CONFLICT: "Keep one of the lines and remove the others.",
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

/** Of the value alone: an edit of a neighbour is kept and is no conflict. Keyed by this process: no digest of the key in the ledger. */
const REVISION_KEY = randomBytes(32);
const revisionOf = (where: string, secret: Secret): Revision =>
  createHmac("sha256", REVISION_KEY)
    .update(`${where}\0`)
    .update(secret.reveal())
    .digest("hex")
    .slice(0, 32) as Revision;

const backupName = (where: string): string =>
  `dotenv-${createHash("sha256").update(where).digest("hex").slice(0, 16)}`;
/** Stands in for the key where a preflight tries the edit in memory. */
const SAMPLE = new Secret("A".repeat(60));
const refused = (code: ProviderError["code"], hint: string): ProviderError =>
  new ProviderError(code, "not_applied", hint);
const absent = (path: string): ProviderError =>
  refused("NOT_FOUND", `${path} does not exist; create: true makes it`);
