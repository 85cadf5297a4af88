import { randomBytes } from "node:crypto";

/** One request as the vault sees it, after TLS and login. `path` as sent, still percent-encoded. */
export type VaultRequest = {
  readonly method: string;
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly body: unknown;
};
export type VaultAnswer = { readonly status: number; readonly body: unknown };

type Attributes = { enabled: boolean; nbf?: number; exp?: number; created: number; updated: number };
type Version = {
  readonly id: string;
  value: string;
  contentType?: string;
  attributes: Attributes;
  tags?: Record<string, string>;
};
type Entry = {
  readonly name: string;
  versions: Version[];
  managed: boolean;
  /** `until`: the change that is under way ends then, ms. */
  state: "live" | "deleted";
  until: number;
  deletedAt: number;
};

export type VaultSettings = {
  /** Ahead of every name in an answer. */
  readonly baseUrl: () => string;
  readonly now: () => number;
  readonly newId?: () => string;
};

export type Permission = "get" | "list" | "set" | "update" | "delete" | "recover" | "purge";

const NAME = /^[0-9A-Za-z-]{1,127}$/;
const MAX_VALUE = 25_600;
const PAGE = 25;
const DAY = 86_400;

/**
 * The secrets of one vault, as the recorded exchanges show them. Time comes in by `now`: a deletion or recovery that is under way ends
 * when its time is over, and not before.
 */
