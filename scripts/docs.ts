// `npm run docs`: writes what is printed from the sources. `--check` writes nothing and fails when a file is out of step.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { builtinSchemas } from "../providers/index.ts";
import { CODES, PROVIDER_CODES, type ProviderCode, REFUSALS } from "../src/core/errors.ts";
import { configJsonSchema } from "../src/io/config-json-schema.ts";
import { buildProgram } from "../src/shell/args.ts";

const root = join(import.meta.dirname, "..");

/** What a store or rollout means by its code. */
const MEANINGS: Readonly<Record<ProviderCode, string>> = {
  CONFIG: "What the config says of this target cannot be right.",
  AUTHN: "No valid login for it: missing, expired or refused.",
  AUTHZ: "The login is good and may not do this.",
  KMS: "The encryption key behind it cannot be used.",
  NOT_FOUND: "The whole secret or file is not there, and `create: true` is not set.",
  SOFT_DELETED: "It was deleted and can still be recovered.",
  DISABLED: "It is there and switched off.",
  NOT_OWNED: "Another controller or service owns it.",
  CONFLICT: "It does not hold what was expected, or its form is ambiguous. Nothing was overwritten.",
  IMMUTABLE: "It can never be changed in place.",
  NAME: "The name is not one that it accepts.",
  TOO_LARGE: "It would be larger than it may be.",
  THROTTLED: "Too many requests. Tried again, up to three times a run.",
  QUOTA: "A limit of the account is used up.",
  UNAVAILABLE: "It cannot be reached, or it failed. Tried again, up to three times a run.",
  TIMEOUT: "It did not answer in time. Tried again, up to three times a run.",
  VERIFY_MISMATCH: "What was read back is not what was written.",
  UNSUPPORTED: "It cannot do this.",
};

const cell = (text: string): string => text.replaceAll("|", "\\|").replaceAll("<", "&lt;");
const code = (text: string): string => (text.startsWith("imkit-rotator ") ? `\`${text}\`` : cell(text));
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");

const errorsPage = (): string => {
  const own = Object.entries(CODES).map(([name, info]) => [
    `\`${name}\``,
    String(info.exit),
    cell(info.what),
    info.do.map(code).join("<br>"),
  ]);
  const provider = PROVIDER_CODES.map((name) => [
    `\`${name}\``,
    REFUSALS.has(name) ? "4" : "1",
    cell(MEANINGS[name]),
  ]);
  return `# Error codes

Printed from the sources by \`npm run docs\`. Codes are added, never renamed. An error says what happened, why, which key is live where, what
to do and how to undo it; with \`--json\` it is the last line on stdout.

${table(["code", "exit", "what", "do, where nothing better is known"], own)}

## Codes of stores and rollouts

They stand in \`stores[].code\` of the JSON answers and behind "Why" in an error. The exit status is the one that a required target with this
code ends in.

${table(["code", "exit", "meaning"], provider)}
`;
};

const commandTable = (): string => {
  const program = buildProgram(() => {});
  const rows = program.commands.map((command) => {
    const subs = command.commands.map((sub) => sub.name());
    const words = [command.name(), ...(subs.length > 0 ? [subs.join("\\|")] : []), command.usage()];
    const usage = words.join(" ").replace("[options] [command]", "").replace("[options]", "").trim();
    const flags = command.options.filter((o) => !o.hidden).map((o) => `\`${cell(o.flags)}\``);
    return [`\`${usage.replaceAll(/\s+/g, " ")}\``, cell(command.description()), flags.join(" ")];
  });
  return table(["command", "does", "flags"], rows);
};

const BEGIN = "<!-- commands -->";
const END = "<!-- /commands -->";

/** The README with its command table printed anew; as it is when it has no place for one. */
const readme = (): string => {
  const text = readFileSync(join(root, "README.md"), "utf8");
  const [before, rest] = text.split(BEGIN);
  const after = rest?.split(END)[1];
  if (before === undefined || after === undefined) return text;
  return `${before}${BEGIN}\n${commandTable()}\n${END}${after}`;
};

const files: Readonly<Record<string, string>> = {
  "docs/errors.md": errorsPage(),
  "schema/config.v1.json": `${JSON.stringify(configJsonSchema(await builtinSchemas()), null, 2)}\n`,
  ...(existsSync(join(root, "README.md")) ? { "README.md": readme() } : {}),
};

const isCheck = process.argv.includes("--check");
let stale = 0;
for (const [name, text] of Object.entries(files)) {
  const path = join(root, name);
  if (existsSync(path) && readFileSync(path, "utf8") === text) continue;
  stale++;
  if (isCheck) {
    process.stderr.write(`${name} is out of step with the sources; run: npm run docs\n`);
  } else {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
    process.stdout.write(`${name} written\n`);
  }
}
process.exit(isCheck && stale > 0 ? 1 : 0);
