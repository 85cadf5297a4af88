import { ProviderError } from "../../src/core/errors.ts";
import type { Check } from "../../src/ports.ts";
import { bounded, CALL_LIMIT_MS, check, refused } from "../kit.ts";
import type { Aws, Description } from "./aws-secrets-manager-client.ts";
import { CLOCK } from "./aws-secrets-manager-errors.ts";
import { entryOf, withEntry } from "./aws-secrets-manager-entry.ts";
import { type Finder, type Found, refusal } from "./aws-secrets-manager-find.ts";
import {
  FOREIGN_PENDING,
  holderOf,
  isOurs,
  MOST_LABELS,
  PENDING,
  tokenFor,
} from "./aws-secrets-manager-labels.ts";

type Config = {
  readonly region: string;
  readonly secretId: string;
  readonly jsonKey?: string | undefined;
  readonly endpoint?: string | undefined;
  readonly profile?: string | undefined;
};

/** May the secret be written? Without any write. Never rejects. */
export const checksOf = async (
  aws: Aws,
  { find, sameInReplicas }: Finder,
  config: Config,
  signal: AbortSignal,
): Promise<readonly Check[]> => {
  const jsonKey = config.jsonKey ?? null;
  try {
    return await bounded(signal, CALL_LIMIT_MS, async (signal) => {
      const found = await find(signal, true);
      const { description } = found;
      if (description === null)
        return [check.ok("secret", "there is no secret yet; it will be made"), byWriting(config)];
      const no = refusal(description, config.region);
      if (no !== null) return [failed("secret", no, config)];
      return [
        check.ok("secret", "AWS lets this identity read the secret"),
        entryCheck(found, jsonKey, config),
        pendingCheck(description, found, jsonKey, config),
        ...roomForLabels(description),
        ...(await replicaChecks(description, () => sameInReplicas(found, signal), config)),
        await labelCheck(aws, config, signal),
        byWriting(config),
      ];
    });
  } catch (thrown) {
    if (thrown instanceof ProviderError) return [failed("secret", thrown, config)];
    return [check.unproved("secret", "the secret cannot be checked")];
  }
};

const entryCheck = ({ version }: Found, jsonKey: string | null, config: Config): Check => {
  const place = jsonKey === null ? "the secret" : `${jsonKey} in the secret`;
  try {
    withEntry(version?.text ?? "", jsonKey, SAMPLE);
    const held = version !== null && entryOf(version.text, jsonKey) !== null;
    return check.ok("entry", `${place} ${held ? "is understood" : "has no value yet"}`);
  } catch (thrown) {
    if (thrown instanceof ProviderError) return failed("entry", thrown, config);
    throw thrown;
  }
};

const pendingCheck = (
  { labels }: Description,
  { version }: Found,
  jsonKey: string | null,
  config: Config,
): Check => {
  const pending = holderOf(labels, PENDING);
  if (pending === null || pending === version?.id) return check.ok("pending", "no other change is under way");
  if (labels.get(pending)?.some((label) => isOurs(label, { jsonKey }))) {
    const message =
      "a version of a run that did not end is labelled AWSPENDING; the next write takes that off";
    return check.warn("pending", message, "Run rotate again.");
  }
  // An id of somebody else's making could be anything.
  const id = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(pending) ? pending : "VERSION-ID";
  return check.fail(
    "pending",
    FOREIGN_PENDING,
    cli(
      config,
      `update-secret-version-stage --secret-id ${config.secretId} --version-stage ${PENDING} --remove-from-version-id ${id}`,
    ),
    "CONFLICT",
  );
};

const roomForLabels = ({ labels }: Description): readonly Check[] => {
  const count = new Set([...labels.values()].flat()).size;
  // A write brings AWSPENDING and one of ours, and perhaps AWSPREVIOUS.
  if (count + 3 <= MOST_LABELS) return [];
  const message = `the secret has ${count} staging labels; AWS allows ${MOST_LABELS}, and a write needs up to 3 more`;
  return [check.warn("labels", message, "Remove labels that nothing needs.")];
};

const replicaChecks = async (
  { replicas }: Description,
  same: () => Promise<boolean>,
  config: Config,
): Promise<readonly Check[]> => {
  if (replicas.length === 0) return [];
  try {
    if (await same()) return [check.ok("replicas", "every replica can be read back")];
    const late = refused("UNAVAILABLE", "a replica does not hold the current version");
    return [failed("replicas", late, config)];
  } catch (thrown) {
    if (thrown instanceof ProviderError) return [failed("replicas", thrown, config)];
    throw thrown;
  }
};

