import { spawnSync } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { openAws } from "../../providers/stores/aws-secrets-manager.ts";
import { ProviderError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Revision, Store, Witness, WriteOp } from "../../src/ports.ts";
import { KEYS, SETTINGS } from "../kit/aws-place.ts";
import { type AwsCall, type AwsFault, type FakeAws, fakeAws, HOME, rawAws } from "../kit/aws-secrets.ts";
import { findKey, madeKey } from "../kit/leak.ts";

let aws: FakeAws;
beforeAll(async () => {
  aws = await fakeAws();
});
afterAll(async () => await aws.close());
beforeEach(() => {
  aws.fault = () => null;
  aws.calls.length = 0;
});

const LEDGER = "0123456789abcdef0123456789abcdef";
const witness = (seq: number, ledger = LEDGER): Witness => ({ ledger, seq, h16: "fedcba9876543210" });
const op = (seq = 7, ledger = LEDGER): WriteOp => ({
  id: randomBytes(16).toString("hex"),
  witness: witness(seq, ledger),
});
const key = (): Secret => new Secret(madeKey());
const soon = (): AbortSignal => AbortSignal.timeout(20_000);
const STAGES = ["AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"];
const CALLS = ["GetSecretValue", "DescribeSecret", "PutSecretValue", "UpdateSecretVersionStage"];

type Options = Partial<Parameters<typeof openAws>[0]> & { readonly value?: string | null };
const opened = async ({ value = madeKey(), ...more }: Options = {}) => {
  const secretId = `prod/${randomUUID()}`;
  const ask = (call: string, body: Readonly<Record<string, unknown>>) =>
    rawAws(aws.endpoint, HOME, call, { SecretId: secretId, ...body });
  const made = value === null ? {} : { SecretString: value };
  await rawAws(aws.endpoint, HOME, "CreateSecret", {
    Name: secretId,
    ClientRequestToken: randomUUID(),
    ...made,
  });
  aws.calls.length = 0;
  const store = openAws({ ...SETTINGS, region: HOME, secretId, endpoint: aws.endpoint, ...more }, KEYS);
  return { store, ask, secret: aws.secret(secretId), secretId };
};
const labelsOf = (secret: ReturnType<FakeAws["secret"]>) =>
  [...secret.versions.values()].map(({ stages }) => [...stages].toSorted());
const failure = async (call: Promise<unknown>): Promise<ProviderError> => {
  const error: unknown = await call.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ProviderError);
  return error as ProviderError;
};
const revisionOf = async (store: Store): Promise<Revision | null> =>
  (await store.read(soon()))?.revision ?? null;
const once =
  (call: string, fault: AwsFault, nth = 1) =>
  (asked: AwsCall) =>
    asked.op === call && asked.nth === nth ? fault : null;
const names = () => aws.calls.map((call) => call.op);

