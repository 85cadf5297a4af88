import { spawn, spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import * as z from "zod/mini";
import { type Config, type Hooks, openKeyVault } from "../../providers/stores/azure-key-vault.ts";
import provider from "../../providers/stores/azure-key-vault.ts";
import { ProviderError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Check, Revision, Store, WriteOp } from "../../src/ports.ts";
import { type Fault, LOGIN, startVault, type VaultServer } from "../kit/azure/server.ts";
import { vaultStore } from "../kit/azure/store.ts";
import type { VaultRequest } from "../kit/azure/vault.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { tempDir } from "../kit/provider-tools.ts";

let server: VaultServer;
beforeAll(async () => {
  server = await startVault();
});
afterAll(async () => await server.close());

const settings = () => server.vault.settings;
afterEach(() => {
  server.fault = () => null;
  settings().denied.clear();
  Object.assign(settings(), { throttled: false, deniedBy: "ForbiddenByRbac", emptyPages: 0 });
});

const soon = (ms = 20_000): AbortSignal => AbortSignal.timeout(ms);
let ops = 0;
const op = (witness: WriteOp["witness"] = null): WriteOp => ({
  id: String((ops += 1)).padStart(32, "0"),
  witness,
});

let names = 0;
type World = { readonly name: string; readonly store: Store; readonly old: Secret; readonly key: Secret };
/** A secret of its own that holds `old`, and the store on it. */
const world = (more: Partial<Config> = {}, hooks: Hooks = {}): World => {
  const name = `key-${(names += 1)}`;
  const [old, key] = [new Secret(madeKey()), new Secret(madeKey())];
  if (more.create !== true) server.vault.put(name, old.reveal(), { tags: { team: "chat" } });
  const { config, tools } = vaultStore(server, name, more);
  return { name, old, key, store: openKeyVault(config, tools, { pollMs: 5, ...hooks }) };
};
const at = async ({ store }: World): Promise<Revision | null> => (await store.read(soon()))?.revision ?? null;
const held = ({ name }: World): readonly string[] => server.vault.versions(name).map(({ value }) => value);

/** What a call was refused with; no key of this world may be in it, nor in anything that hangs on it. */
const refusal = async (w: World, call: Promise<unknown>): Promise<readonly [string, string]> => {
  const error = await call.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof ProviderError))
    throw new Error(`refused in no way, or in another: ${String(error)}`);
  expect(error.cause).toBeUndefined();
  clean(w, error, error.stack, error.message);
  return [error.code, error.outcome];
};
const clean = ({ old, key }: World, ...said: readonly unknown[]): void => {
  const text = said
    .map((one) => inspect(one, { depth: 9, showHidden: true }) + JSON.stringify(one))
    .join("\n");
  for (const secret of [old, key]) expect(findKey(text, secret.reveal())).toEqual([]);
  expect(text).not.toMatch(/stand-in-token|sts\.windows\.net|oid=|AKV1/);
};
const faulty = (w: World, method: string, fault: Fault) => {
  server.fault = (request: VaultRequest) =>
    request.method === method && request.path.includes(`/${w.name}`) ? fault : null;
};

