import { spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { madeKey } from "../kit/leak.ts";
import { cleanEnv, programRoot } from "../kit/program.ts";

/** What a start loads and how it is found, not how long it takes: that is bench/'s to say. */
const repository = join(import.meta.dirname, "../..");
let dir: string;
let root: string;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "imkit-rotator-start-"));
  root = await programRoot();
  writeFileSync(join(dir, ".env"), `IMKIT_API_KEY=${madeKey()}\n`, { mode: 0o600 });
  writeFileSync(join(dir, "imkit-rotator.config.yaml"), config("dotenv"));
  writeFileSync(
    join(dir, "mine.mjs"),
    `export default ({ z, defineStore }) => defineStore({ kind: "mine", schema: z.strictObject({ path: z.string() }),
      open: ({ path }) => ({ where: "mine:" + path, preflight: async () => [], read: async () => null, write: async () => "v1" }) });\n`,
  );
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const config = (type: string): string => `schemaVersion: 1
apps:
  demo:
    baseUrl: https://your-app.imkit.io
    stores: [{ name: env, type: ${type}, path: .env }]
    rollouts: [{ name: none, type: none, reason: nothing }]
`;

const start = (
  args: readonly string[],
): { readonly status: number | null; readonly out: string; readonly err: string } => {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: dir,
    env: cleanEnv(dir),
    encoding: "utf8",
  });
  return { status, out: stdout, err: stderr };
};

/** A file for `node --require` that writes what `expression` gives at the end of the process. */
const told = (
  name: string,
  before: string,
  expression: string,
): { readonly flag: string; readonly read: () => unknown } => {
  const file = join(dir, `${name}.cjs`);
  const result = join(dir, `${name}.json`);
  writeFileSync(
    file,
    `const fs = require("node:fs"); ${before};
process.on("exit", () => fs.writeFileSync(${JSON.stringify(result)}, JSON.stringify(${expression})));\n`,
  );
  return { flag: `--require=${file}`, read: () => JSON.parse(readFileSync(result, "utf8")) as unknown };
};

describe("status of a dotenv app", () => {
  test("loads the libraries that read a config, and nothing else of ours than it needs", () => {
    const hook = `const seen = []; require("node:module").registerHooks({ load: (url, context, next) => { seen.push(url); return next(url, context); } })`;
    const { flag, read } = told("sources", hook, "seen");
    const { status } = start([flag, join(repository, "src/shell/cli.ts"), "status"]);
    expect(status).toBe(0);
    const files = (read() as string[])
      .filter((url) => url.startsWith("file:"))
      .map((url) => url.slice("file://".length));
    const packages = files.flatMap((file) => /\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file)?.[1] ?? []);
    expect([...new Set(packages)].sort()).toEqual(["commander", "dotenv", "yaml", "zod"]);
    expect(files.filter((file) => file.includes("/zod/v4/classic/"))).toEqual([]);

    const ours = files.filter((file) => !file.includes("/node_modules/") && file.startsWith(repository));
    const rooms = (room: string): readonly string[] =>
      ours.filter((file) => file.includes(room)).map((file) => file.slice(file.indexOf(room) + room.length));
    expect(rooms("/src/shell/commands/")).toEqual(["status.ts"]);
    expect(rooms("/providers/stores/").filter((file) => !file.startsWith("dotenv"))).toEqual([]);
    expect(rooms("/providers/rollouts/")).toEqual(["none.ts"]);
    expect(ours.filter((file) => /third-party|options|sandbox|demo\/|flow\/rotate/.test(file))).toEqual([]);
    const bytes = ours.reduce((sum, file) => sum + statSync(file).size, 0);
    expect(bytes).toBeLessThan(405_000);
  });

  test("loads none of what Node needs for networks, programs and inspectors", () => {
    const { flag, read } = told("builtins", "", "process.moduleLoadList");
    expect(start([flag, join(root, "bin/imkit-rotator.cjs"), "status"]).status).toBe(0);
    const loaded = read() as string[];
    expect(loaded).toContain("NativeModule crypto");
    for (const name of [
      "child_process",
      "http",
      "https",
      "tls",
      "dns",
      "inspector",
      "perf_hooks",
      "worker_threads",
    ]) {
      expect(loaded).not.toContain(`NativeModule ${name}`);
    }
  });

  test("is read from one file of bounded size", () => {
    expect(statSync(join(root, "dist/cli.cjs")).size).toBeLessThan(900_000);
    const source = readFileSync(join(root, "dist/cli.cjs"), "latin1");
    // A word of each library that is to be a file of its own, and of zod's translations.
    for (const word of [
      "age-encryption.org/v1",
      "HTTPError",
      "datos inv\\xE1lidos",
      "Entrada inv\\xE1lida",
    ]) {
      expect(source).not.toContain(word);
    }
  });
});

