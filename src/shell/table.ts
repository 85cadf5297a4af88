import type { Command } from "commander";
import { examples, type Job } from "./help.ts";
import type { Globals, Io } from "./io.ts";
import { addMoreCommands } from "./table-more.ts";

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

const collect = (value: string, all: readonly string[] = []): readonly string[] => [...all, value];

/** The command table. Each command is loaded when it is run. */
export const addCommands = (program: Command, run: (job: Job) => void): void => {
  program
    .command("init")
    .description("asks a few questions and writes a commented config")
    .option("--yes", "take what the environment and .env say, ask nothing")
    .option("--app <name>", "name of the app")
    .option("--base-url <url>", "IMKIT base URL of the app")
    .option("--dotenv <path>", "dotenv file that holds the key")
    .option("--variable <name>", "variable in it that is the key (IMKIT_API_KEY)")
    .addHelpText(
      "before",
      examples("init", "init --yes", "init --yes --app chat --base-url https://your-app.imkit.io"),
    )
    .action((flags) =>
      run(async (io, globals) => (await import("./commands/init.ts")).initCommand(io, globals, flags)),
    );

  program
    .command("doctor [app]")
    .description("checks config, stores, rollouts, ledger, escrow and IMKIT; read-only")
    .option("--print-policy", "print the least rights that each cloud store needs, and check nothing")
    .addHelpText("before", examples("doctor", "doctor chat-prod --json", "doctor chat-prod --print-policy"))
    .action((app, flags) =>
      run(async (io, globals) => {
        const { config, apps } = await wiredAll(io, globals, app);
        if (flags.printPolicy) return (await import("./commands/policy.ts")).printPolicies(io, apps, config);
        return (await import("./commands/doctor.ts")).doctorCommand(io, apps, config);
      }),
    );

  program
    .command("adopt <app>")
    .description("records which key the stores hold now; writes no store")
    .option("--current <fingerprint>", "the current key, where several are in use")
    .option("--new-ledger", "begin another ledger where this one is lost, broken or contradicted by a store")
    .option("--wait [duration]", "with --new-ledger: wait for another rotator, at most this long (30m)")
    .addHelpText(
      "before",
      examples("adopt chat-prod", "adopt chat-prod --current 7c2e91aa", "adopt chat-prod --new-ledger"),
    )
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
    .addHelpText(
      "before",
      examples("stage chat-prod", "stage chat-prod --from-stdin < key.txt", "stage chat-prod --discard"),
    )
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
    .option("--wait [duration]", "wait for a person, at most this long (30m)")
    .option("--drop <name>", "go on without a target that is no longer in the config", collect)
    .option("--accept-app <fingerprint>", "go on although IMKIT shows another app")
    .option("--reason <text>", "for the ledger")
    .option("--ticket <id>", "for the ledger")
    .option("--yes", "do not ask before the first write")
    .option("--emergency", "a key leaked: no canary, no soak, nothing waits for another rotator")
    .option("--order <order>", "revoke-first (the vendor's) or replace-first: what you are asked first")
    .option("--leaked <fingerprint>", "the key that leaked (default: the current one)")
    .option("--leaked-since <time>", "since when it may be in foreign hands, e.g. 2026-11-25T02:40:00+08:00")
    .addHelpText(
      "before",
      examples(
        "rotate chat-prod",
        "rotate chat-prod --emergency --wait=4h",
        "rotate chat-prod --dry-run",
        "rotate chat-prod --restarted --wait=1h",
        "rotate --all --due --json",
      ),
    )
    .action((app, flags) =>
      run(async (io, globals) => {
        if (!flags.all) {
          const one = await wired(io, globals, app, true);
          return (await import("./commands/rotate.ts")).rotateCommand(io, one, flags);
        }
        const { rotateAllCommand } = await import("./commands/rotate-all.ts");
        return rotateAllCommand(io, globals, app, flags);
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
    .option("--wait [duration]", "keep asking until dead, at most this long (30m)")
    .option("--waive", "record an old key that cannot be proved dead as attested")
    .option("--reason <text>", "why it is waived")
    .option("--key-from-stdin", "give an old key that escrow has lost")
    .addHelpText(
      "before",
      examples(
        "confirm-revoked chat-prod",
        "confirm-revoked chat-prod --wait=1h",
        'confirm-revoked chat-prod --waive --reason "lost it"',
      ),
    )
    .action((app, flags) =>
      run(async (io, globals) =>
        (await import("./commands/confirm-revoked.ts")).confirmCommand(
          io,
          await wired(io, globals, app),
          flags,
        ),
      ),
    );

  program
    .command("rollback <app>")
    .description("back to the key that the open rotation began with; the newer one has to die")
    .option("--accept-leaked", "although the old key is marked as leaked")
    .option("--restarted", "everything that reads the stores was restarted")
    .option("--wait [duration]", "wait for a person, at most this long (30m)")
    .option("--reason <text>", "for the ledger")
    .option("--ticket <id>", "for the ledger")
    .option("--yes", "do not ask before the first write")
    .addHelpText("before", examples("rollback chat-prod", "rollback chat-prod --wait=1h"))
    .action((app, flags) =>
      run(async (io, globals) =>
        (await import("./commands/rollback.ts")).rollbackCommand(
          io,
          await wired(io, globals, app, true),
          flags,
        ),
      ),
    );

  addMoreCommands(program, run, wired);
};
