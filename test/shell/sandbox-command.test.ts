import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { RotatorError } from "../../src/core/errors.ts";
import { sandboxCommand, type SandboxFlags } from "../../src/shell/commands/sandbox.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "sandbox-command-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

type Run = { readonly code: number; readonly out: string; readonly err: string };
/** Runs the command, does `during` while it is up, then stops it. */
const run = async (
  options: SandboxFlags & { readonly json?: boolean },
  during: (out: string) => Promise<void> = async () => undefined,
  signal: "SIGINT" | "SIGTERM" | "SIGHUP" = "SIGTERM",
): Promise<Run> => {
  let out = "";
  let err = "";
  const stop = new AbortController();
  const { promise: up, resolve: started } = Promise.withResolvers<void>();
  const print = (line: string): void => {
    out += `${line}\n`;
    started();
  };
  const say = (line: string): void => void (err += `${line}\n`);
  const { json = false, ...flags } = options;
  const code = sandboxCommand({ out: print, say, json, signal: stop.signal }, flags);
  await Promise.race([up, code]);
  await during(out).finally(() => stop.abort(signal));
  return { code: await code, out, err };
};
const refusal = async (options: SandboxFlags & { readonly json?: boolean }): Promise<RotatorError> => {
  const error: unknown = await run(options).then(
    () => null,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof RotatorError)) throw new Error("was not refused");
  return error;
};

describe("imkit-rotator sandbox", () => {
  it("prints where it is, and ends by signal with the port closed", async () => {
    let url = "";
    const ended = await run({}, async (out) => {
      url = /http:\/\/127\.0\.0\.1:\d+/.exec(out)?.[0] ?? "";
      expect(out).toContain(`Dashboard  ${url}/dashboard`);
      expect((await fetch(`${url}/dashboard`)).status).toBe(200);
    });
    expect(ended.code).toBe(143);
    await expect(fetch(url)).rejects.toThrow("fetch failed");
    expect((await run({}, undefined, "SIGINT")).code).toBe(130);
    expect((await run({}, undefined, "SIGHUP")).code).toBe(143);
  });

  it("prints one JSON line, and nothing else on stdout or stderr", async () => {
    const { out, err } = await run({ json: true });
    expect(out.endsWith("\n") && out.indexOf("\n") === out.length - 1).toBe(true);
    const url = JSON.parse(out).url;
    expect(JSON.parse(out)).toEqual({ url, dashboard: `${url}/dashboard`, envFile: null, configFile: null });
    expect(err).toBe("");
  });

  it("writes a private .env that works and a config for it, and prints no key", async () => {
    const [envFile, configFile] = [join(folder, "my .env"), join(folder, "c.yaml")];
    const { out, err } = await run({ writeDotenv: envFile, writeConfig: configFile }, async (text) => {
      const env = parseEnv(readFileSync(envFile, "utf8"));
      const base = env["IMKIT_BASE_URL"] ?? "";
      expect(text).toContain(base);
      const answer = await fetch(`${base}/admin/connection-count`, {
        headers: { "IM-API-KEY": env["IMKIT_API_KEY"] ?? "" },
      });
      expect(answer.status).toBe(200);
      expect(statSync(envFile).mode & 0o777).toBe(0o600);
      const config = parse(readFileSync(configFile, "utf8"));
      expect(config.apps.demo).toMatchObject({
        baseUrl: base,
        stores: [{ name: "env", type: "dotenv", path: envFile, key: "IMKIT_API_KEY" }],
        revoke: { probes: 3, every: "1s" },
      });
    });
    const key = parseEnv(readFileSync(envFile, "utf8"))["IMKIT_API_KEY"] ?? "";
    expect(key).toHaveLength(60);
    expect(out + err + readFileSync(configFile, "utf8")).not.toContain(key.slice(0, 8));
  });

  it("adds to an .env that has no such key, and keeps the rest", async () => {
    const envFile = join(folder, ".env");
    writeFileSync(envFile, "# mine\nPORT=80", { mode: 0o644 });
    await run({ writeDotenv: envFile });
    const text = readFileSync(envFile, "utf8");
    expect(text).toMatch(/^# mine\nPORT=80\nIMKIT_API_KEY=\S{60}\nIMKIT_BASE_URL=http:\S+\n$/);
    expect(statSync(envFile).mode & 0o777).toBe(0o600);
  });

  it.each([
    "IMKIT_API_KEY=x\n",
    "A=1\nexport IMKIT_API_KEY=\n",
    "IMKIT_API_KEY: x\n",
    "\uFEFFIMKIT_API_KEY=x",
    "IMKIT_BASE_URL=x",
  ])("leaves %j alone", async (text) => {
    const [envFile, configFile] = [join(folder, ".env"), join(folder, "c.yaml")];
    writeFileSync(envFile, text);
    expect((await refusal({ writeDotenv: envFile, writeConfig: configFile })).exit).toBe(2);
    expect(readFileSync(envFile, "utf8")).toBe(text);
    expect(readdirSync(folder)).toEqual([".env"]);
  });

  it("overwrites no config and follows no link", async () => {
    const [envFile, configFile] = [join(folder, ".env"), join(folder, "c.yaml")];
    writeFileSync(configFile, "mine");
    expect((await refusal({ writeDotenv: envFile, writeConfig: configFile })).exit).toBe(2);
    expect(readFileSync(configFile, "utf8")).toBe("mine");
    expect(readdirSync(folder)).toEqual(["c.yaml"]);
    symlinkSync(join(folder, "elsewhere"), envFile);
    expect((await refusal({ writeDotenv: envFile })).exit).toBe(2);
    mkdirSync(join(folder, "dir"));
    expect((await refusal({ writeDotenv: join(folder, "dir") })).exit).toBe(2);
    expect(readdirSync(folder).toSorted()).toEqual([".env", "c.yaml", "dir"]);
  });

  const wrong: readonly SandboxFlags[] = [
    { port: "http" },
    { port: "70000" },
    { mode: "both" },
    { errorShape: "round" },
    { revocationLag: "5" },
    { activationLag: "1.5s" },
    { limit: "0" },
    { writeConfig: "c.yaml" },
  ];
  it.each(wrong)("refuses %j", async (options) => {
    expect((await refusal(options)).code).toBe("USAGE");
  });

  it("refuses a port that is taken", async () => {
    await run({ json: true }, async (out) => {
      const error = await refusal({ port: new URL(JSON.parse(out).url).port });
      expect([error.exit, error.why]).toEqual([2, "EADDRINUSE"]);
    });
  });

  it("hands its options on", async () => {
    await run(
      { json: true, mode: "replace", errorShape: "envelope", limit: "1", activationLag: "1h" },
      async (out) => {
        const { url } = JSON.parse(out);
        const headers = { accept: "application/json" };
        const issued = await fetch(`${url}/dashboard/issue`, { method: "POST", headers });
        const { key } = (await issued.json()) as { readonly key: string };
        const answer = await fetch(`${url}/admin/connection-count`, { headers: { "IM-API-KEY": key } });
        expect(await answer.json()).toMatchObject({ RC: 401, error: { code: "INVALID_API_KEY" } });
        const listed = await (await fetch(`${url}/dashboard`, { headers })).json();
        const { keys } = listed as { readonly keys: readonly { readonly revokedAt: number | null }[] };
        expect(keys.map((one) => one.revokedAt !== null)).toEqual([true, false]);
      },
    );
  });
});
