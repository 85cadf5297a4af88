import { spawn, spawnSync } from "node:child_process";
import { cleanEnv, programFile } from "./program.ts";

/** `script` of util-linux gives a program a terminal of its own. Debian always has it; elsewhere these tests are left out by name. */
export const hasTerminal = String(spawnSync("script", ["--version"]).stdout).includes("util-linux");

/** When the screen shows `see`, `type` is typed, or `act` is done; in this order, each looked for after the one before. */
export type Step = { readonly see: RegExp; readonly type?: string; readonly act?: () => void };

const PATIENCE_MS = 20_000;
export const ENTER = "\r";
export const CTRL_C = "\u0003";

/** Runs the program on a terminal. `screen` is all that it showed, escape sequences and all. */
export const runOnTerminal = async (
  args: readonly string[],
  options: {
    readonly cwd: string;
    readonly env?: Readonly<Record<string, string>>;
    readonly steps: readonly Step[];
  },
): Promise<{ readonly code: number | null; readonly screen: string; readonly missed: RegExp | null }> => {
  const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;
  const words = [process.execPath, await programFile(), ...args].map(quote).join(" ");
  // Without a terminal of its own to copy, script makes one of no size, where every character gets a line.
  const command = `stty cols 100 rows 30; exec ${words}`;
  const child = spawn("script", ["--quiet", "--return", "--command", command, "/dev/null"], {
    cwd: options.cwd,
    env: cleanEnv(options.cwd, { TERM: "xterm-256color", SHELL: "/bin/sh", ...options.env }),
    stdio: ["pipe", "pipe", "inherit"],
  });
  let screen = "";
  let from = 0;
  const left = [...options.steps];
  child.stdin.on("error", () => {});
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    screen += text;
    for (let step = left[0]; step !== undefined; step = left[0]) {
      const found = step.see.exec(screen.slice(from));
      if (found === null) return;
      from += found.index + found[0].length;
      left.shift();
      step.act?.();
      if (step.type !== undefined) child.stdin.write(step.type);
    }
  });
  // A question that is never answered must not outlive the test.
  const guard = setTimeout(() => child.kill(), PATIENCE_MS);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  clearTimeout(guard);
  return { code, screen, missed: left[0]?.see ?? null };
};
