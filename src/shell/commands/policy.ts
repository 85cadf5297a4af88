import aws from "../../../deploy/policies/aws-secrets-manager.json" with { type: "json" };
import azure from "../../../deploy/policies/azure-key-vault.json" with { type: "json" };
import create from "../../../deploy/policies/kubernetes-role-create.yaml";
import role from "../../../deploy/policies/kubernetes-role.yaml";
import type { StoreConfig } from "../../io/config.ts";
import type { Io } from "../io.ts";
import type { Wired } from "../wire.ts";

type Policy = {
  readonly app: string;
  readonly target: string;
  readonly type: string;
  readonly format: "json" | "yaml";
  readonly policy: string;
  /** What a person still has to fill in or to do. */
  readonly todo: string;
};

/** The least rights that each store of the apps needs, made from deploy/policies/. @returns 0 */
export const printPolicies = (io: Io, apps: readonly Wired[]): number => {
  const all = apps.flatMap(({ name, config }) => config.stores.flatMap((store) => policyOf(name, store)));
  if (io.json) {
    io.out(JSON.stringify({ schemaVersion: 1, policies: all }));
    return 0;
  }
  for (const { app, target, type, policy, todo } of all) {
    io.say(`${app}/${target} (${type}): ${todo}`);
    io.out(policy.trimEnd());
  }
  if (all.length === 0) io.say("No store of these needs a policy: files need their own permissions alone.");
  return 0;
};

const policyOf = (app: string, { name: target, type, settings }: StoreConfig): readonly Policy[] => {
  const own = new Map(Object.entries(settings ?? {}));
  const text = (key: string, fallback: string): string => {
    const value: unknown = own.get(key);
    return typeof value === "string" ? value : fallback;
  };
  const base = { app, target, type };
  switch (type) {
    case "aws-secrets-manager":
      return [{ ...base, format: "json", ...awsPolicy(text("secretId", "NAME"), text("region", "REGION")) }];
    case "azure-key-vault": {
      const vault = new URL(text("vaultUrl", "https://VAULT.invalid")).hostname.split(".")[0] ?? "VAULT";
      const scope = `/subscriptions/SUBSCRIPTION/resourceGroups/GROUP/providers/Microsoft.KeyVault/vaults/${vault}/secrets/${text("secret", "SECRET")}`;
      const todo = `put SUBSCRIPTION and GROUP in, make the role, then: az role assignment create --assignee ID --role "${azure.Name}" --scope ${scope}`;
      return [{ ...base, format: "json", policy: JSON.stringify(azure, null, 2), todo }];
    }
    case "kubernetes-secret": {
      const files = own.get("create") === true ? `${role}---\n${create}` : role;
      const policy = files
        .replaceAll(/^( +namespace:) chat$/gm, `$1 ${text("namespace", "NAMESPACE")}`)
        .replaceAll("[imkit-secrets]", `[${text("secret", "imkit-secrets")}]`);
      return [
        { ...base, format: "yaml", policy, todo: "put your ServiceAccount in, then: kubectl apply -f -" },
      ];
    }
    default:
      return [];
  }
};

/** AWS adds six characters to a name, which a policy by name has to leave open. */
const awsPolicy = (secretId: string, region: string): { readonly policy: string; readonly todo: string } => {
  const partition = region.startsWith("cn-") ? "aws-cn" : region.startsWith("us-gov-") ? "aws-us-gov" : "aws";
  const isArn = secretId.startsWith("arn:");
  const arn = isArn
    ? secretId
    : `arn:${partition}:secretsmanager:${region}:ACCOUNT:secret:${secretId}-??????`;
  const statements = aws.Statement.map((one) => ({ ...one, Resource: arn }));
  return {
    policy: JSON.stringify({ ...aws, Statement: statements }, null, 2),
    todo: isArn ? "attach it to the rotator's role" : "put ACCOUNT in, and attach it to the rotator's role",
  };
};
