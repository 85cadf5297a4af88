import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { parseEnv, stripVTControlCharacters } from "node:util";
import { expect } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { verifyLedger } from "../../src/core/verify.ts";
import { type Sandbox, startSandbox } from "../../src/shell/sandbox/server.ts";
import { findKey } from "./leak.ts";
import { cleanEnv, programFile } from "./program.ts";
import { CTRL_C, ENTER } from "./terminal.ts";
import { makeWorld, type WorldOptions } from "./world.ts";

type Json = Record<string, unknown>;
type Step = { readonly text: string; readonly command: string | null };

/** What a command left behind, and what it said to do. */
export type Answer = {
  readonly line: string;
  readonly code: number | null;
  /** Everything that a person saw. */
  readonly said: string;
  /** The last line of JSON that is no error. */
  readonly result: Json;
  /** The last line of a command that failed. */
  readonly error: Json;
  /** What the error says to do, `next`, and what would undo it, as an alternative. */
  readonly steps: readonly Step[];
};

export type SayOptions = {
  /** Keys that are typed or piped in first. Then `stage` gets those in the person's hand, and then one that he issues. */
  readonly paste?: readonly string[];
  /** `stage` gets its key by --from-stdin, and not on a terminal, where it goes on by itself when services are failing. */
  readonly piped?: boolean;
  /** On a terminal, where the person answers what is asked. `stage` always is. */
  readonly terminal?: boolean;
  /** Which commands that are shown while it waits are run in a second terminal. Default: on a terminal none, else all. */
  readonly second?: RegExp;
  /** What the person leaves undone of what he is told: texts, commands, `Enter`. */
  readonly idle?: RegExp;
  /** Done once each, when this is seen; it has to be seen. */
  readonly when?: readonly {
    readonly see: RegExp;
    readonly act: (end: (signal: NodeJS.Signals) => void) => unknown;
  }[];
};
export type TakeOptions = Omit<SayOptions, "terminal" | "when"> & {
  /** Exit statuses other than 0 and 3, by command without the program's name. */
  readonly exits?: Readonly<Record<string, number>>;
  /** Alternatives (`Or …`) that are taken, too; all else is left when one of them fits. */
  readonly choose?: RegExp;
};

export type Journey = {
  readonly dir: string;
  readonly stateDir: string;
  readonly sandbox: Sandbox;
  /** Types a line into a shell. Whatever it says to do has to be taken or tried before the end. */
  readonly say: (line: string, exit: number | null, options?: SayOptions) => Promise<Answer>;
  /** Does every step in order, acts and commands as they are printed; alternatives are tried before that. @returns the last answer */
  readonly take: (answer: Answer, options?: TakeOptions) => Promise<Answer>;
  /** Runs every command of it; after each all is put back as it was. */
  readonly try: (answer: Answer, options?: TakeOptions) => Promise<void>;
  /** Issues a key at the Dashboard. Keys are `old`, `new1`, `new2` and so on. */
  readonly issue: () => string;
  /** Gives a name to a key that this Dashboard did not issue. */
  readonly name: (name: string, key: string) => void;
  readonly key: (name: string) => string;
  readonly revoke: (name: string) => void;
  /** A fingerprint as the program shows it. */
  readonly fp: (name: string) => string;
  /** Names of the keys in the stores. */
  readonly holds: () => Json;
  /** Puts a key into a store, by hand. */
  readonly put: (store: string, name: string) => void;
  /** Names of the keys that the services have read. */
  readonly runsOn: () => Json;
  readonly restart: () => void;
  readonly edit: (from: string | RegExp, to: string) => void;
  /** File names of the escrow. */
  readonly escrow: () => readonly string[];
  readonly saw: (name: string) => { readonly ok: number; readonly rejected: number };
  /** Nothing is left to do, no key was shown, the ledger is sound, IMKIT was asked this often at most, and there are so many reports. */
  readonly end: (limits: { readonly calls: number; readonly reports?: number }) => Promise<void>;
};

