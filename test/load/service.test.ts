import { execFileSync } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { programFile, programRoot } from "../kit/program.ts";
import { makeWorld, type World } from "../kit/world.ts";
import { commandFor, fromPage, type Service, startService } from "./page.ts";

const closing: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const close of closing.toReversed()) await close();
});
const begin = async (mode: "overlap" | "replace"): Promise<World> => {
  const w = await makeWorld({ sandbox: { mode, limit: 1_000_000 } });
  closing.push(w.close);
  return w;
};
const started = async (service: Promise<Service>): Promise<Service> => {
  const one = await service;
  closing.push(one.stop);
  return one;
};

/** The service of docs/loading.md, in a project that has imkit-rotator among its packages. */
const serviceIn = async (w: World, text: (page: string) => string = (page) => page): Promise<Service> => {
  writeFileSync(join(w.dir, "package.json"), "{}");
  mkdirSync(join(w.dir, "node_modules"));
  symlinkSync(await programRoot(), join(w.dir, "node_modules", "imkit-rotator"));
  writeFileSync(join(w.dir, "service.mjs"), text(fromPage("service.mjs", w.dir)));
  return await started(
    startService(process.execPath, ["service.mjs"], w.dir, { IMKIT_BASE_URL: w.sandbox.url }),
  );
};

type Call = { readonly from: number; readonly to: number; readonly status: number };
/** Four users who ask, one request after the other, until they are told to stop. */
const traffic = (url: string) => {
  const calls: Call[] = [];
  const run = { over: false };
  const user = async (): Promise<void> => {
    while (!run.over) {
      const from = performance.now();
      const { status } = await fetch(url);
      calls.push({ from, to: performance.now(), status });
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const users = Promise.all([user(), user(), user(), user()]);
  return {
    calls,
    /** Until `many` more have been answered with 200. */
    working: async (many = 20): Promise<void> => {
      const wanted = calls.filter(({ status }) => status === 200).length + many;
      while (calls.filter(({ status }) => status === 200).length < wanted)
        await new Promise((resolve) => setTimeout(resolve, 5));
    },
    stop: async (): Promise<readonly Call[]> => {
      run.over = true;
      await users;
      return calls;
    },
  };
};
const must = async (w: World, args: readonly string[], code: number, stdin = ""): Promise<void> => {
  const ran = await w.run(args, { stdin });
  if (ran.code !== code) throw new Error(`exit ${ran.code}, not ${code}\n${ran.stdout}\n${ran.stderr}`);
};

describe.concurrent("a service that asks for the key at each call", () => {
  test("lives through a rotation in overlap, without a restart and without a failed request", async () => {
    const w = await begin("overlap");
    const service = await serviceIn(w);
    const users = traffic(service.url);
    await users.working();
    const [old, key] = [w.sandbox.firstKey(), w.sandbox.issue()];
    await must(w, ["stage", "demo", "--from-stdin"], 0, key);
    await must(w, ["rotate", "demo"], 3);
    await users.working();
    w.sandbox.revoke(old);
    await must(w, ["confirm-revoked", "demo"], 0);
    await users.working();
    const calls = await users.stop();
    expect(calls.filter(({ status }) => status !== 200)).toEqual([]);
    expect(calls.length).toBeGreaterThan(60);
    expect(service.child.exitCode).toBeNull();
    // One wave at most was rejected and went through at the second try; the probes of the rotator are the rest.
    const { rejected } = w.sandbox.stats(1);
    expect(rejected).toBeLessThanOrEqual(4 + w.events().filter(({ type }) => type === "proof").length * 4);
    expect(w.sandbox.stats(2).ok).toBeGreaterThan(20);
  });

  test("where issuing kills the old key: it fails until the store has the new one, 10 s longer at most, and goes on by itself", async () => {
    const w = await begin("replace");
    const store = `store: { type: "dotenv", path: "${join(w.dir, "env.env")}", key: "IMKIT_API_KEY" }`;
    const service = await serviceIn(w, (page) => page.replace('app: "demo"', store));
    const users = traffic(service.url);
    await users.working();
    const before = w.sandbox.stats(1).rejected;
    const died = performance.now();
    const key = w.sandbox.issue();
    await must(w, ["stage", "demo", "--from-stdin"], 0, key);
    await must(w, ["rotate", "demo"], 0);
    const written = performance.now();
    await users.working();
    const calls = await users.stop();
    const failed = calls.filter(({ status }) => status !== 200);
    expect(failed.filter(({ from, to }) => to < died || from > written + 10_000)).toEqual([]);
    expect(failed.every(({ status }) => status === 401)).toBe(true);
    // Each was tried once more, and not again and again.
    const asked = w.sandbox.stats(1).rejected - before;
    expect(asked).toBeGreaterThanOrEqual(2 * failed.length);
    expect(asked).toBeLessThanOrEqual(2 * failed.length + 4 + 20);
    expect(service.child.exitCode).toBeNull();
  });
});

const has = (program: string): boolean => {
  try {
    execFileSync(program, ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
};

describe.concurrent("the samples of the vendor, as docs/loading.md shows them, under run", () => {
  const samples = ["chat.mjs", "chat.py", "chat.php"].map((name) => {
    const command = commandFor(name);
    return { name, command, isThere: has(command[0] ?? "") };
  });
  const missing = samples.filter(({ isThere }) => !isThere).map(({ name }) => name);
  if (missing.length > 0)
    process.stderr.write(`left out, for their interpreter is not installed: ${missing.join(", ")}\n`);

  test.each(samples.filter(({ isThere }) => isThere))("$name", async ({ name, command }) => {
    const w = await begin("overlap");
    fromPage(name, w.dir);
    const [program = "", ...rest] = command.map((word) => word.replace(":8080", ":0"));
    const args = [await programFile(), "run", "demo", "--", program, ...rest];
    const service = await started(startService(process.execPath, args, w.dir));
    const answer = await fetch(service.url);
    expect(await answer.json()).toMatchObject({ result: { _id: "user001", nickname: "Alice" } });
    expect(w.sandbox.stats(1).ok).toBe(1);
    expect([0, 143]).toContain(await service.stop());
  });
});
