import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { parse } from "yaml";
import type { Io } from "../../src/shell/io.ts";
import { answersOf } from "../../src/shell/init/answers.ts";
import { type EnvFile, findEnvFiles } from "../../src/shell/init/dotenv.ts";
import { ignore } from "../../src/shell/init/ignore.ts";
import { type Answers, configText } from "../../src/shell/init/text.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { type Ran, type RunOptions, runProgram } from "../kit/program.ts";

/** What the person types, in order; null = Enter on what is offered. */
const typed: (string | null)[] = [];
vi.mock("@clack/prompts", () => ({
  isCancel: (answer: unknown) => answer === undefined,
  text: async ({ initialValue }: { readonly initialValue: string }) =>
    typed.length === 0 ? undefined : (typed.shift() ?? initialValue),
}));

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "init-test-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const file = (name = "imkit-rotator.config.yaml"): string => join(folder, name);
const put = (name: string, text: string): void => {
  mkdirSync(join(folder, name, ".."), { recursive: true });
  writeFileSync(join(folder, name), text);
};
const run = (args: readonly string[], options: Partial<RunOptions> = {}): Promise<Ran> =>
  runProgram(args, { cwd: folder, ...options });
const apps = (name?: string): Record<string, { baseUrl: string; stores: readonly unknown[] }> =>
  parse(readFileSync(file(name), "utf8")).apps;

describe("imkit-rotator init", () => {
  it("--yes takes IMKIT_BASE_URL and the key's variable from .env, and the config is one that can be used", async () => {
    const key = madeKey();
    put(".env", `# chat\nOTHER=1\nIMKIT_BASE_URL=https://shop-tw.imkit.io\nIMKIT_API_KEY="${key}"\n`);
    const made = await run(["init", "--yes"]);
    expect(made).toMatchObject({ code: 0, stderr: "" });
    expect(apps()).toMatchObject({
      "shop-tw": {
        baseUrl: "https://shop-tw.imkit.io",
        stores: [{ name: "env", type: "dotenv", path: ".env", key: "IMKIT_API_KEY" }],
      },
    });
    expect(statSync(file()).mode & 0o777 & ~0o022).toBe(0o644);
    expect(made.stdout).toMatch(/imkit-rotator\.cjs doctor\n(.*\n)*.*imkit-rotator\.cjs stage shop-tw\n/);
    expect(findKey(`${made.stdout}${readFileSync(file(), "utf8")}`, key)).toEqual([]);
    const status = await run(["status", "--json"]);
    expect(status.code).toBe(0);
    expect(JSON.parse(status.stdout).apps[0]).toMatchObject({
      app: "shop-tw",
      stores: [{ state: "in-sync" }],
    });
  });

  it("--yes takes $IMKIT_BASE_URL before the file's", async () => {
    put(".env", "IMKIT_API_KEY=\nIMKIT_BASE_URL=https://a.imkit.io\n");
    const made = await run(["init", "--yes", "--json"], { env: { IMKIT_BASE_URL: "https://b.imkit.io" } });
    expect(made.code).toBe(0);
    const said = JSON.parse(made.stdout);
    expect(said).toMatchObject({
      configFile: file(),
      app: "b",
      baseUrl: "https://b.imkit.io",
      gitignore: [],
    });
    expect(said.next.map((step: { command: string }) => step.command)).toEqual([
      "imkit-rotator doctor",
      "imkit-rotator stage b",
    ]);
  });

  it("takes flags alone, without a terminal and without --yes; a file that is not there is said", async () => {
    const flags = ["--app", "chat", "--base-url", "https://x.imkit.io", "--dotenv", "/srv/no such/.env"];
    const made = await run(["init", ...flags, "-c", "my config.yaml"]);
    expect(made.code).toBe(0);
    expect(apps("my config.yaml")).toMatchObject({ chat: { stores: [{ path: "/srv/no such/.env" }] } });
    expect(made.stderr).toContain("/srv/no such/.env is not there");
    expect(made.stdout).toContain("stage chat -c 'my config.yaml'");
  });

  it("never overwrites a config, of any of its names", async () => {
    put("imkit-rotator.config.json", "{}");
    put(".env", "IMKIT_API_KEY=\nIMKIT_BASE_URL=https://a.imkit.io\n");
    const made = await run(["init", "--yes"]);
    expect(made.code).toBe(2);
    expect(made.stderr).toContain(`There is a config already: ${file("imkit-rotator.config.json")}`);
    expect(readFileSync(file("imkit-rotator.config.json"), "utf8")).toBe("{}");
    expect(existsSync(file())).toBe(false);
  });

  it("names what is missing, exit 2, and writes nothing", async () => {
    put(".env", "IMKIT_API_KEY=\n");
    const bare = await run(["init", "--app", "chat"]);
    expect(bare.code).toBe(2);
    expect(bare.stderr).toContain("Missing: --base-url, --dotenv.");
    const yes = await run(["init", "--yes"]);
    expect(yes.code).toBe(2);
    expect(yes.stderr).toContain("Missing: --base-url (IMKIT_BASE_URL");
    expect(yes.stderr).not.toContain("--dotenv (");
    expect(existsSync(file())).toBe(false);
  });

  it.each([
    ["--app", "Bad Name"],
    ["--base-url", "http://x.imkit.io"],
    ["--base-url", "https://user:word@x.imkit.io"],
    ["--dotenv", "\t"],
  ])("refuses a bad %s and does not repeat it", async (flag, value) => {
    const good = { "--app": "chat", "--base-url": "https://x.imkit.io", "--dotenv": ".env" };
    const flags = Object.entries({ ...good, [flag]: value }).flat();
    const made = await run(["init", ...flags]);
    expect(made.code).toBe(2);
    expect(made.stderr).toContain(`${flag}: it must`);
    expect(made.stderr).not.toContain(value);
    expect(existsSync(file())).toBe(false);
  });

  it("in a work tree ignores the env file and a state folder inside, once", async () => {
    put(".git/HEAD", "ref: refs/heads/main\n");
    put(".gitignore", "dist");
    put("api/.env", "IMKIT_API_KEY=\nIMKIT_BASE_URL=https://a.imkit.io\n");
    const cwd = join(folder, "api");
    const options = { cwd, env: { HOME: tmpdir(), STATE_DIRECTORY: join(folder, "state") } };
    const made = await run(["init", "--yes"], options);
    expect(made.code).toBe(0);
    const lines = "dist\n# imkit-rotator: keys and state\n/api/.env\n/state/\n";
    expect(readFileSync(file(".gitignore"), "utf8")).toBe(lines);
    expect((await run(["init", "--yes", "-c", "other.yaml"], options)).code).toBe(0);
    expect(readFileSync(file(".gitignore"), "utf8")).toBe(lines);
  });
});

