import { readdirSync, readFileSync } from "node:fs";
import { request as httpsRequest } from "node:https";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { startVault, type VaultServer } from "./azure/server.ts";
import type { VaultAnswer } from "./azure/vault.ts";

type Body = Readonly<Record<string, unknown>>;
type Exchange = {
  readonly request: {
    readonly method: string;
    readonly path: string;
    readonly query: Readonly<Record<string, string>>;
    readonly body: Body | null;
  };
  readonly response: {
    readonly status: number;
    readonly headers: Readonly<Record<string, string>>;
    readonly body: Body | null;
  };
  readonly repeat?: { readonly lastDate?: string };
};
type Recording = { readonly apiVersion: string | null; readonly exchanges: readonly Exchange[] };

const folder = join(import.meta.dirname, "..", "vectors", "azure-key-vault");
const recording = (name: string): Recording => JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"));
const files = readdirSync(folder)
  .filter((file) => file.endsWith(".json"))
  .map((file) => file.slice(0, -".json".length));

const HOST = "https://vault-name.vault.azure.net";

/** What the service has changed since: the stand-in speaks as it last did. Each is used by some file, or a test fails. */
const CHANGED: Readonly<Record<string, (text: string, name: string) => string>> = {
  "the text without a token had no number before 2022": (text) =>
    text.replace('"message":"Request is missing', '"message":"AKV10000: Request is missing'),
  "the text of an unknown name was shorter in 2019": (text) =>
    text.replace(
      /"message":"Secret not found: ([\w-]+)"/,
      (_, name) => `"message":${JSON.stringify(UNKNOWN(name))}`,
    ),
  "the text of a deletion under way had no name in 2019": (text, name) =>
    text.replace('"Secret is currently being deleted."', `"Secret ${name} is currently being deleted."`),
  "a deleted and disabled one was AccessDenied before mid-2020": (text) =>
    text
      .replace(
        "Operation get is not permitted on this object.",
        "Operation get is not allowed on a disabled secret.",
      )
      .replace('"code":"AccessDenied"', '"code":"SecretDisabled"'),
};
const UNKNOWN = (name: string): string =>
  `A secret with (name/id) ${name} was not found in this key vault. If you recently deleted this secret you may be able ` +
  "to recover it using the correct recovery command. For help resolving this issue, please see " +
  "https://go.microsoft.com/fwlink/?linkid=2125182";
const changesUsed = new Set<string>();

/** What stood in the vault before a recording begins, where it does not begin with nothing. */
const BEFORE: Readonly<Record<string, (server: VaultServer) => void>> = {
  "delete-managed-secret": ({ vault }) => {
    vault.put("backupRestoreCertificateName-canrestoreacertificate-6825509809597385", "x");
    vault.manage("backupRestoreCertificateName-canrestoreacertificate-6825509809597385");
  },
  "set-on-deleted-name": ({ vault }) => {
    vault.put("recoverSecretName-canwaituntilakeyisrecovered-undefined", "x");
    vault.remove("recoverSecretName-canwaituntilakeyisrecovered-undefined");
  },
  "list-secrets-empty-page": ({ vault, setTime }) => {
    setTime(1_571_265_950_000);
    for (const n of [0, 1]) vault.put(`CRUDSecretName-canlistsecrets-${n}`, "x");
    Object.assign(vault.settings, { emptyPages: 4, recoveryLevel: "Recoverable+Purgeable" });
  },
  "list-secrets-paged": ({ vault, setTime }) => {
    setTime(1_654_212_060_000);
    const attributes = { enabled: false, nbf: 1_654_211_457, exp: 1_685_748_057 };
    const tags = { tag1: "updated_values1" };
    vault.put("cert2501394451", "x", { contentType: "application/x-pkcs12", attributes, tags });
    vault.manage("cert2501394451");
    vault.settings.emptyPages = 2;
  },
};

let server: VaultServer | null = null;
afterEach(async () => {
  await server?.close();
  server = null;
});

type Got = {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly text: string;
};
const send = (
  to: VaultServer,
  method: string,
  path: string,
  query: string,
  token: string | null,
  body: Body | null,
) =>
  new Promise<Got>((resolve, reject) => {
    const text = body === null ? "" : JSON.stringify(body);
    const req = httpsRequest(`${to.url}${path}${query}`, {
      method,
      ca: readFileSync(to.caFile),
      headers: {
        ...(token === null ? {} : { authorization: `Bearer ${token}` }),
        ...(body === null
          ? {}
          : { "content-type": "application/json", "content-length": Buffer.byteLength(text) }),
      },
    });
    req.on("error", reject);
    req.on("response", (res) => {
      const parts: Buffer[] = [];
      res.on("data", (part: Buffer) => parts.push(part));
      res.on("end", () =>
        resolve({
          status: res.statusCode ?? 0,
          headers: res.headers,
          text: Buffer.concat(parts).toString("utf8"),
        }),
      );
    });
    req.end(text);
  });

