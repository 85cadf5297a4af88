import { basename, isAbsolute, relative } from "node:path";
import type { Io } from "./io.ts";

/** What starts this very program again: runtime and launcher, without flags that the runtime itself was given. */
export const selfCommand = (): readonly [string, string] => [process.execPath, process.argv[1] ?? ""];

/** One word for a POSIX shell. */
export const shellWord = (text: string): string =>
  /^[\w./@%+=:,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** What a person types, in the folder he is in, to start this program as he just did: its name where it has one, else `node <path>`. */
export const typedName = (io: Pick<Io, "env" | "cwd">): string => {
  const [, file] = selfCommand();
  if (basename(file) === "imkit-rotator") {
    return io.env["npm_command"] === "exec" ? "npx imkit-rotator" : "imkit-rotator";
  }
  // Under `npm run` the current folder is the package's, and INIT_CWD the one the person is in.
  const near = relative(io.env["INIT_CWD"] ?? io.cwd, file);
  return `node ${shellWord(near.startsWith("..") || isAbsolute(near) ? file : near)}`;
};