describe("config", () => {
  const parse = (config: unknown) => z.safeParse(provider.schema, config);
  const fine = { vaultUrl: "https://kv-chat.vault.azure.net", secret: "imkit-api-key" };
  test.each([
    ["a vault of Azure", {}],
    ["a slash at the end", { vaultUrl: "https://kv-chat.vault.azure.net/" }],
    [
      "an emulator",
      {
        vaultUrl: "https://127.0.0.1:8443",
        verifyChallengeResource: false,
        token: { valueFrom: { env: "T" } },
        caFile: "ca.pem",
      },
    ],
  ])("takes %s", (_, more) => expect(parse({ ...fine, ...more }).success).toBe(true));
  test.each([
    ["http", { vaultUrl: "http://kv-chat.vault.azure.net" }],
    ["a path", { vaultUrl: "https://kv-chat.vault.azure.net/secrets/x" }],
    ["a user", { vaultUrl: "https://a:b@kv-chat.vault.azure.net" }],
    ["a name with a dot", { secret: "imkit.api.key" }],
    ["a name of 128 letters", { secret: "a".repeat(128) }],
    ["an empty name", { secret: "" }],
    ["an unknown option", { jsonKey: "x" }],
    ["an unchecked challenge of Azure", { verifyChallengeResource: false }],
    ["a fixed token for Azure", { token: { valueFrom: { env: "T" } } }],
    [
      "a fixed token for Azure in other letters",
      { vaultUrl: "https://KV.VAULT.Azure.NET", token: { valueFrom: { env: "T" } } },
    ],
    [
      "a fixed token with a checked challenge",
      { vaultUrl: "https://127.0.0.1", token: { valueFrom: { env: "T" } } },
    ],
    [
      "two sources of a token",
      {
        vaultUrl: "https://127.0.0.1",
        verifyChallengeResource: false,
        token: { valueFrom: { env: "T", file: "t" } },
      },
    ],
  ])("refuses %s", (_, more) => expect(parse({ ...fine, ...more }).success).toBe(false));
});

