import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { differences, recordings } from "../kit/aws-replay.ts";
import { type FakeAws, fakeAws, HOME, rawAws } from "../kit/aws-secrets.ts";

let aws: FakeAws;
beforeAll(async () => {
  aws = await fakeAws();
});
afterAll(async () => await aws.close());

/** `UpdateSecret` is not used, and not played by the fake. */
const LEFT_OUT = ["no-token-update-secret"];

describe("the fake AWS answers as the real one did", () => {
  test.each(recordings.filter(({ name }) => !LEFT_OUT.includes(name)))("$name", async (recording) => {
    expect(await differences(aws.endpoint, HOME, recording)).toEqual([]);
  });

  test("a planted difference is found", async () => {
    const [recording] = recordings.filter(({ name }) => name === "promote-pending-twice");
    const bent = JSON.parse(JSON.stringify(recording).replaceAll("AWSPREVIOUS", "AWSCURRENT")) as never;
    expect((await differences(aws.endpoint, HOME, bent)).length).toBeGreaterThan(0);
  });
});

test("a token is one version: the same value again is nothing, another value is refused", async () => {
  const ask = (op: string, body: Readonly<Record<string, unknown>>) => rawAws(aws.endpoint, HOME, op, body);
  const ClientRequestToken = "0".repeat(32);
  const create = { Name: "token", ClientRequestToken, SecretString: "Hello" };
  await ask("CreateSecret", create);
  expect((await ask("CreateSecret", create))["VersionId"]).toBe(ClientRequestToken);
  const put = { SecretId: "token", ClientRequestToken, SecretString: "Hello" };
  expect((await ask("PutSecretValue", put))["VersionStages"]).toEqual(["AWSCURRENT"]);
  await expect(ask("PutSecretValue", { ...put, SecretString: "Hi" })).rejects.toThrow(
    "ResourceExistsException",
  );
  await expect(ask("CreateSecret", { ...create, SecretString: "Hi" })).rejects.toThrow(
    "ResourceExistsException",
  );
});