const PATIENCE_MS = 100_000;
/** Not the way on, but another one. */
const ALTERNATIVE = /^(?:Or|Else|If)\b/;
const WAITS = /^■ Your turn|it is asked again in/m;
const NEVER = /$^/;
const QUESTION = /(?:New API Key of|[^\n]*Go on\?|[^\n]*again\?)/.source;
const tried = new Set<string>();
const open: (() => Promise<void>)[] = [];
/** For `afterAll`. */
export const closeJourneys = async (): Promise<void> => {
  await Promise.all(open.map((close) => close()));
};

type Place = {
  readonly dir: string;
  readonly stateDir: string;
  readonly sandbox: Sandbox;
  readonly app: string;
};

/** A person in a folder with a config of the app `demo`, and his IMKIT. */
export const startJourney = async (options: WorldOptions = {}): Promise<Journey> => {
  const { dir, sandbox, close } = await makeWorld(options);
  open.push(close);
  const place = { dir, sandbox, stateDir: join(dir, "state", "demo"), app: "demo" };
  await addProgram(dir);
  return journeyIn(place, new Map([["old", sandbox.firstKey()]]), null);
};

/** The same in a folder where nobody ever heard of this program: there is `.env` alone. */
export const startWithNothing = async (): Promise<Journey> => {
  const root = mkdtempSync(join(tmpdir(), "imkit-rotator-nothing-"));
  const dir = join(root, "demo");
  const sandbox = await startSandbox({ app: "demo" });
  open.push(async () => {
    await sandbox.close();
    rmSync(root, { recursive: true, force: true });
  });
  await addProgram(dir);
  const text = `PORT=3000\nIMKIT_API_KEY="${sandbox.firstKey()}"\nIMKIT_BASE_URL=${sandbox.url}\n`;
  writeFileSync(join(dir, ".env"), text, { mode: 0o600 });
  const stateDir = join(dir, "home", ".local", "state", "imkit-rotator", "demo");
  return journeyIn({ dir, sandbox, stateDir, app: "demo" }, new Map([["old", sandbox.firstKey()]]), null);
};

const addProgram = async (dir: string): Promise<void> => {
  mkdirSync(join(dir, "bin"), { recursive: true });
  symlinkSync(await programFile(), join(dir, "bin", "imkit-rotator"));
};

