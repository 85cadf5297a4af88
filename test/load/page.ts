import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cleanEnv } from "../kit/program.ts";

const page = readFileSync(join(import.meta.dirname, "..", "..", "docs", "loading.md"), "utf8");

/** Writes a file that docs/loading.md shows into `dir`, with the app's name of the tests. @returns its text */
export const fromPage = (name: string, dir: string): string => {
  const block = new RegExp(`\`\`\`\\w+ ${name.replace(".", "\\.")}\n([^]*?)\`\`\``).exec(page)?.[1];
  if (block === undefined) throw new Error(`docs/loading.md shows no ${name}`);
  const text = block.replace('app: "chat"', 'app: "demo"');
  writeFileSync(join(dir, name), text);
  return text;
};

/** What stands behind `run chat -- ` on that page, for a file of it. */
export const commandFor = (name: string): readonly string[] => {
  const line = page
    .split("\n")
    .find((one) => one.startsWith("imkit-rotator run chat -- ") && one.endsWith(name));
  if (line === undefined) throw new Error(`docs/loading.md starts no ${name}`);
  return line.split(" -- ")[1]?.split(" ") ?? [];
};

export type Service = {
  readonly url: string;
  readonly child: ChildProcess;
  readonly stop: () => Promise<number | null>;
};

/** Starts a service and waits until it says where it listens. */
export const startService = async (
  program: string,
  args: readonly string[],
  cwd: string,
  env: Readonly<Record<string, string>> = {},
): Promise<Service> => {
  const child = spawn(program, args, {
    cwd,
    env: cleanEnv(cwd, { PORT: "0", ...env }),
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  const port = await new Promise<string>((resolve, reject) => {
    const look = (text: string): void => {
      said += text;
      const found = /listening on (\d+)|\(http:\/\/127\.0\.0\.1:(\d+)\) started/.exec(said);
      if (found !== null) resolve(found[1] ?? found[2] ?? "");
    };
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", look);
    child.on("error", reject);
    child.on("exit", (code) => reject(new Error(`it ended with ${code}: ${said}`)));
  });
  const stop = async (): Promise<number | null> => {
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    const [code] = (await ended) as [number | null];
    return code;
  };
  return { url: `http://127.0.0.1:${port}`, child, stop };
};
