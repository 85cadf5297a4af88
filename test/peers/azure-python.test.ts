import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openKeyVault } from "../../providers/stores/azure-key-vault.ts";
import { Secret } from "../../src/core/secret.ts";
import { startVault, type VaultServer } from "../kit/azure/server.ts";
import { vaultStore } from "../kit/azure/store.ts";
import { madeKey } from "../kit/leak.ts";
import { pythonWith } from "./up/peer.ts";

const VERSION = "4.12.0";

let server: VaultServer;
let python: string;
beforeAll(async () => {
  python = await pythonWith(`azure-keyvault-secrets-${VERSION}`, `azure-keyvault-secrets==${VERSION}`);
  server = await startVault();
  // Long enough that its pollers have to wait, and short enough for us.
  Object.assign(server.vault.settings, { deleteMs: 200, recoverMs: 200 });
});
afterAll(async () => await server?.close());

const drive = async (what: string, secret: string, expected = ""): Promise<Record<string, unknown>> => {
  const { stdout } = await promisify(execFile)(python, [join(import.meta.dirname, "azure-python.py"), what], {
    env: {
      PATH: process.env["PATH"],
      VAULT_URL: server.url,
      VAULT_CA: server.caFile,
      VAULT_TOKEN: server.token,
      SECRET: secret,
      EXPECTED: expected,
    },
    maxBuffer: 1 << 20,
  });
  return JSON.parse(stdout) as Record<string, unknown>;
};

test("Microsoft's Python client takes the stand-in for a Key Vault, in every api-version that it speaks", async () => {
  const {
    "another login": other,
    "a name that is none": none,
    asked,
    ...lives
  } = await drive("life", "life");
  expect(Object.keys(lives).length).toBeGreaterThan(5);
  for (const [version, seen] of Object.entries(lives))
    expect(seen, version).toEqual({
      set: ["text/plain", { team: "chat" }, true, true, true, true],
      "versions differ": true,
      newest: true,
      "by version": true,
      "listed in id order": true,
      "list of nothing": [],
      updated: ["x", {}],
      disabled: ["HttpResponseError", 403, "Forbidden", "SecretDisabled"],
      secrets: true,
      "while being deleted": ["ResourceExistsError", 409, "Conflict", "ObjectIsBeingDeleted"],
      deleted: [true, true],
      "deleted secrets": true,
      "on a deleted name": ["ResourceExistsError", 409, "Conflict", "ObjectIsDeletedButRecoverable"],
      "get of a deleted one": ["ResourceNotFoundError", 404, "SecretNotFound", null],
      recovered: true,
      purged: ["ResourceNotFoundError", 404, "SecretNotFound", null],
    });
  expect(other).toEqual(["ClientAuthenticationError", 401, "Unauthorized", null]);
  expect(none).toEqual(["HttpResponseError", 400, "BadParameter", null]);
  expect(asked).toEqual(['[["https://vault.azure.net/.default"], "TENANT"]']);
});

test("what our store writes is what it reads, and what it writes is a conflict for us", async () => {
  const [first, second, third] = [madeKey(), madeKey(), madeKey()];
  server.vault.put("shared", first, { tags: { team: "chat" } });
  const { config, tools } = vaultStore(server, "shared");
  const store = openKeyVault(config, tools);
  const before = (await store.read(AbortSignal.timeout(10_000)))?.revision ?? null;
  const op = { id: "0".repeat(32), witness: { ledger: "l1", seq: 7, h16: "0123456789abcdef" } };
  const ours = await store.write(new Secret(second), before, op, AbortSignal.timeout(10_000));
  expect(await drive("read", "shared", second)).toEqual({
    same: true,
    tags: { team: "chat", "imkit-rotator-op": op.id, "imkit-rotator-ledger": "l1 7 0123456789abcdef" },
  });
  const { version } = await drive("write", "shared", third);
  const stale = store.write(
    new Secret(first),
    ours,
    { ...op, id: "1".repeat(32) },
    AbortSignal.timeout(10_000),
  );
  await expect(stale).rejects.toMatchObject({ code: "CONFLICT", outcome: "not_applied" });
  const found = await store.read(AbortSignal.timeout(10_000));
  expect([found?.revision, found?.secret.equals(new Secret(third))]).toEqual([version, true]);
});