const nameIn = (path: string): string => path.split("/")[2] ?? "";
const innerOf = (body: Body | null): unknown =>
  (body as { error?: { innererror?: { code?: unknown } } } | null)?.error?.innererror?.code;

/** This exchange shows that what `begun` began is over. */
const ends = (begun: "deletion" | "recovery", { request, response }: Exchange): boolean => {
  const { method, path } = request;
  const [room, done] = [path.split("/")[1], response.status];
  if (begun === "recovery") return (method === "GET" && room === "secrets" && done === 200) || done === 400;
  if (method === "PUT") return innerOf(response.body) === "ObjectIsDeletedButRecoverable";
  return room === "deletedsecrets" && [200, 204, 403].includes(done);
};

const skipToken = (link: unknown): string | null =>
  typeof link === "string" ? new URL(link).searchParams.get("$skiptoken") : null;

/** Plays it, each request at the time it was sent then. @returns for each answer what was recorded and what came, comparable */
const play = async (file: string, tamper: (to: VaultServer) => void = () => {}) => {
  const { apiVersion, exchanges } = recording(file);
  const ids: string[] = [];
  const to = await startVault({ baseUrl: HOST, newId: () => ids.shift() ?? "0".repeat(32) });
  server = to;
  const first = exchanges[0]?.response.headers["date"] ?? "Wed, 16 Oct 2019 21:17:47 GMT";
  to.setTime(Date.parse(first) - 600_000);
  BEFORE[file]?.(to);
  tamper(to);
  const timeOf = (n: number, date = exchanges[n]?.response.headers["date"] ?? ""): number =>
    Date.parse(date) + n;
  const tokens = new Map<string, string>();
  let lastToken: string | null = null;
  const pairs: { readonly at: string; readonly recorded: Comparable; readonly came: Comparable }[] = [];

  for (const [n, exchange] of exchanges.entries()) {
    const { request, response, repeat } = exchange;
    const attributes = response.body?.["attributes"] as Readonly<Record<string, unknown>> | undefined;
    if (typeof attributes?.["recoveryLevel"] === "string")
      to.vault.settings.recoveryLevel = attributes["recoveryLevel"];
    if (typeof attributes?.["recoverableDays"] === "number")
      to.vault.settings.recoverableDays = attributes["recoverableDays"];
    else if (typeof response.body?.["scheduledPurgeDate"] === "number")
      to.vault.settings.recoverableDays = 90;
    const made = /\/([0-9a-f]{32})$/.exec(String(response.body?.["id"]))?.[1];
    if (request.method === "PUT" && response.status === 200 && made !== undefined) ids.push(made);
    const wait = (begun: "deletion" | "recovery"): number => {
      const later = exchanges.findIndex(
        (other, at) => at > n && nameIn(other.request.path) === nameIn(request.path) && ends(begun, other),
      );
      return later < 0 ? 19_000 : timeOf(later) - timeOf(n);
    };
    if (request.method === "DELETE" && request.path.startsWith("/secrets/"))
      to.vault.settings.deleteMs = wait("deletion");
    if (request.path.endsWith("/recover") && response.status === 200)
      to.vault.settings.recoverMs = wait("recovery");

    for (const date of [undefined, ...(repeat?.lastDate === undefined ? [] : [repeat.lastDate])]) {
      to.setTime(timeOf(n, date));
      const asked = request.query["$skiptoken"];
      const query = new URLSearchParams({
        "api-version": apiVersion ?? "7.0",
        ...request.query,
        // Some answers in between were not kept: then it is the link of the last one.
        ...(asked === undefined ? {} : { $skiptoken: tokens.get(asked) ?? lastToken ?? "" }),
      });
      // Where the recorder left the body of a set out, the answer says what was in it.
      const body =
        request.method === "PUT" && response.status === 200 && request.body === null
          ? {
              value: response.body?.["value"],
              attributes: { enabled: attributes?.["enabled"], exp: attributes?.["exp"] },
            }
          : request.body;
      const token = response.status === 401 ? null : to.token;
      const got = await send(to, request.method, request.path, `?${query.toString()}`, token, body);
      const came: unknown = got.text === "" ? null : JSON.parse(got.text);
      const ours = skipToken((came as Body | null)?.["nextLink"]);
      const theirs = skipToken(response.body?.["nextLink"]);
      if (ours !== null) lastToken = ours;
      if (ours !== null && theirs !== null) tokens.set(theirs, ours);
      pairs.push({
        at: `${n}: ${request.method} ${request.path}`,
        recorded: comparable(
          response.status,
          response.headers,
          upToDate(response.body, nameIn(request.path)),
        ),
        came: comparable(got.status, got.headers, came),
      });
    }
  }
  return pairs;
};

