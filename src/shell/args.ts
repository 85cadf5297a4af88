import { Command, Option } from "commander";
import type { Globals, Io } from "./io.ts";

/** What a parsed command line runs: gets the process, gives the exit status. */
export type Job = (io: Io, globals: Globals) => Promise<number>;

const EXIT_HELP = `
Exit status:
  0 done, or nothing to do          4 refused: key rejected, wrong app, conflict, access
  1 a step failed, or unclear       5 findings: drift, ledger broken, doctor failed
  2 usage or config, malformed key  6 another rotator is at work
  3 waiting for a person            130/143 interrupted; safe to run again`;

const examples = (...lines: readonly string[]): string =>
  `Examples:\n${lines.map((line) => `  $ imkit-rotator ${line}`).join("\n")}\n`;

/** The whole command table. `run` is called once, with what the words mean. */
export const buildProgram = (run: (job: Job) => void): Command => {
  const program = new Command("imkit-rotator")
    .description("Rotates an IMKIT API Key in every place it lives, with proof that the old one is dead.")
    .addHelpText("beforeAll", "")
    .option("-c, --config <file>", "config file")
    .option("--json", "machine-readable output on stdout")
    .option("-q, --quiet", "no progress")
    .option("-v, --verbose", "more detail")
    .option("--no-input", "never ask")
    .option("--no-color", "no colour")
    .version("0.1.0", "-V, --version")
    .showHelpAfterError(false)
    .addHelpText(
      "before",
      examples(
        "demo                                   # the whole story, nothing to configure",
        "init                                   # write a config",
        "stage chat-prod --from-stdin < key.txt",
        "rotate chat-prod",
        "confirm-revoked chat-prod",
      ),
    )
    .addHelpText("after", EXIT_HELP);

  const wired = async (io: Io, globals: Globals, app: string | undefined) => {
    const { pickApp, readConfig, wire } = await import("./wire.ts");
    const config = await readConfig(io, globals);
    return wire(io, config, pickApp(config, app));
  };
  const wiredAll = async (io: Io, globals: Globals, app: string | undefined) => {
    const { pickApp, readConfig, wire } = await import("./wire.ts");
    const config = await readConfig(io, globals);
    const apps = app === undefined ? [...config.apps.values()] : [pickApp(config, app)];
    return { config, apps: await Promise.all(apps.map((one) => wire(io, config, one))) };
  };

  program
    .command("init")
    .description("asks a few questions and writes a commented config")
    .option("--yes", "take what the environment and .env say, ask nothing")
    .option("--app <name>", "name of the app")
    .option("--base-url <url>", "IMKIT base URL of the app")
    .option("--dotenv <path>", "dotenv file that holds the key")
    .addHelpText("before", examples("init", "init --yes --app chat --base-url https://your-app.imkit.io --dotenv .env"))
    .action((flags) =>
      run(async (io, globals) => (await import("./commands/init.ts")).initCommand(io, globals, flags)),
    );

  program
    .command("doctor [app]")
    .description("checks config, stores, rollouts, ledger, escrow and IMKIT; read-only")
    .addHelpText("before", examples("doctor", "doctor chat-prod --json"))
    .action((app) =>
      run(async (io, globals) => {
        const { config, apps } = await wiredAll(io, globals, app);
        return (await import("./commands/doctor.ts")).doctorCommand(io, apps, config.path);
      }),
    );

  program
    .command("adopt <app>")
    .description("records which key the stores hold now; writes no store")
    .option("--current <fingerprint>", "the current key, where several are in use")
    .addHelpText("before", examples("adopt chat-prod", "adopt chat-prod --current 7c2e91aa"))
    .action((app, flags) =>
      run(async (io, globals) =>
        (await import("./commands/adopt.ts")).adoptCommand(io, await wired(io, globals, app), flags),
      ),
    );

  program
    .command("stage <app>")
    .description("takes a new key in and makes it durable; asks for it hidden")
    .option("--from-stdin", "read the key from standard input")
    .option("--from-file <path>", "read the key from a file")
    .option("--from-env <name>", "read the key from an environment variable")
    .option("--replace", "take this key instead of the staged one")
    .option("--discard", "take the staged key back, before the first store write")
    .option("--forget", "with --discard: drop it from escrow at once")
    .addHelpText("before", examples("stage chat-prod", "stage chat-prod --from-stdin < key.txt", "stage chat-prod --discard"))
    .action((app, flags) =>
      run(async (io, globals) =>
        (await import("./commands/stage.ts")).stageCommand(io, await wired(io, globals, app), flags),
      ),
    );

  program
    .command("rotate [app]")
    .description("writes the staged key everywhere, or goes on where it stopped")
    .option("--all", "every app of the config")
    .option("--dry-run", "say what would be done, write nothing")
    .option("--due", "one unattended pass; never asks")
    .option("--restarted", "everything that reads the stores was restarted")
    .addOption(new Option("--wait [duration]", "wait for a person, at most this long (30m)"))
    .option("--drop <name>", "go on without a target that is no longer in the config", collect, [])
    .option("--accept-app <fingerprint>", "go on although IMKIT shows another app")
    .option("--reason <text>", "for the ledger")
    .option("--ticket <id>", "for the ledger")
    .option("--yes", "do not ask before the first write")
    .addHelpText("before", examples("rotate chat-prod", "rotate chat-prod --restarted", "rotate chat-prod --dry-run", "rotate --all --due"))
    .action((app, flags) =>
      run(async (io, globals) => {
        if (flags.all) {
          const { readConfig } = await import("./wire.ts");
          const config = await readConfig(io, globals);
          return (await import("./commands/rotate-all.ts")).rotateAllCommand(io, config, flags);
        }
        return (await import("./commands/rotate.ts")).rotateCommand(io, await wired(io, globals, app), flags);
      }),
    );

  program
    .command("status [app]")
    .description("ledger and stores, never IMKIT unless --probe; read-only")
    .option("--probe", "ask IMKIT about the current key")
    .option("--exit-code", "exit 5 when a store drifts or cannot be read")
    .addHelpText("before", examples("status", "status chat-prod --exit-code --json"))
    .action((app, flags) =>
      run(async (io, globals) => {
        const { apps } = await wiredAll(io, globals, app);
        return (await import("./commands/status.ts")).statusCommand(io, apps, flags);
      }),
    );

  program
    .command("confirm-revoked <app>")
    .description("proves that every old key is dead, and closes the rotation")
    .addOption(new Option("--wait [duration]", "keep asking until dead, at most this long (30m)"))
    .option("--waive", "record an old key that cannot be asked about as attested")
    .option("--reason <text>", "why it is waived")
    .option("--key-from-stdin", "give an old key that escrow has lost")
    .addHelpText("before", examples("confirm-revoked chat-prod", "confirm-revoked chat-prod --wait=1h"))
    .action((app, flags) =>
      run(async (io, globals) =>
        (await import("./commands/confirm-revoked.ts")).confirmCommand(io, await wired(io, globals, app), flags),
      ),
    );

  const audit = program
    .command("audit")
    .description("the ledger: list, verify, export")
    .addHelpText("before", examples("audit verify", "audit verify ./ledger.jsonl --head 12:4f0c9b7e55aa10d3", "audit export chat-prod > ledger.jsonl"));
  audit
    .command("list [app]")
    .description("one event a line")
    .action((app) => run(async (io, globals) => (await import("./commands/audit.ts")).listCommand(io, globals, app)));
  audit
    .command("verify [what]")
    .description("an app, a file, a folder or - ; a path needs no config")
    .option("--head <seq:h16>", "a head that was quoted elsewhere")
    .option("--stores", "compare with what the stores quote")
    .action((what, flags) =>
      run(async (io, globals) => (await import("./commands/audit.ts")).verifyCommand(io, globals, what, flags)),
    );
  audit
    .command("export [app]")
    .description("the entries as JSONL, byte for byte")
    .action((app) => run(async (io, globals) => (await import("./commands/audit.ts")).exportCommand(io, globals, app)));

  program
    .command("schema")
    .description("JSON Schema of the config file")
    .action(() => run(async (io) => (await import("./commands/schema.ts")).schemaCommand(io)));

  program
    .command("fingerprint [app]")
    .description("fingerprint of the key on standard input, under the app's ledger")
    .addHelpText("before", examples("fingerprint chat-prod < key.txt"))
    .action((app) =>
      run(async (io, globals) =>
        (await import("./commands/fingerprint.ts")).fingerprintCommand(io, await wired(io, globals, app)),
      ),
    );

  program
    .command("sandbox")
    .description("a local stand-in for IMKIT with a Dashboard page, to play and test with")
    .option("--port <n>", "port on 127.0.0.1 (default: a free one)")
    .option("--mode <mode>", "overlap: old keys live on; replace: a new key kills the old one", "overlap")
    .option("--error-shape <shape>", "flat, envelope or mixed")
    .option("--revocation-lag <duration>", "how long a revoked key still works")
    .option("--activation-lag <duration>", "how long a fresh key is rejected")
    .option("--limit <n>", "requests a minute per key")
    .option("--write-dotenv <path>", "write a .env with the first key and the base URL")
    .option("--write-config <path>", "write a config for that .env")
    .addHelpText("before", examples("sandbox --write-dotenv .env --write-config imkit-rotator.config.yaml"))
    .action((flags) => run(async (io) => (await import("./commands/play.ts")).sandboxCommand(io, flags)));

  program
    .command("demo")
    .description("the whole story in one command, with nothing to configure")
    .allowExcessArguments(true)
    .addOption(new Option("--internal-service <args...>").hideHelp())
    .addOption(new Option("--internal-restart <socket>").hideHelp())
    .action((flags) => run(async (io) => (await import("./commands/play.ts")).demoCommand(io, flags)));

  return program;
};

const collect = (value: string, all: readonly string[]): readonly string[] => [...all, value];
