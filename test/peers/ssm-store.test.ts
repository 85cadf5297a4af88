import { randomUUID } from "node:crypto";
import { join } from "node:path";
import {
  AddTagsToResourceCommand,
  DeleteParameterCommand,
  GetParameterHistoryCommand,
  ListTagsForResourceCommand,
  PutParameterCommand,
  SSMClient,
} from "@aws-sdk/client-ssm";
import { afterAll, beforeAll, expect, inject, it, vi } from "vitest";
import * as z from "zod/mini";
import { loadStoreProvider, Secret, storeContract } from "../../src/testkit.ts";
import { toolsIn } from "../kit/provider-tools.ts";

// The store that providers/README.md shows as an example of one on an SDK, as a reader uses it: by path, through the exported suite.
const examples = join(import.meta.dirname, "../../docs/examples");
const region = "us-east-1";
const endpoint = inject("aws").moto;
const aws = new SSMClient({
  region,
  endpoint,
  credentials: { accessKeyId: "AKIAEXAMPLE", secretAccessKey: "example" },
});
beforeAll(() => {
  vi.stubEnv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE");
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", "example");
});
afterAll(() => void vi.unstubAllEnvs());

const opened = async (name: string, create: boolean) => {
  const provider = await loadStoreProvider("./ssm-parameter.store.ts", examples);
  const config = z.parse(provider.schema, { region, parameter: name, create, endpoint });
  return provider.open(config, toolsIn(examples).tools);
};
const putParameter = async (name: string, value: string): Promise<void> =>
  void (await aws.send(
    new PutParameterCommand({ Name: name, Value: value, Type: "SecureString", Overwrite: true }),
  ));

storeContract({
  it,
  expect,
  name: "ssm-parameter",
  open: async () => {
    const name = `/chat/${randomUUID()}`;
    return {
      store: await opened(name, true),
      put: async (secret) => await putParameter(name, secret.reveal()),
      // Somebody made it readable for everyone who may read parameters.
      breakIt: async () => {
        await aws.send(new DeleteParameterCommand({ Name: name })).catch(() => {});
        await aws.send(new PutParameterCommand({ Name: name, Value: "a,b", Type: "StringList" }));
      },
      writes: async () =>
        (await aws.send(new GetParameterHistoryCommand({ Name: name }))).Parameters?.length ?? 0,
      unproved: ["permission-write"],
    };
  },
});

const op = { id: "0".repeat(32), witness: null };
const soon = () => AbortSignal.timeout(20_000);

it("ssm-parameter: keeps tags, and one that is absent is made only when that is wanted", async () => {
  const name = `/chat/${randomUUID()}`;
  const store = await opened(name, false);
  await expect(store.read(soon())).rejects.toMatchObject({ code: "NOT_FOUND", outcome: "not_applied" });
  await putParameter(name, "first-value");
  const tags = { ResourceType: "Parameter", ResourceId: name } as const;
  await aws.send(new AddTagsToResourceCommand({ ...tags, Tags: [{ Key: "team", Value: "chat" }] }));
  await store.write(new Secret("next-value"), (await store.read(soon()))?.revision ?? null, op, soon());
  expect((await store.read(soon()))?.secret.reveal()).toBe("next-value");
  expect((await aws.send(new ListTagsForResourceCommand(tags))).TagList).toEqual([
    { Key: "team", Value: "chat" },
  ]);
});

it("ssm-parameter: one that was deleted and made again is another state, though its version is the same", async () => {
  const name = `/chat/${randomUUID()}`;
  const store = await opened(name, true);
  const revision = await store.write(new Secret("first-value"), null, op, soon());
  await aws.send(new DeleteParameterCommand({ Name: name }));
  await putParameter(name, "other-value");
  const call = store.write(new Secret("next-value"), revision, op, soon());
  await expect(call).rejects.toMatchObject({ code: "CONFLICT", outcome: "not_applied" });
});