describe("a write", () => {
  test("keeps tags, content type and dates, also those after 2038, and quotes op and ledger", async () => {
    const w = world();
    const attributes = { nbf: 1_600_000_000, exp: 7_258_118_399 };
    server.vault.put(w.name, w.old.reveal(), {
      tags: { team: "chat", "a/b": "" },
      contentType: "text/plain",
      attributes,
    });
    const witness = { ledger: "l".repeat(32), seq: 42, h16: "0123456789abcdef" };
    const mine = op(witness);
    const revision = await w.store.write(w.key, await at(w), mine, soon());
    const last = server.vault.versions(w.name).at(-1);
    expect(last).toMatchObject({ id: revision, value: w.key.reveal(), contentType: "text/plain" });
    expect(last?.attributes).toMatchObject({ ...attributes, enabled: true });
    expect(last?.tags).toEqual({
      team: "chat",
      "a/b": "",
      "imkit-rotator-op": mine.id,
      "imkit-rotator-ledger": `${witness.ledger} 42 ${witness.h16}`,
    });
    expect(await w.store.read(soon())).toMatchObject({ witness, revision });
    const next = await w.store.write(w.old, revision, op(), soon());
    expect(server.vault.versions(w.name).at(-1)?.tags).toMatchObject({ team: "chat" });
    expect(server.vault.versions(w.name).at(-1)?.tags).not.toHaveProperty("imkit-rotator-ledger");
    expect(next).not.toBe(revision);
  });

  test("sends one set, and no key before the vault has asked for a login", async () => {
    const w = world();
    const before = server.seen.length;
    const challenged = server.challenged();
    await w.store.write(w.key, await at(w), op(), soon());
    expect(server.challenged() - challenged).toBe(1);
    expect(server.seen.slice(before).map(({ method }) => method)).toEqual([
      "GET",
      "GET",
      "GET",
      "PUT",
      "GET",
    ]);
  });

  test("of the same op is one, also when another version lies over it", async () => {
    const w = world();
    const mine = op();
    const before = await at(w);
    await w.store.write(w.key, before, mine, soon());
    server.vault.put(w.name, w.old.reveal());
    expect(await refusal(w, w.store.write(w.key, before, mine, soon()))).toEqual(["CONFLICT", "applied"]);
    expect(held(w)).toEqual([w.old.reveal(), w.key.reveal(), w.old.reveal()]);
  });

  test.each(["before", "after"] as const)(
    "sees a version that came %s ours, between look and end",
    async (when) => {
      const w = world();
      const before = await at(w);
      const third = madeKey();
      let sets = 0;
      server.fault = ({ method, path }) => {
        if (method === "PUT") {
          sets += 1;
          if (when === "before") server.vault.put(w.name, third);
        } else if (path.endsWith("/versions") && sets === 1 && when === "after") {
          sets += 1;
          server.vault.put(w.name, third);
        }
        return null;
      };
      expect(await refusal(w, w.store.write(w.key, before, op(), soon()))).toEqual(["CONFLICT", "applied"]);
      expect(held(w)).toContain(third);
    },
  );

  test("sees every version of many pages, also behind an empty one", async () => {
    const w = world();
    for (let n = 0; n < 60; n++) server.vault.put(w.name, madeKey());
    settings().emptyPages = 2;
    const before = await at(w);
    await w.store.write(w.key, before, op(), soon());
    server.fault = ({ method }) => {
      if (method === "PUT") server.vault.put(w.name, madeKey());
      return null;
    };
    const revision = await at(w);
    expect(await refusal(w, w.store.write(w.old, revision, op(), soon()))).toEqual(["CONFLICT", "applied"]);
  });

  test("whose answer is lost is unknown, and is not made twice", async () => {
    const w = world();
    const before = await at(w);
    const mine = op();
    faulty(w, "PUT", { how: "drop", when: "after" });
    expect((await refusal(w, w.store.write(w.key, before, mine, soon())))[1]).toBe("unknown");
    expect(held(w)).toEqual([w.old.reveal(), w.key.reveal()]);
    server.fault = () => null;
    await w.store.write(w.key, before, mine, soon());
    expect(held(w)).toHaveLength(2);
  });

  test("that was lost on its way is unknown too, and nothing is there", async () => {
    const w = world();
    const before = await at(w);
    faulty(w, "PUT", { how: "drop" });
    expect((await refusal(w, w.store.write(w.key, before, op(), soon())))[1]).toBe("unknown");
    expect(held(w)).toEqual([w.old.reveal()]);
  });

  test.each(["before", "after"] as const)(
    "that hangs %s it took place ends with the caller, unknown",
    async (when) => {
      const w = world();
      const before = await at(w);
      faulty(w, "PUT", { how: "hang", when });
      expect(await refusal(w, w.store.write(w.key, before, op(), soon(150)))).toEqual(["TIMEOUT", "unknown"]);
    },
  );

  test("ends by itself, before anything is sent where the vault does not answer", async () => {
    const w = world({}, { callMs: 150 });
    const before = await at(w);
    faulty(w, "GET", { how: "hang" });
    expect(await refusal(w, w.store.write(w.key, before, op(), soon()))).toEqual(["TIMEOUT", "not_applied"]);
    expect(held(w)).toHaveLength(1);
  });

  test("is done, but says so with a doubt, when the last look fails", async () => {
    const w = world();
    const before = await at(w);
    let sets = 0;
    server.fault = ({ method }) => {
      if (method === "PUT") sets += 1;
      return method === "GET" && sets > 0 ? { how: "drop" } : null;
    };
    expect((await refusal(w, w.store.write(w.key, before, op(), soon())))[1]).toBe("unknown");
    expect(held(w).at(-1)).toBe(w.key.reveal());
  });

  test("too large, or with no room for its tags, is refused before", async () => {
    const w = world();
    const large = new Secret("A".repeat(25_601));
    const before = await at(w);
    expect(await refusal(w, w.store.write(large, before, op(), soon()))).toEqual([
      "TOO_LARGE",
      "not_applied",
    ]);
    const tags = Object.fromEntries(Array.from({ length: 15 }, (_, n) => [`tag-${n}`, ""]));
    server.vault.put(w.name, w.old.reveal(), { tags });
    expect(await refusal(w, w.store.write(w.key, await at(w), op(), soon()))).toEqual([
      "QUOTA",
      "not_applied",
    ]);
    expect(failed(await w.store.preflight(soon()))).toMatchObject([{ id: "tags", code: "QUOTA" }]);
  });

  test("over a certificate's secret is refused", async () => {
    const w = world();
    server.vault.manage(w.name);
    expect(await refusal(w, w.store.write(w.key, await at(w), op(), soon()))).toEqual([
      "NOT_OWNED",
      "not_applied",
    ]);
    expect(failed(await w.store.preflight(soon()))).toMatchObject([{ id: "owner", code: "NOT_OWNED" }]);
  });
});

const failed = (checks: readonly Check[]): readonly Check[] =>
  checks.filter(({ status }) => status === "fail" || status === "unproved");