describe("a write", () => {
  test("adds a labelled version and moves AWSCURRENT from the one that was expected", async () => {
    const { store, secret } = await opened();
    const before = await revisionOf(store);
    aws.calls.length = 0;
    const next = key();
    const revision = await store.write(next, before, op(), soon());
    expect(names().slice(0, 2).toSorted()).toEqual(["DescribeSecret", "GetSecretValue"]);
    expect(names().slice(2)).toEqual([
      "PutSecretValue",
      "UpdateSecretVersionStage",
      "UpdateSecretVersionStage",
    ]);
    const [put, promote, settle] = aws.calls.slice(2).map(({ body }) => body);
    expect(put).toMatchObject({
      ClientRequestToken: revision,
      VersionStages: ["AWSPENDING", `imkit-rotator/${LEDGER}/7/fedcba9876543210`],
    });
    expect(String(put?.["ClientRequestToken"])).toMatch(/^[0-9a-f]{64}$/);
    expect(promote).toMatchObject({
      VersionStage: "AWSCURRENT",
      MoveToVersionId: revision,
      RemoveFromVersionId: before,
    });
    expect(settle).toMatchObject({ VersionStage: "AWSPENDING", RemoveFromVersionId: revision });
    expect(labelsOf(secret)).toEqual([
      ["AWSPREVIOUS"],
      ["AWSCURRENT", `imkit-rotator/${LEDGER}/7/fedcba9876543210`],
    ]);
    const read = await store.read(soon());
    expect(read?.witness).toEqual(witness(7));
    expect(Math.abs((read?.createdAt ?? 0) - Date.now())).toBeLessThan(60_000);
    const gets = aws.calls.filter((call) => call.op === "GetSecretValue");
    expect(gets.every(({ body }) => "VersionStage" in body || "VersionId" in body)).toBe(true);
  });

  test("loses against another one that comes between its two steps, and takes its labels off again", async () => {
    const { store, secret, ask } = await opened();
    const [before, winner] = [await revisionOf(store), madeKey()];
    aws.fault = ({ op: call, body }) => {
      if (call !== "UpdateSecretVersionStage" || body["VersionStage"] !== "AWSCURRENT") return null;
      aws.fault = () => null;
      secret.versions.set("w".repeat(32), {
        text: winner,
        binary: null,
        stages: new Set(["AWSCURRENT"]),
        at: 0,
      });
      secret.versions.get(before ?? "")?.stages.delete("AWSCURRENT");
      return null;
    };
    expect(await failure(store.write(key(), before, op(), soon()))).toMatchObject({
      code: "CONFLICT",
      outcome: "not_applied",
    });
    expect((await ask("GetSecretValue", { VersionStage: "AWSCURRENT" }))["SecretString"]).toBe(winner);
    expect(
      labelsOf(secret)
        .flat()
        .filter((label) => label.includes("imkit") || label === "AWSPENDING"),
    ).toEqual([]);
  });

  test("leaves somebody else's AWSPENDING alone", async () => {
    for (const label of [[], [`imkit-rotator/${"f".repeat(32)}/3/fedcba9876543210`]]) {
      const { store, secret, ask } = await opened();
      const ClientRequestToken = randomUUID();
      await ask("PutSecretValue", {
        ClientRequestToken,
        SecretString: "x",
        VersionStages: ["AWSPENDING", ...label],
      });
      const before = labelsOf(secret);
      const error = await failure(store.write(key(), await revisionOf(store), op(), soon()));
      expect(error).toMatchObject({ code: "CONFLICT", outcome: "not_applied" });
      expect(labelsOf(secret)).toEqual(before);
    }
  });

  test("does not mind AWSPENDING on the current version, as a finished rotation of AWS leaves it", async () => {
    const { store, ask } = await opened();
    const now = await revisionOf(store);
    await ask("UpdateSecretVersionStage", { VersionStage: "AWSPENDING", MoveToVersionId: now });
    const next = key();
    await store.write(next, now, op(), soon());
    expect((await store.read(soon()))?.secret.equals(next)).toBe(true);
  });

  test("takes off the AWSPENDING of a run of ours that did not end", async () => {
    const { store, secret } = await opened();
    const before = await revisionOf(store);
    aws.fault = (call) => (call.op === "UpdateSecretVersionStage" ? { drop: "before" } : null);
    expect((await failure(store.write(key(), before, op(7), soon()))).outcome).toBe("unknown");
    expect(labelsOf(secret).flat()).toContain("AWSPENDING");
    aws.fault = () => null;
    await store.write(key(), before, op(9), soon());
    expect(labelsOf(secret)).toEqual([
      ["AWSPREVIOUS"],
      [],
      ["AWSCURRENT", `imkit-rotator/${LEDGER}/9/fedcba9876543210`],
    ]);
  });

  test("never fills the 20 labels that AWS allows, even when nothing is retired", async () => {
    const { store, secret } = await opened();
    let revision = await revisionOf(store);
    for (let seq = 1; seq <= 25; seq++) revision = await store.write(key(), revision, op(seq), soon());
    const ours = labelsOf(secret)
      .flat()
      .filter((label) => !STAGES.includes(label));
    expect(ours.length).toBeLessThanOrEqual(3);
    expect((await store.read(soon()))?.witness?.seq).toBe(25);
  });

  test("of a version that lost its labels is a write all the same, with its witness", async () => {
    const { store, secret } = await opened();
    const [before, same, next] = [await revisionOf(store), op(11), key()];
    aws.fault = once("UpdateSecretVersionStage", { error: "AccessDeniedException" });
    expect(await failure(store.write(next, before, same, soon()))).toMatchObject({
      code: "AUTHZ",
      outcome: "not_applied",
    });
    expect(labelsOf(secret)).toEqual([["AWSCURRENT"], []]);
    aws.fault = () => null;
    await store.write(next, before, same, soon());
    expect(secret.versions.size).toBe(2);
    expect((await store.read(soon()))?.witness).toEqual(witness(11));
  });

  test.each(CALLS.slice(2).flatMap((call) => (["before", "after"] as const).map((when) => ({ call, when }))))(
    "whose $call got no answer, lost $when it took effect, is never called done or undone",
    async ({ call, when }) => {
      const { store, secret } = await opened();
      const [before, same, next] = [await revisionOf(store), op(), key()];
      aws.fault = (asked) => (asked.op === call ? { drop: when } : null);
      expect((await failure(store.write(next, before, same, soon()))).outcome).toBe("unknown");
      aws.fault = () => null;
      const promoted = call === "UpdateSecretVersionStage" && when === "after";
      expect((await store.read(soon()))?.secret.equals(next)).toBe(promoted);
      const revision = await store.write(next, before, same, soon());
      expect(await revisionOf(store)).toBe(revision);
      expect(secret.versions.size).toBe(2);
    },
  );

  test("is tried again by itself only where a token makes the tries one", async () => {
    const { store } = await opened();
    const before = await revisionOf(store);
    aws.fault = once("PutSecretValue", { drop: "after" });
    await store.write(key(), before, op(), soon());
    aws.calls.length = 0;
    aws.fault = (asked) =>
      asked.op === "UpdateSecretVersionStage" ? { error: "InternalServiceError", status: 500 } : null;
    await failure(store.write(key(), await revisionOf(store), op(), soon()));
    expect(names().filter((call) => call === "PutSecretValue")).toHaveLength(1);
    const moves = aws.calls.filter(
      ({ body }) => body["VersionStage"] === "AWSCURRENT" && "MoveToVersionId" in body,
    );
    expect(moves).toHaveLength(1);
  });

  test("fills a secret without a value, in one step", async () => {
    const { store, secret } = await opened({ value: null });
    expect(await store.read(soon())).toBeNull();
    const next = key();
    await store.write(next, null, op(), soon());
    expect((await store.read(soon()))?.secret.equals(next)).toBe(true);
    expect(labelsOf(secret)).toEqual([["AWSCURRENT", `imkit-rotator/${LEDGER}/7/fedcba9876543210`]]);
  });
});

