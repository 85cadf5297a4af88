import { writeFileSync } from "node:fs";
import { afterEach, expect, it } from "vitest";
import { type Fault, startVault, type VaultServer } from "../kit/azure/server.ts";
import type { VaultRequest } from "../kit/azure/vault.ts";
import { findKey } from "../kit/leak.ts";
import { lastJson, makeWorld, type World } from "../kit/world.ts";

let w: World;
let server: VaultServer;
afterEach(async () => {
  await w.close();
  await server.close();
});

const env = () => ({ VAULT_TOKEN: server.token });
/** A world whose one store is a vault that holds the sandbox's first key. `more`: options of the store. */
const begin = async (more = ""): Promise<void> => {
  [w, server] = [await makeWorld(), await startVault()];
  server.vault.put("imkit-api-key", w.sandbox.firstKey(), { tags: { team: "chat" } });
  writeFileSync(
    w.configFile,
    `schemaVersion: 1
state: { dir: ${w.dir}/state }
apps:
  demo:
    baseUrl: ${w.sandbox.url}
    stores:
      - { name: azure, type: azure-key-vault, vaultUrl: "${server.url}", secret: imkit-api-key, caFile: ${server.caFile},
          verifyChallengeResource: false, token: { valueFrom: { env: VAULT_TOKEN } }${more} }
    rollouts: [{ name: none, type: none, reason: reads it on each call }]
    revoke: { probes: 1, every: 0s }
`,
  );
};
const held = () => server.vault.versions("imkit-api-key");
const once = (method: string, fault: Fault) => {
  let left = 1;
  server.fault = (request: VaultRequest) => (request.method === method && left-- > 0 ? fault : null);
};
const clean = (text: string): void => {
  for (const key of [w.sandbox.firstKey(), ...held().map(({ value }) => value)])
    expect(findKey(text, key)).toEqual([]);
};

it("rotates a key in a Key Vault to the end, also when the answer to the write is lost", async () => {
  await begin();
  const key = w.sandbox.issue();
  expect((await w.run(["stage", "demo", "--from-stdin"], { stdin: key, env: env() })).code).toBe(0);
  once("PUT", { how: "drop", when: "after" });
  const rotated = await w.run(["rotate", "demo", "--json"], { env: env() });
  expect([rotated.code, lastJson(rotated.stdout)]).toMatchObject([
    3,
    { stores: [{ name: "azure", state: "written" }] },
  ]);
  expect(held().map(({ value }) => value)).toEqual([w.sandbox.firstKey(), key]);
  expect(held().at(-1)?.tags).toMatchObject({
    team: "chat",
    "imkit-rotator-ledger": expect.stringMatching(/^\w+ \d+ [0-9a-f]{16}$/),
  });
  w.sandbox.revoke(1);
  const confirmed = await w.run(["confirm-revoked", "demo", "--json"], { env: env() });
  expect(confirmed.code).toBe(0);
  expect((await w.run(["audit", "verify", "--json"], { env: env() })).code).toBe(0);
  clean(rotated.stdout + rotated.stderr + confirmed.stdout + confirmed.stderr);
});

it("recovers a deleted secret where that is wanted, and rotates on", async () => {
  await begin(", recover: true");
  const key = w.sandbox.issue();
  expect((await w.run(["stage", "demo", "--from-stdin"], { stdin: key, env: env() })).code).toBe(0);
  Object.assign(server.vault.settings, { deleteMs: 0, recoverMs: 500 });
  server.vault.remove("imkit-api-key");
  const rotated = await w.run(["rotate", "demo", "--json"], { env: env() });
  expect([rotated.code, lastJson(rotated.stdout)]).toMatchObject([3, { stores: [{ state: "written" }] }]);
  expect(held().map(({ value }) => value)).toEqual([w.sandbox.firstKey(), key]);
});

const disable = (): void => server.vault.setEnabled("imkit-api-key", held().at(-1)?.id ?? "", false);
const remove = (): void => server.vault.remove("imkit-api-key");
const deny = (): void => void server.vault.settings.denied.add("set");
it.each([
  ["a disabled version", "DISABLED", 1, disable, "az keyvault secret set-attributes"],
  ["a deleted secret", "SOFT_DELETED", 1, remove, "az keyvault secret recover"],
  ["a missing right", "AUTHZ", 4, deny, "deploy/policies/azure-key-vault.json"],
] as const)("%s ends the run with %s, and doctor says what to do", async (_, code, exit, harm, fix) => {
  await begin();
  expect(
    (await w.run(["stage", "demo", "--from-stdin"], { stdin: w.sandbox.issue(), env: env() })).code,
  ).toBe(0);
  harm();
  const rotated = await w.run(["rotate", "demo", "--json"], { env: env() });
  expect([rotated.code, rotated.stdout]).toEqual([exit, expect.stringContaining(`"code":"${code}"`)]);
  expect(held()).toHaveLength(1);
  const doctor = await w.run(["doctor", "demo", "--json"], { env: env() });
  expect(doctor.stdout).toContain(fix);
  clean(rotated.stdout + rotated.stderr + doctor.stdout + doctor.stderr);
});
