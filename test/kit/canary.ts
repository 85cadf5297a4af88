import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { findKey } from "./leak.ts";
import { cleanEnv, programFile, programRoot, type Ran } from "./program.ts";

/** Where something could come out, by name, with all that came out there (bytes as latin1). */
export type Sinks = Map<string, string>;

export type WatchOptions = {
  readonly stdin?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
  readonly nodeArgs?: readonly string[];
  /** Another launcher than the built one. */
  readonly file?: string;
  readonly signalAfter?: { readonly text: RegExp; readonly signal: NodeJS.Signals };
  /** The user put the key there: the program's own words and variables are not looked at, those of its children are. */
  readonly given?: "argv" | "env";
};

/**
 * Runs the program in `dir` and keeps what it prints and, every 10 ms, the arguments and variables of it and of every process below it.
 */
export const watchProgram = async (
  dir: string,
  args: readonly string[],
  sinks: Sinks,
  options: WatchOptions = {},
): Promise<Ran> => {
  const file = options.file ?? (await programFile());
  mkdirSync(join(dir, "tmp"), { recursive: true });
  const child = spawn(process.execPath, [...(options.nodeArgs ?? []), file, ...args], {
    cwd: dir,
    env: cleanEnv(dir, { TMPDIR: join(dir, "tmp"), ...options.env }),
    stdio: ["pipe", "pipe", "pipe"],
  });
  const text = { stdout: "", stderr: "" };
  let signalled = false;
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("latin1").on("data", (part: string) => {
      text[name] += part;
      const after = options.signalAfter;
      if (after === undefined || signalled || !after.text.test(text.stdout + text.stderr)) return;
      signalled = true;
      child.kill(after.signal);
    });
  }
  child.stdin.on("error", () => {});
  child.stdin.end(options.stdin ?? "");
  const seen = new Map<string, string>();
  const sample = (): void => {
    for (const { pid, below } of familyOf(child.pid ?? 0)) {
      // Between fork and exec a child is still a copy of the program.
      if (below && cmdlineOf(pid) === cmdlineOf(child.pid ?? 0)) continue;
      if (below || options.given !== "argv") keep(seen, pid, "cmdline");
      if (below || options.given !== "env") keep(seen, pid, "environ");
    }
  };
  const timer = setInterval(sample, 10);
  const ended = await new Promise<Pick<Ran, "code" | "signal">>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal }));
  });
  clearInterval(timer);
  add(sinks, "stdout", text.stdout);
  add(sinks, "stderr", text.stderr);
  for (const [where, what] of seen) add(sinks, where.split(" ")[1] ?? "", what);
  return { ...ended, ...text };
};

const add = (sinks: Sinks, name: string, text: string): void =>
  void sinks.set(name, `${sinks.get(name) ?? ""}${text}\n`);

const cmdlineOf = (pid: number): string | null => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1");
  } catch {
    return null;
  }
};

const keep = (seen: Map<string, string>, pid: number, what: "cmdline" | "environ"): void => {
  try {
    // A process may rewrite both while it lives.
    const text = readFileSync(`/proc/${pid}/${what}`, "latin1");
    seen.set(`${pid}-${text.length} ${what}`, text);
  } catch {
    // It has gone meanwhile.
  }
};

const familyOf = (
  pid: number,
  below = false,
): readonly { readonly pid: number; readonly below: boolean }[] => {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").split(" ").filter(Boolean);
    return [{ pid, below }, ...children.flatMap((child) => familyOf(Number(child), true))];
  } catch {
    return [];
  }
};

/**
 * Adds every file below `dir`, by what it is for: ledger, reports, escrow, state, identity, temporary files, others. `except` are those that may hold
 * a key: stores, and what the user gave.
 */
export const addFiles = (dir: string, sinks: Sinks, except: readonly string[]): void => {
  for (const path of readdirSync(dir, { recursive: true, encoding: "utf8" })) {
    const full = join(dir, path);
    if (!existsSync(full) || !lstatSync(full).isFile() || except.includes(path)) continue;
    add(sinks, kindOf(path), `${path}\n${readFileSync(full, "latin1")}`);
  }
};

const kindOf = (path: string): string => {
  if (path.includes("tmp")) return "temporary files";
  if (!path.startsWith("state")) return path.startsWith("home") ? "home" : "folder";
  return /\/(ledger|reports|escrow)\//.exec(path)?.[1] ?? "state";
};

/** `<sink>: <encoding>` for each place where one of the keys stands in any form. */
export const leaksIn = (sinks: Sinks, keys: readonly string[]): readonly string[] =>
  [...sinks].flatMap(([name, text]) =>
    keys.flatMap((key) => findKey(text, key).map((encoding) => `${name}: ${encoding}`)),
  );

/** A copy of the built program in which every key, as it becomes a Secret, is handed to `globalThis.plant`. @returns its launcher */
export const plantedProgram = async (dir: string): Promise<string> => {
  const root = await programRoot();
  const copy = mkdtempSync(join(dir, "planted-"));
  for (const part of ["bin", "dist", "package.json"])
    cpSync(join(root, part), join(copy, part), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  const constructors = /this\.#\w+\s*=\s*Buffer\.from\((\w+)\)/g;
  let found = 0;
  for (const name of readdirSync(join(copy, "dist"), { recursive: true, encoding: "utf8" })) {
    if (!name.endsWith(".cjs")) continue;
    const path = join(copy, "dist", name);
    const source = readFileSync(path, "utf8");
    const planted = source.replace(constructors, (all: string, text: string) => {
      found++;
      return `${all},globalThis.plant(String(Buffer.from(${text})))`;
    });
    if (planted !== source) writeFileSync(path, planted);
  }
  if (found !== 1) throw new Error(`the constructor of Secret was found ${found} times in dist`);
  return join(copy, "bin", "imkit-rotator.cjs");
};

/** A file for `node --require` that does `body` with the first `key`. (The row of one letter is what a preflight writes in memory.) */
export const plantFile = (dir: string, name: string, body: string): string => {
  const path = join(dir, `plant-${name}.cjs`);
  writeFileSync(
    path,
    `const fs = require("node:fs"), cp = require("node:child_process"), os = require("node:os");\n` +
      `const at = (folder) => fs.mkdirSync(folder, { recursive: true, mode: 0o700 });\n` +
      `globalThis.plant = (key) => { if (globalThis.planted || /^(.)\\1*$/.test(key)) return; globalThis.planted = true; ${body} };\n`,
  );
  return path;
};