describe("a secret that is not there", () => {
  const nowhere = (create: boolean, jsonKey?: string) => {
    const secretId = `none/${randomUUID()}`;
    const more = jsonKey === undefined ? {} : { jsonKey };
    return {
      secretId,
      store: openAws({ ...SETTINGS, create, region: HOME, secretId, endpoint: aws.endpoint, ...more }, KEYS),
    };
  };

  test("is an error that names create: true", async () => {
    const { store } = nowhere(false);
    for (const call of [store.read(soon()), store.write(key(), null, op(), soon())]) {
      const error = await failure(call);
      expect(error).toMatchObject({ code: "NOT_FOUND", outcome: "not_applied" });
      expect(error.hint).toContain("create: true");
    }
    expect(await store.preflight(soon())).toMatchObject([{ status: "fail", code: "NOT_FOUND" }]);
  });

  test("is made with create: true, with its witness", async () => {
    for (const jsonKey of [undefined, "IMKIT_API_KEY"]) {
      const { store, secretId } = nowhere(true, jsonKey);
      expect(await store.read(soon())).toBeNull();
      expect((await store.preflight(soon())).filter(({ status }) => status === "fail")).toEqual([]);
      const [next, same] = [key(), op()];
      const revision = await store.write(next, null, same, soon());
      expect(await store.read(soon())).toMatchObject({ revision, witness: witness(7) });
      expect(await store.write(next, null, same, soon())).toBe(revision);
      const [version] = aws.secret(secretId).versions.values();
      expect(version?.text).toBe(jsonKey === undefined ? next.reveal() : `{"${jsonKey}":"${next.reveal()}"}`);
    }
  });

  test("that somebody makes in the same moment is a conflict", async () => {
    const { store, secretId } = nowhere(true);
    aws.fault = ({ op: call }) => {
      if (call !== "CreateSecret") return null;
      aws.fault = () => null;
      return { error: "ResourceExistsException" };
    };
    expect(await failure(store.write(key(), null, op(), soon()))).toMatchObject({
      code: "CONFLICT",
      outcome: "not_applied",
    });
    expect(aws.secrets.has(`${HOME} ${secretId}`)).toBe(false);
  });
});

