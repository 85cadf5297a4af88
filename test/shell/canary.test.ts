import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  addFiles,
  leaksIn,
  plantedProgram,
  plantFile,
  type Sinks,
  watchProgram,
  type WatchOptions,
} from "../kit/canary.ts";
import { encodingCount, madeKey } from "../kit/leak.ts";
import type { Ran } from "../kit/program.ts";
import { makeWorld, type World, type WorldOptions } from "../kit/world.ts";

/** A world in which everything that comes out is kept, and every key that was in play is known. */
type Watched = World & {
  readonly watch: (args: readonly string[], options?: WatchOptions) => Promise<Ran>;
  readonly keys: Set<string>;
  /** Searches every sink for every key. */
  readonly leaks: () => readonly string[];
  readonly sinks: Sinks;
  readonly newKey: () => string;
};

/** What may hold a key: the stores, and what the user wrote. */
const HOLDERS = ["env.env", "vault-key", "given.txt", "imkit-rotator.config.yaml"];
/** A program that is a store: it keeps the key in a file, and writes down with which words and variables it was called. */
const VAULT = `#!/bin/sh
cat /proc/$$/cmdline /proc/$$/environ >> seen-by-children
sleep 0.03
case $1 in
  read) [ -e vault-key ] || exit 3; cat vault-key ;;
  write) cat > vault-key ;;
  leak) cat vault-key env.env; cat vault-key env.env >&2; exit 1 ;;
esac
`;
const ROLLOUT = "{ name: api, type: exec, command: [./vault.sh, restart], timeout: 10s }";
const EXEC_STORE =
  "    stores: [{ name: env, type: dotenv, path: ./env.env }, { name: vault, type: exec, read: [./vault.sh, read], write: [./vault.sh, write] }]";

const worlds: World[] = [];
afterAll(async () => {
  for (const world of worlds) await world.close();
});

const watched = async (options: WorldOptions = {}): Promise<Watched> => {
  const world = await makeWorld({ rollouts: `[${ROLLOUT}]`, ...options });
  worlds.push(world);
  writeFileSync(join(world.dir, "vault.sh"), VAULT);
  chmodSync(join(world.dir, "vault.sh"), 0o755);
  const sinks: Sinks = new Map();
  const keys = new Set([world.sandbox.firstKey()]);
  return {
    ...world,
    sinks,
    keys,
    watch: (args, more) => watchProgram(world.dir, args, sinks, more),
    newKey: () => {
      const key = world.sandbox.issue();
      keys.add(key);
      return key;
    },
    leaks: () => {
      addFiles(world.dir, sinks, HOLDERS);
      return leaksIn(sinks, [...keys]);
    },
  };
};

const STAGE = ["stage", "demo", "--from-stdin"];
const config = (world: World): string => readFileSync(world.configFile, "utf8");
const reconfigure = (world: World, change: (text: string) => string): void => {
  const before = config(world);
  const after = change(before);
  if (before === after) throw new Error("nothing was changed");
  writeFileSync(world.configFile, after);
};
/** Two of each run: for people with everything told, and for machines. */
const bothWays = async (
  world: Watched,
  args: readonly string[],
  options?: WatchOptions,
): Promise<readonly Ran[]> => [
  await world.watch([...args, "-v"], options),
  await world.watch([...args, "--json"], options),
];