describe("what is not there", () => {
  test("is an error without create, and its way out is named", async () => {
    const w = world({ create: true });
    const store = openKeyVault(...configOf(w, {}));
    expect(await refusal(w, store.read(soon()))).toEqual(["NOT_FOUND", "not_applied"]);
    await expect(store.read(soon())).rejects.toThrow(/create: true/);
    expect(await refusal(w, store.write(w.key, null, op(), soon()))).toEqual(["NOT_FOUND", "not_applied"]);
    expect(failed(await store.preflight(soon()))).toMatchObject([
      { code: "NOT_FOUND", fix: expect.stringContaining("create: true") },
    ]);
  });

  test.each([
    ["a page of a proxy", { status: 404, text: "<html>no such page</html>" }],
    ["another JSON", { status: 404, text: '{"error":{"code":"NotFound"}}' }],
  ])("is not concluded from %s", async (_, how) => {
    const w = world({ create: true });
    faulty(w, "GET", { how });
    expect(await refusal(w, w.store.read(soon()))).toEqual(["UNAVAILABLE", "not_applied"]);
  });

  test("because it is deleted, or being deleted, is SOFT_DELETED", async () => {
    const w = world();
    const store = openKeyVault(...configOf(w, { create: true }));
    const before = await at(w);
    server.vault.remove(w.name);
    for (const ms of [0, 30_000]) {
      server.advance(ms);
      for (const one of [w.store, store]) {
        expect(await refusal(w, one.read(soon()))).toEqual(["SOFT_DELETED", "not_applied"]);
        expect(await refusal(w, one.write(w.key, null, op(), soon()))).toEqual([
          "SOFT_DELETED",
          "not_applied",
        ]);
        expect(await refusal(w, one.write(w.key, before, op(), soon()))).toEqual([
          "SOFT_DELETED",
          "not_applied",
        ]);
      }
    }
    expect(failed(await store.preflight(soon()))).toMatchObject([
      { id: "soft-delete", code: "SOFT_DELETED", fix: expect.stringContaining("az keyvault secret recover") },
    ]);
    expect(server.seen.some(({ path }) => path.includes(w.name) && path.endsWith("/recover"))).toBe(false);
  });

  test("is recovered where that is wanted, and written over, with what stood there", async () => {
    const w = world({ recover: true });
    server.vault.remove(w.name);
    expect(await w.store.read(soon())).toBeNull();
    expect(failed(await w.store.preflight(soon()))).toEqual([]);
    server.fault = hurry();
    await w.store.write(w.key, null, op(), soon());
    expect(held(w)).toEqual([w.old.reveal(), w.key.reveal()]);
    expect(server.vault.versions(w.name).at(-1)?.tags).toMatchObject({ team: "chat" });
  });

  test("is recovered, and is a conflict when it is not what was expected", async () => {
    const w = world({ recover: true });
    const before = await at(w);
    server.vault.put(w.name, madeKey());
    server.vault.remove(w.name);
    server.fault = hurry();
    expect(await refusal(w, w.store.write(w.key, before, op(), soon()))).toEqual(["CONFLICT", "not_applied"]);
  });

  test("takes its time to come back: the call ends, and the next one goes on", async () => {
    const w = world({ recover: true }, { recoverMs: 60 });
    const before = await at(w);
    server.vault.remove(w.name);
    server.advance(30_000);
    expect(await refusal(w, w.store.write(w.key, before, op(), soon()))).toEqual(["TIMEOUT", "not_applied"]);
    server.advance(20_000);
    await w.store.write(w.key, before, op(), soon());
    expect(held(w)).toEqual([w.old.reveal(), w.key.reveal()]);
    const asked = server.seen.filter(({ path }) => path.includes(`/${w.name}/recover`));
    expect(asked).toHaveLength(1);
  });

  test("comes back disabled, as it was", async () => {
    const w = world({ recover: true });
    server.vault.setEnabled(w.name, String(await at(w)), false);
    server.vault.remove(w.name);
    server.advance(30_000);
    expect(await w.store.read(soon())).toBeNull();
    server.fault = hurry();
    expect(await refusal(w, w.store.write(w.key, null, op(), soon()))).toEqual(["DISABLED", "not_applied"]);
  });
});