describe("on a terminal", () => {
  const warned: string[] = [];
  const io = (): Io =>
    ({ interactive: true, env: {}, cwd: folder, warn: (line: string) => warned.push(line) }) as unknown as Io;
  const ask = (answers: readonly (string | null)[], flags = {}): Promise<Answers> => {
    typed.splice(0, typed.length, ...answers);
    warned.length = 0;
    return answersOf(io(), flags, folder);
  };

  it("offers what it found, and Enter takes it", async () => {
    put("api/.env", `IM_KEY=${madeKey()}\nIMKIT_BASE_URL=https://shop.imkit.io\n`);
    put(".env", "IMKIT_API_KEY=x\n");
    const found = { app: "shop", baseUrl: "https://shop.imkit.io", keyName: "IM_KEY" };
    expect(await ask(["api/.env", null, null, null])).toMatchObject({ dotenv: "api/.env", ...found });
    expect(await ask([null, null, "https://shop.imkit.io", null])).toMatchObject({
      dotenv: ".env",
      app: "shop",
    });
    expect(typed).toEqual([]);
  });

  it("asks again after an answer that cannot be, and never repeats a key that went into the wrong field", async () => {
    const key = madeKey();
    const answers = await ask([
      ".env",
      key,
      "IMKIT_API_KEY",
      "ftp://x",
      key,
      "https://x.imkit.io",
      "A B",
      "a-b",
    ]);
    expect(answers).toMatchObject({ app: "a-b", baseUrl: "https://x.imkit.io", keyName: "IMKIT_API_KEY" });
    expect(warned.map((line) => line.slice(0, 22))).toEqual([
      "  ! It looks like a ke",
      "  ! It must start with",
      "  ! It looks like a ke",
      "  ! It must be 1 to 32",
    ]);
    expect(findKey(warned.join(), key)).toEqual([]);
  });

  it("asks only what no flag says, and stops on Ctrl-C", async () => {
    const flags = { dotenv: ".env", baseUrl: "https://x.imkit.io" };
    expect(await ask([null, "chat"], flags)).toMatchObject({ app: "chat", ...flags });
    await expect(ask([null], flags)).rejects.toMatchObject({ code: "INTERRUPTED" });
  });
});