/** @param copy prefix of the keys that are issued for a trial; null = it is none. In one, nobody does more than the one line. */
const journeyIn = (place: Place, keys: Map<string, string>, copy: string | null): Journey => {
  const { dir, sandbox, stateDir, app } = place;
  const hand: string[] = [];
  const screens: string[] = [];
  const untaken = new Set<Answer>();
  let given: string | null = null;
  let copies = 0;

  const salt = (): string => {
    const file = readFileSync(join(stateDir, "ledger", "00000000.json"), "utf8");
    return String((JSON.parse(file) as { r: { events: Json[] } }).r.events[0]?.["salt"]);
  };
  const fpOf = (key: string): string => new Secret(key).fingerprint(salt()).slice(0, 8);
  const key = (name: string): string => {
    const found = keys.get(name);
    if (found === undefined) throw new Error(`there is no key ${name}`);
    return found;
  };
  const nameOf = (value: string | undefined): string | null =>
    value === undefined || value === "" ? null : ([...keys].find(([, k]) => k === value)?.[0] ?? "unknown");
  const named = (fp: string): string => {
    const found = [...keys].find(([, k]) => fpOf(k) === fp);
    if (found === undefined) throw new Error(`nobody here has the key ${fp}`);
    return found[0];
  };
  const issue = (): string => {
    const made = sandbox.issue();
    const prefix = `${copy ?? ""}new`;
    keys.set(`${prefix}${[...keys.keys()].filter((name) => name.startsWith(prefix)).length + 1}`, made);
    return made;
  };
  const revoke = (name: string): void => {
    if (!sandbox.revoke(key(name))) throw new Error(`${name} is not in this Dashboard`);
  };
  const stores = (): readonly string[] => readdirSync(dir).filter((name) => name.endsWith(".env"));
  const short = (file: string): string => (file === ".env" ? file : file.slice(0, -4));
  const holds = (): Json =>
    Object.fromEntries(
      stores().map((file) => [
        short(file),
        nameOf(parseEnv(readFileSync(join(dir, file), "utf8"))["IMKIT_API_KEY"]),
      ]),
    );
  const put = (store: string, name: string): void => {
    const file = join(dir, `${store}.env`);
    writeFileSync(
      file,
      readFileSync(file, "utf8").replace(/^IMKIT_API_KEY=.*$/m, `IMKIT_API_KEY=${key(name)}`),
    );
  };
  let services = holds();
  const restart = (): void => {
    services = holds();
  };

  const revokeEach = (text: string): void => {
    const alive = text.replace(/[0-9a-f]{8}, which IMKIT rejects already/g, "");
    const fps = [...alive.matchAll(/\b[0-9a-f]{8}\b/g)].map(([fp]) => fp);
    if (fps.length === 0) throw new Error(`which key is to be revoked? ${text}`);
    for (const fp of fps) revoke(named(fp));
  };
  /** What a person can do. A text that fits none of these is a defect: he would stand there. */
  const acts: readonly (readonly [RegExp, (found: readonly string[]) => unknown])[] = [
    [/\bissue (?:a new|another) API Key\b/i, () => hand.push(issue())],
    [/^Stop the leak: in the Dashboard .*? revoke (.*)$/, ([, which = ""]) => revokeEach(which)],
    [/^The leaked key still works: .* revoke (.*?), and accept/, ([, which = ""]) => revokeEach(which)],
    [
      /^In the Dashboard .*? revoke .*?\(old: ([^)]*?)(?:, new: [0-9a-f]{8})?\)$/,
      ([, which = ""]) => revokeEach(which),
    ],
    [
      /^In the Dashboard .*? revoke the API Key that was discarded \((.*?)\), not/,
      ([, which = ""]) => revokeEach(which),
    ],
    [/^Do not revoke the leaked key yet/, () => undefined],
    [/^Restart every service/, restart],
    [
      /put the key ([0-9a-f]{8}) back there$/,
      ([, fp = ""]) => stores().forEach((file) => put(short(file), named(fp))),
    ],
  ];
  const act = (text: string, idle: RegExp = NEVER): void => {
    if (copy !== null || idle.test(text)) return;
    for (const [pattern, perform] of acts) {
      const found = pattern.exec(text);
      if (found !== null) return void perform(found);
    }
    throw new Error(`a person is told what he cannot do: ${text}`);
  };

  type Typing = { readonly code: number | null; readonly said: string; readonly out: string };
  /** Runs one line of a shell, and does meanwhile what it shows. */
  const type = async (line: string, options: SayOptions): Promise<Typing> => {
    const terminal = options.terminal === true;
    const env = cleanEnv(dir, { TERM: "xterm-256color", SHELL: "/bin/sh" });
    const path = [join(dir, "bin"), env["PATH"]].join(delimiter);
    const words = line.startsWith("mv ")
      ? line
      : `exec ${line.replace(/^imkit-rotator /, "imkit-rotator --json ")}`;
    const [program, args]: [string, string[]] = terminal
      ? ["script", ["--quiet", "--return", "--command", `stty cols 400 rows 50; ${words}`, "/dev/null"]]
      : ["sh", ["-c", words]];
    const child = spawn(program, args, { cwd: dir, env: { ...env, PATH: path }, stdio: "pipe" });
    const second = options.second ?? (terminal || copy !== null ? NEVER : /./);
    const idle = options.idle ?? NEVER;
    const left = [...(options.when ?? [])];
    const paste = [...(options.paste ?? [])];
    const beside: Promise<unknown>[] = [];
    const failures: unknown[] = [];
    let said = "";
    let out = "";

    const fail = (error: unknown): void => {
      failures.push(error);
      child.kill();
    };
    const doing = (perform: () => unknown): void => {
      try {
        const made = perform();
        if (made instanceof Promise) beside.push(made.catch(fail));
      } catch (error) {
        fail(error);
      }
    };
    const stopIfCopy = (): void => {
      if (copy === null) return;
      if (terminal) child.stdin.write(CTRL_C);
      else child.kill("SIGTERM");
    };
    const shown = (text: string): void => {
      if (WAITS.test(text)) {
        inSecond = Promise.resolve();
        stopIfCopy();
      }
      const step = /^ {2}\d+\. (.*)([.:])$/.exec(text);
      if (step !== null) {
        isAlternative = ALTERNATIVE.test(step[1] ?? "");
        return step[2] === "." && !isAlternative ? act(step[1] ?? "", idle) : undefined;
      }
      const command = /^ {7}(imkit-rotator .*)$/.exec(text)?.[1] ?? null;
      if (command !== null && !isAlternative && second.test(command) && !idle.test(command)) {
        inSecond = inSecond.then(async () => {
          const answer = await say(command, null, { piped: options.piped === true });
          untaken.delete(answer);
          if (answer.error["code"] !== "LOCKED") return void check(answer, {});
          // The process that waits acts on what it was told, and was faster.
          for (const { command: way } of answer.steps) {
            if (way === null) throw new Error("what can a person do about LOCKED?");
            const after = check(await say(way, null), {});
            untaken.delete(after);
          }
        });
        beside.push(inSecond.catch(fail));
      }
      if (
        /Or press Enter here/.test(text) &&
        copy === null &&
        !second.test("--restarted") &&
        !idle.test("Enter")
      )
        child.stdin.write(ENTER);
      return undefined;
    };
    /** A question stays one until its mark says that it was answered. */
    const asked = (plain: string): void => {
      const found = new RegExp(`◆ {2}(${QUESTION})`).exec(plain.slice(from));
      if (found === null) return;
      const at = from + found.index;
      if (typed !== at) {
        const isKey = found[1] === "New API Key of";
        if (isKey && (second.test("imkit-rotator stage demo") || idle.test("New API Key"))) return;
        typed = at;
        child.stdin.write(isKey ? nextKey(paste) + ENTER : "y");
      }
      const answered = new RegExp(`[◇■] {2}${QUESTION}`).exec(plain.slice(at));
      if (answered === null) return;
      from = at + answered.index + answered[0].length;
      asked(plain);
    };
    /** One line after the other; what is asked anew is answered in another terminal. */
    let inSecond: Promise<void> = Promise.resolve();
    let isAlternative = false;
    let seenLines = 0;
    let from = 0;
    let typed = -1;
    const look = (part: string): void => {
      said += part;
      const plain = stripVTControlCharacters(said).replaceAll("\r", "");
      const whole = plain.split("\n").slice(0, -1);
      for (; seenLines < whole.length; seenLines += 1) doing(() => shown(whole[seenLines] ?? ""));
      if (terminal) doing(() => asked(plain));
      for (const one of left.filter(({ see }) => see.test(plain))) {
        left.splice(left.indexOf(one), 1);
        doing(() => one.act((signal) => child.kill(signal)));
      }
    };
    child.stdin.on("error", () => undefined);
    child.stdout.setEncoding("utf8").on("data", (part: string) => ((out += part), look(part)));
    child.stderr.setEncoding("utf8").on("data", look);
    if (!terminal) child.stdin.end(paste[0] ?? "");
    const guard = setTimeout(() => child.kill("SIGKILL"), PATIENCE_MS);
    const code = await new Promise<number | null>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", resolve);
    });
    clearTimeout(guard);
    await Promise.all(beside);
    screens.push(said);
    const plain = (text: string): string => stripVTControlCharacters(text).replaceAll("\r", "");
    if (failures.length > 0) throw new Error(`beside ${line}: ${String(failures[0])}\n${plain(said)}`);
    const unseen = left.map(({ see }) => see);
    expect({ line, unseen, said: unseen.length > 0 ? plain(said) : "" }).toMatchObject({ unseen: [] });
    return { code, said: plain(said), out: plain(out) };
  };
  const nextKey = (paste: string[]): string => {
    given = paste.shift() ?? hand.shift() ?? issue();
    return given;
  };

  const say = async (line: string, exit: number | null, options: SayOptions = {}): Promise<Answer> => {
    const isStage = /^imkit-rotator stage (?!.*--(?:discard|from-))/.test(line);
    const isPiped = isStage && options.piped === true;
    const { code, said, out } = isPiped
      ? await type(`${line.replace(/\s+#.*$/, "")} --from-stdin`, {
          ...options,
          paste: [nextKey([...(options.paste ?? [])])],
        })
      : await type(line, isStage ? { ...options, terminal: true } : options);
    const json = out
      .split("\n")
      .filter((one) => one.startsWith("{"))
      .map((one) => JSON.parse(one) as Json);
    const isOf = (type: unknown, ...types: readonly string[]): boolean => types.includes(String(type));
    const error = json.findLast((one) => isOf(one["type"], "error")) ?? {};
    const result = json.findLast((one) => !isOf(one["type"], "error", "event", "note")) ?? {};
    const next = (result["next"] ?? []) as readonly Step[];
    const lines = (error["do"] ?? []) as readonly string[];
    const isIn = (text: string, step: Step): boolean => step.command === text || step.text === text;
    const told = lines.map(
      (text): Step =>
        next.find((step) => isIn(text, step)) ??
        (isCommand(text) ? { text: "", command: text } : { text, command: null }),
    );
    const rest = next.filter((step) => !lines.some((text) => isIn(text, step)));
    const undo = ((error["undo"] ?? []) as readonly string[])
      .filter(isCommand)
      .map((command): Step => ({ text: "Or undo it", command }));
    const answer: Answer = { line, code, said, result, error, steps: [...told, ...rest, ...undo] };
    if (exit !== null)
      expect({ line, code, said: code === exit ? "" : said }).toEqual({ line, code: exit, said: "" });
    if (answer.steps.length > 0) untaken.add(answer);
    return answer;
  };
  const isCommand = (text: string): boolean => /^(?:imkit-rotator|mv) /.test(text);

  const check = (answer: Answer, { exits = {} }: TakeOptions): Answer => {
    const wanted = exits[answer.line.replace("imkit-rotator ", "").replace(/\s+#.*$/, "")];
    const fine = wanted === undefined ? [0, 3] : [wanted];
    const isFine = fine.includes(answer.code ?? -1);
    expect({ line: answer.line, code: answer.code, fine, said: isFine ? "" : answer.said }).toMatchObject({
      said: "",
    });
    return answer;
  };
  const withKey = (step: Step, { exits, choose, ...rest }: TakeOptions): SayOptions => {
    void [exits, choose];
    const isSame = /\bsame\b/.test(step.text) && given !== null && rest.paste === undefined;
    return isSame && given !== null ? { ...rest, paste: [given] } : rest;
  };
  /** In the folder itself, because a store is known by its path; and then all is put back. */
  const inCopy = async (step: Step, command: string, options: TakeOptions): Promise<void> => {
    const before = `${dir}.before`;
    cpSync(dir, before, { recursive: true, verbatimSymlinks: true, preserveTimestamps: true });
    try {
      copies += 1;
      const there = new Map(keys);
      const answer = await journeyIn(place, there, `copy${copies}-`).say(
        command,
        null,
        withKey(step, options),
      );
      for (const [name, value] of there) keys.set(name, value);
      screens.push(answer.said);
      // It was stopped where it began to wait.
      if (![130, 143].includes(answer.code ?? -1) || !WAITS.test(answer.said)) check(answer, options);
    } finally {
      rmSync(dir, { recursive: true, force: true });
      renameSync(before, dir);
    }
  };
  /** In this very situation, once per file: the same words after the same command are the same step. */
  const tryEach = async (
    answer: Answer,
    options: TakeOptions,
    isMeant: (step: Step) => boolean = () => true,
  ): Promise<void> => {
    untaken.delete(answer);
    for (const step of answer.steps.filter(isMeant)) {
      if (step.command === null) continue;
      const about = [
        answer.line,
        answer.code,
        answer.error["code"],
        step.text,
        step.command,
        options.exits?.[step.command],
      ];
      const situation = about.join("|").replace(/\b[0-9a-f]{8}\b/g, "*");
      if (tried.has(situation)) continue;
      tried.add(situation);
      await inCopy(step, step.command, options);
    }
  };

  return {
    dir,
    stateDir,
    sandbox,
    issue,
    name: (name, value) => void keys.set(name, value),
    key,
    revoke,
    holds,
    put,
    restart,
    say,
    take: async (answer, options = {}) => {
      const chosen = answer.steps.some((step) => options.choose?.test(step.command ?? step.text));
      const isOn = ({ text, command }: Step): boolean =>
        (chosen ? options.choose?.test(command ?? text) === true : !ALTERNATIVE.test(text)) &&
        options.idle?.test(command ?? text) !== true;
      await tryEach(answer, options, (step) => !isOn(step));
      let end = answer;
      for (const step of answer.steps.filter(isOn)) {
        if (step.command === null) act(step.text);
        else {
          if (end !== answer) await tryEach(end, options);
          end = check(await say(step.command, null, withKey(step, options)), options);
        }
      }
      return end;
    },
    try: (answer, options = {}) => tryEach(answer, options),
    fp: (name) => fpOf(key(name)),
    runsOn: () => services,
    edit: (from, to) => {
      const file = join(dir, "imkit-rotator.config.yaml");
      const before = readFileSync(file, "utf8");
      const after = before.replace(from, to);
      expect(after).not.toBe(before);
      writeFileSync(file, after);
    },
    escrow: () => {
      const folder = join(stateDir, "escrow");
      return existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith(".age")) : [];
    },
    saw: (name) => sandbox.stats(key(name)),
    end: async ({ calls, reports = 0 }) => {
      const status = await say(`imkit-rotator status ${app}`, 0);
      untaken.delete(status);
      expect([...untaken].map(({ line, steps }) => ({ line, steps }))).toEqual([]);
      expect(status.result).toMatchObject({ apps: [{ state: "idle" }] });
      const ledger = join(stateDir, "ledger");
      const entries = readdirSync(ledger)
        .filter((name) => name.startsWith("0"))
        .sort();
      const lines = entries.map((name) => readFileSync(join(ledger, name)));
      expect(verifyLedger(lines, { folder: true })).toMatchObject({ ok: true, open: 0 });
      const folder = join(stateDir, "reports");
      const files = existsSync(folder) ? readdirSync(folder).sort() : [];
      const kinds = files.map((name) => name.replace(/^.*\./, ""));
      expect(kinds).toEqual(Array.from({ length: reports }, () => ["json", "md"]).flat());
      const all = [...screens, ...files.map((name) => readFileSync(join(folder, name), "utf8"))].join("\n");
      for (const [name, value] of keys)
        expect({ name, found: findKey(all, value) }).toEqual({ name, found: [] });
      const asked = sandbox.log().filter(({ type }) => type === "request" || type === "fault").length;
      expect(asked).toBeLessThanOrEqual(calls);
    },
  };
};