/** Time flies while the store polls. */
const hurry = () => (request: VaultRequest) => {
  if (request.method === "GET") server.advance(4_000);
  return null;
};
const configOf = ({ name }: World, more: Partial<Config>) => {
  const { config, tools } = vaultStore(server, name, more);
  return [config, tools] as const;
};

describe("what the vault refuses", () => {
  test("a disabled current version is DISABLED for read and write, with the line that enables it", async () => {
    const w = world();
    const before = await at(w);
    server.vault.setEnabled(w.name, String(before), false);
    expect(await refusal(w, w.store.read(soon()))).toEqual(["DISABLED", "not_applied"]);
    expect(await refusal(w, w.store.write(w.key, before, op(), soon()))).toEqual(["DISABLED", "not_applied"]);
    const fix = expect.stringContaining(`--name ${w.name} --enabled true`);
    expect(failed(await w.store.preflight(soon()))).toMatchObject([{ code: "DISABLED", fix }]);
  });

  test.each([
    ["ForbiddenByRbac", "az role assignment create"],
    ["ForbiddenByPolicy", "az keyvault set-policy"],
    ["ForbiddenByFirewall", "az keyvault network-rule add"],
  ] as const)("%s is AUTHZ, with its own way out and none of the vendor's words", async (deniedBy, line) => {
    const w = world();
    const before = await at(w);
    settings().deniedBy = deniedBy;
    settings().denied.add("set");
    expect(await refusal(w, w.store.write(w.key, before, op(), soon()))).toEqual(["AUTHZ", "not_applied"]);
    settings().denied.add("get");
    expect(await refusal(w, w.store.read(soon()))).toEqual(["AUTHZ", "not_applied"]);
    const checks = await w.store.preflight(soon());
    clean(w, checks);
    expect(failed(checks)).toMatchObject([
      { id: "permission", code: "AUTHZ", fix: expect.stringContaining(line) },
    ]);
  });

  test.each(["get", "list", "set", "update", "recover"] as const)(
    "the right to %s is needed, and named",
    async (right) => {
      const w = world({ recover: true });
      const before = await at(w);
      settings().denied.add(right);
      if (right === "recover") {
        server.vault.remove(w.name);
        server.advance(30_000);
      }
      const needs = async () => {
        await w.store.preflight(soon());
        const revision = await w.store.write(w.key, right === "recover" ? null : before, op(), soon());
        expect(revision).not.toBe(before);
        if (before !== null) await w.store.retire?.(before, soon());
      };
      expect(await refusal(w, needs())).toEqual(["AUTHZ", "not_applied"]);
    },
  );

  test("another login is AUTHN", async () => {
    const w = world();
    const { config, tools } = vaultStore({ ...server, token: "of-another-tenant" }, w.name);
    const store = openKeyVault(config, tools);
    expect(await refusal(w, store.read(soon()))).toEqual(["AUTHN", "not_applied"]);
    expect(await refusal(w, store.write(w.key, null, op(), soon()))).toEqual(["AUTHN", "not_applied"]);
    expect(failed(await store.preflight(soon()))).toMatchObject([
      { id: "identity", code: "AUTHN", fix: "az login" },
    ]);
  });

  test("throttling waits as long as it is told to, and says when nobody told", async () => {
    const w = world();
    const before = await at(w);
    const told = { status: 429, text: "<html></html>", headers: { "retry-after": "7" } };
    faulty(w, "PUT", { how: told });
    const write = w.store.write(w.key, before, op(), soon());
    await expect(write).rejects.toMatchObject({
      code: "THROTTLED",
      outcome: "not_applied",
      retryAfterMs: 7_000,
    });
    settings().throttled = true;
    await expect(w.store.read(soon())).rejects.toMatchObject({ code: "THROTTLED", retryAfterMs: null });
    expect(failed(await w.store.preflight(soon()))).toMatchObject([{ status: "unproved" }]);
  });

  test.each([
    [500, "UNAVAILABLE", "unknown"],
    [502, "UNAVAILABLE", "unknown"],
    [503, "UNAVAILABLE", "unknown"],
    [408, "TIMEOUT", "unknown"],
    [400, "CONFIG", "not_applied"],
    [409, "CONFLICT", "not_applied"],
    [413, "TOO_LARGE", "not_applied"],
    [307, "UNAVAILABLE", "not_applied"],
    [200, "UNAVAILABLE", "unknown"],
  ] as const)("HTTP %i to a set is %s, %s, whatever stands in it", async (status, code, outcome) => {
    const w = world();
    const before = await at(w);
    for (const text of [
      "",
      "<html>",
      `{"error":{"code":"x","message":"${w.key.reveal()}"}}`,
      "[]",
      "null",
      '{"id":1}',
    ]) {
      faulty(w, "PUT", {
        how: {
          status,
          text,
          headers: { location: `${server.url}/secrets/elsewhere`, "content-type": "application/json" },
        },
      });
      const sets = server.seen.filter(({ method }) => method === "PUT").length;
      expect([text, ...(await refusal(w, w.store.write(w.key, before, op(), soon())))]).toEqual([
        text,
        code,
        outcome,
      ]);
      expect(server.seen.filter(({ method }) => method === "PUT").length - sets).toBe(1);
    }
    expect(server.seen.some(({ path }) => path.includes("elsewhere"))).toBe(false);
  });

  test.each([200, 204, 302, 404, 500])(
    "HTTP %i that makes no sense is never taken for a value or for absence",
    async (status) => {
      const w = world({ create: true });
      for (const text of ["", "<html>", `{"value":7,"id":"${w.key.reveal()}"}`, '{"value":"x"}', "null"]) {
        faulty(w, "GET", { how: { status, text: status === 204 ? "" : text } });
        expect((await refusal(w, w.store.read(soon())))[1]).toBe("not_applied");
        expect(failed(await w.store.preflight(soon())).length).toBeGreaterThan(0);
      }
    },
  );
});

