import { spawnSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openAws } from "../../providers/stores/aws-secrets-manager.ts";
import { openKeyVault } from "../../providers/stores/azure-key-vault.ts";
import kubernetesSecret from "../../providers/stores/kubernetes-secret.ts";
import type { Check, Store } from "../../src/ports.ts";
import { KEYS, SETTINGS } from "../kit/aws-place.ts";
import { type FakeAws, fakeAws } from "../kit/aws-secrets.ts";
import { startVault, type VaultServer } from "../kit/azure/server.ts";
import { vaultStore } from "../kit/azure/store.ts";
import { toolsIn } from "../kit/provider-tools.ts";

let aws: FakeAws;
let vault: VaultServer;
beforeAll(async () => {
  [aws, vault] = [await fakeAws(), await startVault()];
  vault.vault.put("imkit", "a value", {});
});
afterAll(async () => {
  await aws.close();
  await vault.close();
});

/** The check that fails or is left open, of a store in trouble. */
const troubled = async (store: Store): Promise<Check> => {
  const checks = await store.preflight(AbortSignal.timeout(30_000));
  const found =
    checks.find(({ status }) => status === "fail") ?? checks.find(({ status }) => status === "unproved");
  if (found === undefined) throw new Error("nothing fails");
  return found;
};
/** To be pasted: a shell understands it, it begins with a program, and nothing is left to fill in by the tool. */
const isPasted = (line: string, program: string): void => {
  expect(line).toMatch(new RegExp(`^${program} `));
  expect(line).not.toMatch(/undefined|\{\w+\}/);
  expect(spawnSync("bash", ["-n", "-c", line], { encoding: "utf8" })).toMatchObject({
    status: 0,
    stderr: "",
  });
};

describe("a check that fails has a line to paste", () => {
  test.each([
    ["AccessDeniedException", "secret", "AUTHZ", "aws iam"],
    ["KMSDisabledException", "secret", "KMS", "aws kms"],
    ["ExpiredTokenException", "secret", "AUTHN", "aws sts"],
    ["RequestTimeTooSkewed", "clock", "AUTHN", "timedatectl"],
    ["LimitExceededException", "secret", "QUOTA", "aws secretsmanager"],
    ["ValidationException", "secret", "NAME", "aws secretsmanager"],
    ["ResourceNotFoundException", "secret", "NOT_FOUND", "aws secretsmanager create-secret"],
  ])("AWS: %s", async (error, id, code, program) => {
    aws.fault = () => ({ error });
    const store = openAws(
      { ...SETTINGS, region: "eu-west-1", secretId: "prod/imkit", endpoint: aws.endpoint },
      KEYS,
    );
    const check = await troubled(store);
    expect(check).toMatchObject({ id, code });
    isPasted(check.fix ?? "", program);
  });

  test.each(["ForbiddenByRbac", "ForbiddenByPolicy", "ForbiddenByFirewall"] as const)(
    "Azure: %s",
    async (by) => {
      vault.vault.settings.deniedBy = by;
      vault.vault.settings.denied.add("get");
      const { config, tools } = vaultStore(vault, "imkit");
      const check = await troubled(openKeyVault(config, tools));
      vault.vault.settings.denied.clear();
      expect(check).toMatchObject({ id: "permission", code: "AUTHZ" });
      isPasted(check.fix ?? "", "az");
    },
  );

  test.each([
    ["there is none", "none", "NOT_FOUND", "az keyvault secret list"],
    ["disabled", "off", "DISABLED", "az keyvault secret set-attributes"],
    ["deleted", "gone", "SOFT_DELETED", "az keyvault secret recover"],
  ])("Azure: %s", async (_, name, code, program) => {
    if (name === "off") vault.vault.setEnabled(name, vault.vault.put(name, "v", {}), false);
    if (name === "gone") {
      vault.vault.put(name, "v", {});
      vault.vault.remove(name);
    }
    const { config, tools } = vaultStore(vault, name);
    const check = await troubled(openKeyVault(config, tools));
    expect(check).toMatchObject({ code });
    isPasted(check.fix ?? "", program);
  });

  test("a server that is not there", async () => {
    const nowhere = "https://127.0.0.1:1";
    const { config, tools } = vaultStore(vault, "imkit", { vaultUrl: nowhere });
    const check = await troubled(openKeyVault(config, tools));
    expect(check.status).toBe("unproved");
    isPasted(check.fix ?? "", "curl");
    const store = openAws({ ...SETTINGS, region: "eu-west-1", secretId: "x", endpoint: nowhere }, KEYS);
    isPasted((await troubled(store)).fix ?? "", "curl");
    const kube = {
      kubeconfig: "none",
      namespace: "chat",
      secret: "s",
      key: "k",
      create: false,
      adopt: false,
    };
    isPasted((await troubled(kubernetesSecret.open(kube, toolsIn("/").tools))).fix ?? "", "kubectl");
  });
});