/** Asks to take a label off a version that cannot exist: who may gets "no such version", who may not is told so. */
const labelCheck = async (aws: Aws, config: Config, signal: AbortSignal): Promise<Check> => {
  const nowhere = tokenFor({ id: "preflight", witness: null }, "nowhere");
  const code = await aws.label("imkit-rotator/preflight", { from: nowhere }, signal).then(
    () => null,
    (thrown: unknown) => (thrown instanceof ProviderError ? thrown : null),
  );
  if (code === null || code.code === "CONFIG" || code.code === "NOT_FOUND" || code.code === "CONFLICT")
    return check.ok("permission-labels", "this identity may move staging labels");
  if (code.code === "AUTHZ") return failed("permission-labels", code, config);
  const message = "whether this identity may move staging labels is not known: AWS gave no clear answer";
  return check.unproved("permission-labels", message, "Run doctor again.");
};

const byWriting = (config: Config): Check =>
  check.unproved(
    "permission-write",
    "AWS cannot be asked without writing whether this identity may add a version (secretsmanager:PutSecretValue, kms:GenerateDataKey)",
    grant(config),
  );

const failed = (id: string, error: ProviderError, config: Config): Check => {
  const message = error.hint || "no answer in time";
  if (message.endsWith(CLOCK)) return check.fail("clock", message, "timedatectl set-ntp true", error.code);
  return check.fail(id, message, fixOf(error.code, config, id), error.code);
};

const fixOf = (code: ProviderError["code"], config: Config, check: string): string => {
  const { secretId: id, region, endpoint = `https://secretsmanager.${region}.amazonaws.com` } = config;
  const profile = config.profile === undefined ? "" : ` --profile ${quoted(config.profile)}`;
  const key = `"$(${cli(config, `describe-secret --secret-id ${id} --query KmsKeyId --output text`)})"`;
  const me = `"$(aws sts get-caller-identity${profile} --query Arn --output text)"`;
  const reach = `curl -sSI ${quoted(endpoint)}   # network and region, as seen from here`;
  const fixes: Partial<Record<ProviderError["code"], string>> = {
    NOT_FOUND: `${cli(config, `create-secret --name ${id}`)}   # or set create: true`,
    SOFT_DELETED: cli(config, `restore-secret --secret-id ${id}`),
    NOT_OWNED: `${cli(config, `cancel-rotate-secret --secret-id ${id}`)}   # if another service owns it, use another secret`,
    AUTHN: `aws sts get-caller-identity${profile}   # after: aws sso login${profile}, or a role for this machine`,
    AUTHZ: grant(config),
    KMS: `aws kms create-grant --region ${region}${profile} --key-id ${key} --grantee-principal ${me} --operations Decrypt GenerateDataKey   # where it is disabled: aws kms enable-key`,
    CONFIG:
      check === "entry"
        ? "Take jsonKey out of this store where the whole secret is the key; else mend the JSON in the secret."
        : `${cli(config, `describe-secret --secret-id ${id}`)}   # region has to be its PrimaryRegion, where there is one`,
    CONFLICT: "Keep one of the members and remove the others.",
    NAME: `${cli(config, "list-secrets --query 'SecretList[].Name'")}   # mend secretId`,
    QUOTA: `${cli(config, `list-secret-version-ids --secret-id ${id}`)}   # remove labels that nothing needs, or wait a day`,
    UNSUPPORTED: "Name a secret that was stored as text (SecretString); a binary one cannot be edited.",
    UNAVAILABLE: reach,
    TIMEOUT: reach,
    THROTTLED: "Run doctor again in a minute.",
  };
  return fixes[code] ?? "Mend what is named and run again.";
};

const grant = ({ secretId }: Config): string =>
  `aws iam put-role-policy --role-name ROLE --policy-name imkit-rotator --policy-document file://deploy/policies/aws-secrets-manager.json   # with the ARN of ${secretId} in it`;

const cli = ({ region, endpoint, profile }: Config, command: string): string =>
  [
    `aws secretsmanager ${command} --region ${region}`,
    ...(profile === undefined ? [] : [`--profile ${quoted(profile)}`]),
    ...(endpoint === undefined ? [] : [`--endpoint-url ${quoted(endpoint)}`]),
  ].join(" ");

const quoted = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** Stands in for the key where the edit is tried in memory. */
const SAMPLE = "A".repeat(60);