describe("what does not lead to the vault", () => {
  test("a port where nobody listens, a name that nobody knows: nothing was written", async () => {
    const w = world();
    for (const vaultUrl of ["https://127.0.0.1:1", "https://nobody.invalid"]) {
      const store = openKeyVault(...configOf(w, { vaultUrl }));
      expect((await refusal(w, store.write(w.key, null, op(), soon())))[1]).toBe("not_applied");
    }
  });

  test("a certificate that is not trusted, or a caFile that is none, is CONFIG", async () => {
    const w = world();
    const { config, tools } = vaultStore(server, w.name);
    const { caFile: _, ...without } = config;
    expect(await refusal(w, openKeyVault(without, tools).read(soon()))).toEqual(["CONFIG", "not_applied"]);
    const none = openKeyVault({ ...config, caFile: "/nowhere.pem" }, tools);
    expect(await refusal(w, none.read(soon()))).toEqual(["CONFIG", "not_applied"]);
    expect(failed(await none.preflight(soon()))).toMatchObject([{ code: "CONFIG" }]);
  });

  test("a caFile that comes later is taken then", async () => {
    const { dir, remove } = await tempDir();
    try {
      const w = world();
      const store = openKeyVault(...configOf(w, { caFile: join(dir, "ca.pem") }));
      expect(await refusal(w, store.read(soon()))).toEqual(["CONFIG", "not_applied"]);
      writeFileSync(join(dir, "ca.pem"), readFileSync(server.caFile));
      expect((await store.read(soon()))?.secret.equals(w.old)).toBe(true);
    } finally {
      await remove();
    }
  });

  test("a vault that asks for a login to another domain gets no login", async () => {
    const w = world();
    const seen = server.seen.length;
    const { config, tools } = vaultStore(server, w.name, { verifyChallengeResource: true });
    const store = openKeyVault(config, tools);
    expect(await refusal(w, store.read(soon()))).toEqual(["CONFIG", "not_applied"]);
    expect(await refusal(w, store.write(w.key, null, op(), soon()))).toEqual(["CONFIG", "not_applied"]);
    expect(server.seen.length).toBe(seen);
  });

  test("a token that cannot be read is CONFIG", async () => {
    const w = world();
    const { config, tools } = vaultStore(server, w.name);
    const store = openKeyVault(config, {
      ...tools,
      valueOf: () => Promise.reject(new Error(w.key.reveal())),
    });
    expect(await refusal(w, store.read(soon()))).toEqual(["CONFIG", "not_applied"]);
  });
});

