import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { chatService, type ServiceLine } from "../../src/shell/sandbox/chat-service.ts";
import { type Sandbox, startSandbox } from "../../src/shell/sandbox/server.ts";
import { askRestart, type Service, startService } from "../../src/shell/sandbox/supervisor.ts";

const MODULE = pathToFileURL(join(import.meta.dirname, "../../src/shell/sandbox/chat-service.ts")).href;
const SALT = "5a".repeat(32);
const START = `const m = await import(${JSON.stringify(MODULE)});
process.exitCode = await m.chatService(process.argv.slice(1), m.serviceIo());`;

let folder = "";
let sandbox: Sandbox;
let service: Service | null = null;
const envFile = (): string => join(folder, ".env");
const socket = (): string => join(folder, "s");
const write = (key: string): void =>
  writeFileSync(envFile(), `# chat\nIMKIT_API_KEY="${key}"\nIMKIT_BASE_URL=${sandbox.url}\n`);
const start = async (...args: readonly string[]): Promise<Service> => {
  const command = [process.execPath, "--input-type=module", "-e", START, envFile(), ...args];
  service = await startService({ command, socket: socket() });
  return service;
};

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "sandbox-service-"));
  sandbox = await startSandbox();
  write(sandbox.firstKey());
});
afterEach(async () => {
  await service?.stop();
  service = null;
  await sandbox.close();
  rmSync(folder, { recursive: true, force: true });
});

describe("the chat service", () => {
  const serve = async (
    until: (lines: readonly string[]) => boolean,
    ...args: string[]
  ): Promise<readonly ServiceLine[]> => {
    const lines: string[] = [];
    let stop: () => void = () => undefined;
    const stopped = new Promise<void>((resolve) => (stop = resolve));
    const code = chatService([envFile(), ...args], { print: (line) => lines.push(line), stopped });
    await expect.poll(() => until(lines), { timeout: 5000, interval: 10 }).toBe(true);
    stop();
    expect(await code).toBe(0);
    expect(lines.join()).not.toContain(sandbox.firstKey().slice(0, 8));
    return lines.map((line) => JSON.parse(line) as ServiceLine);
  };

  it("uses the key all the time, at its rate, and shows only a fingerprint", async () => {
    const lines = await serve((seen) => seen.length >= 3, "--salt", SALT, "--rate", "40");
    const final = lines.at(-1);
    expect(lines.map((line) => line.type)).toEqual(["ready", "counts", "counts", "final"]);
    expect(final).toMatchObject({ failed: 0, fp: new Secret(sandbox.firstKey()).fingerprint(SALT) });
    expect(final?.ok).toBe(sandbox.stats(1).ok);
    expect(final?.ok).toBeGreaterThan(30);
    expect(final?.ok).toBeLessThan(100);
    expect(sandbox.log().some(({ call }) => call === "POST /admin/clients")).toBe(true);
  });

  it("finishes what is in flight before it ends", async () => {
    sandbox.fault({ kind: "slow", ms: 300, count: 1000 });
    const lines = await serve(() => sandbox.log().length >= 4, "--rate", "100");
    expect(lines.at(-1)).toMatchObject({ type: "final", failed: 0 });
    expect(lines.at(-1)?.ok).toBeGreaterThanOrEqual(3);
  });

  it("counts what fails, and goes on", async () => {
    sandbox.fault({ kind: "500" });
    sandbox.fault({ kind: "down" });
    const lines = await serve((seen) => seen.some((line) => line.includes("ready")), "--rate", "100");
    expect(lines.at(-1)?.failed).toBe(2);
  });

  it("does not start without a key or an address", async () => {
    const io = { print: () => undefined, stopped: Promise.resolve() };
    expect(await chatService([join(folder, "none")], io)).toBe(2);
    expect(await chatService([envFile(), "--salt", "xyz"], io)).toBe(2);
    expect(await chatService([envFile(), "--rate", "fast"], io)).toBe(2);
    writeFileSync(envFile(), `IMKIT_BASE_URL=${sandbox.url}\n`);
    expect(await chatService([envFile()], io)).toBe(2);
  });
});

describe("the supervisor", () => {
  it("restarts onto a new key with no failed request", async () => {
    const running = await start("--salt", SALT);
    const fresh = sandbox.issue();
    write(fresh);
    expect(running.fingerprint()).toBe(new Secret(sandbox.firstKey()).fingerprint(SALT));
    expect(await askRestart(socket())).toBe(0);
    expect(running.fingerprint()).toBe(new Secret(fresh).fingerprint(SALT));
    sandbox.revoke(1);
    const before = sandbox.stats(fresh).ok;
    await expect.poll(() => sandbox.stats(fresh).ok, { timeout: 5000 }).toBeGreaterThan(before + 5);
    const totals = await running.stop();
    expect(totals).toEqual({
      ok: sandbox.stats(1).ok + sandbox.stats(fresh).ok,
      failed: 0,
      generations: 2,
      crashed: 0,
    });
    expect(sandbox.stats(1).rejected).toBe(0);
    expect(await askRestart(socket())).toBe(1);
  });

  it("two restarts at once are done one after the other", async () => {
    const running = await start();
    expect(await Promise.all([askRestart(socket()), askRestart(socket())])).toEqual([0, 0]);
    expect(await running.stop()).toMatchObject({ failed: 0, generations: 3, crashed: 0 });
  });

  it("keeps the old one where the new one does not come up", async () => {
    const running = await start();
    writeFileSync(envFile(), "IMKIT_API_KEY=\n");
    expect(await askRestart(socket())).toBe(1);
    const before = sandbox.stats(1).ok;
    await expect.poll(() => sandbox.stats(1).ok, { timeout: 5000 }).toBeGreaterThan(before + 2);
    expect(await running.stop()).toMatchObject({ failed: 0, generations: 1, crashed: 1 });
  });

  it("says when the first one does not come up, and leaves nothing behind", async () => {
    rmSync(envFile());
    vi.stubEnv("TMPDIR", folder);
    await expect(start()).rejects.toThrow("did not come up");
    expect(readdirSync(folder)).toEqual([]);
  });

  it("is outlived by no service", async () => {
    const child = spawn(process.execPath, ["--input-type=module", "-e", START, envFile()], {
      stdio: ["pipe", "pipe", "ignore"],
    });
    await once(child.stdout, "data");
    child.kill("SIGINT");
    child.stdin.end();
    const [[code], output] = await Promise.all([once(child, "close"), text(child.stdout)]);
    expect(code).toBe(0);
    expect(output).toContain('"final"');
  });
});