const upToDate = (body: Body | null, name: string): unknown => {
  const changed = Object.entries(CHANGED).reduce((text, [what, change]) => {
    const now = change(text, name);
    if (now !== text) changesUsed.add(what);
    return now;
  }, JSON.stringify(body));
  return JSON.parse(changed);
};

type Comparable = { readonly told: readonly unknown[]; readonly times: readonly number[] };
const TIMES = new Set(["created", "updated", "deletedDate", "scheduledPurgeDate"]);
/** Status, the headers that matter, and the body with its order of fields; apart from it the times, which two clocks told. */
const comparable = (
  status: number,
  headers: Readonly<Record<string, unknown>>,
  body: unknown,
): Comparable => {
  const times: number[] = [];
  const text = JSON.stringify(body, (name, value: unknown) => {
    if (name === "nextLink" && typeof value === "string")
      return value.replace(/\$skiptoken=[\w.-]+/, "$skiptoken=");
    if (typeof value !== "number" || !TIMES.has(name)) return value;
    times.push(value);
    return 0;
  });
  return {
    told: [status, headers["content-type"] ?? null, headers["www-authenticate"] ?? null, text],
    times,
  };
};
/** Seconds: a recorder's clock, the service's, and a request on its way. */
const NEAR = 5;

test.each(files.filter((file) => file !== "quoted-errors"))(
  "the stand-in answers as Key Vault did: %s",
  async (file) => {
    const pairs = await play(file);
    expect(pairs.length).toBeGreaterThan(0);
    for (const { at, recorded, came } of pairs) {
      expect(came.told, at).toEqual(recorded.told);
      const far = came.times.filter((time, n) => Math.abs(time - (recorded.times[n] ?? 0)) > NEAR);
      expect(far, at).toEqual([]);
    }
  },
);

test("what differs from the recordings is what is named, and all of it", () => {
  expect([...changesUsed].sort()).toEqual(Object.keys(CHANGED).sort());
});

test.each([
  ["a status", (answer: VaultAnswer) => ({ ...answer, status: 201 })],
  ["a field", ({ status, body }: VaultAnswer) => ({ status, body: { ...(body as Body | null), more: 1 } })],
  ["an order", ({ status, body }: VaultAnswer) => ({ status, body: reversed(body as Body | null) })],
])("%s that is not as recorded is seen", async (_, change) => {
  const pairs = await play("set-get", ({ vault }) => {
    const { handle } = vault;
    vault.handle = (request) => change(handle(request));
  });
  expect(pairs.some(({ recorded, came }) => came.told.join() !== recorded.told.join())).toBe(true);
});
const reversed = (body: Body | null): Body | null =>
  body === null ? null : Object.fromEntries(Object.entries(body).reverse());

/** How each of the quoted answers comes about. */
const QUOTED: readonly {
  readonly status: number;
  readonly inner?: string;
  readonly code: string;
  readonly path: string;
  readonly set: (to: VaultServer) => void;
}[] = [
  ...(["ForbiddenByPolicy", "ForbiddenByRbac", "ForbiddenByFirewall"] as const).map((inner) => ({
    status: 403,
    inner,
    code: "Forbidden",
    path: "/secrets/NAME/",
    set: ({ vault }: VaultServer) => {
      vault.settings.denied.add("get");
      vault.settings.deniedBy = inner;
    },
  })),
  {
    status: 429,
    code: "Throttled",
    path: "/secrets/NAME/",
    set: ({ vault }) => void (vault.settings.throttled = true),
  },
  { status: 400, code: "BadParameter", path: "/secrets/Invalid_Secret_Name/", set: () => {} },
  { status: 401, code: "Unauthorized", path: "/secrets/NAME/", set: () => {} },
];

test.each(QUOTED)("the stand-in says what people have quoted: $status $code $inner", async (quoted) => {
  const { exchanges } = recording("quoted-errors");
  const found = exchanges.find(
    ({ response: { status, body } }) =>
      status === quoted.status && (innerOf(body) ?? undefined) === quoted.inner,
  );
  server = await startVault({ baseUrl: HOST });
  quoted.set(server);
  const token = quoted.status === 401 ? "of-another-tenant" : server.token;
  const got = await send(server, "GET", quoted.path, "?api-version=7.4", token, null);
  expect([got.status, JSON.parse(got.text)]).toEqual([quoted.status, found?.response.body]);
  expect(got.headers["retry-after"]).toBeUndefined();
});
