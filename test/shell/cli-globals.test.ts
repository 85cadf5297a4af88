import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { madeKey } from "../kit/leak.ts";
import { programFile, type RunOptions, runProgram } from "../kit/program.ts";
import { jsonLines, lastJson, makeWorld, type World } from "../kit/world.ts";

const COMMANDS = [
  "init",
  "doctor",
  "adopt",
  "stage",
  "rotate",
  "status",
  "confirm-revoked",
  "audit",
  "audit list",
  "audit verify",
  "audit export",
  "schema",
  "fingerprint",
  "completion",
  "sandbox",
  "demo",
];

let world: World;
beforeAll(async () => {
  world = await makeWorld();
});
afterAll(() => world.close());

/** A folder without a config. */
const bare = mkdtempSync(join(tmpdir(), "imkit-rotator-bare-"));
afterAll(() => rmSync(bare, { recursive: true, force: true }));

describe("help", () => {
  it("of every command begins with examples, fits 80 columns, goes to stdout, and exits 0", async () => {
    const texts = await Promise.all(
      [[], ...COMMANDS.map((c) => c.split(" "))].map((words) =>
        runProgram([...words, "--help"], { cwd: bare }),
      ),
    );
    for (const [i, { code, stdout, stderr }] of texts.entries()) {
      const name = COMMANDS[i - 1] ?? "";
      expect({ name, code, stderr }).toEqual({ name, code: 0, stderr: "" });
      expect(stdout).toMatch(/^Examples:\n {2}\$ imkit-rotator /);
      expect(stdout.split("\n").filter((line) => line.length > 80)).toEqual([]);
    }
  });

  it("names every command and every exit status", async () => {
    const { stdout } = await runProgram(["help"], { cwd: bare });
    for (const c of COMMANDS.filter((name) => !name.includes(" "))) expect(stdout).toContain(`\n  ${c} `);
    for (const exit of [
      "0 done",
      "1 a step",
      "2 usage",
      "3 waiting",
      "4 refused",
      "5 findings",
      "6 another",
      "130/143",
    ])
      expect(stdout).toContain(exit);
  });

  it("is what a bare call gets too, but on stderr and with exit 2: nothing was asked for", async () => {
    const [plain, json, audit] = await Promise.all([
      runProgram([], { cwd: bare }),
      runProgram(["--json"], { cwd: bare }),
      runProgram(["audit"], { cwd: bare }),
    ]);
    expect(plain).toMatchObject({ code: 2, stdout: "" });
    expect(plain.stderr).toMatch(/^Examples:/);
    expect(json.code).toBe(2);
    expect(lastJson(json.stdout)).toMatchObject({ type: "error", code: "USAGE", exitCode: 2 });
    expect(audit).toMatchObject({ code: 2, stdout: "" });
    expect(audit.stderr).toContain("imkit-rotator audit list");
  });

  it("--version is that of the package", async () => {
    const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
    expect(await runProgram(["--version"], { cwd: bare })).toMatchObject({ code: 0, stdout: `${version}\n` });
  });
});