describe("what must not be written is refused, by the write and by the preflight before it", () => {
  const PLACES: readonly [string, string, Options, (secret: ReturnType<FakeAws["secret"]>) => void][] = [
    ["scheduled for deletion", "SOFT_DELETED", {}, (s) => void (s.deletedAt = 1)],
    ["rotated by AWS", "NOT_OWNED", {}, (s) => void (s.rotates = true)],
    ["owned by another service", "NOT_OWNED", {}, (s) => void (s.owner = "rds")],
    ["a replica", "CONFIG", {}, (s) => void (s.primaryRegion = "us-east-1")],
    [
      "binary",
      "UNSUPPORTED",
      {},
      ({ versions }) =>
        versions.forEach((v, id) =>
          versions.set(id, { ...v, text: null, binary: Buffer.from("x").toString("base64") }),
        ),
    ],
    ["JSON, and no member is named", "CONFIG", { value: '{"a":"b"}' }, () => {}],
    ["no JSON, and a member is named", "CONFIG", { jsonKey: "a" }, () => {}],
    ["ambiguous", "CONFLICT", { jsonKey: "a", value: '{"a":"b","a":"c"}' }, () => {}],
    ["full", "TOO_LARGE", { jsonKey: "a", value: `{"x":"${"x".repeat(65_500)}"}` }, () => {}],
  ];
  test.each(PLACES)("%s: %s", async (_, code, options, change) => {
    const { store, secret } = await opened(options);
    const revision = await revisionOf(store).catch(() => null);
    change(secret);
    const before = inspect(secret, { depth: 9 });
    const error = await failure(store.write(key(), revision, op(), soon()));
    expect(error).toMatchObject({ code, outcome: "not_applied" });
    const checks = await store.preflight(soon());
    expect(checks.filter(({ status }) => status === "fail")).toMatchObject([{ code }]);
    expect(checks.every(({ status, fix }) => status === "ok" || (fix ?? "").length > 0)).toBe(true);
    expect(inspect(secret, { depth: 9 })).toBe(before);
  });
});

describe("two apps in one JSON secret", () => {
  test("keep their own members, witnesses and labels", async () => {
    const { store: one, secretId } = await opened({ jsonKey: "ONE", value: '{"x":1}' });
    const settings = { ...SETTINGS, region: HOME, secretId, endpoint: aws.endpoint, jsonKey: "TWO" };
    const two = openAws(settings, KEYS);
    const [first, second] = [key(), key()];
    await one.write(first, null, op(3, "a".repeat(32)), soon());
    expect((await one.read(soon()))?.witness).toEqual(witness(3, "a".repeat(32)));
    await two.write(second, null, op(4, "b".repeat(32)), soon());
    expect((await one.read(soon()))?.secret.equals(first)).toBe(true);
    expect((await one.read(soon()))?.witness).toBeNull();
    expect((await two.read(soon()))?.witness).toEqual(witness(4, "b".repeat(32)));
  });
});

