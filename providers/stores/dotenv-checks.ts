import { constants } from "node:fs";
import { dirname } from "node:path";
import type { ProviderError } from "../../src/core/errors.ts";
import type { Check } from "../../src/ports.ts";
import { check } from "../kit.ts";
import { type InPlace, type Loaded, removeLeftover, temporaryOf } from "./dotenv-file.ts";
import type { Calls } from "./dotenv-calls.ts";

/** Whether mode and owner could be kept. */
export const permission = async (calls: Calls, { path, stat }: Loaded, inPlace: InPlace): Promise<Check> => {
  if (inPlace !== null) return await mayWrite(calls, "permission", path);
  const [user, groups] = [process.geteuid?.() ?? 0, process.getgroups?.() ?? []];
  const keepsOwner =
    user === 0 || (Number(stat.uid) === user && [...groups, process.getegid?.()].includes(Number(stat.gid)));
  if (keepsOwner) return await mayWrite(calls, "permission", dirname(path));
  const message = `${path} belongs to ${stat.uid}:${stat.gid}, and this user cannot keep that`;
  return check.fail("permission", message, `Run as that user, or as root.`, "AUTHZ");
};

/** As the operating system says it. */
export const mayWrite = async (calls: Calls, id: string, path: string): Promise<Check> => {
  try {
    await calls.access(path, constants.W_OK);
    return check.ok(id, `${path} may be written`);
  } catch {
    return check.fail(id, `this user may not write to ${path}`, `Give it write access to ${path}.`, "AUTHZ");
  }
};

/** What a person may want otherwise. */
export const oddities = ({ path, stat }: Loaded, inPlace: InPlace): readonly Check[] => {
  const mode = Number(stat.mode & 0o777n);
  const open: Check = check.warn(
    "mode",
    `${path} is open to others (mode ${mode.toString(8).padStart(4, "0")})`,
    `chmod 0640 ${path}`,
  );
  const why = inPlace === "mount" ? "is mounted by itself" : "has hard links";
  const place: Check = check.warn(
    "in-place",
    `${path} ${why}, so it is written in place, after an encrypted copy; a crash can leave it half written`,
    inPlace === "mount" ? "Mount its folder instead of the file." : "Replace the hard links by symlinks.",
  );
  return [...((mode & 0o037) === 0 ? [] : [open]), ...(inPlace === null ? [] : [place])];
};

/** A call ends in under 60 s: what is older belongs to nobody. */
export const leftover = async (calls: Calls, path: string): Promise<readonly Check[]> => {
  if ((await removeLeftover(calls, path, 60_000)) !== "kept") return [];
  const fix = `The next write removes it. If nothing is running: rm ${temporaryOf(path)}`;
  return [check.warn("leftover", "a temporary file of a run that is at work, or was killed", fix)];
};

/** An error that a write would end in. */
export const failed = (id: string, error: ProviderError): Check =>
  check.fail(id, error.hint, FIXES[error.code] ?? "Mend what is named and run again.", error.code);
const FIXES: Readonly<Record<string, string>> = {
  NOT_FOUND: "Create the file, or set create: true.",
  UNSUPPORTED: "privateKey: { valueFrom: { file: .env.keys } }",
  KMS: "Name the private key that belongs to the file's public key.",
  AUTHZ: "Give this user access to the file and its folder.",
  CONFLICT: "Keep one of the lines and remove the others.",
};
