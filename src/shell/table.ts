import { type Command, Option } from "commander";
import { examples, type Job } from "./help.ts";
import type { Globals, Io } from "./io.ts";

/** The words and flags of a command, as commander gives them to its action. */
type Given = Parameters<Parameters<Command["action"]>[0]>;
type Entry = {
  readonly about: string;
  /** What each is for; with what collects its values, or its default. */
  readonly options?: Readonly<
    Record<string, string | readonly [about: string, more: typeof collect | string]>
  >;
  /** Not in help or completion. */
  readonly hidden?: readonly string[];
  readonly examples: readonly string[];
  /** Unset = it has commands of its own. It is loaded when it is run. */
  readonly act?: (...given: Given) => Job;
};

const collect = (value: string, all: readonly string[] = []): readonly string[] => [...all, value];

/** One app, or the only one of the config. */
const wired = async (io: Io, globals: Globals, app: string | undefined, ndjson = false) => {
  const { pickApp, readConfig, wire } = await import("./wire.ts");
  const config = await readConfig(io, globals);
  return wire(io, config, pickApp(config, app), ndjson);
};

/** One app, or all of them. */
const wiredAll = async (io: Io, globals: Globals, app: string | undefined) => {
  const { pickApp, readConfig, wire } = await import("./wire.ts");
  const config = await readConfig(io, globals);
  const apps = app === undefined ? [...config.apps.values()] : [pickApp(config, app)];
  return { config, apps: await Promise.all(apps.map((one) => wire(io, config, one))) };
};

const WAIT = "--wait [duration]";
const WAIT_ABOUT = "wait for a person, at most this long (30m)";
const FOR_LEDGER = { "--reason <text>": "for the ledger", "--ticket <id>": "for the ledger" };
const RESTARTED = { "--restarted": "everything that reads the stores was restarted" };
const YES = { "--yes": "do not ask before the first write" };

