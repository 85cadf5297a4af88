import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

type Body = Readonly<Record<string, unknown>>;
type Recorded = {
  readonly status: number | null;
  readonly body?: Body;
  readonly error?: { readonly code: string };
};
type Exchange = {
  readonly request: { readonly target: string; readonly body: Body };
  readonly response: Recorded | null;
};
export type Recording = { readonly name: string; readonly exchanges: readonly Exchange[] };

const folder = join(import.meta.dirname, "../vectors/aws-secrets-manager");

export const recordings: readonly Recording[] = readdirSync(folder)
  .filter((file) => file.endsWith(".json"))
  .map((file) => ({
    name: file.replace(".json", ""),
    ...(JSON.parse(readFileSync(join(folder, file), "utf8")) as { readonly exchanges: readonly Exchange[] }),
  }));

/** Makes a recording's calls in order; gives back each answer that is not as recorded: `<nth> <call> <what>`. */
export const differences = async (
  endpoint: string,
  region: string,
  { name, exchanges }: Recording,
): Promise<readonly string[]> => {
  // Marks of the recorder, and what they stand for here.
  const known = new Map<string, string>([["<version-id>", randomUUID()]]);
  const secretName = `recorded-${randomUUID()}`;
  const filled = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(filled);
    if (typeof value !== "string") return value;
    if (/^(<SecretId-0idx>|<name:1>|NAME)$/.test(value)) return secretName;
    return known.get(value) ?? value;
  };
  const found: string[] = [];
  let versions = 0;
  for (const [at, { request, response }] of exchanges.entries()) {
    const op = request.target.split(".")[1] ?? "";
    const body: Record<string, unknown> = Object.fromEntries(
      Object.entries(request.body).map(([key, value]) => [key, filled(value)]),
    );
    const mark = request.body["ClientRequestToken"];
    if (typeof mark === "string")
      known.set(mark, (body["ClientRequestToken"] = known.get(mark) ?? randomUUID()));
    else if (/^(Create|Put)/.test(op) && !name.startsWith("no-token"))
      body["ClientRequestToken"] = randomUUID();
    const answer = await call(endpoint, region, op, body);
    if (response === null) {
      // Versions are numbered as they come.
      const made = answer.body["VersionId"];
      if (typeof made === "string") known.set(`<version_uuid:${versions + 1}>`, made);
      versions += 1;
      continue;
    }
    if (op === "CreateSecret" || op === "PutSecretValue") versions += 1;
    for (const what of differing(response, answer, known)) found.push(`${at} ${op} ${what}`);
  }
  return found;
};

type Answer = { readonly status: number; readonly code: string | null; readonly body: Body };

const call = async (endpoint: string, region: string, op: string, body: Body): Promise<Answer> => {
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
  const text = await response.text();
  const answer = text.startsWith("{") ? (JSON.parse(text) as Body) : {};
  const type = answer["__type"];
  const code = response.ok ? null : typeof type === "string" ? (type.split("#").at(-1) ?? "") : "none";
  return { status: response.status, code, body: answer };
};

type Listed = { readonly VersionId: string; readonly VersionStages?: readonly string[] };

const differing = (expected: Recorded, actual: Answer, known: Map<string, string>): readonly string[] => {
  const found: string[] = [];
  if ((expected.error?.code ?? null) !== actual.code) return [`says ${actual.code ?? "yes"}`];
  if (expected.status !== null && expected.status !== actual.status) found.push(`HTTP ${actual.status}`);
  const body = expected.body ?? {};
  const id = body["VersionId"];
  if (typeof id === "string" && !known.has(id)) known.set(id, actual.body["VersionId"] as string);
  if (typeof id === "string" && known.get(id) !== actual.body["VersionId"]) found.push("other version");
  if (id === undefined && actual.body["VersionId"] !== undefined && actual.code === null)
    found.push("made a version");
  if ("SecretString" in body && body["SecretString"] !== actual.body["SecretString"])
    found.push("other value");
  if ("DeletedDate" in body !== (typeof actual.body["DeletedDate"] === "number") && "CreatedDate" in body)
    found.push("other DeletedDate");
  if ("VersionStages" in body && labels(body["VersionStages"]) !== labels(actual.body["VersionStages"]))
    found.push("other labels");
  if ("Versions" in body || "VersionIdsToStages" in body) {
    const wanted = listed(body).map(([version, its]) => `${known.get(version) ?? version} ${its}`);
    const got = listed(actual.body).map(([version, its]) => `${version} ${its}`);
    if (wanted.toSorted().join("\n") !== got.toSorted().join("\n")) found.push("other list");
  }
  return found;
};

const labels = (value: unknown): string =>
  Array.isArray(value) ? [...(value as string[])].toSorted().join(" ") : "none";
const listed = (body: Body): readonly (readonly [string, string])[] => [
  ...((body["Versions"] as Listed[] | undefined) ?? []).map(
    ({ VersionId, VersionStages }) => [VersionId, labels(VersionStages)] as const,
  ),
  ...Object.entries((body["VersionIdsToStages"] as Body | undefined) ?? {}).map(
    ([version, its]) => [version, labels(its)] as const,
  ),
];
