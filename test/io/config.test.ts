import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { getuid } from "node:process";
import { afterAll, describe, expect, test } from "vitest";
import * as z from "zod";
import { builtinSchemas, loadRolloutProvider, loadStoreProvider } from "../../providers/index.ts";
import { RotatorError } from "../../src/core/errors.ts";
import { type Config, findConfig, loadConfig, type Schema, valueOf } from "../../src/io/config.ts";
import { configJsonSchema } from "../../src/io/config-json-schema.ts";
import { findKey, madeKey } from "../kit/leak.ts";

const root = mkdtempSync(join(tmpdir(), "config-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const fresh = (): string => mkdtempSync(join(root, "w-"));

const vault = z.strictObject({
  path: z.string(),
  key: z.string().default("IMKIT_API_KEY"),
  create: z.boolean().default(false),
});
const kinds: Readonly<Record<string, Schema>> = {
  vault,
  program: z.strictObject({ read: z.array(z.string()), write: z.array(z.string()).optional() }),
  careless: z.object({ path: z.string(), token: z.string().optional() }),
  hook: z.strictObject({
    secret: z.strictObject({ valueFrom: z.strictObject({ env: z.string().optional() }) }),
  }),
  manual: z.strictObject({}),
  echoing: z.strictObject({
    path: z.string().refine(() => false, { error: ({ input }) => `bad path ${String(input)}` }),
  }),
};
const providers = {
  schemaOf: async (_: string, type: string) => {
    if (type === "throws") throw new Error("quotes the config");
    return kinds[type] ?? null;
  },
  kindsOf: () => Object.keys(kinds),
};
const env = { HOME: "/home/may" };

const MINIMAL = `schemaVersion: 1
apps:
  chat:
    baseUrl: https://your-app.imkit.io
    stores:
      - { name: env, type: vault, path: .env }
`;

const load = (
  text: string | Uint8Array,
  more: { name?: string; env?: Record<string, string> } = {},
): Promise<Config> => {
  const path = join(fresh(), more.name ?? "imkit-rotator.config.yaml");
  writeFileSync(path, text);
  return loadConfig(path, { ...providers, env: more.env ?? env });
};

/** The lines of the refusal, without the folder. Each must have its place, none the library's words. */
const linesOf = async (work: Promise<unknown>): Promise<readonly string[]> => {
  const error: unknown = await work.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof RotatorError)) throw new Error("no RotatorError", { cause: error });
  expect([error.code, error.exit, error.cause]).toEqual(["CONFIG_INVALID", 2, undefined]);
  const lines = error.why.split("\n");
  for (const line of lines) expect(line).toMatch(/^\/.*\/[^/:]+:\d+:\d+: \S|^and \d+ more$/);
  return lines.map((line) => line.replace(/^\/[^:]*\/(?=[^/:]+:)/, ""));
};
const refused = async (text: string | Uint8Array): Promise<string> => (await linesOf(load(text))).join("\n");

