import { randomUUID } from "node:crypto";
import { openAws } from "../../providers/stores/aws-secrets-manager.ts";
import type { Secret } from "../../src/core/secret.ts";
import type { Place } from "../contract/store.ts";
import { rawAws } from "./aws-secrets.ts";

export const KEYS = { accessKeyId: "AKIAEXAMPLE", secretAccessKey: "example" };
export const SETTINGS = { create: false, replicas: "check" } as const;

type Server = { readonly endpoint: string; readonly region: string };

/** A fresh secret on a server that speaks the protocol, empty or a JSON object with neighbours. */
export const awsPlace = async ({ endpoint, region }: Server, jsonKey?: string): Promise<Place> => {
  const secretId = `contract/${randomUUID()}`;
  const ask = (op: string, body: Readonly<Record<string, unknown>>) =>
    rawAws(endpoint, region, op, { ...(op === "CreateSecret" ? {} : { SecretId: secretId }), ...body });
  const before = jsonKey === undefined ? {} : { SecretString: '{ "DB" : "p\\u0061ss", "DB":[1,{"a":"}"}] }' };
  await ask("CreateSecret", {
    Name: secretId,
    ClientRequestToken: randomUUID(),
    Tags: [{ Key: "team", Value: "chat" }],
    ...before,
  });

  const text = async (): Promise<string> => {
    const got = await ask("GetSecretValue", { VersionStage: "AWSCURRENT" }).catch(() => null);
    return (got?.["SecretString"] as string | undefined) ?? "";
  };
  const versions = async (): Promise<
    readonly { readonly VersionId: string; readonly VersionStages?: string[] }[]
  > => (await ask("ListSecretVersionIds", { IncludeDeprecated: true }))["Versions"] as [];
  const own = (key: string) => new RegExp(`,(\\s*)"${key}"( : |:)"[^"]*"`);

  return {
    store: openAws(
      { ...SETTINGS, region, secretId, endpoint, ...(jsonKey === undefined ? {} : { jsonKey }) },
      KEYS,
    ),
    put: async (secret: Secret) => {
      const [token, now] = [randomUUID(), await text()];
      const value =
        jsonKey === undefined
          ? secret.reveal()
          : `${now.replace(own(jsonKey), "").trimEnd().slice(0, -1)},"${jsonKey}":"${secret.reveal()}"}`;
      const holder = (await versions()).find(({ VersionStages }) => VersionStages?.includes("AWSCURRENT"));
      await ask("PutSecretValue", {
        ClientRequestToken: token,
        SecretString: value,
        VersionStages: ["EDIT"],
      });
      const from = holder === undefined ? {} : { RemoveFromVersionId: holder.VersionId };
      const is = (await versions()).find(({ VersionId }) => VersionId === token)?.VersionStages ?? [];
      if (is.includes("AWSCURRENT")) return;
      await ask("UpdateSecretVersionStage", { VersionStage: "AWSCURRENT", MoveToVersionId: token, ...from });
    },
    breakIt: async () => void (await ask("DeleteSecret", { RecoveryWindowInDays: 7 })),
    writes: async () => (await versions()).length,
    neighbours: async () => (jsonKey === undefined ? "" : (await text()).replace(own(jsonKey), "")),
    unproved: ["permission-write"],
  };
};
