import { spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { buildProgram } from "../../src/shell/args.ts";
import { makeClientKey } from "../../src/shell/sandbox/admin.ts";
import { type Sandbox, startSandbox } from "../../src/shell/sandbox/server.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { cleanEnv, programFile, runProgram } from "../kit/program.ts";
import { CTRL_C, ENTER, hasTerminal, runOnTerminal } from "../kit/terminal.ts";

const page = join(import.meta.dirname, "..", "..", "docs", "leak.md");
const text = readFileSync(page, "utf8");

type Block = {
  readonly notes: readonly string[];
  readonly lines: readonly string[];
  readonly raw: readonly string[];
  readonly at: number;
};
const FENCE = /(?:<!-- test: ([^>]*?) -->\n)?^```sh\n([\s\S]*?)^```$/gm;
const blocks: readonly Block[] = [...text.matchAll(FENCE)].map(({ index, 1: note = "", 2: body = "" }) => ({
  notes: note.split("; "),
  // A line that goes on in the next one is one.
  lines: body
    .replace(/(\\|\|)\n\s*/g, (_, end: string) => (end === "|" ? "| " : ""))
    .split("\n")
    .filter((line) => line.trim() !== ""),
  raw: body.split("\n"),
  at: text.slice(0, index).split("\n").length + 1,
}));

/** A reader's place: his folder, his IMKIT, and he himself, who does what the screen says. */
type Desk = {
  readonly dir: string;
  readonly sandbox: Sandbox;
  /** Keys that are pasted, in this order, before he issues one. */
  readonly paste: string[];
  readonly shown: string[];
  /** The new key that was staged before the block began. */
  staged: string;
  fingerprint: string;
  isInterrupted: boolean;
};

const APP = "chat";
const envOf = (d: Desk): string => join(d.dir, ".env");
const putKey = (d: Desk, key: string): void =>
  writeFileSync(
    envOf(d),
    readFileSync(envOf(d), "utf8").replace(/^IMKIT_API_KEY=.*$/m, `IMKIT_API_KEY=${key}`),
  );

const configText = (d: Desk): string => `schemaVersion: 1
apps:
  ${APP}:
    baseUrl: ${d.sandbox.url}
    stores:
      - { name: env, type: dotenv, path: .env, key: IMKIT_API_KEY }
      - { name: old, type: dotenv, path: old.env, key: IMKIT_API_KEY }
    revoke: { probes: 3, every: 10ms }
`;
const configOf = (d: Desk): string => join(d.dir, "imkit-rotator.config.yaml");
const dropOld = (d: Desk): void =>
  writeFileSync(configOf(d), readFileSync(configOf(d), "utf8").replace(/^.*old\.env.*\n/m, ""));

/** The program without a terminal, to get to where a block begins. */
const run = async (d: Desk, args: readonly string[], wanted: number, stdin = ""): Promise<string> => {
  const ran = await runProgram([...args, "--json"], { cwd: d.dir, stdin });
  expect({ args, code: ran.code, err: wanted === ran.code ? "" : ran.stderr }).toEqual({
    args,
    code: wanted,
    err: "",
  });
  return ran.stdout;
};
const stage = async (d: Desk): Promise<void> => {
  d.staged = d.sandbox.issue();
  const said = await run(d, ["stage", APP, "--from-stdin"], 0, d.staged);
  d.fingerprint = (JSON.parse(said) as { readonly fingerprint: string }).fingerprint;
};
const stateDir = (d: Desk): string => join(d.dir, "home", ".local", "state", "imkit-rotator", APP);

/** Where a block begins. */
const WORLDS: Readonly<Record<string, (d: Desk) => Promise<unknown>>> = {
  fresh: async () => undefined,
  ready: async (d) => writeFileSync(configOf(d), configText(d)),
  adopted: async (d) => {
    await WORLDS["ready"]?.(d);
    await run(d, ["adopt", APP], 0);
  },
  alarm: async (d) => {
    await WORLDS["ready"]?.(d);
    await run(d, ["rotate", "--emergency"], 3);
  },
  staged: async (d) => {
    await WORLDS["alarm"]?.(d);
    await stage(d);
  },
  written: async (d) => {
    await WORLDS["ready"]?.(d);
    await stage(d);
    await run(d, ["rotate", "--emergency"], 3);
  },
  asked: async (d) => {
    await WORLDS["written"]?.(d);
    await run(d, ["rotate", APP, "--restarted"], 3);
  },
};

/** What has happened, or happens, besides. Each gives what is undone before line `n` (from 0), if anything. */
type Turn = (d: Desk) => ((line: number) => void) | void;
const TURNS: Readonly<Record<string, Turn>> = {
  "exits at the first wait": () => undefined,
  "FINGERPRINT is the new one": () => undefined,
  "the old key is revoked": (d) => void d.sandbox.revoke(1),
  "the new key is revoked": (d) => void d.sandbox.revoke(2),
  "both keys are revoked": (d) => void [1, 2].map(d.sandbox.revoke),
  "a key stands in app.log": (d) =>
    writeFileSync(join(d.dir, "app.log"), `sent with ${d.sandbox.firstKey()}\n`),
  "the Client Key is pasted first": (d) => void d.paste.push(makeClientKey()),
  "a key of another app is pasted first": (d) => void d.paste.push(madeKey()),
  "the staged key is pasted again": (d) => void d.paste.push(d.staged),
  "the old key is typed in": (d) => void d.paste.push(d.sandbox.firstKey()),
  "somebody puts a third key into .env": (d) => putKey(d, d.sandbox.issue()),
  "Ctrl-C at the first question": (d) => {
    d.isInterrupted = true;
  },
  ".env cannot be written, and then it can": (d) => {
    const before = readFileSync(envOf(d), "utf8");
    writeFileSync(envOf(d), `${before}IMKIT_API_KEY=twice\n`);
    return (line) => {
      if (line === 2) writeFileSync(envOf(d), before);
    };
  },
  "the store old is gone from the config": dropOld,
  "the escrow folder is lost": (d) => rmSync(join(stateDir(d), "escrow"), { recursive: true }),
  "the escrow identity is lost": (d) =>
    rmSync(join(d.dir, "home", ".config", "imkit-rotator", "escrow-identity.txt")),
  "the ledger is gone": (d) => rmSync(join(stateDir(d), "ledger"), { recursive: true }),
  "the ledger is broken": (d) => writeFileSync(join(stateDir(d), "ledger", "00000002.json"), "{}\n"),
  "a new key works only after 3 seconds": () => undefined,
};

/** What the reader does when the screen says it; each thing once per line that he typed. */
const person = (d: Desk): readonly { readonly see: RegExp; readonly act: () => string }[] => [
  { see: /Stop the leak: in the Dashboard/, act: () => (d.sandbox.revoke(1), "") },
  {
    see: /New API Key of \w+ \(hidden\)/,
    act: () => (d.isInterrupted ? CTRL_C : (d.paste.shift() ?? d.sandbox.issue()) + ENTER),
  },
  { see: /press Enter here when all was restarted/, act: () => (d.isInterrupted ? CTRL_C : ENTER) },
  { see: /revoke the newer API Key/, act: () => (d.sandbox.revoke(d.sandbox.keys().length), "") },
  {
    see: /revoke (?:the|every) API Key that (?:was|were) issued before/,
    act: () => (revokeAllButLast(d), ""),
  },
  { see: /Write [^?]* again\?|Take the alarm back\?|Go on\?/, act: () => "y" },
];
const revokeAllButLast = (d: Desk): void => {
  for (const { id } of d.sandbox.keys().slice(0, -1)) d.sandbox.revoke(id);
};

const PATIENCE_MS = 60_000;

/** Types a line into a shell on a terminal of 80 columns. */
const type = async (d: Desk, line: string): Promise<number | null> => {
  const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;
  const env = cleanEnv(d.dir, { TERM: "xterm-256color", SHELL: "/bin/sh" });
  const command = `stty cols 80 rows 24; exec bash -c ${quote(line)}`;
  const child = spawn("script", ["--quiet", "--return", "--command", command, "/dev/null"], {
    cwd: d.dir,
    env: { ...env, PATH: [join(d.dir, "bin"), env["PATH"]].join(delimiter) },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const left = [...person(d)];
  let screen = "";
  child.stdin.on("error", () => undefined);
  child.stdout.setEncoding("utf8").on("data", (part: string) => {
    screen += part;
    // Lines are broken between words; what is read is the text.
    const flat = screen.replace(/\s+/g, " ");
    for (const one of left.filter(({ see }) => see.test(flat))) {
      left.splice(left.indexOf(one), 1);
      child.stdin.write(one.act());
    }
  });
  let isLate = false;
  const guard = setTimeout(() => {
    isLate = true;
    child.kill();
  }, PATIENCE_MS);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  clearTimeout(guard);
  d.shown.push(screen);
  return isLate ? null : code;
};

const desk = async (lagMs: number): Promise<Desk> => {
  const dir = join(mkdtempSync(join(tmpdir(), "leak-page-")), APP);
  mkdirSync(join(dir, "bin"), { recursive: true });
  symlinkSync(await programFile(), join(dir, "bin", "imkit-rotator"));
  const sandbox = await startSandbox({ app: APP, activationLagMs: lagMs });
  const d: Desk = { dir, sandbox, paste: [], shown: [], staged: "", fingerprint: "", isInterrupted: false };
  const lines = `IMKIT_API_KEY=${sandbox.firstKey()}\nIMKIT_BASE_URL=${sandbox.url}\n`;
  writeFileSync(envOf(d), lines, { mode: 0o600 });
  writeFileSync(join(dir, "old.env"), `IMKIT_API_KEY=${sandbox.firstKey()}\n`, { mode: 0o600 });
  return d;
};

const wantedExit = (line: string): number => Number(/# exit (\d+)/.exec(line)?.[1] ?? "0");

type Typed = { readonly line: string; readonly code: number | null; readonly screen: string };
type Ended = { readonly typed: readonly Typed[]; readonly leaks: readonly string[] };

/** Plays a block from its beginning; the screen is kept where a line did not end as it says. */
const play = async ({ notes: [world = "", ...turns], lines }: Block): Promise<Ended> => {
  const d = await desk(turns.includes("a new key works only after 3 seconds") ? 3_000 : 0);
  try {
    await WORLDS[world]?.(d);
    const between = turns.map((turn) => TURNS[turn]?.(d));
    const typed: Typed[] = [];
    for (const [n, line] of lines.entries()) {
      for (const undo of between) undo?.(n);
      const code = await type(d, line.replace("FINGERPRINT", d.fingerprint));
      if (n === 0) d.isInterrupted = false;
      typed.push({ line, code, screen: code === wantedExit(line) ? "" : (d.shown.at(-1) ?? "") });
      if (line.includes(" init ")) hurry(d);
    }
    const all = d.shown.join("");
    const last = readFileSync(envOf(d), "utf8").split(/^IMKIT_API_KEY=|\n/m)[1] ?? "";
    return { typed, leaks: [d.sandbox.firstKey(), last].flatMap((key) => findKey(all, key)) };
  } finally {
    await d.sandbox.close();
    rmSync(dirname(d.dir), { recursive: true, force: true });
  }
};

/** They mostly wait, each for 10 s between two looks at IMKIT, so many are played side by side. */
const AT_ONCE = 10;
const playAll = async (): Promise<ReadonlyMap<Block, Ended>> => {
  const ended = new Map<Block, Ended>();
  const left = [...blocks].toSorted((a, b) => a.notes.length - b.notes.length);
  const one = async (): Promise<void> => {
    for (let block = left.pop(); block !== undefined; block = left.pop()) {
      ended.set(block, await play(block));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  return ended;
};

describe.skipIf(!hasTerminal)(
  "each block of docs/leak.md, typed on a terminal by a person who does what it says",
  () => {
    let played: ReadonlyMap<Block, Ended> = new Map();
    beforeAll(async () => {
      played = await playAll();
    }, 240_000);

    it.each(blocks.map((block) => [`line ${block.at}: ${block.notes.join("; ")}`, block] as const))(
      "%s",
      (_, block) => {
        const wanted = block.lines.map((line) => ({ line, code: wantedExit(line), screen: "" }));
        expect(played.get(block)?.typed).toEqual(wanted);
        expect(played.get(block)?.leaks).toEqual([]);
      },
    );
  },
);

/** Three proofs 5 s apart are right, and too slow for a test. */
const hurry = (d: Desk): void =>
  writeFileSync(configOf(d), readFileSync(configOf(d), "utf8").replace("every: 5s", "every: 10ms"));

describe.skipIf(!hasTerminal)("where the rotation waits for a key", () => {
  it("a wrong paste is asked for again at once, and Ctrl-C ends it at once", async () => {
    const d = await desk(0);
    try {
      await WORLDS["alarm"]?.(d);
      const began = performance.now();
      const { code, screen, missed } = await runOnTerminal(["rotate", APP], {
        cwd: d.dir,
        steps: [
          { see: /paste the new key here[^]*New API Key of chat/, type: makeClientKey() + ENTER },
          { see: /KEY_MALFORMED[^]*New API Key of chat/, type: CTRL_C },
        ],
      });
      expect({ code, missed }).toEqual({ code: 130, missed: null });
      expect(screen).toContain("INTERRUPTED");
      // It looks at IMKIT every 10 s; nothing may wait for that.
      expect(performance.now() - began).toBeLessThan(9_000);
    } finally {
      await d.sandbox.close();
      rmSync(dirname(d.dir), { recursive: true, force: true });
    }
  });
});

describe("docs/leak.md", () => {
  it("has a known beginning for every block, and no block that is not run", () => {
    for (const {
      notes: [world = "", ...turns],
    } of blocks) {
      expect(WORLDS).toHaveProperty([world]);
      for (const turn of turns) expect(TURNS).toHaveProperty([turn]);
    }
    expect(blocks.length).toBeGreaterThan(20);
    expect(blocks.filter(({ notes }) => notes[0] === "").map(({ at }) => at)).toEqual([]);
    expect([...text.matchAll(/^```(\w*)$/gm)].map(([, kind]) => kind).filter((kind) => kind !== "")).toEqual(
      blocks.map(() => "sh"),
    );
  });

  it("fits a terminal of 80 columns, and begins with what to do", () => {
    expect(blocks.flatMap(({ raw }) => raw).filter((line) => line.length > 80)).toEqual([]);
    const columns = (line: string): number => line.length + (line.match(/[^\x20-\x7e]/g)?.length ?? 0);
    const seen = text.split("\n").filter((line) => !line.startsWith("<!--"));
    expect(seen.filter((line) => columns(line) > 80)).toEqual([]);
    // The five lines and what to type are on the first screen.
    expect(seen.findIndex((line) => line.includes("rotate --emergency"))).toBeLessThan(24);
  });

  it("names only commands, options and files that there are", () => {
    const program = buildProgram(() => undefined);
    const said = [...text.matchAll(/imkit-rotator ([a-z][a-z-]+)([^`\n|]*)/g)];
    expect(said.length).toBeGreaterThan(30);
    for (const [, name = "", rest = ""] of said) {
      const top = program.commands.find((c) => c.name() === name);
      expect(top, `imkit-rotator ${name}`).toBeDefined();
      const known = [program, top].flatMap((c) => c?.options.map((o) => o.long) ?? []);
      const options = rest.replace(/#.*|".*?"/g, "").match(/--[a-z-]+/g) ?? [];
      expect(options.filter((option) => !known.includes(option))).toEqual([]);
    }
    const links = [...text.matchAll(/\]\(([^)#]+)\)/g)].map(([, link = ""]) => link);
    expect(links.filter((file) => !existsSync(join(dirname(page), file)))).toEqual([]);
    const anchors = [...text.matchAll(/\]\(#([^)]+)\)/g)].map(([, link = ""]) => link);
    const titles = [...text.matchAll(/^#+ (.*)$/gm)].map(([, title = ""]) =>
      title
        .toLowerCase()
        .replace(/[^\w -]/g, "")
        .replaceAll(" ", "-"),
    );
    expect(anchors.filter((anchor) => !titles.includes(anchor))).toEqual([]);
  });
});
