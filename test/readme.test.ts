import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { parseEnv } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadRolloutProvider, loadStoreProvider } from "../providers/index.ts";
import { CODES } from "../src/core/errors.ts";
import { loadConfig } from "../src/io/config.ts";
import { buildProgram } from "../src/shell/args.ts";
import { person } from "../src/shell/demo/person.ts";
import { findKey } from "./kit/leak.ts";
import { cleanEnv, programRoot } from "./kit/program.ts";

const repository = join(import.meta.dirname, "..");
const text = readFileSync(join(repository, "README.md"), "utf8");

type Block = { readonly kind: string; readonly note: string; readonly lines: readonly string[] };
const FENCE = /(?:<!-- test: ([^>]*?) -->\n)?^```(\w*)\n([\s\S]*?)^```$/gm;
const blocks: readonly Block[] = [...text.matchAll(FENCE)].map(([, note = "", kind = "", body = ""]) => ({
  kind,
  note,
  lines: body.split("\n").filter((line) => line.trim() !== ""),
}));
const executed = blocks.filter(({ kind }) => kind === "sh");

describe("README's commands", () => {
  let work = "";
  beforeAll(() => {
    work = mkdtempSync(join(tmpdir(), "readme-test-"));
    mkdirSync(join(work, "bin"));
    // Stands for the reader's password manager.
    const pass = join(work, "bin", "pass");
    writeFileSync(pass, `#!/bin/sh\n[ "$*" = "show imkit/chat" ] && cat '${join(work, "new-key")}'\n`);
    chmodSync(pass, 0o755);
  });
  afterAll(() => rmSync(work, { recursive: true, force: true }));

  const start = (line: string, cwd = work): ChildProcess => {
    const env = cleanEnv(work);
    const folders = [join(env["HOME"] ?? "", ".local", "bin"), join(work, "bin"), env["PATH"]];
    return spawn("bash", ["-c", `exec 2>&1; ${line}`], {
      cwd,
      env: { ...env, PATH: folders.join(delimiter) },
      stdio: ["ignore", "pipe", "inherit"],
    });
  };
  const run = async (
    line: string,
    cwd?: string,
  ): Promise<{ readonly code: number; readonly out: string }> => {
    const child = start(line, cwd);
    let out = "";
    child.stdout?.setEncoding("utf8").on("data", (part: string) => {
      out += part;
    });
    const [code] = (await once(child, "close")) as [number];
    return { code, out };
  };
  const dashboard = () => {
    const env = parseEnv(readFileSync(join(work, ".env"), "utf8"));
    return person(env["IMKIT_BASE_URL"] ?? "");
  };
  /** Three proofs 5 s apart are right, and too slow for a test. */
  const hurry = (): void => {
    const file = join(work, "imkit-rotator.config.yaml");
    writeFileSync(file, readFileSync(file, "utf8").replace("every: 5s", "every: 10ms"));
  };

  it("are executed in order, and end as it says", async () => {
    const running: ChildProcess[] = [];
    const file = (name: string): string => join(work, name);
    /** What happens before a block, by its note: the reader's own acts. */
    const before: Readonly<Record<string, (line: string) => Promise<unknown>>> = {
      "": async () => true,
      "in the clone": async () => true,
      "runs in the background": async (line) => {
        running.push(start(`exec ${line}`));
        return expect.poll(() => existsSync(file(".env")), { timeout: 10_000 }).toBe(true);
      },
      "the person issues a key": async () => writeFileSync(file("new-key"), await dashboard().issue()),
      "the person revokes the old key": async () => expect(await dashboard().revokeOldest()).toBe(true),
    };
    const results: { readonly line: string; readonly code: number; readonly out: string }[] = [];
    for (const { note, lines } of executed) {
      expect(before).toHaveProperty([note]);
      await before[note]?.(lines[0] ?? "");
      for (const line of note === "runs in the background" ? [] : lines) {
        results.push({ line, ...(await run(line, note === "in the clone" ? await programRoot() : work)) });
        if (line.includes(" init ")) hurry();
      }
    }
    const ended = running.map(async (child) => {
      const end = once(child, "close");
      child.kill("SIGTERM");
      return (await end)[0] as number;
    });
    expect(await Promise.all(ended)).toEqual([143]);
    const wanted = (line: string): number => Number(/# exit (\d+)/.exec(line)?.[1] ?? "0");
    expect(results.filter(({ line, code }) => code !== wanted(line))).toEqual([]);
    const said = results.map(({ out }) => out).join("");
    expect(said).toMatch(/Done: rotation r-\w+ is closed/);
    const key = readFileSync(file("new-key"), "utf8");
    expect(readFileSync(file(".env"), "utf8")).toContain(key);
    expect(findKey(said, key)).toEqual([]);
  });
});

describe("README", () => {
  const program = buildProgram(() => undefined);
  /** Every `imkit-rotator …` in a block of commands, and every `command …` in running text. */
  const mentioned = [
    ...blocks.filter(({ kind }) => kind === "sh" || kind === "console").flatMap(({ lines }) => lines),
    ...[...text.matchAll(/`([^`\n]+)`/g)].map(([, code = ""]) => code),
  ].flatMap((line) => {
    const words = line
      .replace(/#.*|[|<>].*$/, "")
      .trim()
      .split(/\s+/);
    const at = words.indexOf("imkit-rotator");
    const first = words[at + 1] ?? "";
    return (at >= 0 && words.length > at + 1) ||
      program.commands.some((c) => c.name() === first && words.length > 1)
      ? [words.slice(at + 1)]
      : [];
  });

  it("names only commands and options that there are", () => {
    expect(mentioned.length).toBeGreaterThan(15);
    for (const words of mentioned) {
      const [name = "", second = ""] = words;
      const top = program.commands.find((c) => c.name() === name);
      expect(top, `imkit-rotator ${name}`).toBeDefined();
      const command = top?.commands.find((c) => c.name() === second) ?? top;
      const known = [program, command].flatMap((c) => c?.options.flatMap((o) => [o.long, o.short]) ?? []);
      const options = words.filter((w) => w.startsWith("-")).map((w) => w.split("=")[0] ?? "");
      expect(options.filter((option) => !known.includes(option))).toEqual([]);
    }
  });

  it("names only npm scripts and files that there are", () => {
    const { scripts } = JSON.parse(readFileSync(join(repository, "package.json"), "utf8"));
    const runs = [...text.matchAll(/npm (?:run (\w+)|(test))/g)].map(([, a, b]) => a ?? b ?? "");
    expect(runs.length).toBeGreaterThan(2);
    for (const name of runs) expect(scripts).toHaveProperty([name]);
    const links = [...text.matchAll(/\]\(([^)]+)\)/g)].map(([, link = ""]) => link);
    const files = [...text.matchAll(/test\/[\w-]+\.test\.ts/g)].map(([file]) => file);
    expect([...links, ...files].filter((file) => !existsSync(join(repository, file)))).toEqual([]);
  });

  it("has every exit code that the program has", () => {
    const listed = [...text.matchAll(/^\| (\d+)(?: \/ (\d+))? \|/gm)]
      .flatMap(([, a, b]) => [a, b])
      .flatMap((n) => Number(n ?? []));
    expect(new Set(listed)).toEqual(new Set([0, 5, 143, ...Object.values(CODES).map(({ exit }) => exit)]));
  });

  it("shows a config that is sound", async () => {
    const folder = mkdtempSync(join(tmpdir(), "readme-config-"));
    try {
      const file = join(folder, "imkit-rotator.config.yaml");
      const [yaml] = blocks.filter(({ kind }) => kind === "yaml");
      writeFileSync(file, `${yaml?.lines.join("\n")}\n`);
      const schemaOf = async (half: "store" | "rollout", type: string, dir: string) =>
        (await (half === "store" ? loadStoreProvider : loadRolloutProvider)(type, dir)).schema;
      const config = await loadConfig(file, { env: {}, schemaOf });
      expect(config.apps.get("chat-prod")?.stores.length).toBe(5);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
