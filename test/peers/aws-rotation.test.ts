import { randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { openAws } from "../../providers/stores/aws-secrets-manager.ts";
import { Secret } from "../../src/core/secret.ts";
import { KEYS, SETTINGS } from "../kit/aws-place.ts";
import { rawAws } from "../kit/aws-secrets.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { lastJson, makeWorld, type World } from "../kit/world.ts";

const PEERS = inject("aws");
const REGION = "us-east-1";
const soon = (): AbortSignal => AbortSignal.timeout(20_000);
const op = () => ({ id: randomUUID().replaceAll("-", ""), witness: null });

/** A secret of its own on one of the peers. */
const made = async (
  peer: "moto" | "ministack",
  value: string,
  more: Readonly<Record<string, unknown>> = {},
) => {
  const secretId = `rotation/${randomUUID()}`;
  const ask = (call: string, body: Readonly<Record<string, unknown>>, region = REGION) =>
    rawAws(PEERS[peer], region, call, { SecretId: secretId, ...body });
  const body = { Name: secretId, ClientRequestToken: randomUUID(), SecretString: value, ...more };
  await rawAws(PEERS[peer], REGION, "CreateSecret", body);
  return { secretId, ask, endpoint: PEERS[peer] };
};

describe("the program, with a key on moto, on MiniStack and in a file", () => {
  let world: World;
  let secrets: Awaited<ReturnType<typeof made>>[] = [];
  beforeAll(async () => {
    world = await makeWorld();
    const key = world.sandbox.firstKey() ?? "";
    secrets = [await made("moto", `{"DB": "x", "IMKIT_API_KEY": "${key}"}`), await made("ministack", key)];
    const lines = secrets.map(({ secretId, endpoint }, n) => {
      const jsonKey = n === 0 ? ", jsonKey: IMKIT_API_KEY" : "";
      return `      - { name: aws${n}, type: aws-secrets-manager, region: ${REGION}, secretId: ${secretId}${jsonKey}, endpoint: "${endpoint}" }`;
    });
    const text = readFileSync(world.configFile, "utf8");
    writeFileSync(world.configFile, text.replace("    stores:\n", `    stores:\n${lines.join("\n")}\n`));
  });
  afterAll(async () => await world.close());

  test("goes from an issued key to a dead one, and every store says which ledger wrote it", async () => {
    const env = { AWS_ACCESS_KEY_ID: KEYS.accessKeyId, AWS_SECRET_ACCESS_KEY: KEYS.secretAccessKey };
    const run = (args: readonly string[], stdin?: string) =>
      world.run(args, { env, ...(stdin === undefined ? {} : { stdin }) });
    const old = world.sandbox.firstKey() ?? "";
    const key = world.sandbox.issue();

    const doctor = await run(["doctor", "demo", "--json"]);
    expect(doctor.code).toBe(0);
    expect((await run(["stage", "demo", "--from-stdin"], key)).code).toBe(0);
    const rotated = await run(["rotate", "demo", "--json"]);
    expect(lastJson(rotated.stdout)).toMatchObject({
      status: "waiting",
      stores: ["aws0", "aws1", "env"].map((name) => ({ name, state: "written", code: null })),
    });
    world.sandbox.revoke(old);
    expect((await run(["confirm-revoked", "demo", "--json"])).code).toBe(0);
    expect(lastJson((await run(["audit", "verify", "demo", "--stores", "--json"])).stdout)).toMatchObject({
      ok: true,
    });

    const [moto, ministack] = await Promise.all(
      secrets.map(({ ask }) => ask("GetSecretValue", { VersionStage: "AWSCURRENT" })),
    );
    expect(moto?.["SecretString"]).toBe(`{"DB": "x", "IMKIT_API_KEY": "${key}"}`);
    expect(ministack?.["SecretString"]).toBe(key);
    for (const got of [moto, ministack]) {
      const labels = got?.["VersionStages"] as string[];
      expect(
        labels.filter((label) => /^imkit-rotator\/[0-9a-f]{32}\/\d+\/[0-9a-f]{16}/.test(label)),
      ).toHaveLength(1);
      expect(labels).not.toContain("AWSPENDING");
    }
    for (const one of [old, key]) expect(findKey(world.printed(), one)).toEqual([]);
  });
});

describe.each(["moto", "ministack"] as const)("%s", (peer) => {
  test("of two writers at once, one wins, and the other is told so", async () => {
    for (let round = 0; round < 5; round++) {
      const { secretId, ask, endpoint } = await made(peer, madeKey());
      const [one, two] = [1, 2].map(() => openAws({ ...SETTINGS, region: REGION, secretId, endpoint }, KEYS));
      if (one === undefined || two === undefined) throw new Error("there are two");
      const before = (await one.read(soon()))?.revision ?? null;
      const keys = [new Secret(madeKey()), new Secret(madeKey())] as const;
      const ends = await Promise.allSettled([
        one.write(keys[0], before, op(), soon()),
        two.write(keys[1], before, op(), soon()),
      ]);
      const lost = ends.flatMap((end) => (end.status === "rejected" ? [end.reason as unknown] : []));
      expect(lost).toMatchObject([{ code: "CONFLICT", outcome: "not_applied" }]);
      const won = keys[ends.findIndex(({ status }) => status === "fulfilled")];
      expect((await ask("GetSecretValue", { VersionStage: "AWSCURRENT" }))["SecretString"]).toBe(
        won?.reveal(),
      );
    }
  });

  test("retire leaves a superseded version without labels of ours", async () => {
    const { secretId, ask, endpoint } = await made(peer, madeKey());
    const store = openAws({ ...SETTINGS, region: REGION, secretId, endpoint }, KEYS);
    const before = (await store.read(soon()))?.revision ?? null;
    const first = await store.write(new Secret(madeKey()), before, op(), soon());
    const second = await store.write(new Secret(madeKey()), first, op(), soon());
    await store.retire?.(first, soon());
    const stages = (await ask("DescribeSecret", {}))["VersionIdsToStages"] as Record<string, string[]>;
    expect(stages[first] ?? []).toEqual([]);
    expect(stages[second]).toContain("AWSCURRENT");
  });
});

test("moto: a replica region is read back, and cannot be written", async () => {
  const { secretId, ask, endpoint } = await made("moto", madeKey(), {
    AddReplicaRegions: [{ Region: "eu-west-3" }],
  });
  const store = openAws({ ...SETTINGS, region: REGION, secretId, endpoint }, KEYS);
  const next = new Secret(madeKey());
  await store.write(next, (await store.read(soon()))?.revision ?? null, op(), soon());
  const copy = await ask("GetSecretValue", { VersionStage: "AWSCURRENT" }, "eu-west-3");
  expect(copy["SecretString"]).toBe(next.reveal());
  expect((await store.preflight(soon())).find(({ id }) => id === "replicas")?.status).toBe("ok");

  const there = openAws({ ...SETTINGS, region: "eu-west-3", secretId, endpoint }, KEYS);
  const revision = (await there.read(soon()))?.revision ?? null;
  await expect(there.write(new Secret(madeKey()), revision, op(), soon())).rejects.toMatchObject({
    code: "CONFIG",
    outcome: "not_applied",
  });
});