test("a whole rotation: dotenv, a program as store, a program as rollout, every command that shows something", async () => {
  const world = await watched();
  reconfigure(world, (text) => text.replace(/ {4}stores:\n.*\n/, `${EXEC_STORE}\n`));
  writeFileSync(join(world.dir, "vault-key"), world.sandbox.firstKey());
  const key = world.newKey();
  expect((await world.watch([...STAGE, "--json", "-v"], { stdin: key })).code).toBe(0);
  expect((await world.watch(["rotate", "demo", "--dry-run", "-v"])).code).toBe(0);
  expect((await world.watch(["rotate", "demo", "-v"])).code).toBe(3);
  expect(readFileSync(join(world.dir, "vault-key"), "utf8")).toBe(key);
  await bothWays(world, ["status"]);
  await bothWays(world, ["doctor"]);
  world.sandbox.revoke(1);
  expect((await world.watch(["confirm-revoked", "demo", "--json", "-v"])).code).toBe(0);
  for (const what of ["list", "verify", "export"])
    expect((await world.watch(["audit", what, "demo"])).code).toBe(0);
  expect((await world.watch(["fingerprint", "demo"], { stdin: key })).code).toBe(0);
  expect(world.sinks.get("cmdline")).toContain("vault.sh\0write");
  expect(readFileSync(join(world.dir, "seen-by-children"), "latin1")).toContain("vault.sh\0write");
  expect(world.leaks()).toEqual([]);
});

test("a key from a file, from a variable, and taken back", async () => {
  const world = await watched();
  reconfigure(world, (text) => text.replace(/ {4}stores:\n.*\n/, `${EXEC_STORE}\n`));
  writeFileSync(join(world.dir, "vault-key"), world.sandbox.firstKey());
  const [first, second] = [world.newKey(), world.newKey()];
  // The first one reads the stores, one of which is a program: it must not inherit the variable.
  const taken = { env: { TAKE: first }, given: "env" } as const;
  expect((await world.watch(["stage", "demo", "--from-env", "TAKE", "-v"], taken)).code).toBe(0);
  expect(readFileSync(join(world.dir, "seen-by-children"), "latin1")).toContain("vault.sh\0read");
  writeFileSync(join(world.dir, "given.txt"), `${second}\n`);
  expect((await world.watch(["stage", "demo", "--from-file", "given.txt", "-v"])).code).toBe(4);
  expect((await world.watch(["stage", "demo", "--from-file", "given.txt", "--replace"])).code).toBe(0);
  await bothWays(world, ["stage", "demo", "--discard", "--forget"]);
  expect(world.leaks()).toEqual([]);
});

test("wrong, rejected, malformed and misplaced keys", async () => {
  const world = await watched();
  const key = madeKey();
  world.keys.add(key);
  for (const ran of await bothWays(world, STAGE, { stdin: key })) expect(ran.code).toBe(4);
  const malformed = [
    `IMKIT_API_KEY=${key}`,
    `IM-API-KEY: ${key}`,
    `${key.slice(0, 30)} ${key.slice(30)}`,
    `${key.slice(0, 30)}\n${key.slice(30)}`,
    `"${key}"`,
    `${key}é`,
    key.slice(0, 59),
    `${key}${key}`,
    `{"key":"${key}"}`,
    Buffer.from(key).toString("base64"),
    key.repeat(1500),
  ];
  for (const stdin of malformed) expect((await world.watch([...STAGE, "-v"], { stdin })).code).toBe(2);
  const misplaced = [
    ["stage", "demo", key],
    [key],
    ["stage", key],
    ["rotate", "demo", `--reason=${key}`],
    ["stage", "demo", "--from-env", key],
    ["status", `--${key}`],
    ["--config", key, "status"],
    ["stage", "demo", `IMKIT_API_KEY=${key}`, "--json"],
    ["audit", "verify", "--head", key],
  ];
  for (const args of misplaced) expect((await world.watch(args, { given: "argv" })).code).toBe(2);
  expect(world.leaks()).toEqual([]);
});

/** An IMKIT that gives back what it was sent, in every place where a careless client would show it. */
const echoes: Readonly<
  Record<string, (key: string, response: ServerResponse, request: IncomingMessage) => void>
