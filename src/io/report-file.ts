import { join } from "node:path";
import { RotatorError } from "../core/errors.ts";
import { errnoOf, removeStale, writePrivate } from "./disk.ts";
import { makeFolder } from "./make-folder.ts";

export type ReportFiles = { readonly markdown: string; readonly json: string };

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
    makeFolder(dir);
    await writePrivate(dir, `${rotation}.json`, `${JSON.stringify(report.json, null, 2)}\n`, "replace");
    const text = report.markdown.endsWith("\n") ? report.markdown : `${report.markdown}\n`;
    await writePrivate(dir, `${rotation}.md`, text, "replace");
  } catch (error) {
    throw new RotatorError("STATE_UNUSABLE", {
      what: "The incident report could not be written.",
      why: `${dir}: ${errnoOf(error) || "unknown error"}.`,
      state: "The rotation itself is not touched by this.",
      do: [`Make ${dir} writable; the next run of the same rotation writes the report again.`],
    });
  }
  removeStale(dir, files.markdown);
  return files;
};