describe("retire", () => {
  test("disables a superseded version, twice is once, and leaves all else", async () => {
    const w = world();
    const before = await at(w);
    if (before === null) throw new Error("nothing there");
    await w.store.write(w.key, before, op(), soon());
    await w.store.retire?.(before, soon());
    await w.store.retire?.(before, soon());
    expect(
      server.vault.versions(w.name).map(({ attributes, tags }) => [attributes.enabled, tags?.["team"]]),
    ).toEqual([
      [false, "chat"],
      [true, "chat"],
    ]);
    expect((await w.store.read(soon()))?.secret.equals(w.key)).toBe(true);
  });

  test.each(["", "current", "0".repeat(32), "../x"])(
    "never touches the current version: %j",
    async (what) => {
      const w = world();
      const current = String(await at(w));
      const call =
        w.store.retire?.((what === "current" ? current : what) as Revision, soon()) ?? Promise.resolve();
      expect((await refusal(w, call))[1]).toBe("not_applied");
      expect(await at(w)).toBe(current);
    },
  );
});

describe("preflight", () => {
  test("warns of an expiry that a new version would keep, and of what it cannot prove", async () => {
    const w = world();
    server.vault.put(w.name, w.old.reveal(), { attributes: { exp: 1_600_000_000, nbf: 4_102_444_800 } });
    const checks = await w.store.preflight(soon());
    const said = Object.fromEntries(checks.map(({ id, status, fix }) => [id, [status, fix]]));
    expect(said).toMatchObject({
      identity: ["ok", undefined],
      secret: ["ok", undefined],
      owner: ["ok", undefined],
      expiry: [
        "warn",
        expect.stringContaining(`az keyvault secret set-attributes --vault-name 127 --name ${w.name}`),
      ],
      "not-before": ["warn", expect.any(String)],
      permission: ["warn", expect.stringContaining("deploy/policies/azure-key-vault.json")],
      challenge: ["warn", expect.any(String)],
    });
    await w.store.write(w.key, await at(w), op(), soon());
    expect((await w.store.preflight(soon())).find(({ id }) => id === "permission")?.status).toBe("ok");
  });

  test("sees a clock that is far off", async () => {
    const own = await startVault();
    try {
      own.setTime(Date.now() + 3_600_000);
      own.vault.put("x", madeKey());
      const { config, tools } = vaultStore(own, "x");
      const checks = await openKeyVault(config, tools).preflight(soon());
      expect(checks).toContainEqual(expect.objectContaining({ id: "clock", status: "warn" }));
    } finally {
      await own.close();
    }
  });
});

/** A program that reads and writes by `store`, and tells which parts of the SDK it loaded before and after its first call. */
const script = (config: unknown): string => {
  const root = join(import.meta.dirname, "..", "..");
  const at = (path: string) => JSON.stringify(pathToFileURL(join(root, path)).href);
  return `import { registerHooks } from "node:module";
    const loaded = new Set();
    const resolve = (name, context, next) => (name.startsWith("@azure/") && loaded.add(name), next(name, context));
    registerHooks({ resolve });
    const { openKeyVault } = await import(${at("providers/stores/azure-key-vault.ts")});
    const { Secret } = await import(${at("src/core/secret.ts")});
    const tools = { configDir: "/", env: {}, valueOf: async () => ${JSON.stringify(server.token)} };
    const store = openKeyVault(${JSON.stringify(config)}, tools);
    const before = loaded.size;
    const soon = () => AbortSignal.timeout(20_000);
    try {
      const found = await store.read(soon());
      await store.write(new Secret(process.env.NEXT), found.revision, { id: "0".repeat(32), witness: null }, soon());
      console.log("done");
    } catch (error) {
      console.log("refused", error, JSON.stringify(error), JSON.stringify(await store.preflight(soon())));
    }
    console.log("loaded", before, loaded.has("@azure/keyvault-secrets"), loaded.has("@azure/identity"));`;
};

