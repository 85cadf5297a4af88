import { inspect } from "node:util";
import { afterEach, describe, expect, it } from "vitest";
import type { FaultKind } from "../../src/shell/sandbox/faults.ts";
import { type Sandbox, type SandboxOptions, startSandbox } from "../../src/shell/sandbox/server.ts";
import { makeKey } from "../../src/shell/sandbox/state.ts";

const running: Sandbox[] = [];
const start = async (options: SandboxOptions = {}): Promise<Sandbox> => {
  const sandbox = await startSandbox(options);
  running.push(sandbox);
  return sandbox;
};
afterEach(async () => {
  await Promise.all(running.splice(0).map((sandbox) => sandbox.close()));
});

type Body = Readonly<Record<string, unknown>>;
type Answer = { readonly status: number; readonly headers: Headers; readonly body: Body };
const call = async (
  sandbox: Sandbox,
  path: string,
  key?: string,
  init: { readonly method?: string; readonly body?: string } = {},
): Promise<Answer> => {
  const headers: Record<string, string> = key === undefined ? {} : { "IM-API-KEY": key };
  const response = await fetch(`${sandbox.url}${path}`, { ...init, headers, redirect: "manual" });
  const text = await response.text();
  const json = (response.headers.get("content-type") ?? "").includes("json");
  return { status: response.status, headers: response.headers, body: json ? JSON.parse(text) : { text } };
};
const probe = async (sandbox: Sandbox, key?: string): Promise<Answer> =>
  call(sandbox, "/admin/connection-count", key);
const status = async (sandbox: Sandbox, key: string): Promise<number> => (await probe(sandbox, key)).status;

describe("keys", () => {
  it("has the vendor's form and is different each time", () => {
    const key = makeKey();
    expect(key).toHaveLength(60);
    expect(Buffer.from(Buffer.from(key, "base64").toString("latin1"), "base64")).toHaveLength(32);
    expect(makeKey()).not.toBe(key);
  });

  it("serves a key that was issued and rejects every other one", async () => {
    const sandbox = await start();
    expect((await probe(sandbox, sandbox.firstKey())).body).toEqual({
      RC: 0,
      RM: "OK",
      result: { count: 128 },
    });
    expect(await probe(sandbox, makeKey())).toMatchObject({
      status: 401,
      body: { error: "INVALID_API_KEY", message: "The provided API key is invalid or expired" },
    });
    expect(await probe(sandbox)).toMatchObject({ status: 401, body: { error: "MISSING_API_KEY" } });
    expect(await probe(sandbox, "")).toMatchObject({ status: 401, body: { error: "MISSING_API_KEY" } });
  });

  it("overlap: the old key works until it is revoked", async () => {
    const sandbox = await start();
    const fresh = sandbox.issue();
    expect([await status(sandbox, sandbox.firstKey()), await status(sandbox, fresh)]).toEqual([200, 200]);
    expect(sandbox.revoke(sandbox.firstKey())).toBe(true);
    expect([await status(sandbox, sandbox.firstKey()), await status(sandbox, fresh)]).toEqual([401, 200]);
    expect(sandbox.revoke(99)).toBe(false);
  });

  it("replace: issuing a key kills the older ones", async () => {
    const sandbox = await start({ mode: "replace" });
    const fresh = sandbox.issue();
    expect([await status(sandbox, sandbox.firstKey()), await status(sandbox, fresh)]).toEqual([401, 200]);
    expect(sandbox.keys().map((key) => key.revokedAt !== null)).toEqual([true, false]);
  });

  it("a revoked key works on for the revocation lag", async () => {
    let now = 1_000_000;
    const sandbox = await start({ revocationLagMs: 5000, now: () => now });
    sandbox.revoke(1);
    expect(sandbox.keys()[0]?.revokedAt).toBe(1_000_000);
    now += 4999;
    sandbox.revoke(1);
    expect(await status(sandbox, sandbox.firstKey())).toBe(200);
    now += 1;
    expect(await status(sandbox, sandbox.firstKey())).toBe(401);
  });

  it("a fresh key is rejected for the activation lag, the first one never", async () => {
    let now = 1_000_000;
    const sandbox = await start({ activationLagMs: 3000, now: () => now });
    const fresh = sandbox.issue();
    expect([await status(sandbox, sandbox.firstKey()), await status(sandbox, fresh)]).toEqual([200, 401]);
    now += 3000;
    expect(await status(sandbox, fresh)).toBe(200);
  });

  it("limits each key on its own to so many requests a minute", async () => {
    let now = 1_000_000;
    const sandbox = await start({ limit: 3, now: () => now });
    const other = sandbox.issue();
    for (let i = 0; i < 3; i++) expect(await status(sandbox, sandbox.firstKey())).toBe(200);
    now += 20_000;
    const limited = await probe(sandbox, sandbox.firstKey());
    expect(limited).toMatchObject({ status: 429, body: { error: "RATE_LIMIT_EXCEEDED", retryAfter: 40 } });
    expect(limited.headers.has("retry-after")).toBe(false);
    expect(await status(sandbox, other)).toBe(200);
    now += 40_000;
    expect(await status(sandbox, sandbox.firstKey())).toBe(200);
    expect(sandbox.stats(1)).toEqual({ ok: 4, rejected: 0, limited: 1 });
  });

  it("allows 1,000 by default", async () => {
    const sandbox = await start({ now: () => 1_000_000, retryAfterHeader: true });
    for (let i = 0; i < 20; i++) {
      const answers = await Promise.all(
        Array.from({ length: 50 }, () => status(sandbox, sandbox.firstKey())),
      );
      expect(new Set(answers)).toEqual(new Set([200]));
    }
    const limited = await probe(sandbox, sandbox.firstKey());
    expect([limited.status, limited.headers.get("retry-after")]).toEqual([429, "60"]);
  });
});