describe("usage errors exit 2 and say what was meant", () => {
  const key = madeKey();
  const cases: readonly {
    readonly args: readonly string[];
    readonly says: RegExp;
    readonly code?: string;
  }[] = [
    { args: ["sttus"], says: /no command "sttus"[^]*Did you mean status\?/ },
    { args: ["audit", "verfy"], says: /no command "verfy"[^]*Did you mean verify\?/ },
    { args: ["status", "--exit-cod"], says: /no option --exit-cod\.[^]*Did you mean --exit-code\?/ },
    { args: ["rotate", "demo", "--restart"], says: /Did you mean --restarted\?/ },
    { args: ["stage"], says: /stage wants <app>/ },
    { args: ["stage", "demo", "chat"], says: /too many words[^]*never given as an argument/ },
    { args: ["rotate", "demo", "--drop"], says: /--drop wants a value/ },
    { args: ["-c"], says: /--config wants a value/ },
    { args: ["rotate", "demo", "--wait=5"], says: /--wait wants a duration/ },
    { args: ["rotate", "demo", "--wait=1h30m"], says: /--wait wants a duration/ },
    { args: ["rotate", "demo", "--accept-app", "nope"], says: /8 to 16 hex digits/ },
    { args: ["rotate", "demo", "--all"], says: /--all does not go with a name/ },
    { args: ["rotate", "--all", "--drop", "x"], says: /--all does not go with --drop/ },
    { args: ["stage", "demo", "--forget"], says: /--forget goes with --discard/ },
    { args: ["stage", "demo", "--discard", "--from-stdin"], says: /--discard takes no key/ },
    { args: ["stage", "demo", "--from-stdin", "--from-env", "X"], says: /Only one of/ },
    { args: ["confirm-revoked", "demo", "--waive"], says: /--waive wants --reason/ },
    { args: ["confirm-revoked", "demo", "--waive", "--reason", "  "], says: /--waive wants --reason/ },
    { args: ["audit", "verify", "demo", "--head", "12"], says: /--head wants seq:h16/ },
    { args: ["completion", "tcsh"], says: /bash, zsh, fish/ },
    { args: ["adopt", "demo", "--current", "nope"], says: /8 to 16 hex digits/ },
    { args: ["status", "demi"], says: /Did you mean "demo"\?/, code: "APP_UNKNOWN" },
    { args: ["status", "zzz"], says: /It has demo/, code: "APP_UNKNOWN" },
    { args: ["status", "__proto__"], says: /no app of that name/, code: "APP_UNKNOWN" },
    { args: ["stage", "demo", key], says: /exposed/, code: "KEY_IN_ARGUMENT" },
    { args: ["stage", "demo", `--key=${key}`], says: /exposed/, code: "KEY_IN_ARGUMENT" },
    { args: [key], says: /exposed/, code: "KEY_IN_ARGUMENT" },
    { args: ["rotate", "demo", "--reason", `new key ${key} here`], says: /exposed/, code: "KEY_IN_ARGUMENT" },
    {
      args: ["rotate", "demo", "--ticket", `SEC-1 ${key.slice(3, 40)}`],
      says: /exposed/,
      code: "KEY_IN_ARGUMENT",
    },
    {
      args: ["rotate", "demo", "--reason", `see https://wiki.example.com/a/${key}/b?x=1`],
      says: /exposed/,
      code: "KEY_IN_ARGUMENT",
    },
    { args: ["stage", "demo", "--from-env", key], says: /exposed/, code: "KEY_IN_ARGUMENT" },
    { args: ["stage", "demo", key.slice(0, 20)], says: /exposed/, code: "KEY_IN_ARGUMENT" },
    { args: ["confirm-revoked", "demo", "--key-from-stdin", key], says: /exposed/, code: "KEY_IN_ARGUMENT" },
  ];
  it.each(cases)("$args", async ({ args, says, code = "USAGE" }) => {
    const { code: exit, stdout, stderr } = await runProgram(["--json", ...args], { cwd: world.dir });
    expect(exit).toBe(2);
    expect(stderr).toMatch(says);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(jsonLines(stdout)).toHaveLength(1);
    expect(lastJson(stdout)).toMatchObject({ type: "error", code, exitCode: 2 });
    expect(`${stdout}${stderr}`).not.toContain(key.slice(0, 12));
  });

  it("never repeats a word that could be a secret", async () => {
    const word = "Pa55word-Pa55word";
    for (const args of [[word], [`--${word}`], ["status", `--x=${word}`], ["status", word]]) {
      const { code, stdout, stderr } = await runProgram(args, { cwd: world.dir });
      expect(code).toBe(2);
      expect(`${stdout}${stderr}`).not.toContain("Pa55word");
    }
  });
});

