import { createReadStream } from "node:fs";
import { RotatorError } from "../core/errors.ts";
import { checkKey } from "../core/intake.ts";
import type { Secret } from "../core/secret.ts";
import type { StageOptions } from "../flow/stage.ts";
import { askSecret, type Io, readStdin, readText, stdinIsTerminal } from "./io.ts";
import { paint } from "./print.ts";

type Sources = { readonly fromStdin?: boolean; readonly fromFile?: string; readonly fromEnv?: string };

/** Takes a key from where the flags say, else by a hidden prompt. @throws RotatorError KEY_MALFORMED, INPUT_MISSING, USAGE */
export const readKey = async (
  io: Io,
  flags: Sources,
  app: string,
): Promise<{ key: Secret; source: StageOptions["source"] }> => {
  const { text, source } = await readGiven(io, flags, app);
  const checked = checkKey(text);
  if (!checked.ok) {
    throw new RotatorError("KEY_MALFORMED", {
      why: checked.why,
      do: ["Copy the API Key in the Dashboard (API Settings) again", `imkit-rotator stage ${app}`],
    });
  }
  for (const note of checked.notes) io.say(`  ${paint(io, "yellow", "!")} ${note}`);
  return { key: checked.secret, source };
};

const readGiven = async (
  io: Io,
  flags: Sources,
  app: string,
): Promise<{ text: string; source: StageOptions["source"] }> => {
  if (flags.fromFile !== undefined) return { text: await readKeyFile(flags.fromFile, io), source: "file" };
  if (flags.fromEnv !== undefined) {
    const text = io.env[flags.fromEnv];
    // Taken out: a program that is a store or a rollout would inherit it.
    delete process.env[flags.fromEnv];
    if (text !== undefined) return { text, source: "env" };
    throw new RotatorError("INPUT_MISSING", {
      what: `The environment variable ${flags.fromEnv} is not set.`,
    });
  }
  // A terminal would show what is typed: there the question is hidden, whatever the flag says.
  if (flags.fromStdin && !stdinIsTerminal()) return { text: await readStdin(io.signal), source: "stdin" };
  if (io.interactive) {
    return { text: await askSecret(`New API Key of ${app} (hidden)`, io.signal), source: "prompt" };
  }
  throw new RotatorError("USAGE", {
    what: "No key was given.",
    why: "There is no terminal to ask on, or --no-input was given.",
    do: [`imkit-rotator stage ${app} --from-stdin < key.txt`],
  });
};

const readKeyFile = async (path: string, io: Io): Promise<string> => {
  try {
    return await readText(createReadStream(path), path, io.signal);
  } catch (error) {
    if (error instanceof RotatorError) throw error;
    throw new RotatorError("INPUT_MISSING", {
      what: `The file ${path} could not be read.`,
      do: ["Check the path and the permissions"],
    });
  }
};