describe("answers", () => {
  it("gives errors in the shape that is set", async () => {
    const shapes = async (errorShape: "envelope" | "mixed"): Promise<readonly unknown[]> => {
      const sandbox = await start({ errorShape, invalidCode: "UNAUTHORIZED" });
      const bad = makeKey();
      return [(await probe(sandbox, bad)).body, (await probe(sandbox, bad)).body];
    };
    const flat = { error: "UNAUTHORIZED", message: "Unauthorized" };
    const envelope = {
      RC: 401,
      RM: "Unauthorized",
      error: { code: "UNAUTHORIZED", message: "Unauthorized" },
    };
    expect(await shapes("envelope")).toEqual([envelope, envelope]);
    expect(await shapes("mixed")).toEqual([flat, envelope]);
  });

  it("tells the apps apart by the Client Key in /admin/stats", async () => {
    const [one, two] = [await start({ app: "one" }), await start({ app: "two" })];
    const of = async (sandbox: Sandbox, key: string): Promise<Body> =>
      (await call(sandbox, "/admin/stats", key)).body["result"] as Body;
    const fresh = one.issue();
    const stats = await of(one, fresh);
    expect(stats["apiKey"]).toBe(fresh);
    expect(stats["clientKey"]).toMatch(/^ey[\w-]+\.[\w-]+\.[\w-]+$/);
    expect(stats["clientKey"]).toBe((await of(one, one.firstKey()))["clientKey"]);
    expect(stats["clientKey"]).not.toBe((await of(two, two.firstKey()))["clientKey"]);
    expect((await call(two, "/admin/stats", fresh)).status).toBe(401);
  });

  it("creates and lists clients", async () => {
    const sandbox = await start();
    const key = sandbox.firstKey();
    const post = (body: string): Promise<Answer> =>
      call(sandbox, "/admin/clients", key, { method: "POST", body });
    const made = await post('{"_id":"user001","nickname":"Alice","issueAccessToken":true}');
    expect(made.body["result"]).toEqual({
      _id: "user001",
      nickname: "Alice",
      token: expect.stringMatching(/^\w{32}$/),
    });
    await post('{"_id":"__proto__","nickname":"Bob"}');
    const list = async (query: string): Promise<unknown> =>
      (await call(sandbox, `/admin/clients${query}`, key)).body["result"];
    expect(await list("?limit=1&skip=1")).toEqual({
      totalCount: 2,
      data: [{ _id: "__proto__", nickname: "Bob" }],
    });
    expect(await list("?q=Ali")).toMatchObject({ totalCount: 1 });
    for (const bad of ["", "[]", "{", '{"nickname":"x"}', '{"_id":7}'])
      expect((await post(bad)).status).toBe(400);
    expect((await post(JSON.stringify({ _id: "x".repeat(70_000) }))).status).toBe(413);
    const anonymous = await call(sandbox, "/admin/clients", makeKey(), {
      method: "POST",
      body: '{"_id":"eve"}',
    });
    expect(anonymous.status).toBe(401);
  });

  it("answers 404 and 405 with JSON", async () => {
    const sandbox = await start();
    for (const path of ["/nowhere", "//admin/stats", "/admin/constructor"]) {
      expect(await call(sandbox, path, sandbox.firstKey())).toMatchObject({
        status: 404,
        body: { error: "NOT_FOUND" },
      });
    }
    const posted = await call(sandbox, "/admin/stats", sandbox.firstKey(), { method: "POST" });
    expect(posted).toMatchObject({ status: 405, body: { error: "METHOD_NOT_ALLOWED" } });
  });
});

