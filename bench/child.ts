import { spawn } from "node:child_process";

/** One child process to its end; its output is dropped. Rejects when it exits otherwise than expected. */
export const runChild = (
  args: readonly string[],
  options: {
    readonly cwd: string;
    readonly env: NodeJS.ProcessEnv;
    readonly input: string;
    readonly expect: number;
  },
): Promise<void> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...args], {
      cwd: options.cwd,
      env: options.env,
      stdio: ["pipe", "ignore", "ignore"],
    });
    child.stdin.on("error", () => {});
    child.stdin.end(options.input);
    child.on("error", reject);
    child.on("exit", (code) => {
      if (code === options.expect) resolve();
      else reject(new Error(`${args.slice(0, 3).join(" ")}: exit ${code}, not ${options.expect}`));
    });
  });
