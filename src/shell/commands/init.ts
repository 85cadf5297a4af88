import { lstatSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { RotatorError } from "../../core/errors.ts";
import { CONFIG_NAMES, findConfig } from "../../io/config-find.ts";
import { answersOf, type InitFlags } from "../init/answers.ts";
import { findEnvFiles, readEnvFile } from "../init/dotenv.ts";
import { ignore, workTree } from "../init/ignore.ts";
import { type Answers, configText } from "../init/text.ts";
import type { Globals, Io } from "../io.ts";
import { shellWord } from "../myself.ts";
import { nextJson, paint, printNext } from "../print.ts";
import { readConfig } from "../wire.ts";

/**
 * Writes a commented config, and `.gitignore` lines in a git work tree. Never overwrites a config.
 * @returns 0 once the config was written and found sound
 * @throws RotatorError USAGE, INTERRUPTED
 */
export const initCommand = async (io: Io, globals: Globals, flags: InitFlags): Promise<number> => {
  const file = resolve(io.cwd, globals.config ?? CONFIG_NAMES[0]);
  const folder = dirname(file);
  const names = globals.config === undefined ? CONFIG_NAMES.map((name) => join(folder, name)) : [file];
  for (const name of names) refuseExisting(name);
  const answers = await answersOf(io, flags, folder);
  write(file, configText(answers));
  let stateDir: string;
  try {
    ({ stateDir } = await readConfig(io, { ...globals, config: file }));
  } catch (error) {
    rmSync(file, { force: true });
    throw error;
  }

  const root = workTree(folder);
  const envFile = resolve(folder, answers.dotenv);
  const ignored =
    root === null
      ? []
      : ignore(root, [
          { path: envFile, folder: false },
          { path: stateDir, folder: true },
        ]);
  const troubles = troublesOf(answers, folder);
  const foundAs = await findConfig({ flag: undefined, env: io.env, cwd: io.cwd }).catch(() => null);
  const by = foundAs === file || globals.config !== undefined ? "" : ` -c ${shellWord(file)}`;
  const next = [
    { who: "you" as const, text: "See whether all is ready", command: `imkit-rotator doctor${by}` },
    {
      who: "you" as const,
      text: "Issue a new API Key in the IMKIT Dashboard and give it in; it is asked for, hidden",
      command: `imkit-rotator stage ${answers.app}${by}`,
    },
  ];
  if (io.json) {
    io.out(
      JSON.stringify({
        schemaVersion: 1,
        configFile: file,
        app: answers.app,
        baseUrl: answers.baseUrl,
        store: { type: "dotenv", path: envFile, key: answers.keyName },
        gitignore: ignored,
        warnings: troubles,
        next: nextJson(io, next),
      }),
    );
    return 0;
  }
  io.out(`${paint(io, "green", "✔")} Wrote ${file}`);
  io.out(`  App ${answers.app} at ${answers.baseUrl}; its key is ${answers.keyName} in ${answers.dotenv}.`);
  if (ignored.length > 0) io.out(`  Added to ${join(root ?? "", ".gitignore")}: ${ignored.join(" ")}`);
  for (const trouble of troubles) io.warn(`  ${paint(io, "yellow", "!")} ${trouble}`);
  io.out("Next:");
  printNext(io, next, io.out);
  return 0;
};

/** Before anything is asked. A dangling link counts as there. */
const refuseExisting = (file: string): void => {
  try {
    lstatSync(file);
  } catch {
    return;
  }
  throw exists(file);
};

const write = (file: string, text: string): void => {
  try {
    writeFileSync(file, text, { flag: "wx", mode: 0o644 });
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    if (code === "EEXIST") throw exists(file);
    throw new RotatorError("USAGE", { what: `${file} cannot be written.`, why: code });
  }
};

const exists = (file: string): RotatorError =>
  new RotatorError("USAGE", {
    what: `There is a config already: ${file}`,
    why: "init never overwrites one.",
    do: ["Edit it, or move it away and run init again", "imkit-rotator doctor"],
  });

const troublesOf = ({ dotenv, keyName }: Answers, folder: string): readonly string[] => {
  const found = readEnvFile(folder, dotenv);
  const others = findEnvFiles(folder).filter((file) => file.keyNames.length > 0 && file.path !== dotenv);
  return [
    ...(found === null ? [`${dotenv} is not there. Mend its path in the config.`] : []),
    ...(found === null || found.keyNames.includes(keyName)
      ? []
      : [
          `${dotenv} has no ${keyName}; the first rotation adds it. If the key has another name there, mend it in the config.`,
        ]),
    ...others.map(({ path }) => `${path} holds a key too. If it is this app's, add it to the stores.`),
  ];
};