describe("replica regions", () => {
  const [PARIS, OHIO] = ["eu-west-3", "us-east-2"];

  test("are read back after a write and with every read", async () => {
    const { store, secret } = await opened();
    secret.replicas.set(PARIS, 0).set(OHIO, 0);
    const before = await revisionOf(store);
    secret.replicas.set(OHIO, 2);
    await store.write(key(), before, op(), soon());
    expect(
      aws.calls.filter(({ op: call, region }) => call === "GetSecretValue" && region === OHIO).length,
    ).toBe(4);
    secret.replicas.set(PARIS, 1);
    expect(await failure(store.read(soon()))).toMatchObject({ code: "UNAVAILABLE", outcome: "not_applied" });
    expect(await store.read(soon())).not.toBeNull();
  });

  test("that may not be read are named, after a write that is in force", async () => {
    const { store, secret } = await opened();
    const before = await revisionOf(store);
    secret.replicas.set(PARIS, 0);
    aws.fault = ({ region }) => (region === PARIS ? { error: "AccessDeniedException" } : null);
    const error = await failure(store.write(key(), before, op(), soon()));
    expect(error).toMatchObject({ code: "AUTHZ", outcome: "applied" });
    expect(error.hint).toContain(PARIS);
    expect((await store.preflight(soon())).filter(({ status }) => status === "fail")).toMatchObject([
      { id: "replicas", code: "AUTHZ" },
    ]);
  });

  test("are left alone with replicas: ignore", async () => {
    const { store, secret } = await opened({ replicas: "ignore" });
    secret.replicas.set(PARIS, 99);
    await store.write(key(), await revisionOf(store), op(), soon());
    expect(aws.calls.every(({ region }) => region === HOME)).toBe(true);
  });
});

test("reading the value is right enough for a service that only loads it", async () => {
  const { store } = await opened();
  aws.fault = ({ op: call }) => (call === "DescribeSecret" ? { error: "AccessDeniedException" } : null);
  expect(await store.read(soon())).not.toBeNull();
  expect(await failure(store.write(key(), null, op(), soon()))).toMatchObject({ outcome: "not_applied" });
});

describe("retire", () => {
  test("takes AWSPREVIOUS and our label off a superseded version, once and again", async () => {
    const { store, secret } = await opened();
    const first = await store.write(key(), await revisionOf(store), op(1), soon());
    const second = await store.write(key(), first, op(2), soon());
    await store.retire?.(first, soon());
    await store.retire?.(first, soon());
    expect([...(secret.versions.get(first)?.stages ?? ["?"])]).toEqual([]);
    expect((await store.read(soon()))?.revision).toBe(second);
    await store.retire?.("a version that AWS has deleted" as Revision, soon());
  });

  test("never touches the current version, nor labels of others", async () => {
    const { store, secret, ask } = await opened();
    const first = await revisionOf(store);
    if (first === null) throw new Error("there is a version");
    await ask("UpdateSecretVersionStage", { VersionStage: "release-12", MoveToVersionId: first });
    const second = await store.write(key(), first, op(), soon());
    const before = labelsOf(secret);
    expect(await failure(store.retire?.(second, soon()) ?? Promise.resolve())).toMatchObject({
      code: "CONFLICT",
    });
    expect(labelsOf(secret)).toEqual(before);
    await store.retire?.(first, soon());
    expect([...(secret.versions.get(first)?.stages ?? [])]).toEqual(["release-12"]);
  });
});

/** What goes wrong, our code for it, and what a call that changes something then says of its outcome. */
const FAULTS: readonly (readonly [AwsFault, string, string])[] = [
  [{ error: "AccessDeniedException" }, "AUTHZ", "not_applied"],
  [{ error: "AccessDeniedException", message: "Access to KMS is not allowed" }, "KMS", "not_applied"],
  [{ error: "DecryptionFailure" }, "KMS", "not_applied"],
  [{ error: "EncryptionFailure" }, "KMS", "not_applied"],
  [{ error: "UnrecognizedClientException" }, "AUTHN", "not_applied"],
  [{ error: "ExpiredTokenException" }, "AUTHN", "not_applied"],
  [{ error: "InvalidSignatureException" }, "AUTHN", "not_applied"],
  [{ error: "ThrottlingException" }, "THROTTLED", "not_applied"],
  [{ error: "LimitExceededException" }, "QUOTA", "not_applied"],
  [{ error: "ValidationException" }, "NAME", "not_applied"],
  [{ error: "InternalServiceError", status: 500 }, "UNAVAILABLE", "unknown"],
  [{ error: "SomethingNewException" }, "CONFIG", "not_applied"],
  [{ html: 502 }, "UNAVAILABLE", "unknown"],
  [{ html: 403 }, "AUTHZ", "not_applied"],
  [{ drop: "before" }, "UNAVAILABLE", "unknown"],
];