describe("a config file", () => {
  test("in its shortest form has the documented defaults", async () => {
    const config = await load(MINIMAL);
    const app = config.apps.get("chat");
    expect(config).toMatchObject({
      stateDir: "/home/may/.local/state/imkit-rotator",
      escrowIdentity: null,
      notify: [],
      serve: { listen: "127.0.0.1:7333", host: "127.0.0.1", port: 7333 },
    });
    expect(config.path).toBe(join(config.dir, "imkit-rotator.config.yaml"));
    expect(app).toMatchObject({
      name: "chat",
      baseUrl: "https://your-app.imkit.io",
      owners: [],
      intake: [],
      rollouts: [],
      soakMs: 0,
      revoke: { probes: 3, everyMs: 5_000, control: true, escalateAfterMs: 14_400_000 },
      emergencyOrder: "revoke-first",
      rotateEveryMs: 7_776_000_000,
      schedule: null,
      timezone: "UTC",
      position: `${config.path}:3:3`,
    });
    expect(app?.stores).toEqual([
      {
        name: "env",
        type: "vault",
        required: true,
        write: true,
        settings: { path: ".env", key: "IMKIT_API_KEY", create: false },
        position: `${config.path}:6:9`,
      },
    ]);
  });

  test("in its fullest form", async () => {
    const config = await load(`# a comment
$schema: ./schema.json
schemaVersion: 1
state: { dir: state }
ledger: { type: file }
escrow: { type: file, identity: { valueFrom: { file: ~/id.txt } } }
defaults: { timezone: Asia/Taipei, rotateEvery: 30d, schedule: "0 10 * * 1-5", remindBefore: [14d, 0d] }
apps:
  one:
    baseUrl: https://one.imkit.io
    owners: [may@example.com]
    intake: [{ type: vault, path: inbox }]
    stores:
      - { name: a, type: vault, path: a, required: false }
      - { name: b, type: program, read: [get], write: [put, now] }
      - { name: c, type: program, read: [get], write: false }
    rollouts:
      - { name: api, type: manual, canary: true }
      - { name: worker, type: manual, after: [api], required: false }
    soak: 5m
    revoke: { probes: 1, every: 0s, control: false, escalateAfter: 1h }
    emergency: { order: replace-first }
    rotateEvery: 7d
    schedule: "*/5 * * * *"
    timezone: Europe/Berlin
    remindBefore: [1d]
  two:
    baseUrl: http://127.0.0.1:8080
    stores: [{ name: a, type: vault, path: a }]
notify:
  - { type: webhook, url: "https://ops.example.com/events", secret: { valueFrom: { env: HOOK } } }
  - { type: webhook, url: { valueFrom: { env: HOOK_URL } }, on: [waiting, failed] }
  - { type: slack, url: { valueFrom: { credential: slack } }, on: ["*"] }
serve: { listen: "[::1]:0" }
`);
    expect(config.stateDir).toBe(join(config.dir, "state"));
    expect(config.escrowIdentity).toEqual({ valueFrom: { file: "~/id.txt" } });
    expect(config.serve).toMatchObject({ listen: "[::1]:0", host: "::1", port: 0 });
    expect(config.notify.map(({ type, on }) => [type, on])).toEqual([
      ["webhook", ["*"]],
      ["webhook", ["waiting", "failed"]],
      ["slack", ["*"]],
    ]);
    const one = config.apps.get("one");
    expect(
      one?.stores.map(({ name, required, write, settings }) => [name, required, write, settings]),
    ).toEqual([
      ["a", false, true, { path: "a", key: "IMKIT_API_KEY", create: false }],
      ["b", true, true, { read: ["get"], write: ["put", "now"] }],
      ["c", true, false, { read: ["get"] }],
    ]);
    expect(one?.rollouts.map(({ name, canary, after, required }) => [name, canary, after, required])).toEqual(
      [
        ["api", true, [], true],
        ["worker", false, ["api"], false],
      ],
    );
    expect(one?.intake).toMatchObject([{ type: "vault", settings: { path: "inbox" } }]);
    expect(one).toMatchObject({
      soakMs: 300_000,
      revoke: { probes: 1, everyMs: 0, control: false, escalateAfterMs: 3_600_000 },
      emergencyOrder: "replace-first",
      rotateEveryMs: 604_800_000,
      schedule: "*/5 * * * *",
      timezone: "Europe/Berlin",
      remindBeforeMs: [86_400_000],
    });
    expect(config.apps.get("two")).toMatchObject({
      rotateEveryMs: 2_592_000_000,
      schedule: "0 10 * * 1-5",
      timezone: "Asia/Taipei",
      remindBeforeMs: [1_209_600_000, 0],
    });
  });

  test("may be JSON, indented with tabs or not, have CRLF or a byte order mark", async () => {
    const value = {
      schemaVersion: 1,
      apps: { chat: { baseUrl: "https://a.imkit.io", stores: [{ name: "e", type: "vault", path: "x" }] } },
    };
    for (const text of [
      JSON.stringify(value),
      JSON.stringify(value, null, "\t"),
      JSON.stringify(value, null, 2),
    ])
      expect((await load(text, { name: "imkit-rotator.config.json" })).apps.size).toBe(1);
    expect((await load(MINIMAL.replaceAll("\n", "\r\n"))).apps.size).toBe(1);
    expect((await load(`\ufeff${MINIMAL}`)).apps.size).toBe(1);
    expect(await refused(`\ufeff${MINIMAL}foo: 1\n`)).toMatch(/yaml:7:1: foo is not a known key/);
    expect(await refused(`${MINIMAL}foo: 1\n`.replaceAll("\n", "\r\n"))).toMatch(/yaml:7:1: foo /);
  });

  test("may use anchors", async () => {
    const config = await load(`schemaVersion: 1
apps:
  a: { baseUrl: "https://a.imkit.io", stores: &stores [{ name: e, type: vault, path: x }] }
  b: { baseUrl: "https://b.imkit.io", stores: *stores }
`);
    expect(config.apps.get("b")?.stores).toHaveLength(1);
  });

  test("is read as YAML 1.2: no is a word", async () => {
    const config = await load(MINIMAL.replace("name: env", "name: no"));
    expect(config.apps.get("chat")?.stores[0]?.name).toBe("no");
    expect(await refused(MINIMAL.replace("path: .env", "path: x, required: no"))).toMatch(
      /stores\[0\]\.required must be true or false/,
    );
  });

  test.each([
    [{ STATE_DIRECTORY: "/var/lib/x:/var/lib/y", XDG_STATE_HOME: "/s" }, "/var/lib/x"],
    [{ XDG_STATE_HOME: "/s" }, "/s/imkit-rotator"],
    [{ XDG_STATE_HOME: "relative" }, "/home/may/.local/state/imkit-rotator"],
  ])("keeps its state by default where %j says", async (vars, dir) => {
    expect((await load(MINIMAL, { env: { ...env, ...vars } })).stateDir).toBe(dir);
  });

  test("state.dir may begin with ~/", async () => {
    expect((await load(`${MINIMAL}state: { dir: ~/state }\n`)).stateDir).toBe("/home/may/state");
  });
});