describe("what V8 made of the program at build time", () => {
  const watch = () =>
    told(
      "cache",
      `const vm = require("node:vm"), seen = []; vm.Script = class extends vm.Script { constructor(text, options) {
        super(text, options); seen.push([require("node:path").basename(options.filename), this.cachedDataRejected]); } }`,
      "seen",
    );
  const launcher = (from: string): string => join(from, "bin/imkit-rotator.cjs");
  /** A copy of the program whose `dist` was changed. */
  const copied = (name: string, change: (dist: string) => void): string => {
    const copy = join(dir, name);
    for (const part of ["bin", "dist", "package.json"])
      cpSync(join(root, part), join(copy, part), { recursive: true });
    symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
    change(join(copy, "dist"));
    return copy;
  };
  const caches = (dist: string): readonly string[] =>
    readdirSync(dist)
      .filter((name) => name.endsWith(".cache"))
      .map((name) => join(dist, name));

  test.each([["status"], ["--version"], ["doctor"]])("is what %s starts from", (command) => {
    const { flag, read } = watch();
    start([flag, launcher(root), command]);
    expect((read() as unknown[])[0]).toEqual(["cli.cjs", false]);
  });

  test("is there for libraries, too", () => {
    const { flag, read } = watch();
    expect(start([flag, launcher(root), "doctor"]).status).toBe(5);
    expect(read()).toEqual(
      expect.arrayContaining([
        ["cli.cjs", false],
        ["got.cjs", false],
      ]),
    );
  });

  test("does without: gone, broken, another script's, another Node's, a folder that nobody may write to", () => {
    const { out: right } = start([launcher(root), "status", "--json"]);
    const programs = [
      copied("none", (dist) => caches(dist).forEach((file) => rmSync(file))),
      copied("empty", (dist) => caches(dist).forEach((file) => writeFileSync(file, ""))),
      copied("torn", (dist) =>
        caches(dist).forEach((file) => writeFileSync(file, readFileSync(file).subarray(0, 5_000))),
      ),
      copied("noise", (dist) =>
        caches(dist).forEach((file) => writeFileSync(file, Buffer.alloc(100_000, 7))),
      ),
      copied("swapped", (dist) => {
        const [other = ""] = caches(dist).filter((file) => file.includes("got.cjs"));
        for (const file of caches(dist)) if (file !== other) cpSync(other, file);
      }),
      copied("changed", (dist) =>
        writeFileSync(join(dist, "cli.cjs"), `${readFileSync(join(dist, "cli.cjs"), "latin1")}\n//`),
      ),
      copied("closed", (dist) => {
        for (const file of caches(dist)) rmSync(file);
        chmodSync(dist, 0o555);
      }),
    ];
    for (const program of programs) {
      expect(start([launcher(program), "status", "--json"]), program).toEqual({
        status: 0,
        out: right,
        err: "",
      });
      chmodSync(join(program, "dist"), 0o755);
    }
    expect(JSON.parse(right)).toMatchObject({ apps: [{ state: "new" }] });
  });

  test("lets a provider of one's own be loaded by path, with it and without", () => {
    writeFileSync(join(dir, "mine.yaml"), config("./mine.mjs"));
    const bare = copied("bare", (dist) => caches(dist).forEach((file) => rmSync(file)));
    for (const program of [root, bare]) {
      const { status, out, err } = start([launcher(program), "-c", "mine.yaml", "status", "--json"]);
      expect(err).toBe("");
      expect(status).toBe(0);
      expect(JSON.parse(out)).toMatchObject({
        apps: [{ stores: [{ where: "mine:.env", state: "absent" }] }],
      });
    }
  });
});