describe("faults", () => {
  it("hit so many requests as asked, and only those that fit", async () => {
    const sandbox = await start();
    const other = sandbox.issue();
    sandbox.fault({ kind: "500", count: 2, key: other });
    sandbox.fault({ kind: "429", retryAfter: 7, route: "stats" });
    expect(await status(sandbox, sandbox.firstKey())).toBe(200);
    expect([
      await status(sandbox, other),
      await status(sandbox, other),
      await status(sandbox, other),
    ]).toEqual([500, 500, 200]);
    expect((await call(sandbox, "/admin/stats", other)).body).toMatchObject({ retryAfter: 7 });
    const lift = sandbox.fault({ kind: "403", count: Number.POSITIVE_INFINITY });
    expect([await status(sandbox, other), await status(sandbox, other)]).toEqual([403, 403]);
    lift();
    expect(await status(sandbox, other)).toBe(200);
  });

  const kinds: readonly (readonly [FaultKind, number, string])[] = [
    ["html", 502, "<h1>"],
    ["html-200", 200, "<h1>"],
    ["429", 429, "RATE_LIMIT_EXCEEDED"],
    ["403", 403, "INSUFFICIENT_PERMISSIONS"],
    ["500", 500, "INTERNAL"],
    ["redirect", 302, ""],
    ["missing", 401, "MISSING_API_KEY"],
    ["contradiction", 401, '"RC":0'],
    ["odd-401", 401, "SESSION_EXPIRED"],
    ["accept-all", 200, '"count":128'],
    ["reject-all", 401, "INVALID_API_KEY"],
    ["rc", 200, '"RC":1'],
    ["wrong-type", 200, '"count":"128"'],
    ["no-result", 200, '"RM":"OK"}'],
    ["truncated", 200, '"resu'],
    ["huge", 200, "xxxx"],
  ];
  it.each(kinds)("%s answers %i", async (kind, expected, text) => {
    const sandbox = await start();
    sandbox.fault({ kind });
    const response = await fetch(`${sandbox.url}/admin/connection-count`, {
      headers: { "IM-API-KEY": kind === "accept-all" ? makeKey() : sandbox.firstKey() },
      redirect: "manual",
    });
    expect(response.status).toBe(expected);
    expect(await response.text()).toContain(text);
  });

  it("down cuts the connection; slow comes late; close does not wait for a slow answer", async () => {
    const sandbox = await start();
    sandbox.fault({ kind: "down" });
    await expect(probe(sandbox, sandbox.firstKey())).rejects.toThrow("fetch failed");
    sandbox.fault({ kind: "slow", ms: 30 });
    const before = performance.now();
    expect(await status(sandbox, sandbox.firstKey())).toBe(200);
    expect(performance.now() - before).toBeGreaterThan(25);
    sandbox.fault({ kind: "slow", ms: 3_600_000 });
    const hanging = probe(sandbox, sandbox.firstKey()).then(
      () => "answered",
      () => "cut",
    );
    await expect.poll(() => sandbox.log().at(-1)?.answer).toBe("slow");
    await sandbox.close();
    await sandbox.close();
    expect(await hanging).toBe("cut");
  });
});

it("counts per key, and its log and its object hold no key", async () => {
  const sandbox = await start();
  const fresh = sandbox.issue();
  const stranger = makeKey();
  await probe(sandbox, fresh);
  await call(sandbox, `/admin/clients?q=${fresh}`, sandbox.firstKey());
  await call(sandbox, `/${fresh}`, stranger);
  await probe(sandbox, stranger);
  sandbox.revoke(fresh);
  await probe(sandbox, fresh);
  expect(sandbox.stats(fresh)).toEqual({ ok: 1, rejected: 1, limited: 0 });
  expect(sandbox.stats(stranger)).toEqual({ ok: 0, rejected: 0, limited: 0 });
  expect(sandbox.log().map(({ type, id, answer }) => `${type} ${id} ${answer}`.trim())).toEqual([
    "issued 1",
    "issued 2",
    "request 2 accepted",
    "request 1 accepted",
    "request null invalid",
    "revoked 2",
    "request 2 invalid",
  ]);
  const seen =
    JSON.stringify([sandbox.log(), sandbox.keys()]) + inspect(sandbox, { depth: 9, showHidden: true });
  for (const key of [fresh, stranger, sandbox.firstKey()]) expect(seen).not.toContain(key.slice(0, 8));
});
