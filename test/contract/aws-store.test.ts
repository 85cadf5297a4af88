import { afterAll, beforeAll, expect, it } from "vitest";
import { awsPlace } from "../kit/aws-place.ts";
import { type FakeAws, fakeAws, HOME } from "../kit/aws-secrets.ts";
import { storeContract } from "./store.ts";

let aws: FakeAws;
beforeAll(async () => {
  aws = await fakeAws();
});
afterAll(async () => await aws.close());

storeContract({
  it,
  expect,
  name: "aws-secrets-manager",
  open: async () => await awsPlace({ endpoint: aws.endpoint, region: HOME }),
});

storeContract({
  it,
  expect,
  name: "aws-secrets-manager, one member",
  open: async () => await awsPlace({ endpoint: aws.endpoint, region: HOME }, "IMKIT_API_KEY"),
});
