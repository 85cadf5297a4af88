import type { CommanderError } from "commander";
import { RotatorError } from "../core/errors.ts";

/** Words of the command line may be anything, a key by mistake too: only what looks like a command or an option is repeated. */
const repeatable = (word: string): string => {
  const bare = word.split("=")[0] ?? "";
  return /^-{0,2}[a-z][a-z-]{0,23}$/i.test(bare) ? bare : "";
};

const meant = (message: string): string => {
  const found = /\(Did you mean (?:one of )?(.+?)\?\)/s.exec(message)?.[1];
  return found === undefined ? "" : `Did you mean ${found}?`;
};

/**
 * What the argument parser found wrong, in our words.
 * @param command the command that was meant, e.g. `audit list`; empty when there was none
 */
export const usageError = (error: CommanderError, command: string): RotatorError => {
  const help = [`imkit-rotator ${command === "" ? "" : `${command} `}--help`];
  const usage = (what: string, why = ""): RotatorError => new RotatorError("USAGE", { what, why, do: help });
  const quoted = repeatable(/'([^']*)'/.exec(error.message)?.[1] ?? "");
  const name = command === "" ? "The command" : command;
  switch (error.code) {
    case "commander.help":
      return usage("A command is missing.");
    case "commander.unknownOption":
      return usage(
        quoted === "" ? "There is no option of that name." : `There is no option ${quoted}.`,
        meant(error.message),
      );
    case "commander.unknownCommand":
      return usage(
        quoted === "" ? "There is no command of that name." : `There is no command "${quoted}".`,
        meant(error.message),
      );
    case "commander.excessArguments":
      return excess(error, name, help);
    case "commander.missingArgument":
      return usage(`${name} wants <${quoted}>.`);
    case "commander.optionMissingArgument":
      return usage(`${/'(?:-\w, )?(--[a-z-]+)/.exec(error.message)?.[1] ?? "An option"} wants a value.`);
    default:
      return usage("The command line is not right.");
  }
};

const excess = (error: CommanderError, name: string, help: readonly string[]): RotatorError => {
  const words = (/but got \d+: (.*)\.$/s.exec(error.message)?.[1] ?? "").split(", ");
  const takesKey = ["stage", "fingerprint", "confirm-revoked"].includes(name);
  // Too short or too odd for the guard to know it as a key, but why else would one write it there?
  if (takesKey && words.slice(1).some((word) => word.length >= 16))
    return new RotatorError("KEY_IN_ARGUMENT");
  return new RotatorError("USAGE", {
    what: `${name} was given too many words.`,
    why: takesKey ? "A key is never given as an argument: it would be exposed there." : "",
    do: help,
  });
};
