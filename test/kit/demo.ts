import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { cleanEnv } from "./program.ts";

export const inFolder = async <T>(work: (folder: string) => Promise<T>): Promise<T> => {
  const folder = mkdtempSync(join(tmpdir(), "demo-test-"));
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};

type Ended = { readonly code: number | null; readonly out: string; readonly err: string };
/** Runs `demo` with a folder of its own for temporary files, which must be empty afterwards. */
export const demo = (
  file: string,
  args: readonly string[],
  { signal, at }: { readonly signal?: NodeJS.Signals; readonly at?: RegExp } = {},
): Promise<Ended> =>
  inFolder(async (cwd) => {
    const tmp = join(cwd, "a b");
    mkdirSync(tmp);
    const env = cleanEnv(cwd, {
      TMPDIR: tmp,
      // None of these may get into the demo.
      IMKIT_ROTATOR_CONFIG: "/nowhere/config.yaml",
      STATE_DIRECTORY: "/nowhere",
      IMKIT_BASE_URL: "http://127.0.0.1:9",
      FORCE_COLOR: "1",
    });
    const child = spawn(process.execPath, [file, "demo", ...args], {
      cwd,
      env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let out = "";
    let err = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      out += text;
      // Once: a second one means "now", without a word.
      if (signal !== undefined && !child.killed && at?.test(out)) child.kill(signal);
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      err += text;
    });
    const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
    expect(readdirSync(tmp), "files are left behind").toEqual([]);
    expect(readdirSync(cwd)).toEqual(["a b"]);
    return { code, out, err };
  });
