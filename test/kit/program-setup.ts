import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";

/** Gives the workers of one run a folder to share the built program in; it is built by the first test that wants it. */
export const setup = (project: TestProject): (() => void) => {
  const folder = mkdtempSync(join(tmpdir(), "imkit-rotator-program-"));
  project.provide("programFolder", folder);
  return () => rmSync(folder, { recursive: true, force: true });
};
