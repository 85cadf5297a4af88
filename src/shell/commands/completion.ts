import type { Command, Option } from "commander";
import { RotatorError } from "../../core/errors.ts";
import type { Globals, Io } from "../io.ts";
import { readConfig } from "../wire.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;

/** Prints a completion script: commands, options, and the app names of the config that is found where the Tab key is pressed. */
export const completionCommand = async (
  io: Io,
  globals: Globals,
  program: Command,
  shell: string | undefined,
  flags: { readonly apps?: boolean },
): Promise<number> => {
  if (flags.apps) return printApps(io, globals);
  const name = SHELLS.find((s) => s === shell);
  if (name === undefined) {
    throw new RotatorError("USAGE", {
      what: `completion wants one of ${SHELLS.join(", ")}.`,
      do: ["imkit-rotator completion --help"],
    });
  }
  io.out(SCRIPTS[name](tableOf(program)));
  return 0;
};

/** For the scripts: names or nothing, and never a complaint. */
const printApps = async (io: Io, globals: Globals): Promise<number> => {
  try {
    for (const app of (await readConfig(io, globals)).apps.keys()) io.out(app);
  } catch {
    // A person presses Tab; the command itself will say what is wrong.
  }
  return 0;
};

type Row = {
  readonly words: readonly string[];
  readonly about: string;
  readonly flags: readonly { readonly long: string; readonly about: string }[];
  readonly takesApp: boolean;
};
type Table = { readonly globals: Row["flags"]; readonly rows: readonly Row[] };

const flagsOf = (options: readonly Option[]): Row["flags"] =>
  options.flatMap((o) => (o.hidden || !o.long ? [] : [{ long: o.long, about: o.description }]));

const tableOf = (program: Command): Table => {
  const rows = (command: Command, before: readonly string[]): readonly Row[] =>
    command.commands.flatMap((sub) => {
      const words = [...before, sub.name()];
      const takesApp = sub.registeredArguments.some((a) => a.name() === "app" || a.name() === "what");
      return [
        { words, about: sub.description(), flags: flagsOf(sub.options), takesApp },
        ...rows(sub, words),
      ];
    });
  return { globals: flagsOf(program.options), rows: rows(program, []) };
};

const first = ({ rows }: Table): readonly Row[] => rows.filter((r) => r.words.length === 1);
const subsOf = ({ rows }: Table, word: string): readonly Row[] =>
  rows.filter((r) => r.words.length === 2 && r.words[0] === word);
const longs = (flags: Row["flags"]): string => flags.map((f) => f.long).join(" ");
const names = (rows: readonly Row[]): string => rows.map((r) => r.words.at(-1) ?? "").join(" ");

/** For bash and, by its bashcompinit, for zsh. */
const bash = (table: Table): string => {
  const cases = first(table).map((row) => {
    const [word = ""] = row.words;
    const subs = subsOf(table, word);
    const flags = [...row.flags, ...subs.flatMap((s) => s.flags)];
    return `    ${word}) flags="${longs(flags)}"; words="${names(subs)}"; apps=${row.takesApp || subs.some((s) => s.takesApp) ? 1 : 0} ;;`;
  });
  return `# bash completion for imkit-rotator
_imkit_rotator() {
  local cur command flags words apps word i
  cur=\${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ $word == -c || $word == --config ]]; then ((i++)); continue; fi
    if [[ $word != -* ]]; then command=$word; break; fi
  done
  if [[ \${COMP_WORDS[COMP_CWORD - 1]} == -c || \${COMP_WORDS[COMP_CWORD - 1]} == --config ]]; then
    COMPREPLY=($(compgen -f -- "$cur"))
    return
  fi
  flags= words="${names(first(table))}" apps=0
  case $command in
${cases.join("\n")}
  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$flags ${longs(table.globals)} --help" -- "$cur"))
  else
    [[ $apps == 1 ]] && words="$words $(imkit-rotator completion --apps 2>/dev/null)"
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  fi
}
complete -o default -F _imkit_rotator imkit-rotator`;
};

const zsh = (table: Table): string => `autoload -U +X bashcompinit && bashcompinit\n${bash(table)}`;

const quoted = (text: string): string => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;

const fish = (table: Table): string => {
  const c = "complete -c imkit-rotator";
  const lines = [
    "# fish completion for imkit-rotator",
    `${c} -f`,
    ...table.globals.map((f) => `${c} -l ${f.long.slice(2)} -d ${quoted(f.about)}`),
    `${c} -s c -l config -r -F`,
  ];
  for (const row of first(table)) {
    const [word = ""] = row.words;
    const seen = `-n '__fish_seen_subcommand_from ${word}'`;
    const subs = subsOf(table, word);
    lines.push(`${c} -n __fish_use_subcommand -a ${word} -d ${quoted(row.about)}`);
    for (const sub of subs) lines.push(`${c} ${seen} -a ${sub.words[1] ?? ""} -d ${quoted(sub.about)}`);
    for (const f of [...row.flags, ...subs.flatMap((s) => s.flags)])
      lines.push(`${c} ${seen} -l ${f.long.slice(2)} -d ${quoted(f.about)}`);
    if (row.takesApp || subs.some((s) => s.takesApp))
      lines.push(`${c} ${seen} -a '(imkit-rotator completion --apps 2>/dev/null)'`);
  }
  return lines.join("\n");
};

const SCRIPTS = { bash, zsh, fish } as const;