export const makeVault = ({ baseUrl, now, newId = () => randomBytes(16).toString("hex") }: VaultSettings) => {
  const entries = new Map<string, Entry>();
  const seconds = (): number => Math.floor(now() / 1_000);
  const settings = {
    /** How long it takes, ms: the medians of the recordings. */
    deleteMs: 19_000,
    recoverMs: 17_000,
    recoveryLevel: "CustomizedRecoverable+Purgeable",
    recoverableDays: 7,
    /** Empty pages that a list ends with, all but the last with a link to the next. */
    emptyPages: 0,
    throttled: false,
    denied: new Set<Permission>(),
    deniedBy: "ForbiddenByRbac" as "ForbiddenByRbac" | "ForbiddenByPolicy" | "ForbiddenByFirewall",
  };

  const find = (name: string): Entry | undefined => entries.get(name.toLowerCase());
  const phase = (entry: Entry | undefined): "none" | "live" | "deleting" | "deleted" | "recovering" => {
    if (entry === undefined) return "none";
    const over = now() >= entry.until;
    if (entry.state === "live") return over ? "live" : "recovering";
    return over ? "deleted" : "deleting";
  };
  const newest = (entry: Entry): Version => {
    const last = entry.versions.at(-1);
    if (last === undefined) throw new Error("a secret without a version");
    return last;
  };

  const bundle = (entry: Entry, version: Version, apiVersion: string, more: Shown = {}) => {
    const { enabled, nbf, exp, created, updated } = version.attributes;
    const days = ["2016-10-01", "7.0"].includes(apiVersion)
      ? {}
      : { recoverableDays: settings.recoverableDays };
    return {
      ...(more.value === true ? { value: version.value } : {}),
      ...(more.deleted === true ? deletion(entry) : {}),
      ...(version.contentType === undefined ? {} : { contentType: version.contentType }),
      id: `${baseUrl()}/secrets/${entry.name}${more.bare === true ? "" : `/${version.id}`}`,
      ...(entry.managed ? { managed: true } : {}),
      attributes: {
        enabled,
        ...(nbf === undefined ? {} : { nbf }),
        ...(exp === undefined ? {} : { exp }),
        created,
        updated,
        recoveryLevel: settings.recoveryLevel,
        ...days,
      },
      ...(version.tags === undefined ? {} : { tags: version.tags }),
    };
  };
  const deletion = ({ name, deletedAt }: Entry) => ({
    recoveryId: `${baseUrl()}/deletedsecrets/${name}`,
    deletedDate: deletedAt,
    scheduledPurgeDate: deletedAt + settings.recoverableDays * DAY,
  });

  const put = (name: string, sent: Sent): VaultAnswer | Version => {
    const entry = find(name);
    const where = phase(entry);
    if (where === "deleting")
      return conflict(
        `Secret ${name} is currently being deleted and cannot be re-created; retry later.`,
        BEING,
      );
    if (where === "deleted") {
      const words = "is currently in a deleted but recoverable state, and its name cannot be reused";
      return conflict(
        `Secret ${name} ${words}; in this state, the secret can only be recovered or purged.`,
        "ObjectIsDeletedButRecoverable",
      );
    }
    if (where === "recovering")
      return conflict(`Secret ${name} is currently being recovered.`, "ObjectIsBeingRecovered");
    if (typeof sent.value !== "string") return failure(400, "BadParameter", "The secret value is missing.");
    if (sent.value.length > MAX_VALUE)
      return failure(400, "BadParameter", `Property value has invalid length; at most ${MAX_VALUE}.`);
    if (Object.keys(sent.tags ?? {}).length > 15) return failure(400, "BadParameter", "Too many tags.");
    const { enabled = true, nbf, exp } = sent.attributes ?? {};
    const version: Version = {
      id: newId(),
      value: sent.value,
      ...(sent.contentType === undefined ? {} : { contentType: sent.contentType }),
      attributes: {
        enabled,
        ...(typeof nbf === "number" ? { nbf } : {}),
        ...(typeof exp === "number" ? { exp } : {}),
        created: seconds(),
        updated: seconds(),
      },
      ...(sent.tags === undefined ? {} : { tags: { ...sent.tags } }),
    };
    if (entry === undefined)
      entries.set(name.toLowerCase(), {
        name,
        versions: [version],
        managed: false,
        state: "live",
        until: 0,
        deletedAt: 0,
      });
    else entry.versions.push(version);
    return version;
  };

  const patch = (name: string, id: string, sent: Sent, apiVersion: string): VaultAnswer => {
    const found = versionOf(name, id);
    if ("status" in found) return found;
    const { enabled, nbf, exp } = sent.attributes ?? {};
    Object.assign(found.version.attributes, {
      ...(enabled === undefined ? {} : { enabled }),
      ...(typeof nbf === "number" ? { nbf } : {}),
      ...(typeof exp === "number" ? { exp } : {}),
      updated: seconds(),
    });
    if (sent.contentType !== undefined) found.version.contentType = sent.contentType;
    if (sent.tags !== undefined) found.version.tags = { ...sent.tags };
    return { status: 200, body: bundle(found.entry, found.version, apiVersion) };
  };

  const versionOf = (
    name: string,
    id: string,
  ): VaultAnswer | { readonly entry: Entry; readonly version: Version } => {
    const entry = find(name);
    if (entry === undefined || phase(entry) !== "live") return unknown(name);
    const version = id === "" ? newest(entry) : entry.versions.find((one) => one.id === id);
    return version === undefined ? unknown(`${name}/${id}`) : { entry, version };
  };

  const remove = (name: string, apiVersion: string): VaultAnswer => {
    const entry = find(name);
    if (entry === undefined || phase(entry) !== "live") return unknown(name);
    if (entry.managed) {
      const words = `Operation "delete" is not allowed as this object's lifetime is managed by Key Vault.`;
      return failure(403, "Forbidden", words, "SecretManagedByKeyVault");
    }
    Object.assign(entry, { state: "deleted", until: now() + settings.deleteMs, deletedAt: seconds() });
    return { status: 200, body: bundle(entry, newest(entry), apiVersion, { deleted: true }) };
  };

  const ofDeleted = (method: string, name: string, verb: string, apiVersion: string): VaultAnswer => {
    const entry = find(name);
    const where = phase(entry);
    if (entry === undefined) return unknown(name);
    if (method === "POST" && verb === "recover") {
      if (where === "deleting") return conflict(`Secret ${name} is currently being deleted.`, BEING);
      if (where === "recovering")
        return conflict(`Secret ${name} is currently being recovered.`, "ObjectIsBeingRecovered");
      if (where === "live") {
        const inner = "RequestNotAllowedOnNonDeletedObject";
        return failure(400, "MethodNotAllowed", `Secret exists already: ${name}`, inner);
      }
      Object.assign(entry, { state: "live", until: now() + settings.recoverMs });
      return { status: 200, body: bundle(entry, newest(entry), apiVersion) };
    }
    if (where === "deleting" && method === "DELETE")
      return conflict(`Secret ${name} is currently being deleted.`, BEING);
    if (where === "live") return unknown(name);
    if (where !== "deleted") return failure(404, "SecretNotFound", `Deleted Secret not found: ${name}`);
    if (method === "DELETE") {
      entries.delete(name.toLowerCase());
      return { status: 204, body: null };
    }
    if (method !== "GET") return notAllowed(method);
    if (!newest(entry).attributes.enabled) return disabled();
    return { status: 200, body: bundle(entry, newest(entry), apiVersion, { deleted: true }) };
  };

  const page = (path: string, all: readonly unknown[], query: VaultRequest["query"]): VaultAnswer => {
    const size = Math.min(Number(query["maxresults"] ?? PAGE) || PAGE, PAGE);
    const [from = 0, empty = settings.emptyPages] = (query["$skiptoken"] ?? "")
      .split(".")
      .filter(Boolean)
      .map(Number);
    const value = all.slice(from, from + size);
    const more = from + size < all.length;
    const rest = more || empty > 0;
    const token = more ? `${from + size}.${empty}` : `${all.length}.${empty - 1}`;
    const kept = query["maxresults"] === undefined ? "" : `&maxresults=${query["maxresults"]}`;
    const { host, port, protocol } = new URL(baseUrl());
    const link = `${protocol}//${host}${port === "" ? ":443" : ""}${path}?api-version=${query["api-version"]}&$skiptoken=${token}${kept}`;
    return { status: 200, body: { value, nextLink: rest ? link : null } };
  };

  const lists = (path: string, query: VaultRequest["query"], apiVersion: string): VaultAnswer => {
    const sorted = [...entries.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    if (path === "/secrets") {
      const live = sorted.filter((entry) => phase(entry) === "live");
      return page(
        path,
        live.map((entry) => bundle(entry, newest(entry), apiVersion, { bare: true })),
        query,
      );
    }
    const gone = sorted.filter((entry) => phase(entry) === "deleted");
    return page(
      path,
      gone.map((entry) => bundle(entry, newest(entry), apiVersion, { bare: true, deleted: true })),
      query,
    );
  };

  const handle = ({ method, path, query, body }: VaultRequest): VaultAnswer => {
    const apiVersion = query["api-version"] ?? "";
    if (!/^(7\.\d|20\d\d-\d\d-\d\d)(-preview(\.\d)?)?$/.test(apiVersion))
      return failure(400, "BadParameter", "The request did not name a known api-version.");
    if (settings.throttled) {
      const words = "Request was not processed because too many requests were received.";
      return failure(429, "Throttled", `${words} Reason: VaultRequestTypeLimitReached`);
    }
    const [, room = "", name = "", third = "", ...rest] = path.split("/");
    if (rest.length > 0 || !["secrets", "deletedsecrets"].includes(room)) return notAllowed(method);
    const needed = permissionOf(method, room, name, third);
    if (needed !== null && settings.denied.has(needed)) return denied(settings.deniedBy, needed, name);
    if (name === "") return method === "GET" ? lists(`/${room}`, query, apiVersion) : notAllowed(method);
    if (!NAME.test(name))
      return failure(400, "BadParameter", `The request URI contains an invalid name: ${name}`);
    if (room === "deletedsecrets") return ofDeleted(method, name, third, apiVersion);
    const sent = (typeof body === "object" && body !== null ? body : {}) as Sent;
    if (method === "PUT" && third === "") {
      const made = put(name, sent);
      const entry = find(name);
      return "status" in made || entry === undefined
        ? (made as VaultAnswer)
        : { status: 200, body: bundle(entry, made, apiVersion, { value: true }) };
    }
    if (method === "PATCH") return patch(name, third, sent, apiVersion);
    if (method === "DELETE" && third === "") return remove(name, apiVersion);
    if (method !== "GET") return notAllowed(method);
    if (third === "versions") {
      const entry = find(name);
      const shown = entry !== undefined && phase(entry) === "live" ? entry.versions : [];
      const inOrder = [...shown].sort((a, b) => (a.id < b.id ? -1 : 1));
      return page(
        path,
        inOrder.map((version) => (entry === undefined ? null : bundle(entry, version, apiVersion))),
        query,
      );
    }
    const found = versionOf(name, third);
    if ("status" in found) return found;
    if (!found.version.attributes.enabled) return disabled();
    return { status: 200, body: bundle(found.entry, found.version, apiVersion, { value: true }) };
  };

  return {
    settings,
    handle,
    /** As somebody else would, with all rights. @throws when the vault refuses */
    put: (name: string, value: string, more: Omit<Sent, "value"> = {}): string => {
      const made = put(name, { ...more, value });
      if ("status" in made) throw new Error(JSON.stringify(made.body));
      return made.id;
    },
    /** All versions, oldest first. */
    versions: (name: string): readonly Version[] => find(name)?.versions ?? [],
    setEnabled: (name: string, id: string, enabled: boolean) =>
      void patch(name, id, { attributes: { enabled } }, "7.4"),
    remove: (name: string) => void remove(name, "7.4"),
    manage: (name: string) => Object.assign(find(name) ?? {}, { managed: true }),
  };
};
export type Vault = ReturnType<typeof makeVault>;

type Shown = { readonly value?: boolean; readonly deleted?: boolean; readonly bare?: boolean };
type Sent = {
  readonly value?: unknown;
  readonly contentType?: string;
  readonly attributes?: { readonly enabled?: boolean; readonly nbf?: number; readonly exp?: number };
  readonly tags?: Record<string, string>;
};

const BEING = "ObjectIsBeingDeleted";
export const failure = (status: number, code: string, message: string, inner?: string): VaultAnswer => ({
  status,
  body: { error: { code, message, ...(inner === undefined ? {} : { innererror: { code: inner } }) } },
});
const conflict = (message: string, inner: string): VaultAnswer => failure(409, "Conflict", message, inner);
const disabled = (): VaultAnswer =>
  failure(403, "Forbidden", "Operation get is not allowed on a disabled secret.", "SecretDisabled");
const notAllowed = (method: string): VaultAnswer =>
  failure(405, "MethodNotAllowed", `HTTP ${method} not allowed`);
const unknown = (name: string): VaultAnswer =>
  failure(
    404,
    "SecretNotFound",
    `A secret with (name/id) ${name} was not found in this key vault. If you recently deleted this secret you may be able ` +
      "to recover it using the correct recovery command. For help resolving this issue, please see " +
      "https://go.microsoft.com/fwlink/?linkid=2125182",
  );

const permissionOf = (method: string, room: string, name: string, third: string): Permission | null => {
  if (room === "deletedsecrets") {
    if (method === "POST") return "recover";
    return method === "DELETE" ? "purge" : name === "" ? "list" : "get";
  }
  if (method === "GET") return name === "" || third === "versions" ? "list" : "get";
  const others: Readonly<Record<string, Permission>> = { PUT: "set", PATCH: "update", DELETE: "delete" };
  return others[method] ?? null;
};

/** The three texts that people have quoted, ids blanked. */
const denied = (inner: string, permission: Permission, name: string): VaultAnswer => {
  const caller = "appid=APP-ID;oid=OBJECT-ID;iss=https://sts.windows.net/TENANT/";
  const actions: Readonly<Record<Permission, string>> = {
    get: "getSecret/action",
    list: "readMetadata/action",
    set: "setSecret/action",
    update: "update/action",
    delete: "delete",
    recover: "recover/action",
    purge: "purge/action",
  };
  const words: Readonly<Record<string, string>> = {
    ForbiddenByPolicy:
      `The user, group or application '${caller}' does not have secrets ${permission} permission on key vault ` +
      "'vault-name;location=westus2'. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287",
    ForbiddenByRbac:
      "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were " +
      `changed recently, please observe propagation time.\r\nCaller: ${caller}\r\nAction: ` +
      `'Microsoft.KeyVault/vaults/secrets/${actions[permission]}'\r\nResource: '/subscriptions/SUBSCRIPTION/resourcegroups/GROUP/` +
      `providers/microsoft.keyvault/vaults/vault-name/secrets/${name}'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\n` +
      "DecisionReason: 'DeniedWithNoValidRBAC' \r\nVault: vault-name;location=canadacentral\r\n",
    ForbiddenByFirewall:
      "Client address is not authorized and caller is not a trusted service.\r\nClient address: ADDRESS\r\n" +
      `Caller: ${caller}\r\nVault: vault-name;location=REGION`,
  };
  return failure(403, "Forbidden", words[inner] ?? "", inner);
};