> = {
  "error text": (key, response) =>
    response.writeHead(401).end(JSON.stringify({ error: "ODD", message: `bad key ${key}` })),
  "error code": (key, response) => response.writeHead(401).end(JSON.stringify({ error: key, message: key })),
  html: (key, response) =>
    response
      .writeHead(502, { "content-type": "text/html" })
      .end(`<h1>${key}</h1>${Buffer.from(key).toString("base64")}`),
  redirect: (key, response) =>
    response.writeHead(302, { location: `/?key=${encodeURIComponent(key)}` }).end(),
  "no JSON": (key, response) =>
    response.writeHead(200, { "content-type": "application/json" }).end(`{"RC":0,"${key}`),
  headers: (key, response) =>
    response
      .writeHead(503, { "retry-after": key, "content-type": key, date: key, "x-key": key })
      .end(`{"retryAfter":"${key}"}`),
  "too many": (key, response) =>
    response
      .writeHead(429)
      .end(JSON.stringify({ error: "RATE_LIMIT_EXCEEDED", message: key, retryAfter: 3600 })),
  encoding: (key, response) => response.writeHead(200, { "content-encoding": key }).end("{}"),
  "status line": (key, response, request) =>
    request.socket.end(`HTTP/1.1 401 ${key}\r\n${key}\r\n\r\n${key}${response.statusMessage ?? ""}`),
  "a good answer, and more": (key, response, request) =>
    response.writeHead(200).end(
      JSON.stringify({
        RC: 0,
        RM: key,
        result: request.url?.includes("stats")
          ? { clientKey: "c", apiKey: key, userList: [key] }
          : { count: 1, apiKey: key },
      }),
    ),
};

