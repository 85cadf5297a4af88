import aws from "../../../deploy/policies/aws-secrets-manager.json" with { type: "json" };
import azure from "../../../deploy/policies/azure-key-vault.json" with { type: "json" };
import create from "../../../deploy/policies/kubernetes-role-create.yaml";
import escrow from "../../../deploy/policies/kubernetes-escrow.yaml";
import ledger from "../../../deploy/policies/kubernetes-ledger.yaml";
import role from "../../../deploy/policies/kubernetes-role.yaml";
import rollout from "../../../deploy/policies/kubernetes-rollout.yaml";
import type { Config, RolloutConfig, StoreConfig } from "../../io/config.ts";
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

/** The least rights that each store and rollout of the apps needs, and ledger and escrow, made from deploy/policies/. @returns 0 */
export const printPolicies = (io: Io, apps: readonly Wired[], config: Config): number => {
  const all = [
    ...apps.flatMap(({ name, config: { stores, rollouts } }) => [
      ...stores.flatMap((store) => policyOf(name, store)),
      ...rollouts.flatMap((one) => rolloutPolicy(name, one)),
    ]),
    ...roomPolicies(
      config,
      apps.map(({ name }) => name),
    ),
  ];
  if (io.json) {
    io.out(JSON.stringify({ schemaVersion: 1, policies: all }));
    return 0;
  }
  for (const { app, target, type, policy, todo } of all) {
    io.say(`${app}/${target} (${type}): ${todo}`);
    io.out(policy.trimEnd());
  }
  if (all.length === 0) io.say("Nothing of these needs a policy: files need their own permissions alone.");
  return 0;
};

const policyOf = (app: string, { name: target, type, settings, write }: StoreConfig): readonly Policy[] => {
  const own = new Map(Object.entries(settings ?? {}));
  const text = (key: string, fallback: string): string => {
    const value: unknown = own.get(key);
    return typeof value === "string" ? value : fallback;
  };
  const base = { app, target, type };
  switch (type) {
    case "aws-secrets-manager":
      return [
        { ...base, format: "json", ...awsPolicy(text("secretId", "NAME"), text("region", "REGION"), write) },
      ];
    case "azure-key-vault": {
      const vault = new URL(text("vaultUrl", "https://VAULT.invalid")).hostname.split(".")[0] ?? "VAULT";
      const scope = `/subscriptions/SUBSCRIPTION/resourceGroups/GROUP/providers/Microsoft.KeyVault/vaults/${vault}/secrets/${text("secret", "SECRET")}`;
      const of = write ? azure : reading(azure);
      const todo = `put SUBSCRIPTION and GROUP in, make the role, then: az role assignment create --assignee ID --role "${of.Name}" --scope ${scope}`;
      return [{ ...base, format: "json", policy: JSON.stringify(of, null, 2), todo }];
    }
    case "kubernetes-secret": {
      const files = own.get("create") === true ? `${role}---\n${create}` : role;
      const policy = (write ? files : role.replace("verbs: [get, patch]", "verbs: [get]"))
        .replaceAll(/^( +namespace:) chat$/gm, `$1 ${text("namespace", "NAMESPACE")}`)
        .replaceAll(/^( +name: imkit-rotator-secret(-create)?)$/gm, `$1-${app}-${target}`)
        .replaceAll("[imkit-secrets]", `[${text("secret", "imkit-secrets")}]`);
      return [{ ...base, format: "yaml", policy, todo: APPLY }];
    }
    default:
      return [];
  }
};

/** Of a store that somebody else fills. Another name, for the role of one that is written may be in the same place. */
const reading = (role: typeof azure): typeof azure => ({
  ...role,
  Name: `${role.Name} (reads)`,
  Description: "Read one Key Vault secret. Assign it on that secret alone.",
  DataActions: role.DataActions.filter((action) => /getSecret|readMetadata/.test(action)),
});

const APPLY = "put your ServiceAccount in, then: kubectl apply -f -";

/** Roles have the target in their names: two may be in one namespace. */
const rolloutPolicy = (app: string, { name: target, type, settings }: RolloutConfig): readonly Policy[] => {
  if (type !== "kubernetes") return [];
  const { namespace, workloads } = settings as {
    readonly namespace: string;
    readonly workloads: readonly string[];
  };
  const rules = ["deployment", "statefulset", "daemonset"].flatMap((kind) => {
    const names = workloads.flatMap((one) =>
      one.startsWith(`${kind}/`) ? [one.slice(kind.length + 1)] : [],
    );
    const rule = `  - apiGroups: [apps]\n    resources: [${kind}s]\n    resourceNames: [${names.join(", ")}]\n    verbs: [get, patch]\n`;
    return names.length === 0 ? [] : [rule];
  });
  const policy = rollout
    .replace(/^rules:\n[^]*?(?=^---$)/m, `rules:\n${rules.join("")}`)
    .replaceAll(/^( +namespace:) chat$/gm, `$1 ${namespace}`)
    .replaceAll(/^( +name:) imkit-rotator-rollout$/gm, `$1 imkit-rotator-rollout-${app}-${target}`);
  return [{ app, target, type, format: "yaml", policy, todo: APPLY }];
};

/** One ledger role for all apps; an escrow names one Secret for each of them. */
const roomPolicies = (config: Config, apps: readonly string[]): readonly Policy[] => {
  const base = { app: "", type: "kubernetes", format: "yaml", todo: APPLY } as const;
  const names = apps.map((app) => `imkit-rotator-escrow-${app}`);
  const made: Policy[] = [];
  if (config.ledger !== null) {
    const policy = ledger.replaceAll(/(namespace:?) imkit-ledger$/gm, `$1 ${config.ledger.namespace}`);
    made.push({ ...base, target: "ledger", policy });
  }
  if (config.escrow !== null) {
    const { namespace } = config.escrow;
    const [of = "", binding = ""] = escrow
      .replaceAll("[imkit-rotator-escrow-chat-prod]", `[${names.join(", ")}]`)
      .split(/^---$/m);
    // The last namespace is the ServiceAccount's, which a person fills in.
    const inPlace = (text: string): string =>
      text
        .replace(/^( {2}namespace:) imkit-rotator$/m, `$1 ${namespace}`)
        .replace("-n imkit-rotator ", `-n ${namespace} `);
    made.push({ ...base, target: "escrow", policy: `${inPlace(of)}---${inPlace(binding)}` });
  }
  return made;
};

/** AWS adds six characters to a name, which a policy by name has to leave open. */
const awsPolicy = (
  secretId: string,
  region: string,
  write: boolean,
): { readonly policy: string; readonly todo: string } => {
  const partition = region.startsWith("cn-") ? "aws-cn" : region.startsWith("us-gov-") ? "aws-us-gov" : "aws";
  const isArn = secretId.startsWith("arn:");
  const arn = isArn
    ? secretId
    : `arn:${partition}:secretsmanager:${region}:ACCOUNT:secret:${secretId}-??????`;
  const mayDo = (action: string): boolean => write || /:(Get|Describe)/.test(action);
  const statements = aws.Statement.map((one) => ({
    ...one,
    Action: one.Action.filter(mayDo),
    Resource: arn,
  }));
  return {
    policy: JSON.stringify({ ...aws, Statement: statements }, null, 2),
    todo: isArn ? "attach it to the rotator's role" : "put ACCOUNT in, and attach it to the rotator's role",
  };
};