describe("the SDK", () => {
  const loud = { AZURE_LOG_LEVEL: "verbose" };

  test("is loaded with the first call, and its loudest log holds no key and no token", async () => {
    const w = world();
    const said = await run(script(configOf(w, {})[0]), { ...loud, NEXT: w.key.reveal() });
    expect(said).toContain("done\nloaded 0 true false");
    expect(held(w).at(-1)).toBe(w.key.reveal());
    expect(said).toContain("azure:");
    clean(w, said);
  });

  test("logs in by its own chain, once, where the config has no token", async () => {
    const w = world();
    const { token: _, ...config } = configOf(w, {})[0];
    const env = {
      AZURE_TENANT_ID: LOGIN.tenant,
      AZURE_CLIENT_ID: LOGIN.client,
      AZURE_CLIENT_SECRET: LOGIN.secret,
      AZURE_AUTHORITY_HOST: server.url,
      NEXT: w.key.reveal(),
    };
    const logins = server.logins();
    expect(await run(script(config), env)).toContain("done\nloaded 0 true true");
    expect(server.logins() - logins).toBe(1);
    expect(held(w).at(-1)).toBe(w.key.reveal());

    const wrong = await run(script(config), {
      ...env,
      AZURE_CLIENT_SECRET: madeKey(),
      AZURE_TOKEN_CREDENTIALS: "EnvironmentCredential",
    });
    expect(wrong).toMatch(/refused .*AUTHN/);
    expect(wrong).toContain('"fix":"az login"');
    expect(wrong).not.toMatch(/AADSTS|invalid_client|client_secret/);
  });
});

const run = async (text: string, env: Readonly<Record<string, string>>): Promise<string> => {
  const { dir, remove } = await tempDir();
  try {
    writeFileSync(join(dir, "program.ts"), text);
    const child = spawn(process.execPath, [join(dir, "program.ts")], {
      env: { PATH: process.env["PATH"], HOME: dir, ...env },
    });
    let said = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (part: Buffer) => void (said += part.toString("latin1")));
    await new Promise((resolve) => child.on("close", resolve));
    return said;
  } finally {
    await remove();
  }
};

describe("the role in deploy/policies", () => {
  const role = JSON.parse(
    readFileSync(join(import.meta.dirname, "..", "..", "deploy", "policies", "azure-key-vault.json"), "utf8"),
  ) as Readonly<Record<string, unknown>>;

  test("has the actions of the calls, and no other", () => {
    const needed = [
      "getSecret/action",
      "readMetadata/action",
      "setSecret/action",
      "update/action",
      "recover/action",
    ];
    expect(role["Actions"]).toEqual([]);
    expect([role["NotActions"], role["NotDataActions"]]).toEqual([[], []]);
    expect(role["DataActions"]).toEqual(
      needed.map((action) => `Microsoft.KeyVault/vaults/secrets/${action}`),
    );
    expect(role["IsCustom"]).toBe(true);
    expect(role["AssignableScopes"]).toHaveLength(1);
    expect(String((role["AssignableScopes"] as unknown[])[0])).toMatch(
      /^\/subscriptions\/[^/]+\/resourceGroups\/[^/]+$/,
    );
  });

  test("is the one that the fix lines of doctor name", async () => {
    const w = world();
    settings().denied.add("get");
    const [check] = failed(await w.store.preflight(soon()));
    expect(check?.fix).toContain(`--role "${String(role["Name"])}"`);
    expect(check?.fix).toContain(`/secrets/${w.name}"`);
    expect(spawnSync("sh", ["-n", "-c", check?.fix ?? ""]).status).toBe(0);
  });
});
