import { describe, expect, inject, it } from "vitest";
import { awsPlace } from "../kit/aws-place.ts";
import { storeContract } from "../contract/store.ts";

const PEERS = inject("aws");

describe.each(["moto", "ministack"] as const)("%s", (peer) => {
  const server = { endpoint: PEERS[peer], region: "us-east-1" };
  storeContract({
    it,
    expect,
    name: "aws-secrets-manager",
    open: async () => await awsPlace(server),
  });
  storeContract({
    it,
    expect,
    name: "aws-secrets-manager, one member",
    open: async () => await awsPlace(server, "IMKIT_API_KEY"),
  });
});
