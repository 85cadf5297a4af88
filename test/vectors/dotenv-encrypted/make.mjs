// Makes cases.json with the real dotenvx (a devDependency): node test/vectors/dotenv-encrypted/make.mjs
// All keys in it are made here and stand for nothing.
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const manifest = createRequire(import.meta.url).resolve("@dotenvx/dotenvx/package.json");
const { version, bin } = JSON.parse(readFileSync(manifest, "utf8"));
const program = join(dirname(manifest), bin.dotenvx);
const key = Buffer.from(randomBytes(32).toString("base64")).toString("base64");

/** `set`: by `dotenvx set`, else by `dotenvx encrypt`. */
const plans = [
  { name: "double quotes", file: ".env", text: `IMKIT_API_KEY="${key}"\n` },
  { name: "single quotes", file: ".env", text: `IMKIT_API_KEY='${key}'\nB=2\n` },
  { name: "no quotes, neighbours", file: ".env", text: `# one\nA=1\nIMKIT_API_KEY=${key}\nB='two'\n` },
  { name: "export and a comment", file: ".env", text: `export IMKIT_API_KEY="${key}" # the key\nB=2\n` },
  { name: "a neighbour of several lines", file: ".env", text: `A="x\ny"\nIMKIT_API_KEY=${key}\n` },
  { name: "no final line end", file: ".env", text: `A=1\nIMKIT_API_KEY=${key}` },
  { name: "line ends of Windows", file: ".env", text: `A=1\r\nIMKIT_API_KEY="${key}"\r\nB=2\r\n` },
  { name: "a stage", file: ".env.production", text: `IMKIT_API_KEY=${key}\n` },
  { name: "two stages", file: ".env.local.staging", text: `IMKIT_API_KEY=${key}\n` },
  { name: "a name of its own", file: "chat.env", text: `IMKIT_API_KEY=${key}\n` },
  { name: "only our entry", file: ".env", text: `A=1\nIMKIT_API_KEY=\nB="two" # b\n`, set: true },
  { name: "added by set", file: ".env", text: "# neighbours\nA=1\n", set: true },
  { name: "written over by set", file: ".env", text: "IMKIT_API_KEY='older'\n", set: true, twice: true },
];

const cases = plans.map(({ name, file, text, set = false, twice = false }) => {
  const dir = mkdtempSync(join(tmpdir(), "imkit-rotator-vectors-"));
  const env = { PATH: process.env.PATH, HOME: dir, NO_COLOR: "1", DOTENVX_NO_ARMOR: "true" };
  const dotenvx = (...args) => {
    const done = spawnSync(process.execPath, [program, ...args], { cwd: dir, env, encoding: "utf8" });
    if (done.status !== 0) throw new Error(`dotenvx ${args[0]}: ${done.stderr}`);
    return done.stdout.trim();
  };
  try {
    writeFileSync(join(dir, file), text);
    if (twice) dotenvx("encrypt", "-f", file);
    if (set) dotenvx("set", "IMKIT_API_KEY", key, "-f", file);
    else dotenvx("encrypt", "-f", file);
    const keys = existsSync(join(dir, ".env.keys")) ? readFileSync(join(dir, ".env.keys"), "utf8") : "";
    const value = dotenvx("get", "IMKIT_API_KEY", "-f", file);
    return { name, file, sealed: readFileSync(join(dir, file), "latin1"), keys, value };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

const rows = cases.map((row) => `    ${JSON.stringify(row)}`).join(",\n");
const out = join(import.meta.dirname, "cases.json");
writeFileSync(out, `{\n  "dotenvx": "${version}",\n  "cases": [\n${rows}\n  ]\n}\n`);
