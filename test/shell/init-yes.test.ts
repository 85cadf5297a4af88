import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { startSandbox } from "../../src/shell/sandbox/server.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { type RunOptions, runProgram } from "../kit/program.ts";
import { lastJson } from "../kit/world.ts";

const root = mkdtempSync(join(tmpdir(), "init-yes-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let count = 0;
/** A folder with these files. */
const folder = (files: Readonly<Record<string, string>>, name = "shop"): string => {
  const dir = join(root, String(count++), name);
  mkdirSync(dir, { recursive: true });
  for (const [file, text] of Object.entries(files)) writeFileSync(join(dir, file), text, { mode: 0o600 });
  return dir;
};
const init = async (cwd: string, args: readonly string[] = ["--yes"], options: Partial<RunOptions> = {}) => {
  const ran = await runProgram(["init", "--json", ...args], { cwd, ...options });
  return { ...ran, end: lastJson(ran.stdout) };
};
const storeOf = (cwd: string): unknown => {
  const { apps } = parse(readFileSync(join(cwd, "imkit-rotator.config.yaml"), "utf8"));
  const [app] = Object.entries<{ baseUrl: string; stores: { path: string; key: string }[] }>(apps);
  return {
    app: app?.[0],
    baseUrl: app?.[1].baseUrl,
    path: app?.[1].stores[0]?.path,
    key: app?.[1].stores[0]?.key,
  };
};
const URL = "https://shop-tw.imkit.io";
const KEY = madeKey();
/** A line that the program gave, run as it stands. */
const paste = (cwd: string, line: string) => init(cwd, line.split(" ").slice(2), { env: {} });

describe.concurrent("init --yes", { timeout: 60_000 }, () => {
  it.each([
    ["both", { ".env": `IMKIT_API_KEY=${KEY}\nIMKIT_BASE_URL=${URL}\n` }, {}],
    ["the key alone", { ".env": `IMKIT_API_KEY=${KEY}\n` }, { IMKIT_BASE_URL: URL }],
    ["the base URL alone", { ".env": `IMKIT_BASE_URL=${URL}\n` }, {}],
    ["double quotes", { ".env": `export IMKIT_API_KEY="${KEY}"\nIMKIT_BASE_URL="${URL}"\n` }, {}],
    ["single quotes, CRLF", { ".env": `IMKIT_API_KEY='${KEY}'\r\nIMKIT_BASE_URL='${URL}'\r\n` }, {}],
    [
      "the URL in another file",
      { ".env": `IMKIT_API_KEY=${KEY}\n`, ".env.local": `IMKIT_BASE_URL=${URL}\n` },
      {},
    ],
  ])("an env file that holds %s", async (_, files, env) => {
    const cwd = folder(files);
    const made = await init(cwd, ["--yes"], { env });
    expect({ code: made.code, said: made.stdout }).toMatchObject({ code: 0 });
    expect(storeOf(cwd)).toEqual({ app: "shop-tw", baseUrl: URL, path: ".env", key: "IMKIT_API_KEY" });
    expect(findKey(`${made.stdout}${made.stderr}`, KEY)).toEqual([]);
  });

  it("variables of other names, where they can be nothing else", async () => {
    const cwd = folder({ ".env": `CHAT_SECRET="${KEY}"\nCHAT_SERVER=${URL}/\nDB=https://db.example.com\n` });
    expect((await init(cwd)).code).toBe(0);
    expect(storeOf(cwd)).toMatchObject({ baseUrl: URL, key: "CHAT_SECRET" });
  });

  it("several keys, none of the vendor's name: a person says which, by a line that is given", async () => {
    const cwd = folder({ ".env": `OLD_KEY=${madeKey()}\nNEW_KEY=${KEY}\nIMKIT_BASE_URL=${URL}\n` });
    const refused = await init(cwd);
    expect(refused.code).toBe(2);
    expect(refused.end["do"]).toEqual([
      "imkit-rotator init --yes --variable NEW_KEY",
      "imkit-rotator init --yes --variable OLD_KEY",
    ]);
    expect((await paste(cwd, (refused.end["do"] as string[])[0] ?? "")).code).toBe(0);
    expect(storeOf(cwd)).toMatchObject({ key: "NEW_KEY" });
  });

  it.each([
    ["no base URL", { ".env": `IMKIT_API_KEY=${KEY}\n` }, "--base-url https://your-app.imkit.io"],
    ["no env file", {}, "--base-url https://your-app.imkit.io --dotenv .env"],
    [
      "base URLs that differ",
      {
        ".env": `IMKIT_API_KEY=${KEY}\n`,
        ".env.a": "IMKIT_BASE_URL=https://a.imkit.io\n",
        ".env.b": "IMKIT_BASE_URL=https://b.imkit.io\n",
      },
      "--base-url https://your-app.imkit.io",
    ],
  ])("%s: exit 2 and the one line to type", async (_, files, rest) => {
    const cwd = folder(files);
    const refused = await init(cwd);
    expect(refused.code).toBe(2);
    expect(refused.end["do"]).toEqual([`imkit-rotator init --yes ${rest}`]);
    expect((await paste(cwd, (refused.end["do"] as string[])[0] ?? "")).code).toBe(0);
    expect(storeOf(cwd)).toMatchObject({ app: "shop", path: ".env" });
  });

  it("what was given stays in the line", async () => {
    const refused = await init(folder({ ".env": "A=1\n" }), ["--yes", "--app", "mine"]);
    expect(refused.end["do"]).toEqual([
      "imkit-rotator init --yes --app mine --base-url https://your-app.imkit.io",
    ]);
  });

  it.each([".env.local", ".env.production"])("%s, where only that one holds a key", async (name) => {
    const cwd = folder({
      ".env": "PORT=1\nIMKIT_API_KEY=\n",
      [name]: `IMKIT_API_KEY=${KEY}\nIMKIT_BASE_URL=${URL}\n`,
    });
    expect((await init(cwd)).code).toBe(0);
    expect(storeOf(cwd)).toMatchObject({ path: name });
  });

  it("several that hold one, and no .env: a line for each; .env goes first where it holds one", async () => {
    const one = `IMKIT_API_KEY=${KEY}\nIMKIT_BASE_URL=${URL}\n`;
    const cwd = folder({ ".env.local": one, ".env.production": one.replace(KEY, madeKey()) });
    const refused = await init(cwd);
    expect(refused.code).toBe(2);
    expect(refused.end["what"]).toContain("there are .env.local, .env.production");
    expect(refused.end["do"]).toEqual([
      "imkit-rotator init --yes --dotenv .env.local",
      "imkit-rotator init --yes --dotenv .env.production",
    ]);
    expect((await paste(cwd, (refused.end["do"] as string[])[1] ?? "")).code).toBe(0);
    expect(storeOf(cwd)).toMatchObject({ path: ".env.production" });
    const three = folder({ ".env": one, ".env.local": one });
    const made = await init(three);
    expect(made.code).toBe(0);
    expect(storeOf(three)).toMatchObject({ path: ".env" });
    expect(made.end["warnings"]).toEqual([expect.stringContaining(".env.local holds a key too")]);
  });

  it.each([
    ["My Shop", "my-shop"],
    ["換金鑰", "chat"],
    ["-", "chat"],
  ])("in a folder named %j the app is %s", async (name, app) => {
    const cwd = folder({ ".env": "IMKIT_API_KEY=\nIMKIT_BASE_URL=http://127.0.0.1:9\n" }, name);
    expect((await init(cwd)).end).toMatchObject({ app });
  });

  it("never writes over a config", async () => {
    const cwd = folder({ ".env": `IMKIT_BASE_URL=${URL}\n`, "imkit-rotator.config.yml": "mine" });
    expect((await init(cwd)).code).toBe(2);
    expect(readFileSync(join(cwd, "imkit-rotator.config.yml"), "utf8")).toBe("mine");
  });
});

/** A tired person types 40 words of five letters a minute, and sets a space after each. */
const CHARACTERS_A_MINUTE = 40 * 6;

describe("from a folder with an env file to the leaked key dead", () => {
  it("is typed in under a minute, by what the program says to type", { timeout: 90_000 }, async () => {
    const sandbox = await startSandbox({ app: "demo" });
    try {
      const cwd = folder({ ".env": `IMKIT_API_KEY=${sandbox.firstKey()}\nIMKIT_BASE_URL=${sandbox.url}\n` });
      let typed = 0;
      let all = "";
      const type = async (command: string, stdin?: string) => {
        // On a terminal the key is pasted at the prompt.
        typed += `${command}\n`.length + (stdin === undefined ? 0 : 1);
        const args = command.split(" ").slice(1);
        const pasted = stdin === undefined ? [] : ["--from-stdin"];
        const ran = await runProgram([...args, ...pasted], {
          cwd,
          ...(stdin === undefined ? {} : { stdin }),
        });
        all += ran.stdout + ran.stderr;
        return ran;
      };
      expect((await type("imkit-rotator init --yes")).code).toBe(0);
      const key = sandbox.issue();
      expect((await type("imkit-rotator stage shop", key)).code).toBe(0);
      sandbox.revoke(1);
      const waiting = await type("imkit-rotator rotate shop --emergency");
      expect(waiting.code).toBe(3);
      expect(all).toContain("rotate shop --restarted");
      expect((await type("imkit-rotator rotate shop --restarted")).code).toBe(0);
      expect(readFileSync(join(cwd, ".env"), "utf8")).toContain(`IMKIT_API_KEY=${key}\n`);
      expect(typed).toBeLessThan(CHARACTERS_A_MINUTE);
    } finally {
      await sandbox.close();
    }
  });
});
