import { type Command, Option } from "commander";
import { examples, type Job } from "./help.ts";
import type { Globals, Io } from "./io.ts";
import type { Wired } from "./wire.ts";

type Wire = (io: Io, globals: Globals, app: string | undefined) => Promise<Wired>;

/** The second half of the command table: what looks, plays and helps. */
export const addMoreCommands = (program: Command, run: (job: Job) => void, wired: Wire): void => {
  addAudit(program, run);

  program
    .command("schema")
    .description("JSON Schema of the config file")
    .addHelpText("before", examples("schema > config.schema.json"))
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
    .command("run <app> <command...>")
    .description("starts a command with the app's current key in IMKIT_API_KEY")
    .usage("[options] <app> -- <command...>")
    .option("--store <name>", "read this store (default: the first that can be read)")
    .addHelpText(
      "before",
      examples("run chat-prod -- node server.js", "run chat-prod --store env -- php -S 127.0.0.1:8000"),
    )
    .action((app, command, flags) =>
      run(async (io, globals) =>
        (await import("./commands/run.ts")).runCommand(io, globals, app, flags, command),
      ),
    );

  program
    .command("completion [shell]")
    .description("completion script for bash, zsh or fish")
    .addOption(new Option("--apps", "names of the apps").hideHelp())
    .addHelpText(
      "before",
      examples("completion bash > ~/.imkit-rotator.bash")
        .concat("  $ source <(imkit-rotator completion zsh)\n")
        .concat("  $ imkit-rotator completion fish | source\n"),
    )
    .action((shell, flags) =>
      run(async (io, globals) =>
        (await import("./commands/completion.ts")).completionCommand(io, globals, program, shell, flags),
      ),
    );

  program
    .command("serve")
    .description(
      "daemon: the tick over all apps, with /healthz, /readyz and /metrics; a changed config needs a restart",
    )
    .addHelpText("before", examples("serve", "serve -c /etc/imkit-rotator/imkit-rotator.config.yaml"))
    .action(() =>
      run(async (io, globals) => (await import("./commands/serve.ts")).serveCommand(io, globals)),
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
    .addHelpText(
      "before",
      examples("sandbox", "sandbox --write-dotenv .env \\\n      --write-config imkit-rotator.config.yaml"),
    )
    .action((flags) => run(async (io) => (await import("./commands/play.ts")).sandboxCommand(io, flags)));

  program
    .command("demo")
    .description("the whole story in one command, with nothing to configure")
    .allowExcessArguments(true)
    .option("--leak", "a key is found in a log: the emergency, in both orders")
    .addOption(new Option("--internal-service <args...>").hideHelp())
    .addOption(new Option("--internal-restart <socket>").hideHelp())
    .addHelpText("before", examples("demo", "demo --leak"))
    .action((flags) => run(async (io) => (await import("./commands/play.ts")).demoCommand(io, flags)));
};

const addAudit = (program: Command, run: (job: Job) => void): void => {
  const load = () => import("./commands/audit.ts");
  const audit = program
    .command("audit")
    .description("the ledger: list, verify, export")
    .addHelpText(
      "before",
      examples("audit list chat-prod", "audit verify", "audit export chat-prod > ledger.jsonl"),
    );
  audit
    .command("list [app]")
    .description("one event a line")
    .addHelpText("before", examples("audit list chat-prod", "audit list chat-prod --json"))
    .action((app) => run(async (io, globals) => (await load()).listCommand(io, globals, app)));
  audit
    .command("verify [what]")
    .description("an app, a file, a folder or - (standard input); a path needs no config")
    .option("--head <seq:h16>", "a head that was quoted elsewhere")
    .option("--stores", "compare with what the stores quote")
    .addHelpText(
      "before",
      examples(
        "audit verify",
        "audit verify ./ledger.jsonl --head 12:4f0c9b7e55aa10d3",
        "audit verify - < ledger.jsonl",
      ),
    )
    .action((what, flags) =>
      run(async (io, globals) => (await load()).verifyCommand(io, globals, what, flags)),
    );
  audit
    .command("export [app]")
    .description("the entries as JSONL, byte for byte")
    .addHelpText("before", examples("audit export chat-prod > ledger.jsonl"))
    .action((app) => run(async (io, globals) => (await load()).exportCommand(io, globals, app)));
};
