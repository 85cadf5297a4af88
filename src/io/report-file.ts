import { randomBytes } from "node:crypto";
import { lstat, open, readdir, rename, unlink } from "node:fs/promises";
import { join } from "node:path";
import { RotatorError } from "../core/errors.ts";
import { codeOf } from "./ledger/file.ts";
import { makeFolder } from "./make-folder.ts";

export type ReportFiles = { readonly markdown: string; readonly json: string };

const TEMPORARY = ".tmp-";
const DAY_MS = 86_400_000;

/**
 * Puts a report of one rotation into `dir`: `<rotation>.md` and `<rotation>.json`, in place of what an earlier run put there. Each is there as a
 * whole or not at all, and durable when this returns. Folder 0700, files 0600.
 * @returns both paths
 * @throws RotatorError STATE_UNUSABLE; what was there before stays
 */
export const writeReport = async (
  dir: string,
  rotation: string,
  report: { readonly markdown: string; readonly json: unknown },
): Promise<ReportFiles> => {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(rotation))
    throw new RotatorError("STATE_UNUSABLE", { why: "The rotation's id makes no file name." });
  const files = { markdown: join(dir, `${rotation}.md`), json: join(dir, `${rotation}.json`) };
  try {
    await makeFolder(dir);
    await replace(dir, files.json, `${JSON.stringify(report.json, null, 2)}\n`);
    await replace(
      dir,
      files.markdown,
      report.markdown.endsWith("\n") ? report.markdown : `${report.markdown}\n`,
    );
  } catch (error) {
    throw new RotatorError("STATE_UNUSABLE", {
      what: "The incident report could not be written.",
      why: `${dir}: ${codeOf(error)}.`,
      state: "The rotation itself is not touched by this.",
      do: [`Make ${dir} writable; the next run of the same rotation writes the report again.`],
    });
  }
  await removeStale(dir, files.markdown);
  return files;
};

const replace = async (dir: string, path: string, text: string): Promise<void> => {
  const temporary = join(dir, `${TEMPORARY}${randomBytes(12).toString("hex")}`);
  try {
    const file = await open(temporary, "wx", 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary).catch(() => {});
    throw error;
  }
  const folder = await open(dir, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
};

/** What killed processes left, older by a day than the file just made. The file system's own clock decides. */
const removeStale = async (dir: string, made: string): Promise<void> => {
  try {
    const now = (await lstat(made)).mtimeMs;
    for (const name of (await readdir(dir)).filter((each) => each.startsWith(TEMPORARY))) {
      const path = join(dir, name);
      if ((await lstat(path)).mtimeMs < now - DAY_MS) await unlink(path);
    }
  } catch {
    // They harm nobody.
  }
};