describe("every problem is told at once, with its place", () => {
  test("of the file, an app, a target and its provider", async () => {
    const lines = await linesOf(
      load(`schemaVersion: 2
stat: { dir: x }
ledger: { type: kubernetes }
apps:
  Chat_Prod: { baseUrl: "https://a.imkit.io", stores: [] }
  chat:
    stors: []
    stores:
      - { name: a, type: vautl, path: x }
      - { name: a, type: vault, path: 3, kye: X, writ: false }
      - { name: b, type: vault }
    soak: 5
    rollouts: [{ name: r }]
  good:
    baseUrl: https://b.imkit.io
    schedule: "30 2 31 2 *"
    stores: [{ name: a, type: vault, path: x }]
    rollouts: [{ name: a, type: manual, after: [b] }]
`),
    );
    expect(lines).toEqual(
      [
        "1:16: schemaVersion must be 1",
        '2:1: stat is not a known key, did you mean "state"?',
        "3:1: ledger.namespace is missing",
        "5:3: apps.Chat_Prod is not a name: it must be 1 to 32 of a-z, 0-9 and -, with a letter or digit at both ends",
        "6:3: apps.chat.baseUrl is missing",
        '7:5: apps.chat.stors is not a known key, did you mean "stores"?',
        '9:26: apps.chat.stores[0].type is not a known kind of store, nor a module that can be loaded, did you mean "vault"?',
        "10:39: apps.chat.stores[1].path must be text (in quotes)",
        '10:42: apps.chat.stores[1].kye is not a known key, did you mean "key"?',
        '10:50: apps.chat.stores[1].writ is not a known key, did you mean "write"?',
        "11:9: apps.chat.stores[2].path is missing",
        "12:11: apps.chat.soak must be a duration: an integer and ms, s, m, h or d, such as 90d",
        "13:16: apps.chat.rollouts[0].type is missing",
        "16:15: apps.good.schedule is not a cron line, or names a date that never comes",
        "18:24: apps.good.rollouts[0].name is the name of another store or rollout of this app too",
        "18:49: apps.good.rollouts[0].after[0] is not the name of a rollout of this app",
      ].map((line) => `imkit-rotator.config.yaml:${line}`),
    );
  });

  test("a store may not bear the name of the restart that is there where none is written", async () => {
    const app = (more: string): string => `schemaVersion: 1
apps:
  chat:
    baseUrl: https://a.imkit.io
    stores: [{ name: manual, type: vault, path: x }]
${more}`;
    expect(await linesOf(load(app("")))).toEqual([
      "imkit-rotator.config.yaml:5:22: apps.chat.stores[0].name is the name of the restart by hand that an app without rollouts has",
    ]);
    await expect(
      load(app("    rollouts: [{ name: hand, type: manual }]\n")).then(({ apps }) => [...apps.keys()]),
    ).resolves.toEqual(["chat"]);
  });

  test("but at most twenty of them", async () => {
    const lines = await linesOf(load(MINIMAL + Array.from({ length: 30 }, (_, n) => `k${n}: 1\n`).join("")));
    expect(lines).toHaveLength(21);
    expect(lines.at(-1)).toBe("and 10 more");
  });

  const app = (extra: string): string => `${MINIMAL}    ${extra}\n`;
  const top = (extra: string): string => `${MINIMAL}${extra}\n`;
  test.each([
    ["no app", "schemaVersion: 1\napps: {}\n", /apps must name at least one app/],
    ["apps left out", "schemaVersion: 1\n", /apps is missing/],
    ["schemaVersion left out", MINIMAL.replace("schemaVersion: 1", "notify: []"), /schemaVersion is missing/],
    ["a list", "[]", /the file must be a section/],
    ["text", "hello", /the file must be a section/],
    [
      "no stores",
      MINIMAL.replace(/ {4}stores:[^]*/, "    stores: []\n"),
      /stores must name at least one store/,
    ],
    ["stores left out", MINIMAL.replace(/ {4}stores:[^]*/, ""), /stores is missing/],
    ["null", MINIMAL.replace(/ {4}stores:[^]*/, "    stores:\n"), /stores must be a list/],
    ["an http base URL", MINIMAL.replace("https://y", "http://y"), /baseUrl is not a base URL: .*https/],
    ["a base URL with a path", MINIMAL.replace("imkit.io", "imkit.io/v1"), /must not have a path/],
    ["a base URL with a user", MINIMAL.replace("https://y", "https://u:p@y"), /user name or password/],
    ["a metadata address", MINIMAL.replace("your-app.imkit.io", "169.254.169.254"), /metadata/],
    ["a number for a name", MINIMAL.replace("name: env", "name: 1"), /name must be text/],
    ["an upper-case name", MINIMAL.replace("name: env", "name: Env"), /stores\[0\]\.name must be 1 to 32/],
    ["a name with a dash at its end", MINIMAL.replace("name: env", "name: env-"), /name must be 1 to 32/],
    ["a long name", MINIMAL.replace("name: env", `name: ${"a".repeat(33)}`), /name must be 1 to 32/],
    ["a negative duration", app("soak: -1s"), /soak must be a duration/],
    ["an endless duration", app("rotateEvery: 99999999d"), /at most 36500d/],
    ["a duration of two units", app("soak: 1h30m"), /soak must be a duration/],
    ["an unknown time zone", app("timezone: Mars/Olympus"), /timezone must be an IANA time zone/],
    ["a cron line with seconds", app('schedule: "0 0 10 * * *"'), /cron line of five fields/],
    ["a cron line of nonsense", app('schedule: "99 * * * *"'), /not a cron line/],
    [
      "a date that never comes in defaults",
      top('defaults: { schedule: "0 0 31 4 *" }'),
      /defaults\.schedule .*never comes/,
    ],
    ["no probes", app("revoke: { probes: 0 }"), /revoke\.probes/],
    ["a probe and a half", app("revoke: { probes: 1.5 }"), /revoke\.probes must be a whole number/],
    [
      "an unknown order",
      app("emergency: { order: revoke }"),
      /must be one of revoke-first, replace-first, did you mean|must be one of/,
    ],
    ["escrow in no namespace", top("escrow: { type: kubernetes }"), /escrow\.namespace is missing/],
    [
      "a namespace for files",
      top("ledger: { namespace: imkit-ledger }"),
      /ledger\.namespace goes with type: kubernetes alone/,
    ],
    [
      "a namespace with a slash",
      top("ledger: { type: kubernetes, namespace: a/b }"),
      /ledger\.namespace must be the name of a namespace/,
    ],
    [
      "a misspelt namespace",
      top("ledger: { type: kubernetes, namespac: a }"),
      /ledger\.namespac is not a known key, did you mean "namespace"\?/,
    ],
    [
      "a ledger in the sky",
      top("ledger: { type: flie }"),
      /must be one of file, kubernetes, did you mean "file"\?/,
    ],
    [
      "two sources of a secret",
      top("escrow: { identity: { valueFrom: { env: A, file: b } } }"),
      /exactly one of/,
    ],
    ["no source of a secret", top("escrow: { identity: { valueFrom: {} } }"), /exactly one of/],
    [
      "a credential that is a path",
      top("escrow: { identity: { valueFrom: { credential: ../x } } }"),
      /plain file name/,
    ],
    [
      "a notification of no kind",
      top("notify: [{ type: slak }]"),
      /must be one of webhook, slack, did you mean "slack"\?/,
    ],
    [
      "a notification that would go out unencrypted",
      top('notify: [{ type: webhook, url: "http://ops.example.com/events" }]'),
      /must be https \(http is for 127/,
    ],
    [
      "a notification of no state",
      top("notify: [{ type: slack, url: { valueFrom: { env: A } }, on: [faild] }]"),
      /did you mean "failed"\?/,
    ],
    ["a port out of range", top("serve: { listen: 127.0.0.1:65536 }"), /port up to 65535/],
    ["no port", top("serve: { listen: localhost }"), /must be host:port/],
    [
      "a slip in a deep key",
      app("revoke: { probs: 3 }"),
      /revoke\.probs is not a known key, did you mean "probes"\?/,
    ],
    ["another case", app("rotateevery: 3d"), /did you mean "rotateEvery"\?/],
    [
      "a key that nothing is like",
      top("zzzzzz: 1"),
      /zzzzzz is not a known key \(known here: .*schemaVersion/,
    ],
    [
      "canary on a store",
      MINIMAL.replace("path: .env", "path: x, canary: true"),
      /canary is not a known key/,
    ],
    [
      "write that is a word",
      MINIMAL.replace("path: .env", "path: x, write: never"),
      /write must be true or false/,
    ],
    [
      "a command for a store that has none",
      MINIMAL.replace("path: .env", "path: x, write: [a]"),
      /write is not a known key/,
    ],
    [
      "a key that a lax provider would drop",
      MINIMAL.replace("vault, path", "careless, pth: 1, path"),
      /pth is not a known key, did you mean "path"\?/,
    ],
    ["a provider module that fails", MINIMAL.replace("vault", "throws"), /nor a module that can be loaded/],
    [
      "an inbox of no kind",
      app("intake: [{ type: vualt }]"),
      /intake\[0\]\.type is not a known kind of store.*"vault"/,
    ],
    ["an inbox without its path", app("intake: [{ type: vault }]"), /intake\[0\]\.path is missing/],
    ["a target without a kind", MINIMAL.replace("type: vault, ", ""), /stores\[0\]\.type is missing/],
    [
      "a target that is text",
      MINIMAL.replace("{ name: env, type: vault, path: .env }", "env"),
      /stores\[0\] must be a section/,
    ],
  ])("%s", async (_, text, words) => {
    expect(await refused(text)).toMatch(words);
  });

  const rollouts = (...items: string[]): string => app(`rollouts: [${items.join(", ")}]`);
  const roll = (name: string, more = ""): string => `{ name: ${name}, type: manual${more} }`;
  test.each([
    ["itself", rollouts(roll("a", ", after: [a]")), /after\[0\] names the rollout itself/],
    [
      "each other",
      rollouts(roll("a", ", after: [b]"), roll("b", ", after: [a]")),
      /after makes rollouts wait in a circle/,
    ],
    [
      "one another, three of them",
      rollouts(roll("a", ", after: [b]"), roll("b", ", after: [c]"), roll("c", ", after: [a]")),
      /circle/,
    ],
    [
      "a canary after one that is none",
      rollouts(roll("a", ", canary: true, after: [b]"), roll("b")),
      /circle \(a canary/,
    ],
    ["a store", rollouts(roll("a", ", after: [env]")), /names a store/],
    ["a slip", rollouts(roll("worker"), roll("a", ", after: [wroker]")), /did you mean "worker"\?/],
  ])("a rollout after %s", async (_, text, words) => {
    expect(await refused(text)).toMatch(words);
  });

  test("a long chain and two canaries are fine", async () => {
    const text = rollouts(
      roll("a", ", canary: true"),
      roll("b", ", canary: true, after: [a]"),
      roll("c", ", after: [b]"),
      roll("d", ", after: [c, b]"),
    );
    expect((await load(text)).apps.get("chat")?.rollouts).toHaveLength(4);
  });
});

describe("hostile YAML", () => {
  test.each([
    ["a duplicate key", `${MINIMAL}schemaVersion: 1\n`, /:7:1: this key stands here twice/],
    [
      "a duplicate key in an app",
      MINIMAL.replace("path: .env", "path: a, path: b"),
      /:6:44: this key stands here twice/,
    ],
    ["a duplicate JSON key", '{"schemaVersion":1,"schemaVersion":1}', /:1:20: this key stands here twice/],
    ["a tab", "schemaVersion: 1\napps:\n\tchat: 1\n", /:3:1: tabs may not indent YAML/],
    ["a custom tag", "schemaVersion: !secret x\n", /:1:16: tags/],
    ["a binary tag", "schemaVersion: !!binary aGVsbG8=\n", /tags/],
    ["YAML 1.1", `%YAML 1.1\n---\n${MINIMAL}`, /directives/],
    ["two documents", `${MINIMAL}---\n${MINIMAL}`, /one YAML document/],
    ["a merge key", `${MINIMAL}<<: { schemaVersion: 1 }\n`, /is not a known key/],
    ["a list for a key", "? [a]\n: 1\n", /a key must be plain text/],
    ["an unknown alias", "schemaVersion: *one\n", /names no anchor/],
    ["an open quote", 'schemaVersion: "1\n', /yaml:\d+:\d+: /],
    ["an open bracket", "schemaVersion: [1\n", /yaml:\d+:\d+: /],
    ["a colon too many", "a: b: c\n", /yaml:1:\d+: /],
    ["bad indenting", "apps:\n  a: 1\n b: 2\n", /yaml:3:\d: /],
    ["nothing", "", /:1:1: is empty/],
    ["comments only", "# x\n", /:1:1: is empty/],
    ["__proto__", `${MINIMAL}__proto__: { dir: x }\n`, /:7:1: __proto__ may not be used as a key/],
    ["a deep __proto__", MINIMAL.replace("path: .env", "__proto__: { path: x }"), /__proto__ may not/],
    ["constructor", `${MINIMAL}constructor: { prototype: { x: 1 } }\n`, /constructor may not be used/],
    ["an app named __proto__", MINIMAL.replace("  chat:", "  __proto__:"), /__proto__ may not/],
    ["brackets in brackets", `a: ${"[".repeat(200_000)}`, /nested too deeply/],
    ["dashes in dashes", "- ".repeat(100_000), /nested too deeply/],
    ["maps in maps", "{a: ".repeat(50_000), /nested too deeply/],
    ["an alias of itself", "schemaVersion: &a [*a]\n", /aliases unfold to too much/],
    ["laughs", laughs(), /aliases unfold to too much/],
    ["more than 256 KiB", `${MINIMAL}# ${"x".repeat(256 * 1024)}\n`, /larger than 256 KiB/],
    ["NUL", `${MINIMAL}\0`, /not a text file/],
    ["Latin-1", Buffer.from(`${MINIMAL}# caf\u00e9\n`, "latin1"), /not UTF-8/],
    ["UTF-16", Buffer.from(`\ufeff${MINIMAL}`, "utf16le"), /not a text file|not UTF-8/],
    ["a program", Buffer.from("7f454c4602010100ff", "hex"), /not a text file|not UTF-8/],
  ])("%s", async (_, text, words) => {
    expect(await refused(text)).toMatch(words);
    expect(Reflect.get({}, "dir")).toBeUndefined();
  });
});

function laughs(): string {
  const rows = Array.from({ length: 7 }, (_, n) => `l${n + 1}: &l${n + 1} [${`*l${n}, `.repeat(9)}*l${n}]`);
  return `l0: &l0 [lol, lol]\n${rows.join("\n")}\n`;
}

describe("what is no readable file", () => {
  const reason = async (path: string): Promise<string> =>
    (await linesOf(loadConfig(path, { ...providers, env }))).join("\n");

  test("is refused by its kind", async () => {
    const dir = fresh();
    mkdirSync(join(dir, "folder"));
    symlinkSync("loop", join(dir, "loop"));
    symlinkSync("nowhere", join(dir, "dangling"));
    execFileSync("mkfifo", [join(dir, "fifo")]);
    expect(await reason(join(dir, "folder"))).toMatch(/folder:1:1: is a directory/);
    expect(await reason(join(dir, "loop"))).toMatch(/leads in a circle/);
    expect(await reason(join(dir, "dangling"))).toMatch(/is not there/);
    expect(await reason(join(dir, "fifo"))).toMatch(/not a regular file/);
    expect(await reason("/dev/zero")).toMatch(/not a regular file/);
    expect(await reason(join(dir, "absent"))).toMatch(/is not there/);
  });

  test.skipIf(getuid?.() === 0)("and one that may not be read", async () => {
    const path = join(fresh(), "secret.yaml");
    writeFileSync(path, MINIMAL);
    chmodSync(path, 0);
    expect(await reason(path)).toMatch(/may not be read/);
  });
});

describe("no value is repeated, wherever a key was pasted", () => {
  const key = madeKey();
  const single = Buffer.from(Array.from({ length: 32 }, (_, n) => (n * 73 + 19) % 256)).toString("base64");
  const places: readonly (readonly [string, (value: string) => string])[] = [
    ["an unknown key's value", (value) => `${MINIMAL}apiKey: "${value}"\n`],
    ["an app's unknown key", (value) => `${MINIMAL}    key: "${value}"\n`],
    ["a store's unknown key", (value) => MINIMAL.replace("path: .env", `path: x, value: "${value}"`)],
    ["a key", (value) => `${MINIMAL}"${value}": 1\n`],
    ["an app's name", (value) => MINIMAL.replace("chat:", `"${value}":`)],
    ["a store's name", (value) => MINIMAL.replace("name: env", `name: "${value}"`)],
    ["a store's type", (value) => MINIMAL.replace("type: vault", `type: "${value}"`)],
    ["baseUrl", (value) => MINIMAL.replace("https://your-app.imkit.io", `https://x/${value}`)],
    ["a duration", (value) => `${MINIMAL}    soak: "${value}"\n`],
    ["a time zone", (value) => `${MINIMAL}    timezone: "${value}"\n`],
    ["a schedule", (value) => `${MINIMAL}    schedule: "${value} * * * *"\n`],
    ["after", (value) => `${MINIMAL}    rollouts: [{ name: r, type: manual, after: ["${value}"] }]\n`],
    ["listen", (value) => `${MINIMAL}serve: { listen: "${value}" }\n`],
    ["the escrow identity", (value) => `${MINIMAL}escrow: { identity: "${value}" }\n`],
    [
      "a slack URL",
      (value) => `${MINIMAL}notify: [{ type: slack, url: "https://hooks.example/${value}" }]\n`,
    ],
    [
      "a webhook's secret",
      (value) => `${MINIMAL}notify: [{ type: webhook, url: "https://x.example", secret: "${value}" }]\n`,
    ],
    [
      "a notification's state",
      (value) => `${MINIMAL}notify: [{ type: slack, url: { valueFrom: { env: A } }, on: ["${value}"] }]\n`,
    ],
    ["a provider's secret", (value) => MINIMAL.replace("vault, path: .env", `hook, secret: "${value}"`)],
    ["a provider that quotes", (value) => MINIMAL.replace("vault, path: .env", `echoing, path: "${value}"`)],
    ["a duplicate", (value) => `${MINIMAL}"${value}": 1\n"${value}": 2\n`],
    ["an anchor", (value) => `${MINIMAL}x: *${value}\n`],
    ["broken YAML", (value) => `${MINIMAL}${value}\n`],
    ["an open quote", (value) => `${MINIMAL}x: "${value}\n`],
    ["a tag", (value) => `${MINIMAL}x: !${value} 1\n`],
  ];
  test.each(places)("%s", async (_, place) => {
    for (const value of [key, single, key.slice(0, 31)]) {
      const words = await refused(place(value));
      expect(findKey(words, value)).toEqual([]);
    }
    expect(await refused(place(key))).toMatch(/exposed/);
  });

  test("a key in a comment, in a value that would be allowed, or in a file that is broken is found and called exposed", async () => {
    expect(await refused(`${MINIMAL}# old: ${key}\n`)).toMatch(
      /yaml:7:8: an API Key stands in this file: it is exposed/,
    );
    expect(await refused(MINIMAL.replace(".env", key))).toMatch(/exposed/);
    expect(await refused(`${MINIMAL}\t{{ ${key}\n`)).toMatch(/exposed/);
  });

  test.each([
    ["escrow: { identity: AGE-SECRET-KEY-1QQQQ }", /escrow\.identity must be \{ valueFrom.*exposed/],
    [
      'notify: [{ type: slack, url: "https://hooks.example/T000/B000/abc" }]',
      /url must be \{ valueFrom.*exposed/,
    ],
    ["token: hunter2", /token is not a known key, and no place for a secret.*exposed/],
    ["apiKey: hunter2", /apiKey is not a known key, and no place for a secret.*exposed/],
  ])("%s is refused as exposed", async (line, words) => {
    const said = await refused(`${MINIMAL}${line}\n`);
    expect(said).toMatch(words);
    expect(said).not.toMatch(/hunter2|T000|QQQQ/);
  });
});

describe("with the providers of the program", () => {
  const real = {
    schemaOf: async (half: "store" | "rollout", type: string, dir: string): Promise<Schema> =>
      half === "store"
        ? (await loadStoreProvider(type, dir)).schema
        : (await loadRolloutProvider(type, dir)).schema,
    env,
  };
  test("a dotenv store with a rollout of exec loads, and a slip in each is found", async () => {
    const path = join(fresh(), "imkit-rotator.config.yaml");
    const text = MINIMAL.replace("vault", "dotenv").concat(
      "    rollouts: [{ name: w, type: exec, command: [systemctl, restart, x], timeout: 1m }]\n",
    );
    writeFileSync(path, text);
    const config = await loadConfig(path, real);
    expect(config.apps.get("chat")?.stores[0]?.settings).toMatchObject({ path: ".env" });
    writeFileSync(path, text.replace("path:", "pth:").replace("command", "comand"));
    const lines = (await linesOf(loadConfig(path, real))).join("\n");
    expect(lines).toMatch(/stores\[0\]\.pth is not a known key, did you mean "path"\?/);
    expect(lines).toMatch(/rollouts\[0\]\.comand is not a known key, did you mean "command"\?/);
  });

  test("the JSON Schema knows every key with a description, and the kinds' own keys", async () => {
    const schema = configJsonSchema(await builtinSchemas());
    expect(schema["$schema"]).toBe("http://json-schema.org/draft-07/schema#");
    const text = JSON.stringify(schema);
    for (const word of ["dotenv", "IMKIT_API_KEY", "escalateAfter", "revoke-first", "remindBefore"])
      expect(text).toContain(word);
    const at = (...path: readonly string[]): unknown =>
      path.reduce<unknown>((inner, key) => Reflect.get(Object(inner), key), schema);
    const app = ["properties", "apps", "additionalProperties", "properties"];
    expect(at("additionalProperties")).toBe(false);
    for (const key of Object.keys(Object(at(...app))))
      expect(at(...app, key, "description")).toEqual(expect.any(String));
    for (const key of Object.keys(Object(at("properties"))))
      expect(at("properties", key, "description")).toEqual(expect.any(String));
    const forms = at(...app, "stores", "items", "anyOf");
    expect(forms).toContainEqual(
      expect.objectContaining({
        additionalProperties: false,
        properties: expect.objectContaining({
          type: { const: "dotenv" },
          path: expect.anything(),
          write: expect.anything(),
        }),
        required: expect.arrayContaining(["name", "type"]),
      }),
    );
  });
});

describe("an editor with the JSON Schema", () => {
  const target = { name: "env", type: "dotenv", path: ".env" };
  const file = (app: object, more: object = {}): object => ({
    schemaVersion: 1,
    apps: { chat: { baseUrl: "https://a.imkit.io", stores: [target], ...app } },
    ...more,
  });
  test.each([
    ["the shortest file", file({}), true],
    [
      "more keys",
      file({ soak: "5m", revoke: { probes: 2 }, owners: ["may"] }, { notify: [], serve: {} }),
      true,
    ],
    ["a kind of one's own", file({ stores: [{ name: "v", type: "./vault.store.ts", anything: 1 }] }), true],
    [
      "an exec store's command",
      file({ stores: [{ name: "v", type: "exec", read: ["a"], write: ["b"] }] }),
      true,
    ],
    ["a mirror by exec", file({ stores: [{ name: "v", type: "exec", read: ["a"], write: false }] }), true],
    ["no app", { schemaVersion: 1 }, false],
    ["an unknown key", file({}, { stat: {} }), false],
    ["an unknown key of an app", file({ stors: [] }), false],
    ["an unknown key of a store", file({ stores: [{ ...target, pth: "x" }] }), false],
    ["a store without its path", file({ stores: [{ name: "env", type: "dotenv" }] }), false],
    ["a store without a name", file({ stores: [{ type: "dotenv", path: "x" }] }), false],
    ["a bad name", file({ stores: [{ ...target, name: "Env" }] }), false],
    ["a bad duration", file({ soak: "5 minutes" }), false],
    ["an inline secret", file({}, { notify: [{ type: "slack", url: "https://x" }] }), false],
    ["another version", { ...file({}), schemaVersion: 2 }, false],
  ])("%s", async (_, value, isSound) => {
    const schema = z.fromJSONSchema(configJsonSchema(await builtinSchemas()));
    expect(schema.safeParse(value).success).toBe(isSound);
  });
});

describe("finding the file", () => {
  const found = (cwd: string, more: { flag?: string; env?: Record<string, string> } = {}): Promise<string> =>
    findConfig({ flag: more.flag, env: { HOME: join(root, "nobody"), ...more.env }, cwd });

  test("--config before the variable, before the folders upwards, before the user's", async () => {
    const top = fresh();
    const deep = join(top, "a", "b");
    const user = join(top, "xdg", "imkit-rotator");
    mkdirSync(deep, { recursive: true });
    mkdirSync(user, { recursive: true });
    const files = [
      "flag.yaml",
      "env.yaml",
      "a/imkit-rotator.config.yml",
      "xdg/imkit-rotator/imkit-rotator.config.json",
    ];
    const [flag = "", variable = "", above = "", mine = ""] = files.map((file) => join(top, file));
    for (const file of [flag, variable, above, mine]) writeFileSync(file, MINIMAL);
    const all = { IMKIT_ROTATOR_CONFIG: variable, XDG_CONFIG_HOME: join(top, "xdg") };
    expect(await found(deep, { flag: "../../flag.yaml", env: all })).toBe(flag);
    expect(await found(deep, { env: all })).toBe(variable);
    expect(await found(deep, { env: { XDG_CONFIG_HOME: join(top, "xdg") } })).toBe(above);
    rmSync(above);
    expect(await found(deep, { env: { XDG_CONFIG_HOME: join(top, "xdg") } })).toBe(mine);
    expect(await found(deep, { env: { HOME: top } }).catch((error: unknown) => error)).toMatchObject({
      code: "CONFIG_MISSING",
    });
  });

  test("one that is named and not there is missing, not searched for elsewhere", async () => {
    const dir = fresh();
    writeFileSync(join(dir, "imkit-rotator.config.yaml"), MINIMAL);
    await expect(found(dir, { flag: "other.yaml" })).rejects.toMatchObject({
      code: "CONFIG_MISSING",
      exit: 2,
    });
    await expect(found(dir, { flag: "" })).rejects.toMatchObject({ code: "CONFIG_MISSING" });
    await expect(found(dir, { env: { IMKIT_ROTATOR_CONFIG: "other.yaml" } })).rejects.toMatchObject({
      code: "CONFIG_MISSING",
    });
  });

  test("two in one folder are refused", async () => {
    const dir = fresh();
    writeFileSync(join(dir, "imkit-rotator.config.yaml"), MINIMAL);
    writeFileSync(join(dir, "imkit-rotator.config.json"), "{}");
    expect(await linesOf(found(dir))).toHaveLength(2);
  });
});

describe("valueFrom", () => {
  const dir = fresh();
  const at = { dir, env: { HOOK: "s3cret\n", EMPTY: "", CREDENTIALS_DIRECTORY: dir, HOME: dir } };
  writeFileSync(join(dir, "one"), "from file\r\n");
  writeFileSync(join(dir, "two"), "two\n\n");
  writeFileSync(join(dir, "empty"), "\n");

  test("takes a variable, a file or a credential, without one line end", async () => {
    expect(await valueOf({ valueFrom: { env: "HOOK" } }, at)).toBe("s3cret");
    expect(await valueOf({ valueFrom: { file: "one" } }, at)).toBe("from file");
    expect(await valueOf({ valueFrom: { file: "~/two" } }, at)).toBe("two\n");
    expect(await valueOf({ valueFrom: { file: join(dir, "one") } }, at)).toBe("from file");
    expect(await valueOf({ valueFrom: { credential: "one" } }, at)).toBe("from file");
  });

  test.each([
    [{ env: "NOT_SET" }, /NOT_SET is not set/],
    [{ env: "EMPTY" }, /EMPTY is not set or empty/],
    [{ file: "absent" }, /absent is not there/],
    [{ file: "." }, /not a regular file/],
    [{ file: "empty" }, /empty is empty/],
    [{ credential: "absent" }, /absent is not there/],
    [{ credential: "../one" }, /plain file name/],
    [{ credential: ".." }, /plain file name/],
    [{}, /exactly one/],
    [{ env: "HOOK", file: "one" }, /exactly one/],
  ])("%j is an error that names the place", async (valueFrom, words) => {
    const error: unknown = await valueOf({ valueFrom }, at).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "CONFIG_INVALID", why: expect.stringMatching(words) });
    expect(JSON.stringify(error)).not.toMatch(/s3cret|from file/);
  });

  test("a variable's name that may be a secret is not shown, and credentials need systemd's variable", async () => {
    const key = madeKey();
    const error: unknown = await valueOf({ valueFrom: { env: key } }, at).catch((thrown: unknown) => thrown);
    expect(findKey(JSON.stringify(error), key)).toEqual([]);
    await expect(valueOf({ valueFrom: { credential: "one" } }, { dir, env: {} })).rejects.toMatchObject({
      why: expect.stringContaining("CREDENTIALS_DIRECTORY"),
    });
  });
});