export const addCommands = (program: Command, run: (job: Job) => void): void => {
  const add = (parent: Command, words: string, { about, options = {}, hidden = [], ...entry }: Entry) => {
    const command = parent.command(words).description(about);
    for (const [flags, told] of Object.entries(options)) {
      const [text, more] = typeof told === "string" ? [told, undefined] : told;
      if (typeof more === "function") command.option(flags, text, more);
      else command.option(flags, text, more);
    }
    for (const flags of hidden) command.addOption(new Option(flags).hideHelp());
    command.addHelpText("before", examples(entry.examples));
    const { act } = entry;
    return act === undefined ? command : command.action((...given) => run(act(...given)));
  };

  add(program, "init", {
    about: "asks a few questions and writes a commented config",
    options: {
      "--yes": "take what the environment and .env say, ask nothing",
      "--app <name>": "name of the app",
      "--base-url <url>": "IMKIT base URL of the app",
      "--dotenv <path>": "dotenv file that holds the key",
      "--variable <name>": "variable in it that is the key (IMKIT_API_KEY)",
    },
    examples: ["init", "init --yes", "init --yes --app chat --base-url https://your-app.imkit.io"],
    act: (flags) => async (io, globals) =>
      (await import("./commands/init.ts")).initCommand(io, globals, flags),
  });

  add(program, "doctor [app]", {
    about: "checks config, stores, rollouts, ledger, escrow and IMKIT; read-only",
    options: { "--print-policy": "print the least rights that each cloud store needs, and check nothing" },
    examples: ["doctor", "doctor chat-prod --json", "doctor chat-prod --print-policy"],
    act: (app, flags) => async (io, globals) => {
      const { config, apps } = await wiredAll(io, globals, app);
      if (flags.printPolicy) return (await import("./commands/policy.ts")).printPolicies(io, apps, config);
      return (await import("./commands/doctor.ts")).doctorCommand(io, apps, config);
    },
  });

  add(program, "adopt <app>", {
    about: "records which key the stores hold now; writes no store",
    options: {
      "--current <fingerprint>": "the current key, where several are in use",
      "--new-ledger": "begin another ledger where this one is lost, broken or contradicted by a store",
      [WAIT]: "with --new-ledger: wait for another rotator, at most this long (30m)",
    },
    examples: ["adopt chat-prod", "adopt chat-prod --current 7c2e91aa", "adopt chat-prod --new-ledger"],
    act: (app, flags) => async (io, globals) =>
      (await import("./commands/adopt.ts")).adoptCommand(io, await wired(io, globals, app), flags),
  });

  add(program, "stage <app>", {
    about: "takes a new key in and makes it durable; asks for it hidden",
    options: {
      "--from-stdin": "read the key from standard input",
      "--from-file <path>": "read the key from a file",
      "--from-env <name>": "read the key from an environment variable",
      "--replace": "take this key instead of the staged one",
      "--discard": "take the staged key back, before the first store write",
      "--forget": "with --discard: drop it from escrow at once",
    },
    examples: ["stage chat-prod", "stage chat-prod --from-stdin < key.txt", "stage chat-prod --discard"],
    act: (app, flags) => async (io, globals) =>
      (await import("./commands/stage.ts")).stageCommand(io, await wired(io, globals, app), flags),
  });

  add(program, "rotate [app]", {
    about: "writes the staged key everywhere, or goes on where it stopped",
    options: {
      "--all": "every app of the config",
      "--dry-run": "say what would be done, write nothing",
      "--due": "one unattended pass; never asks",
      ...RESTARTED,
      [WAIT]: WAIT_ABOUT,
      "--drop <name>": ["go on without a target that is no longer in the config", collect],
      "--accept-app <fingerprint>": "go on although IMKIT shows another app",
      ...FOR_LEDGER,
      ...YES,
      "--emergency": "a key leaked: no canary, no soak, nothing waits for another rotator",
      "--order <order>": "revoke-first (the vendor's) or replace-first: what you are asked first",
      "--leaked <fingerprint>": "the key that leaked (default: the current one)",
      "--leaked-since <time>": "since when it may be in foreign hands, e.g. 2026-11-25T02:40:00+08:00",
    },
    examples: [
      "rotate chat-prod",
      "rotate chat-prod --emergency --wait=4h",
      "rotate chat-prod --dry-run",
      "rotate chat-prod --restarted --wait=1h",
      "rotate --all --due --json",
    ],
    act: (app, flags) => async (io, globals) => {
      if (!flags.all) {
        const one = await wired(io, globals, app, true);
        return (await import("./commands/rotate.ts")).rotateCommand(io, one, flags);
      }
      return (await import("./commands/rotate-all.ts")).rotateAllCommand(io, globals, app, flags);
    },
  });

  add(program, "status [app]", {
    about: "ledger and stores, never IMKIT unless --probe; read-only",
    options: {
      "--probe": "ask IMKIT about the current key",
      "--exit-code": "exit 5 when a store drifts or cannot be read",
    },
    examples: ["status", "status chat-prod --exit-code --json"],
    act: (app, flags) => async (io, globals) => {
      const { apps } = await wiredAll(io, globals, app);
      return (await import("./commands/status.ts")).statusCommand(io, apps, flags);
    },
  });

  add(program, "confirm-revoked <app>", {
    about: "proves that every old key is dead, and closes the rotation",
    options: {
      [WAIT]: "keep asking until dead, at most this long (30m)",
      "--waive": "record an old key that cannot be proved dead as attested",
      "--reason <text>": "why it is waived",
      "--key-from-stdin": "give an old key that escrow has lost",
    },
    examples: [
      "confirm-revoked chat-prod",
      "confirm-revoked chat-prod --wait=1h",
      'confirm-revoked chat-prod --waive --reason "lost it"',
    ],
    act: (app, flags) => async (io, globals) => {
      const { confirmCommand } = await import("./commands/confirm-revoked.ts");
      return confirmCommand(io, await wired(io, globals, app), flags);
    },
  });

  add(program, "rollback <app>", {
    about: "back to the key that the open rotation began with; the newer one has to die",
    options: {
      "--accept-leaked": "although the old key is marked as leaked",
      ...RESTARTED,
      [WAIT]: WAIT_ABOUT,
      ...FOR_LEDGER,
      ...YES,
    },
    examples: ["rollback chat-prod", "rollback chat-prod --wait=1h"],
    act: (app, flags) => async (io, globals) => {
      const { rollbackCommand } = await import("./commands/rollback.ts");
      return rollbackCommand(io, await wired(io, globals, app, true), flags);
    },
  });

  const audit = add(program, "audit", {
    about: "the ledger: list, verify, export",
    examples: ["audit list chat-prod", "audit verify", "audit export chat-prod > ledger.jsonl"],
  });
  add(audit, "list [app]", {
    about: "one event a line",
    examples: ["audit list chat-prod", "audit list chat-prod --json"],
    act: (app) => async (io, globals) => (await import("./commands/audit.ts")).listCommand(io, globals, app),
  });
  add(audit, "verify [what]", {
    about: "an app, a file, a folder or - (standard input); a path needs no config",
    options: {
      "--head <seq:h16>": "a head that was quoted elsewhere",
      "--stores": "compare with what the stores quote",
    },
    examples: [
      "audit verify",
      "audit verify ./ledger.jsonl --head 12:4f0c9b7e55aa10d3",
      "audit verify - < ledger.jsonl",
    ],
    act: (what, flags) => async (io, globals) =>
      (await import("./commands/audit.ts")).verifyCommand(io, globals, what, flags),
  });
  add(audit, "export [app]", {
    about: "the entries as JSONL, byte for byte",
    examples: ["audit export chat-prod > ledger.jsonl"],
    act: (app) => async (io, globals) =>
      (await import("./commands/audit.ts")).exportCommand(io, globals, app),
  });

  add(program, "schema", {
    about: "JSON Schema of the config file",
    examples: ["schema > config.schema.json"],
    act: () => async (io) => (await import("./commands/schema.ts")).schemaCommand(io),
  });

  add(program, "fingerprint [app]", {
    about: "fingerprint of the key on standard input, under the app's ledger",
    examples: ["fingerprint chat-prod < key.txt"],
    act: (app) => async (io, globals) =>
      (await import("./commands/fingerprint.ts")).fingerprintCommand(io, await wired(io, globals, app)),
  });

  add(program, "run <app> <command...>", {
    about: "starts a command with the app's current key in IMKIT_API_KEY",
    options: { "--store <name>": "read this store (default: the first that can be read)" },
    examples: ["run chat-prod -- node server.js", "run chat-prod --store env -- php -S 127.0.0.1:8000"],
    act: (app, command, flags) => async (io, globals) =>
      (await import("./commands/run.ts")).runCommand(io, globals, app, flags, command),
  }).usage("[options] <app> -- <command...>");

  add(program, "completion [shell]", {
    about: "completion script for bash, zsh or fish",
    hidden: ["--apps"],
    examples: [
      "completion bash > ~/.imkit-rotator.bash",
      "$ source <(imkit-rotator completion zsh)",
      "$ imkit-rotator completion fish | source",
    ],
    act: (shell, flags) => async (io, globals) =>
      (await import("./commands/completion.ts")).completionCommand(io, globals, program, shell, flags),
  });

  add(program, "serve", {
    about:
      "daemon: the tick over all apps, with /healthz, /readyz and /metrics; a changed config needs a restart",
    examples: ["serve", "serve -c /etc/imkit-rotator/imkit-rotator.config.yaml"],
    act: () => async (io, globals) => (await import("./commands/serve.ts")).serveCommand(io, globals),
  });

  add(program, "sandbox", {
    about: "a local stand-in for IMKIT with a Dashboard page, to play and test with",
    options: {
      "--port <n>": "port on 127.0.0.1 (default: a free one)",
      "--mode <mode>": ["overlap: old keys live on; replace: a new key kills the old one", "overlap"],
      "--error-shape <shape>": "flat, envelope or mixed",
      "--revocation-lag <duration>": "how long a revoked key still works",
      "--activation-lag <duration>": "how long a fresh key is rejected",
      "--limit <n>": "requests a minute per key",
      "--write-dotenv <path>": "write a .env with the first key and the base URL",
      "--write-config <path>": "write a config for that .env",
    },
    examples: ["sandbox", "sandbox --write-dotenv .env \\\n      --write-config imkit-rotator.config.yaml"],
    act: (flags) => async (io) => (await import("./commands/sandbox.ts")).sandboxCommand(io, flags),
  });

  add(program, "demo", {
    about: "the whole story in one command, with nothing to configure",
    options: { "--leak": "a key is found in a log: the emergency, in both orders" },
    hidden: ["--internal-service <args...>", "--internal-restart <socket>"],
    examples: ["demo", "demo --leak"],
    act: (flags) => async (io) => (await import("./commands/play.ts")).demoCommand(io, flags),
  }).allowExcessArguments(true);
};