describe("a failure becomes our code and our words, and no word of AWS or of the key", () => {
  test.each(FAULTS.map(([fault, code, outcome]) => ({ fault, code, outcome, name: JSON.stringify(fault) })))(
    "$name: $code",
    async ({ fault, code, outcome }) => {
      const [held, next] = [key(), key()];
      const { store } = await opened({ value: held.reveal() });
      const before = await revisionOf(store);
      const said: unknown[] = [];
      for (const call of CALLS) {
        aws.fault = (asked) => (asked.op === call ? fault : null);
        const error = await failure(store.write(next, before, op(), soon()));
        const changes = call === "PutSecretValue" || call === "UpdateSecretVersionStage";
        expect(error).toMatchObject({ code, outcome: changes ? outcome : "not_applied" });
        said.push(
          error,
          await store.preflight(soon()),
          await store.read(soon()).catch((thrown: unknown) => thrown),
        );
      }
      const text = said
        .map((one) => inspect(one, { depth: 9, showHidden: true }) + JSON.stringify(one))
        .join("\n");
      for (const secret of [held, next]) expect(findKey(text, secret.reveal())).toEqual([]);
      expect(text).not.toMatch(/\$metadata|SecretString|Exception|<html>/);
    },
    30_000,
  );

  test("no answer at all ends when the caller says so", async () => {
    const { store } = await opened();
    aws.fault = () => ({ hang: true });
    const began = performance.now();
    const error = await failure(store.read(AbortSignal.timeout(200)));
    expect(error).toMatchObject({ code: "TIMEOUT", outcome: "not_applied" });
    expect(performance.now() - began).toBeLessThan(1_200);
  });
});

describe("the preflight", () => {
  test("writes nothing, and says what AWS cannot be asked", async () => {
    const { store, secret } = await opened();
    const before = inspect(secret, { depth: 9 });
    const checks = await store.preflight(soon());
    expect(inspect(secret, { depth: 9 })).toBe(before);
    expect(checks.map(({ id, status }) => [id, status])).toEqual([
      ["secret", "ok"],
      ["entry", "ok"],
      ["pending", "ok"],
      ["permission-labels", "ok"],
      ["permission-write", "unproved"],
    ]);
    expect(names()).not.toContain("PutSecretValue");
  });

  test("finds out that labels may not be moved", async () => {
    const { store } = await opened();
    aws.fault = (call) =>
      call.op === "UpdateSecretVersionStage" ? { error: "AccessDeniedException" } : null;
    const bad = (await store.preflight(soon())).filter(({ status }) => status === "fail");
    expect(bad).toMatchObject([{ id: "permission-labels", code: "AUTHZ" }]);
    expect(bad[0]?.fix).toContain("aws iam put-role-policy");
  });

  test("gives the line that takes a foreign AWSPENDING off", async () => {
    const { store, ask, secretId } = await opened();
    const token = randomUUID();
    await ask("PutSecretValue", {
      ClientRequestToken: token,
      SecretString: "x",
      VersionStages: ["AWSPENDING"],
    });
    const bad = (await store.preflight(soon())).filter(({ status }) => status === "fail");
    expect(bad).toMatchObject([{ id: "pending", code: "CONFLICT" }]);
    expect(bad[0]?.fix).toBe(
      `aws secretsmanager update-secret-version-stage --secret-id ${secretId} --version-stage AWSPENDING ` +
        `--remove-from-version-id ${token} --region ${HOME} --endpoint-url ${aws.endpoint}`,
    );
  });

  test("warns when the labels are nearly used up", async () => {
    const { store, ask } = await opened();
    const VersionStages = Array.from({ length: 18 }, (_, n) => `label-${n}`);
    await ask("PutSecretValue", { ClientRequestToken: randomUUID(), SecretString: "x", VersionStages });
    expect((await store.preflight(soon())).find(({ id }) => id === "labels")?.status).toBe("warn");
  });
});