describe("global flags", () => {
  it("may stand before and after the command", async () => {
    const c = world.configFile;
    const all = await Promise.all([
      runProgram(["--json", "status", "demo", "-c", c], { cwd: bare }),
      runProgram(["-c", c, "status", "--json"], { cwd: bare }),
      runProgram(["status", "demo", "--json", "--config", c, "-q"], { cwd: bare }),
      runProgram([`--config=${c}`, "-v", "status", "demo", "--json"], { cwd: bare }),
    ]);
    for (const { code, stdout } of all) {
      expect(code).toBe(0);
      expect(lastJson(stdout)).toMatchObject({ apps: [{ app: "demo", state: "new" }] });
    }
    const nested = await runProgram(["audit", "verify", "demo", "--json", "-c", c], { cwd: bare });
    expect(lastJson(nested.stdout)).toMatchObject({ type: "error", code: "INPUT_MISSING" });
  });

  it("no colour where nobody looks, and none of ours is lost or mangled", async () => {
    const runs = await Promise.all(
      [{}, { NO_COLOR: "1" }, { FORCE_COLOR: "1" }, { TERM: "dumb" }].map((env) =>
        runProgram(["doctor"], { cwd: world.dir, env }),
      ),
    );
    for (const { stdout, stderr } of runs) {
      expect(stdout).toContain("✔ demo");
      expect(`${stdout}${stderr}`).not.toMatch(/\p{Cc}(?<!\n)|\?\[/u);
    }
  });

  it("the config is found by flag, variable, folder, a folder above, XDG; the first that is there", async () => {
    const deep = join(world.dir, "a", "b");
    mkdirSync(deep, { recursive: true });
    const xdg = join(bare, "xdg", "imkit-rotator");
    mkdirSync(xdg, { recursive: true });
    writeFileSync(join(xdg, "imkit-rotator.config.yaml"), readFileSync(world.configFile, "utf8"));
    const ways: readonly Partial<RunOptions>[] = [
      { cwd: deep },
      { cwd: bare, env: { IMKIT_ROTATOR_CONFIG: world.configFile } },
      { cwd: bare, env: { XDG_CONFIG_HOME: join(bare, "xdg") } },
    ];
    for (const way of ways) {
      const { code, stdout } = await runProgram(["completion", "--apps"], { cwd: bare, ...way });
      expect({ code, stdout }).toEqual({ code: 0, stdout: "demo\n" });
    }
    const none = await runProgram(["status", "--json"], { cwd: bare });
    expect(none.code).toBe(2);
    expect(lastJson(none.stdout)).toMatchObject({ code: "CONFIG_MISSING", do: ["imkit-rotator init"] });
    const named = await runProgram(["status", "-c", "nope.yaml"], { cwd: world.dir });
    expect(named.code).toBe(2);
    expect(named.stderr).toContain("nope.yaml");
  });

  it("a bad config says <path>:<line>:<column>: message, all problems at once, exit 2", async () => {
    const file = join(bare, "bad.yaml");
    const url = "https://your-app.imkit.io";
    writeFileSync(file, `schemaVersion: 1\napps:\n  demo:\n    baseurl: ${url}\n    stores: []\n`);
    const { code, stderr, stdout } = await runProgram(["status", "-c", file, "--json"], { cwd: bare });
    expect(code).toBe(2);
    expect(stderr).toMatch(/bad\.yaml:4:5: .*did you mean "baseUrl"\?/);
    expect(stderr).toMatch(/bad\.yaml:5:\d+: /);
    expect(lastJson(stdout)).toMatchObject({ code: "CONFIG_INVALID", exitCode: 2 });
  });
});

describe("what would expose the key is refused before anything is read", () => {
  const cases: readonly {
    readonly name: string;
    readonly more: Partial<RunOptions>;
    readonly says: string;
  }[] = [
    {
      name: "TLS off",
      more: { env: { NODE_TLS_REJECT_UNAUTHORIZED: "0" } },
      says: "NODE_TLS_REJECT_UNAUTHORIZED",
    },
    { name: "NODE_DEBUG", more: { env: { NODE_DEBUG: "http" } }, says: "NODE_DEBUG" },
    { name: "SSLKEYLOGFILE", more: { env: { SSLKEYLOGFILE: "/dev/null" } }, says: "SSLKEYLOGFILE" },
    { name: "--inspect", more: { nodeArgs: ["--inspect=127.0.0.1:0"] }, says: "--inspect" },
    {
      name: "inspector by NODE_OPTIONS",
      more: { env: { NODE_OPTIONS: "--inspect=127.0.0.1:0" } },
      says: "--inspect",
    },
  ];
  it.each(cases)("$name", async ({ more, says }) => {
    const { code, stdout, stderr } = await runProgram(["status", "--json"], { cwd: world.dir, ...more });
    expect(code).toBe(2);
    expect(lastJson(stdout)).toMatchObject({ code: "UNSAFE_ENVIRONMENT", exitCode: 2 });
    expect(stderr).toContain(says);
  });

  it("an ordinary NODE_OPTIONS and NODE_TLS_REJECT_UNAUTHORIZED=1 are not", async () => {
    const env = { NODE_OPTIONS: "--max-old-space-size=256", NODE_TLS_REJECT_UNAUTHORIZED: "1" };
    expect(await runProgram(["status"], { cwd: world.dir, env })).toMatchObject({ code: 0 });
  });
});

it("schema prints the checked-in JSON Schema", async () => {
  const { code, stdout } = await runProgram(["schema"], { cwd: bare });
  expect(code).toBe(0);
  expect(stdout).toBe(readFileSync(join("schema", "config.v1.json"), "utf8"));
});

it("what is printed from the sources is in step with them", () => {
  const { status, stderr } = spawnSync(process.execPath, ["scripts/docs.ts", "--check"], {
    encoding: "utf8",
  });
  expect({ status, stderr }).toMatchObject({ status: 0 });
});

describe("completion", () => {
  const lines = (text: string): readonly string[] => text.split("\n").filter((line) => line !== "");
  it.each([
    { words: ["imkit-rotator", "conf"], gives: ["confirm-revoked"] },
    { words: ["imkit-rotator", "audit", "ex"], gives: ["export"] },
    { words: ["imkit-rotator", "rotate", "--dr"], gives: ["--dry-run", "--drop"] },
    { words: ["imkit-rotator", "rotate", "de"], gives: ["demo"] },
    { words: ["imkit-rotator", "status", "--js"], gives: ["--json"] },
  ])("bash: $words", async ({ words, gives }) => {
    const { stdout, code } = await runProgram(["completion", "bash"], { cwd: world.dir });
    expect(code).toBe(0);
    const script = `${stdout}
imkit-rotator() { "${process.execPath}" "${await programFile()}" "$@"; }
COMP_WORDS=(${words.join(" ")}); COMP_CWORD=${words.length - 1}; _imkit_rotator; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const ran = spawnSync("bash", ["-c", script], {
      cwd: world.dir,
      encoding: "utf8",
      env: { PATH: process.env["PATH"], HOME: world.dir },
    });
    expect(lines(ran.stdout).toSorted()).toEqual(gives.toSorted());
  });

  it("zsh and fish get a script with every command; app names need no config", async () => {
    for (const shell of ["zsh", "fish"]) {
      const { stdout, code } = await runProgram(["completion", shell], { cwd: bare });
      expect(code).toBe(0);
      for (const c of COMMANDS.filter((name) => !name.includes(" "))) expect(stdout).toContain(c);
      expect(stdout).not.toContain("--internal");
    }
    expect(await runProgram(["completion", "--apps"], { cwd: bare })).toMatchObject({
      code: 0,
      stdout: "",
      stderr: "",
    });
  });
});