test("an IMKIT that is down, or that sends the key back in its answer", async () => {
  const world = await watched();
  const key = world.newKey();
  let echo = echoes["html"];
  const server = createServer((request, response) =>
    echo?.(String(request.headers["im-api-key"]), response, request),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  reconfigure(world, (text) => text.replace(world.sandbox.url, `http://127.0.0.1:${port}`));
  for (const [name, one] of Object.entries(echoes)) {
    echo = one;
    const ran = await world.watch([...STAGE, "-v"], { stdin: key });
    expect(ran.code, name).toBe(1);
  }
  await bothWays(world, ["rotate", "demo"]);
  await bothWays(world, ["doctor"]);
  await bothWays(world, ["confirm-revoked", "demo"]);
  server.close();
  server.closeAllConnections();
  for (const ran of await bothWays(world, STAGE, { stdin: key })) expect(ran.code).toBe(1);
  await bothWays(world, ["doctor"]);
  expect(world.leaks()).toEqual([]);
});

test("stores that refuse: conflict, a name twice, what readers disagree on, no folder, a program that shows the key", async () => {
  const world = await watched();
  const key = world.newKey();
  const old = world.sandbox.firstKey();
  const third = madeKey();
  world.keys.add(third);
  expect((await world.watch(STAGE, { stdin: key })).code).toBe(0);
  const env = join(world.dir, "env.env");
  const texts = [
    `IMKIT_API_KEY=${third}\n`,
    `IMKIT_API_KEY=${old}\nIMKIT_API_KEY=${third}\n`,
    `IMKIT_API_KEY="${old}\n`,
    `IMKIT_API_KEY: ${old}\n`,
    `IMKIT_API_KEY=${old}\${HOME}\n`,
    `IMKIT_API_KEY=${old}\0\n`,
  ];
  for (const text of texts) {
    writeFileSync(env, text);
    expect((await world.watch(["rotate", "demo", "-v"])).code, text.slice(0, 20)).not.toBe(3);
    await world.watch(["status", "--json"]);
  }
  await world.watch(["doctor", "-v"]);
  writeFileSync(env, `IMKIT_API_KEY=${old}\n`);
  reconfigure(world, (text) => text.replace("./vault.sh, restart", "./vault.sh, leak"));
  expect((await world.watch(["rotate", "demo", "-v"])).code).toBe(1);
  reconfigure(world, (text) => text.replace("path: ./env.env", "path: ./env.env/none/x.env"));
  await bothWays(world, ["rotate", "demo"]);
  expect(world.leaks()).toEqual([]);
});

test("state that fails: a ledger that cannot be written or was changed, an identity that opens nothing", async () => {
  const world = await watched();
  const key = world.newKey();
  mkdirSync(join(world.dir, "state", "demo"), { recursive: true });
  writeFileSync(join(world.dir, "state", "demo", "ledger"), "");
  for (const ran of await bothWays(world, STAGE, { stdin: key })) expect(ran.code).toBe(2);
  reconfigure(world, (text) => text.replace("./state", "./state-2"));
  expect((await world.watch(STAGE, { stdin: key })).code).toBe(0);
  const identity = join(world.dir, "home", ".config", "imkit-rotator", "escrow-identity.txt");
  const sound = readFileSync(identity, "utf8");
  for (const text of ["", "nonsense\n", sound.replace(/1[0-9A-Z]{8}/, "1QQQQQQQQ")]) {
    writeFileSync(identity, text, { mode: 0o600 });
    expect((await world.watch(["rotate", "demo", "-v"])).code).toBe(1);
    await world.watch(["doctor", "--json"]);
  }
  writeFileSync(identity, sound);
  // The key stands where an identity belongs.
  reconfigure(world, (text) =>
    text.replace(
      "schemaVersion: 1",
      "schemaVersion: 1\nescrow: { type: file, identity: { valueFrom: { env: WRONG } } }",
    ),
  );
  await world.watch(["rotate", "demo", "-v"], { env: { WRONG: key }, given: "env" });
  reconfigure(world, (text) => text.replace(/\nescrow: .*/, ""));
  const entry = join(world.dir, "state-2", "demo", "ledger", "00000001.json");
  writeFileSync(entry, readFileSync(entry, "utf8").replace('"seq":1', '"seq":2'));
  for (const ran of await bothWays(world, ["rotate", "demo"])) expect(ran.code).toBe(5);
  await bothWays(world, ["audit", "verify", "demo"]);
  await bothWays(world, STAGE, { stdin: key });
  expect(world.leaks()).toEqual([]);
});

test("a config with the key in the wrong place", async () => {
  const world = await watched();
  const key = world.newKey();
  const sound = config(world);
  const pasted: readonly ((text: string) => string)[] = [
    (text) => text.replace(/baseUrl: .*/, `baseUrl: ${key}`),
    (text) => text.replace(/baseUrl: .*/, `baseUrl: https://${key}@example.com`),
    (text) => text.replace("    revoke:", `    apiKey: ${key}\n    revoke:`),
    (text) => text.replace("    revoke:", `    ${key}: 1\n    revoke:`),
    (text) => text.replace("key: IMKIT_API_KEY", `key: ${key}`),
    (text) => text.replace("type: dotenv", `type: ${key}`),
    (text) => text.replace("name: env", `name: ${key}`),
    (text) => text.replace("  demo:", `  ${key}:`),
    (text) => text.replace("schemaVersion: 1", `schemaVersion: ${key}`),
    (text) => text.replace("every: 10ms", `every: ${key}`),
    (text) => `${text}\n  [: ${key}\n`,
    (text) => `${text}\nx: &${key} *${key}\n`,
    (text) => `${text}\n${key}: 1\n${key}: 2\n`,
    (text) => `${text}\n\t"${key}\n`,
    () => key,
    () => JSON.stringify({ schemaVersion: 1, key }),
  ];
  for (const [at, paste] of pasted.entries()) {
    writeFileSync(world.configFile, paste(sound));
    const ran = await world.watch(["status", ...(at % 2 === 0 ? ["--json"] : ["-v"])]);
    expect(ran.code, `paste ${at}`).toBe(2);
  }
  expect(world.leaks()).toEqual([]);
});

test("interrupted in the middle, in each command", async () => {
  const world = await watched();
  const key = world.newKey();
  await world.watch([...STAGE, "-v"], { stdin: key, signalAfter: { text: /Adopted/, signal: "SIGTERM" } });
  expect((await world.watch(STAGE, { stdin: key })).code).toBe(0);
  const rotated = await world.watch(["rotate", "demo", "-v"], {
    signalAfter: { text: /env: writing/, signal: "SIGTERM" },
  });
  expect(rotated.code).toBe(143);
  await world.watch(["rotate", "demo"], { signalAfter: { text: /rolling out/, signal: "SIGINT" } });
  await world.watch(["confirm-revoked", "demo", "--wait=1s", "-v"], {
    signalAfter: { text: /./, signal: "SIGINT" },
  });
  expect(world.leaks()).toEqual([]);
});

// From here on the program is a copy that leaks on purpose.
let planted = "";
beforeAll(async () => {
  const home = await watched();
  planted = await plantedProgram(home.dir);
});

test.each([
  ["thrown", "throw new Error(`boom ${key}`);"],
  ["thrown with a cause", "throw new Error('boom', { cause: key });"],
  ["thrown as it is", "throw key;"],
  ["thrown from a timer", "setTimeout(() => { throw new Error(key); });"],
  ["a rejection that nobody awaits", "Promise.reject(Object.assign(new Error(key), { key }));"],
  ["an aggregate", "throw new AggregateError([new Error(key)], key);"],
])("a fault of our own that carries the key, %s, is shown by its kind alone", async (name, body) => {
  const world = await watched();
  const key = world.newKey();
  const require = plantFile(world.dir, "fault", body);
  const options = { stdin: key, file: planted, nodeArgs: ["--require", require] };
  const [told, json] = await bothWays(world, STAGE, options);
  expect([told?.code, json?.code], name).toEqual([1, 1]);
  expect(`${told?.stderr}${json?.stdout}`).toContain("INTERNAL");
  expect(world.leaks()).toEqual([]);
});

test.each([
  ["stdout", "process.stdout.write(Buffer.from(key).toString('hex'));"],
  ["stderr", "process.stderr.write(encodeURIComponent(key).slice(4, 12));"],
  [
    "ledger",
    "at('state/demo/ledger'); fs.writeFileSync('state/demo/ledger/.x-note', Buffer.from('~' + key).toString('base64'));",
  ],
  ["reports", "at('state/demo/reports'); fs.writeFileSync('state/demo/reports/r.md', key.slice(20, 28));"],
  ["escrow", "at('state/demo/escrow'); fs.writeFileSync('state/demo/escrow/plain', key);"],
  ["state", "at('state/demo'); fs.writeFileSync('state/demo/cache', key.split('').reverse().join(''));"],
  ["home", "fs.writeFileSync('home/.cache', JSON.stringify([...Buffer.from(key)]));"],
  ["temporary files", "fs.writeFileSync(os.tmpdir() + '/note', key.toLowerCase());"],
  ["folder", "fs.writeFileSync('core', Buffer.from(key, 'utf16le'));"],
  ["cmdline", "cp.spawnSync('sh', ['-c', 'sleep 0.1', key]);"],
  ["environ", "cp.spawnSync('sh', ['-c', 'sleep 0.1'], { env: { ...process.env, K: key } });"],
])("a planted leak is found: %s", async (sink, body) => {
  const world = await watched();
  const key = world.newKey();
  const require = plantFile(world.dir, "leak", `try { ${body} } catch {}`);
  await world.watch(STAGE, { stdin: key, file: planted, nodeArgs: ["--require", require] });
  const found = world.leaks().map((leak) => leak.split(":")[0]);
  expect([...new Set(found)]).toEqual([sink]);
});

test("the search knows at least 40 encodings", () => {
  expect(encodingCount()).toBeGreaterThanOrEqual(40);
  expect(existsSync(planted)).toBe(true);
});
