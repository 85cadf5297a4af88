import { createHash, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What goes wrong in one call. `after`: it has taken effect, and the answer is lost. */
export type AwsFault =
  | { readonly error: string; readonly status?: number; readonly message?: string; readonly after?: boolean }
  | { readonly drop: "before" | "after" }
  | { readonly html: number }
  | { readonly hang: true };
export type AwsCall = {
  readonly op: string;
  readonly region: string;
  readonly body: Body;
  readonly nth: number;
};
type Body = Readonly<Record<string, unknown>>;

type Version = {
  readonly text: string | null;
  readonly binary: string | null;
  readonly stages: Set<string>;
  readonly at: number;
};
export type AwsSecret = {
  readonly name: string;
  readonly arn: string;
  readonly region: string;
  readonly versions: Map<string, Version>;
  deletedAt: number | null;
  rotates: boolean;
  owner: string | null;
  /** Set on a secret that is itself a copy. */
  primaryRegion: string | null;
  tags: unknown[];
  /** Region -> how many reads there still see the version before. */
  readonly replicas: Map<string, number>;
};

const refuse = (name: string, message: string): never => {
  throw Object.assign(new Error(message), { refusal: name });
};

export type FakeAws = {
  readonly endpoint: string;
  readonly secrets: Map<string, AwsSecret>;
  readonly calls: AwsCall[];
  /** Asked before each call. */
  fault: (call: AwsCall) => AwsFault | null;
  /** The secret as it stands. */
  readonly secret: (name: string, region?: string) => AwsSecret;
  readonly close: () => Promise<void>;
};

export const HOME = "ap-northeast-1";

/** AWS Secrets Manager in memory: its JSON 1.1 protocol, as far as recordings and documentation tell how it behaves. */
export const fakeAws = async (): Promise<FakeAws> => {
  const secrets = new Map<string, AwsSecret>();
  const calls: AwsCall[] = [];
  const fake = {
    endpoint: "",
    secrets,
    calls,
    fault: (): AwsFault | null => null,
    secret: (name: string, region = HOME): AwsSecret => {
      const found = secrets.get(`${region} ${name}`);
      if (found === undefined) throw new Error(`the fake has no ${name} in ${region}`);
      return found;
    },
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  } as FakeAws & { endpoint: string };

  const server = createServer((request, response) => void serve(fake, request, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  fake.endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return fake;
};

const serve = async (fake: FakeAws, request: IncomingMessage, response: ServerResponse): Promise<void> => {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString();
  const op = String(request.headers["x-amz-target"]).replace("secretsmanager.", "");
  const region = /Credential=[^/]+\/\d+\/([^/]+)\//.exec(request.headers.authorization ?? "")?.[1] ?? HOME;
  const body = JSON.parse(text) as Body;
  const call = { op, region, body, nth: fake.calls.filter((c) => c.op === op).length + 1 };
  fake.calls.push(call);

  const send = (status: number, answer: unknown): void => {
    response.writeHead(status, {
      "content-type": "application/x-amz-json-1.1",
      "x-amzn-requestid": randomUUID(),
    });
    response.end(JSON.stringify(answer));
  };
  const fault = fake.fault(call);
  if (fault !== null && "hang" in fault) return;
  if (fault !== null && "html" in fault) {
    response.writeHead(fault.html, { "content-type": "text/html" });
    response.end(`<html>${text}</html>`);
    return;
  }
  const failing = (): void => {
    if (fault === null || !("error" in fault)) return;
    // Worse than AWS: whatever was sent comes back in the message.
    send(fault.status ?? 400, {
      __type: fault.error,
      message: `${fault.message ?? "no"} ${text}`,
      Message: text,
    });
  };
  if (fault !== null && "drop" in fault && fault.drop === "before") return void request.socket.destroy();
  if (fault !== null && "error" in fault && fault.after !== true) return failing();
  try {
    const answer = answerTo(fake, call);
    if (fault !== null && "drop" in fault) return void request.socket.destroy();
    if (fault !== null) return failing();
    send(200, answer);
  } catch (thrown) {
    if (!(thrown instanceof Error) || !("refusal" in thrown)) throw thrown;
    send(400, { __type: thrown.refusal, message: thrown.message });
  }
};

const answerTo = (fake: FakeAws, { op, region, body }: AwsCall): unknown => {
  const verb = VERBS[op];
  if (verb === undefined) return refuse("UnknownOperationException", op);
  const id = text(body["SecretId"] ?? body["Name"]) ?? "";
  if (!/^[A-Za-z0-9/_+=.@:-]+$/.test(id))
    refuse(
      "ValidationException",
      "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!",
    );
  return verb({ fake, region, body, id, find: () => find(fake, region, id) });
};

type Ask = {
  readonly fake: FakeAws;
  readonly region: string;
  readonly body: Body;
  readonly id: string;
  readonly find: () => AwsSecret;
};

const find = (fake: FakeAws, region: string, id: string): AwsSecret => {
  const all = [...fake.secrets.values()];
  const name = id.startsWith("arn:")
    ? (all.find(({ arn }) => arn === id || arn.startsWith(`${id}-`))?.name ?? id)
    : id;
  const here = fake.secrets.get(`${region} ${name}`);
  return here ?? refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret.");
};

const text = (value: unknown): string | null => (typeof value === "string" ? value : null);
const named = ({ arn, name }: AwsSecret) => ({ ARN: arn, Name: name });
const holder = (secret: AwsSecret, stage: string): string | null =>
  [...secret.versions].find(([, { stages }]) => stages.has(stage))?.[0] ?? null;
const alive = (secret: AwsSecret): AwsSecret => {
  if (secret.deletedAt !== null)
    refuse(
      "InvalidRequestException",
      "You can't perform this operation on the secret because it was marked for deletion.",
    );
  return secret;
};
const tokenOf = (body: Body): string => {
  const token = text(body["ClientRequestToken"]);
  if (token === null)
    return refuse(
      "InvalidRequestException",
      "You must provide a ClientRequestToken value. We recommend a UUID-type value.",
    );
  if (token.length < 32 || token.length > 64)
    refuse("InvalidParameterException", "ClientRequestToken must be 32-64 characters long.");
  return token;
};
const valueOf = (body: Body) => ({ text: text(body["SecretString"]), binary: text(body["SecretBinary"]) });

/** A token that is in use: the same value again is nothing, another one is refused. */
const repeated = (secret: AwsSecret, token: string, body: Body): boolean => {
  const known = secret.versions.get(token);
  if (known === undefined) return false;
  const value = valueOf(body);
  if (known.text !== value.text || known.binary !== value.binary)
    refuse(
      "ResourceExistsException",
      `You can't use ClientRequestToken ${token} because that value is already in use for a version of secret ${secret.arn}.`,
    );
  return true;
};

const addVersion = (secret: AwsSecret, token: string, body: Body, stages: readonly string[]): void => {
  const value = valueOf(body);
  if (Buffer.byteLength(value.text ?? "") > 65_536)
    refuse("InvalidParameterException", "SecretString must be at most 65536 bytes.");
  const first = secret.versions.size === 0;
  secret.versions.set(token, { ...value, stages: new Set(), at: Date.now() });
  const former = holder(secret, "AWSCURRENT");
  for (const stage of first ? [...stages, "AWSCURRENT"] : stages) moveStage(secret, stage, token);
  if (stages.includes("AWSCURRENT") && former !== null)
    secret.versions.get(former)?.stages.delete("AWSPENDING");
};

const moveStage = (secret: AwsSecret, stage: string, to: string | null): void => {
  const from = holder(secret, stage);
  if (from === to) return;
  if (from !== null) secret.versions.get(from)?.stages.delete(stage);
  if (to !== null) secret.versions.get(to)?.stages.add(stage);
  if (stage === "AWSCURRENT" && from !== null) moveStage(secret, "AWSPREVIOUS", from);
  if (stage === "AWSCURRENT" && to !== null) secret.versions.get(to)?.stages.delete("AWSPREVIOUS");
  if (new Set([...secret.versions.values()].flatMap(({ stages }) => [...stages])).size > 20)
    refuse(
      "LimitExceededException",
      "The request failed because it would exceed one of the Secrets Manager quotas.",
    );
};

const VERBS: Readonly<Record<string, (ask: Ask) => unknown>> = {
  CreateSecret: ({ fake, region, body, id }) => {
    const token = tokenOf(body);
    const known = fake.secrets.get(`${region} ${id}`);
    if (known?.deletedAt != null)
      refuse(
        "InvalidRequestException",
        "You can't create this secret because a secret with this name is already scheduled for deletion.",
      );
    if (known !== undefined) {
      if (repeated(known, token, body)) return { ...named(known), VersionId: token };
      refuse("ResourceExistsException", `The operation failed because the secret ${id} already exists.`);
    }
    const suffix = createHash("sha256").update(id).digest("base64url").replaceAll(/[-_]/g, "x").slice(0, 6);
    const made: AwsSecret = {
      name: id,
      arn: `arn:aws:secretsmanager:${region}:111111111111:secret:${id}-${suffix}`,
      region,
      versions: new Map(),
      deletedAt: null,
      rotates: false,
      owner: null,
      primaryRegion: null,
      tags: (body["Tags"] as unknown[] | undefined) ?? [],
      replicas: new Map(),
    };
    fake.secrets.set(`${region} ${id}`, made);
    const { text: value, binary } = valueOf(body);
    if (value === null && binary === null) return named(made);
    addVersion(made, token, body, ["AWSCURRENT"]);
    return { ...named(made), VersionId: token };
  },
  PutSecretValue: ({ body, find: found }) => {
    const token = tokenOf(body);
    const secret = alive(found());
    if (!repeated(secret, token, body))
      addVersion(secret, token, body, (body["VersionStages"] as string[] | undefined) ?? ["AWSCURRENT"]);
    const stages = [...(secret.versions.get(token)?.stages ?? [])];
    return { ...named(secret), VersionId: token, VersionStages: stages };
  },
  GetSecretValue: ({ fake, region, body, id }) => {
    const copied = [...fake.secrets.values()].find(
      (s) => s.replicas.has(region) && (s.name === id || s.arn.replace(s.region, region) === id),
    );
    const secret = alive(copied ?? find(fake, region, id));
    const behind = copied?.replicas.get(region) ?? 0;
    copied?.replicas.set(region, Math.max(0, behind - 1));
    const stage = text(body["VersionStage"]);
    const wanted = text(body["VersionId"]);
    const holding = holder(secret, behind > 0 ? "AWSPREVIOUS" : (stage ?? "AWSCURRENT"));
    const version = wanted ?? holding;
    const found = version === null ? undefined : secret.versions.get(version);
    if (version === null || found === undefined) {
      const what = wanted === null ? `staging label: ${stage ?? "AWSCURRENT"}` : `VersionId: ${wanted}`;
      return refuse(
        "ResourceNotFoundException",
        `Secrets Manager can't find the specified secret value for ${what}`,
      );
    }
    if (wanted !== null && stage !== null && !found.stages.has(stage))
      refuse(
        "InvalidRequestException",
        "You provided a VersionStage that is not associated to the provided VersionId.",
      );
    return {
      ...named(secret),
      VersionId: version,
      VersionStages: [...found.stages],
      CreatedDate: found.at / 1_000,
      ...(found.text === null ? {} : { SecretString: found.text }),
      ...(found.binary === null ? {} : { SecretBinary: found.binary }),
    };
  },
  DescribeSecret: ({ find: found }) => {
    const secret = found();
    const labelled = [...secret.versions].filter(([, { stages }]) => stages.size > 0);
    return {
      ...named(secret),
      CreatedDate: 1,
      LastChangedDate: 2,
      ...(labelled.length === 0
        ? {}
        : { VersionIdsToStages: Object.fromEntries(labelled.map(([id, { stages }]) => [id, [...stages]])) }),
      ...(secret.deletedAt === null ? {} : { DeletedDate: secret.deletedAt / 1_000 }),
      ...(secret.rotates ? { RotationEnabled: true } : {}),
      ...(secret.owner === null ? {} : { OwningService: secret.owner }),
      ...(secret.primaryRegion === null && secret.replicas.size === 0
        ? {}
        : { PrimaryRegion: secret.primaryRegion ?? secret.region }),
      ...(secret.replicas.size === 0
        ? {}
        : { ReplicationStatus: [...secret.replicas.keys()].map((Region) => ({ Region, Status: "InSync" })) }),
    };
  },
  UpdateSecretVersionStage: ({ body, find: found }) => {
    const secret = alive(found());
    const stage = text(body["VersionStage"]) ?? "";
    const [from, to] = [text(body["RemoveFromVersionId"]), text(body["MoveToVersionId"])];
    for (const id of [from, to])
      if (id !== null && !secret.versions.has(id))
        refuse(
          "ResourceNotFoundException",
          `Secrets Manager can't find the specified secret value for VersionId: ${id}`,
        );
    const now = holder(secret, stage);
    if (now !== null && now !== to && from === null)
      refuse(
        "InvalidParameterException",
        `The parameter RemoveFromVersionId can't be empty. Staging label ${stage} is currently attached to version ${now}, so you must explicitly reference that version in RemoveFromVersionId.`,
      );
    if (from !== null && now !== from)
      refuse(
        "InvalidParameterException",
        `The staging label ${stage} isn't currently attached to version ${from}.`,
      );
    if (to === null && stage === "AWSCURRENT")
      refuse(
        "InvalidParameterException",
        "You can only move staging label AWSCURRENT to a different secret version. It can't be completely removed.",
      );
    moveStage(secret, stage, to);
    return named(secret);
  },
  ListSecretVersionIds: ({ body, find: found }) => {
    const secret = found();
    const shown = [...secret.versions].filter(
      ([, { stages }]) => stages.size > 0 || body["IncludeDeprecated"] === true,
    );
    return {
      ...named(secret),
      Versions: shown.map(([VersionId, { stages }]) => ({
        VersionId,
        ...(stages.size === 0 ? {} : { VersionStages: [...stages] }),
        CreatedDate: 1,
        KmsKeyIds: ["DefaultEncryptionKey"],
      })),
    };
  },
  DeleteSecret: ({ fake, region, body, find: found }) => {
    const secret = found();
    secret.deletedAt = Date.now();
    if (body["ForceDeleteWithoutRecovery"] === true) fake.secrets.delete(`${region} ${secret.name}`);
    return { ...named(secret), DeletionDate: 3 };
  },
  RestoreSecret: ({ find: found }) => {
    const secret = found();
    secret.deletedAt = null;
    return named(secret);
  },
  TagResource: ({ body, find: found }) => {
    alive(found()).tags.push(...((body["Tags"] as unknown[] | undefined) ?? []));
    return {};
  },
  UntagResource: ({ find: found }) => {
    alive(found());
    return {};
  },
};

/** One call without an SDK, as somebody else would make it. Rejects with the error's name. */
export const rawAws = async (endpoint: string, region: string, op: string, body: Body): Promise<Body> => {
  const scope = `AKIAEXAMPLE/20260101/${region}/secretsmanager/aws4_request`;
  const response = await fetch(endpoint, {
    method: "POST",
    headers: {
      "content-type": "application/x-amz-json-1.1",
      "x-amz-target": `secretsmanager.${op}`,
      authorization: `AWS4-HMAC-SHA256 Credential=${scope}, SignedHeaders=host;x-amz-target, Signature=0`,
    },
    body: JSON.stringify(body),
  });
  const answer = (await response.json()) as Body;
  if (response.ok) return answer;
  throw new Error(
    text(answer["__type"]) ?? response.headers.get("x-amzn-errortype") ?? `HTTP ${response.status}`,
    {
      cause: answer,
    },
  );
};