describe("what is ignored already", () => {
  const added = (lines: string, path: string): readonly string[] => {
    put(".gitignore", lines);
    return ignore(folder, [{ path: join(folder, path), folder: false }]);
  };
  it.each([
    [".env\n", ".env"],
    ["/.env\r\n", ".env"],
    [".env*\n", "a/.env.local"],
    [".env.*\n", "a/.env.local"],
    ["a/.env\n", "a/.env"],
  ])("%j covers %s", (lines, path) => expect(added(lines, path)).toEqual([]));
  it.each([
    [".env.*\n", ".env"],
    ["/.env\n", "a/.env"],
    ["# .env\n", ".env"],
    ["", "a b/.env"],
  ])("%j does not cover %s", (lines, path) => {
    expect(added(lines, path)).toEqual([`/${path.replace(" ", "\\ ")}`]);
  });
  it("nothing outside of the work tree is named", () => {
    expect(ignore(folder, [{ path: join(tmpdir(), "elsewhere", ".env"), folder: false }])).toEqual([]);
    expect(existsSync(file(".gitignore"))).toBe(false);
  });
});

describe("what a folder shows", () => {
  const names = (files: readonly EnvFile[]): readonly string[] => files.map(({ path }) => path);
  it("looks for the key in env files, `.env` first, and not in samples", () => {
    put(".env", "A=1\n");
    put(".env.local", `A=1\nIM_KEY=${madeKey()}\n`);
    put(".env.production", "IMKIT_API_KEY=x\nIMKIT_BASE_URL=https://p.imkit.io\n");
    put(".env.example", "IMKIT_API_KEY=x\n");
    mkdirSync(join(folder, ".env.d"));
    const files = findEnvFiles(folder);
    expect(names(files)).toEqual([".env.local", ".env.production", ".env"]);
    expect(files.map(({ keyNames }) => keyNames)).toEqual([["IM_KEY"], ["IMKIT_API_KEY"], []]);
    expect(files[1]?.baseUrl).toBe("https://p.imkit.io");
    expect(findEnvFiles(join(folder, "nowhere"))).toEqual([]);
  });

  it("sees a first line behind a byte order mark", () => {
    put(".env", "\uFEFFIMKIT_API_KEY=x\n");
    expect(findEnvFiles(folder)[0]?.keyNames).toEqual(["IMKIT_API_KEY"]);
  });
});

describe("the config text", () => {
  const answers: Answers = {
    app: "chat",
    baseUrl: "https://x.imkit.io",
    dotenv: ".env",
    keyName: "IMKIT_API_KEY",
    timezone: "Asia/Taipei",
  };
  it.each([
    ["app", "123"],
    ["app", "1e5"],
    ["app", "null"],
    ["dotenv", `/srv/it's "my" #1, {chat}: 換/.env`],
    ["dotenv", "~/chat/.env"],
    ["timezone", "UTC"],
  ] as const)("keeps %s %j as it is", (field, value) => {
    const read = parse(configText({ ...answers, [field]: value }));
    const [app] = Object.entries<{ stores: readonly { path: string }[] }>(read.apps);
    const seen = { app: app?.[0], dotenv: app?.[1].stores[0]?.path, timezone: read.defaults.timezone };
    expect(seen[field]).toBe(value);
  });
});