test("a config that cannot be right is refused before anything is asked", () => {
  const arn = `arn:aws:secretsmanager:us-east-1:123456789012:secret:x-AbCdEf`;
  const open = (more: object) => () => openAws({ ...SETTINGS, region: HOME, secretId: arn, ...more }, KEYS);
  expect(open({})).toThrow("CONFIG: the ARN is of region us-east-1");
  expect(open({ region: "us-east-1", create: true })).toThrow("CONFIG: create: true needs a name");
});

test("an endpoint of the environment that is not https gets nothing", async () => {
  vi.stubEnv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://192.0.2.1:9");
  const store = openAws({ ...SETTINGS, region: HOME, secretId: "x" }, KEYS);
  const error = await failure(store.read(soon()));
  expect(error).toMatchObject({ code: "CONFIG", outcome: "not_applied" });
  expect(error.hint).toContain("not https");
});

test("the SDK is loaded by the first call, and not before", () => {
  const url = (file: string) => JSON.stringify(new URL(`../../providers/${file}`, import.meta.url).href);
  const script = `
    const seen = [];
    (await import("node:module")).registerHooks({ load: (url, context, next) => { seen.push(url); return next(url, context); } });
    const { default: aws } = await import(${url("stores/aws-secrets-manager.ts")});
    const store = aws.open({ region: "us-east-1", secretId: "x", create: false, replicas: "check", endpoint: "http://127.0.0.1:9" }, {});
    const before = seen.some((url) => url.includes("@aws-sdk"));
    await store.read(AbortSignal.timeout(5_000)).catch(() => {});
    console.log(JSON.stringify([before, seen.some((url) => url.includes("@aws-sdk"))]));`;
  const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    env: { AWS_ACCESS_KEY_ID: "AKIAEXAMPLE", AWS_SECRET_ACCESS_KEY: "example" },
  });
  expect(JSON.parse(stdout)).toEqual([false, true]);
});

describe("the policy in deploy/policies", () => {
  type Policy = {
    readonly Statement: readonly {
      readonly Effect: string;
      readonly Action: string[];
      readonly Resource: unknown;
    }[];
  };
  const file = join(import.meta.dirname, "../../deploy/policies/aws-secrets-manager.json");
  const [statement, ...more] = (JSON.parse(readFileSync(file, "utf8")) as Policy).Statement;
  const granted = (statement?.Action ?? []).map((action) => action.replace("secretsmanager:", ""));

  /** Everything that a rotation does with the store, under these rights; gives back what went wrong. */
  const lived = async (rights: readonly string[]): Promise<readonly string[]> => {
    const { store } = await opened();
    aws.fault = (asked) => (rights.includes(asked.op) ? null : { error: "AccessDeniedException" });
    const wrong = (await store.preflight(soon())).flatMap(({ status, code }) =>
      status === "fail" ? [code ?? "?"] : [],
    );
    const steps = async (): Promise<void> => {
      const before = await revisionOf(store);
      await store.write(key(), before, op(), soon());
      await store.retire?.(before ?? ("" as Revision), soon());
    };
    await steps().catch((thrown: unknown) => wrong.push((thrown as ProviderError).code));
    return wrong;
  };

  test("allows on one secret what is needed, and nothing that is not", async () => {
    expect(more).toEqual([]);
    expect(statement).toMatchObject({
      Effect: "Allow",
      Resource: "arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-SUFFIX",
    });
    expect(await lived(granted)).toEqual([]);
    expect(new Set(names())).toEqual(new Set(granted));
  });

  test.each(granted)("fails by name without %s", async (action) => {
    const wrong = await lived(granted.filter((other) => other !== action));
    expect(new Set(wrong)).toEqual(new Set(["AUTHZ"]));
  });
});
