import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import kubernetes from "../../providers/stores/kubernetes-secret.ts";
import { ProviderError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Revision, Store, WriteOp } from "../../src/ports.ts";
import { type FakeKube, type KubeFault, kubeServer, problem } from "../kit/kube-server.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { tempDir, toolsIn } from "../kit/provider-tools.ts";

const WHERE = "chat/imkit-secrets";
const [oldKey, newKey] = [madeKey(), madeKey()];
const base64 = (text: string) => Buffer.from(text).toString("base64");
const soon = () => AbortSignal.timeout(10_000);
const op = (): WriteOp => ({
  id: "0123456789abcdef0123456789abcdef",
  witness: { ledger: "ledger-1", seq: 7, h16: "00112233aabbccdd" },
});

let kube: FakeKube;
let dir: string;
let remove: () => Promise<void>;
beforeEach(async () => {
  ({ dir, remove } = await tempDir());
  kube = await kubeServer();
  await writeFile(join(dir, "kubeconfig"), kube.kubeconfig());
  kube.put(WHERE, { data: { "api-key": base64(oldKey), other: "a2VwdA==" } });
});
afterEach(async () => {
  await kube.close();
  await remove();
});

type Options = Partial<Parameters<typeof kubernetes.open>[0]>;
const open = (options: Options = {}): Store => {
  const config = { kubeconfig: "kubeconfig", namespace: "chat", secret: "imkit-secrets", key: "api-key" };
  return kubernetes.open({ ...config, create: false, adopt: false, ...options }, toolsIn(dir).tools);
};
const revision = async (store: Store): Promise<Revision | null> =>
  (await store.read(soon()))?.revision ?? null;
const held = (): { metadata: Record<string, Record<string, string>>; data: Record<string, string> } =>
  kube.secrets.get(WHERE) as never;

/** The refusal, after a look that it shows neither key. */
const refusal = async (call: Promise<unknown>) => {
  const error = await call.then(
    () => null,
    (caught: unknown) => caught,
  );
  if (!(error instanceof ProviderError)) throw new Error("this call had to be refused, and was not");
  clean(error, error.stack, error.hint);
  expect(error.cause).toBeUndefined();
  return { code: error.code, outcome: error.outcome, hint: error.hint, retryAfterMs: error.retryAfterMs };
};
const clean = (...said: readonly unknown[]): void => {
  const text = said.map((one) => `${String(one)}${inspect(one, { depth: 8, showHidden: true })}`).join("\n");
  for (const key of [oldKey, newKey]) expect(findKey(text, key)).toEqual([]);
};
/** In all that fits `method`, this goes wrong. */
const breaking = (method: string, fault: KubeFault) => {
  kube.fault = (request) => (request.method === method && !request.dryRun ? fault : null);
};
const answering = (status: number, body: unknown, headers: Record<string, string> = {}): KubeFault => ({
  kind: "answer",
  status,
  body,
  headers,
});
/** What the real one says: a Status that quotes the object, old key and new. */
const status = (code: number, reason: string, details: Record<string, unknown> = {}, message?: string) => {
  const { body } = problem(
    code,
    reason,
    { data: { "api-key": base64(newKey), before: base64(oldKey) } },
    details,
  );
  return answering(code, message === undefined ? body : { ...body, message: `${message} ${newKey}` });
};

describe("what is written", () => {
  test("base64 exactly once, one entry, witness and op beside it, all else as it was", async () => {
    kube.put(WHERE, {
      metadata: { labels: { team: "chat" }, annotations: { note: "kept" } },
      type: "Opaque",
    });
    const before = structuredClone(held());
    const store = open();
    await store.write(new Secret(newKey), await revision(store), op(), soon());
    const after = held();
    expect(after.data).toEqual({ ...before.data, "api-key": base64(newKey) });
    expect(after.metadata["labels"]).toEqual({ team: "chat" });
    expect(after.metadata["annotations"]).toEqual({
      note: "kept",
      "imkit-rotator/ledger": "ledger-1 7 00112233aabbccdd",
      "imkit-rotator/op": "0123456789abcdef0123456789abcdef api-key",
    });
    expect((await store.read(soon()))?.witness).toEqual(op().witness);
  });

  test("a write without a ledger takes an older witness away", async () => {
    const store = open();
    await store.write(new Secret(newKey), await revision(store), op(), soon());
    await store.write(new Secret(oldKey), await revision(store), { ...op(), witness: null }, soon());
    expect((await store.read(soon()))?.witness).toBeNull();
  });

  test("the witness of another entry of the same Secret is not ours", async () => {
    const store = open();
    await open({ key: "other" }).write(new Secret(newKey), await revision(store), op(), soon());
    expect((await store.read(soon()))?.witness).toBeNull();
    expect((await open({ key: "other" }).read(soon()))?.witness).toEqual(op().witness);
  });

  test("an empty entry counts as absent and is filled", async () => {
    kube.put(WHERE, { data: { "api-key": "" } });
    const store = open();
    expect(await store.read(soon())).toBeNull();
    await store.write(new Secret(newKey), null, op(), soon());
    expect(held().data["api-key"]).toBe(base64(newKey));
  });

  test("a Secret that is not there is made only with create: true", async () => {
    const [without, making] = [open({ secret: "fresh" }), open({ secret: "fresh", create: true })];
    expect(await refusal(without.read(soon()))).toMatchObject({ code: "NOT_FOUND", outcome: "not_applied" });
    expect(await refusal(without.write(new Secret(newKey), null, op(), soon()))).toMatchObject({
      code: "NOT_FOUND",
      outcome: "not_applied",
    });
    expect(await making.read(soon())).toBeNull();
    expect((await making.preflight(soon())).map(({ id, status: said }) => `${id} ${said}`)).toEqual([
      "may-get ok",
      "may-patch ok",
      "may-create ok",
      "secret ok",
    ]);
    const made = await making.write(new Secret(newKey), null, op(), soon());
    expect(await making.read(soon())).toMatchObject({ revision: made, witness: op().witness });
    expect(kube.secrets.get("chat/fresh")).toMatchObject({
      type: "Opaque",
      data: { "api-key": base64(newKey) },
    });
  });
});

describe("what is read", () => {
  test("one character of sixty differs, as in a published sample: seen as another value", async () => {
    const at34 = `${oldKey.slice(0, 34)}${oldKey[34] === "p" ? "F" : "p"}${oldKey.slice(35)}`;
    kube.put(WHERE, { data: { "api-key": base64(at34) } });
    const found = await open().read(soon());
    expect(found?.secret.equals(new Secret(at34))).toBe(true);
    expect(found?.secret.equals(new Secret(oldKey))).toBe(false);
  });

  test.each([
    ["a line break at its end", `${oldKey}\n`],
    ["base64 of base64", base64(oldKey)],
    ["blanks around it", ` ${oldKey} `],
  ])("%s makes another value", async (_, text) => {
    kube.put(WHERE, { data: { "api-key": base64(text) } });
    const found = await open().read(soon());
    expect(found?.secret.equals(new Secret(text))).toBe(true);
    expect(found?.secret.equals(new Secret(oldKey))).toBe(false);
  });

  test("bytes that are no text stay what they are", async () => {
    const bytes = Buffer.from([0xff, 0xfe, 0x00, 0x80]);
    kube.put(WHERE, { data: { "api-key": bytes.toString("base64") } });
    expect((await open().read(soon()))?.secret.equals(new Secret(bytes))).toBe(true);
  });

  test.each([
    ["not base64", "!!!not base64!!!"],
    ["base64 without its end", base64(oldKey).slice(0, -1)],
    ["the other alphabet", "__--"],
    ["a number", 5],
    ["an object", { toString: oldKey }],
  ])("%s in an answer is no value", async (_, value) => {
    kube.put(WHERE, { data: { "api-key": value } });
    expect(await refusal(open().read(soon()))).toMatchObject({ code: "UNAVAILABLE", outcome: "not_applied" });
  });

  test("a name that every object inherits is no entry", async () => {
    expect(await open({ key: "constructor" }).read(soon())).toBeNull();
    expect(await open({ key: "__proto__" }).read(soon())).toBeNull();
  });

  test.each([
    ["a proxy's page", answering(404, "<html>404</html>")],
    ["another object", status(404, "NotFound", { kind: "secrets", name: "another" })],
    ["a path that is not served", status(404, "NotFound")],
    ["an empty answer", answering(200, "")],
    ["another kind", answering(200, { kind: "ConfigMap", metadata: { resourceVersion: "1" } })],
  ])("absence is not proven by %s", async (_, fault) => {
    breaking("GET", fault);
    const { outcome, code } = await refusal(open({ create: true }).read(soon()));
    expect(outcome).toBe("not_applied");
    expect(["UNAVAILABLE", "NOT_FOUND", "CONFIG"]).toContain(code);
  });
});

describe("trouble", () => {
  const table: readonly (readonly [name: string, fault: KubeFault, code: string, outcome: string])[] = [
    ["a stale resourceVersion", status(409, "Conflict"), "CONFLICT", "not_applied"],
    ["a login that ran out", status(401, "Unauthorized"), "AUTHN", "not_applied"],
    ["a missing right", status(403, "Forbidden"), "AUTHZ", "not_applied"],
    ["a quota", status(403, "Forbidden", {}, "exceeded quota: q"), "QUOTA", "not_applied"],
    [
      "a namespace that goes",
      status(403, "Forbidden", { causes: [{ reason: "NamespaceTerminating", message: newKey }] }),
      "NOT_FOUND",
      "not_applied",
    ],
    ["a webhook", status(400, "", {}, 'admission webhook "x" denied the request:'), "AUTHZ", "not_applied"],
    [
      "a policy",
      status(422, "Invalid", {}, "ValidatingAdmissionPolicy 'p' denied request:"),
      "AUTHZ",
      "not_applied",
    ],
    [
      "an immutable Secret",
      status(422, "Invalid", {
        causes: [{ field: "data", message: "field is immutable when `immutable` is set" }],
      }),
      "IMMUTABLE",
      "not_applied",
    ],
    [
      "over 1 MiB",
      status(422, "Invalid", { causes: [{ reason: "FieldValueTooLong", field: "data" }] }),
      "TOO_LARGE",
      "not_applied",
    ],
    [
      "a bad name",
      status(422, "Invalid", { causes: [{ reason: "FieldValueInvalid", field: "data[x y]" }] }),
      "NAME",
      "not_applied",
    ],
    ["what is invalid otherwise", status(422, "Invalid", { causes: [] }), "CONFIG", "not_applied"],
    ["a body over its limit", status(413, "RequestEntityTooLarge"), "TOO_LARGE", "not_applied"],
    ["too many requests", answering(429, "slow down"), "THROTTLED", "not_applied"],
    ["a failing server", status(500, "InternalError"), "UNAVAILABLE", "unknown"],
    [
      "a failing KMS",
      status(500, "InternalError", {}, "Internal error occurred: failed to encrypt"),
      "KMS",
      "unknown",
    ],
    ["a slow etcd", status(504, "Timeout"), "TIMEOUT", "unknown"],
    ["a load balancer", answering(503, `<html>${newKey}</html>`), "UNAVAILABLE", "unknown"],
    ["a firewall", answering(403, `<html>${newKey}</html>`), "UNAVAILABLE", "unknown"],
    ["a page in place of success", answering(200, `<html>${newKey}</html>`), "UNAVAILABLE", "unknown"],
    ["a line that breaks before", { kind: "drop", when: "before" }, "UNAVAILABLE", "unknown"],
    ["a line that breaks after", { kind: "drop", when: "after" }, "UNAVAILABLE", "unknown"],
  ];
  test.each(table)("%s: a write says what it knows, and no key", async (_, fault, code, outcome) => {
    const store = open();
    const at = await revision(store);
    breaking("PATCH", fault);
    expect(await refusal(store.write(new Secret(newKey), at, op(), soon()))).toMatchObject({ code, outcome });
  });

  test.each(table)("%s: a read never says absent, and never unknown", async (_, fault) => {
    breaking("GET", fault);
    expect((await refusal(open({ create: true }).read(soon()))).outcome).toBe("not_applied");
  });

  test.each(table)("%s: a preflight says no, and no key", async (_, fault) => {
    breaking("GET", fault);
    const checks = await open().preflight(soon());
    clean(...checks);
    expect(checks.some(({ status: said, code }) => said === "fail" && code !== undefined)).toBe(true);
  });

  test("a value that the cluster changed on its way in is not taken for ours", async () => {
    const store = open();
    const at = await revision(store);
    breaking(
      "PATCH",
      answering(200, { kind: "Secret", metadata: { resourceVersion: "9" }, data: { "api-key": "eA==" } }),
    );
    expect(await refusal(store.write(new Secret(newKey), at, op(), soon()))).toMatchObject({
      code: "VERIFY_MISMATCH",
      outcome: "unknown",
    });
  });

  test("a lost answer is followed by the same op: one write, whether it had been made or not", async () => {
    for (const when of ["before", "after"] as const) {
      kube.put(WHERE, { data: { "api-key": base64(oldKey) } });
      const store = open();
      const [at, count] = [await revision(store), kube.writes()];
      breaking("PATCH", { kind: "drop", when });
      expect((await refusal(store.write(new Secret(newKey), at, op(), soon()))).outcome).toBe("unknown");
      kube.fault = () => null;
      const made = when === "after";
      expect((await store.read(soon()))?.secret.equals(new Secret(made ? newKey : oldKey))).toBe(true);
      await store.write(new Secret(newKey), at, op(), soon());
      expect(held().data["api-key"]).toBe(base64(newKey));
      expect(kube.writes()).toBe(count + 1);
    }
  });

  test("what changes between look and write is not overwritten", async () => {
    const store = open();
    const at = await revision(store);
    kube.fault = ({ method }) => {
      if (method === "PATCH") kube.put(WHERE, { metadata: { labels: { moved: "yes" } } });
      return null;
    };
    expect(await refusal(store.write(new Secret(newKey), at, op(), soon()))).toMatchObject({
      code: "CONFLICT",
      outcome: "not_applied",
    });
    expect(held().data["api-key"]).toBe(base64(oldKey));
  });

  test("a made Secret that somebody else made first is a conflict", async () => {
    const store = open({ secret: "fresh", create: true });
    kube.fault = ({ method }) => {
      if (method === "POST") kube.put("chat/fresh", { data: {} });
      return null;
    };
    expect(await refusal(store.write(new Secret(newKey), null, op(), soon()))).toMatchObject({
      code: "CONFLICT",
      outcome: "not_applied",
    });
  });

  test.each([
    ["header", {}, { "retry-after": "7" }, 7_000],
    ["body", { kind: "Status", details: { retryAfterSeconds: 3 } }, {}, 3_000],
    ["a century", {}, { "retry-after": "3153600000" }, 3_600_000],
    ["a date", {}, { "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT" }, null],
  ])("how long to wait is told: %s", async (_, body, headers, retryAfterMs) => {
    breaking("GET", answering(429, body, headers));
    expect(await refusal(open().read(soon()))).toMatchObject({ code: "THROTTLED", retryAfterMs });
  });

  test("a redirect is not followed", async () => {
    const store = open();
    const at = await revision(store);
    breaking(
      "PATCH",
      answering(307, "", { location: `${kube.url}/api/v1/namespaces/chat/secrets/imkit-secrets` }),
    );
    const seen = kube.requests.length;
    expect((await refusal(store.write(new Secret(newKey), at, op(), soon()))).outcome).toBe("unknown");
    expect(kube.requests.slice(seen).map(({ method }) => method)).toEqual(["GET", "PATCH"]);
  });

  test("an endless answer is cut", async () => {
    breaking("GET", answering(200, { kind: "Secret", padding: "x".repeat(5 * 1024 * 1024) }));
    expect(await refusal(open().read(soon()))).toMatchObject({ code: "TOO_LARGE", outcome: "not_applied" });
  });

  test("a server that never answers: given up within a second of the signal, each way", async () => {
    const store = open();
    const at = await revision(store);
    breaking("GET", { kind: "hang" });
    expect(await refusal(store.read(AbortSignal.timeout(50)))).toMatchObject({
      code: "TIMEOUT",
      outcome: "not_applied",
    });
    expect((await store.preflight(AbortSignal.timeout(50))).map(({ code }) => code)).toEqual(["TIMEOUT"]);
    breaking("PATCH", { kind: "hang" });
    const began = performance.now();
    const call = store.write(new Secret(newKey), at, op(), AbortSignal.timeout(200));
    expect(await refusal(call)).toMatchObject({ code: "TIMEOUT", outcome: "unknown" });
    expect(performance.now() - began).toBeLessThan(1_200);
  });

  test("nobody there: not applied", async () => {
    const store = open();
    const at = await revision(store);
    await kube.close();
    expect(await refusal(store.write(new Secret(newKey), at, op(), soon()))).toMatchObject({
      code: "UNAVAILABLE",
      outcome: "not_applied",
    });
  });
});

describe("whose Secret it is", () => {
  const signs: readonly (readonly [string, Record<string, unknown>])[] = [
    ["External Secrets", { labels: { "reconcile.external-secrets.io/managed": "true" } }],
    ["External Secrets", { annotations: { "reconcile.external-secrets.io/data-hash": "1" } }],
    ["Argo CD", { annotations: { "argocd.argoproj.io/tracking-id": "a:/Secret:chat/imkit" } }],
    ["Argo CD", { labels: { "argocd.argoproj.io/instance": "chat" } }],
    ["Helm", { labels: { "app.kubernetes.io/managed-by": "Helm" } }],
    ["Helm", { annotations: { "meta.helm.sh/release-name": "chat" } }],
    ["Flux", { labels: { "kustomize.toolkit.fluxcd.io/name": "chat" } }],
    ["Flux", { labels: { "helm.toolkit.fluxcd.io/name": "chat" } }],
    ["Sealed Secrets", { annotations: { "sealedsecrets.bitnami.com/managed": "true" } }],
    ["a SealedSecret", { ownerReferences: [{ kind: "SealedSecret", name: "x", uid: "1" }] }],
    ["another object", { ownerReferences: [{ kind: oldKey }] }],
  ];
  test.each(signs)("%s: refused, and written with adopt: true", async (owner, metadata) => {
    kube.put(WHERE, { metadata });
    const store = open();
    const at = await revision(store);
    const { code, outcome, hint } = await refusal(store.write(new Secret(newKey), at, op(), soon()));
    expect([code, outcome]).toEqual(["NOT_OWNED", "not_applied"]);
    expect(hint).toContain(owner);
    const checks = await store.preflight(soon());
    clean(...checks);
    expect(checks.find(({ id }) => id === "secret")).toMatchObject({ status: "fail", code: "NOT_OWNED" });
    expect(held().data["api-key"]).toBe(base64(oldKey));
    const adopting = open({ adopt: true });
    expect((await adopting.preflight(soon())).every(({ status: said }) => said === "ok")).toBe(true);
    await adopting.write(new Secret(newKey), at, op(), soon());
    expect(held().data["api-key"]).toBe(base64(newKey));
  });

  test("the key that is there already may stay, whoever owns it", async () => {
    kube.put(WHERE, { metadata: { labels: { "app.kubernetes.io/managed-by": "Helm" } } });
    const store = open();
    expect(await store.write(new Secret(oldKey), null, op(), soon())).toBe(await revision(store));
  });

  test("an immutable or vanishing Secret is refused with a way out", async () => {
    kube.put(WHERE, { metadata: { deletionTimestamp: "2026-01-01T00:00:00Z" } });
    expect((await refusal(open().write(new Secret(newKey), await revision(open()), op(), soon()))).code).toBe(
      "NOT_FOUND",
    );
    kube.put(WHERE, { metadata: { deletionTimestamp: null }, immutable: true });
    const store = open({ adopt: true });
    expect(await refusal(store.write(new Secret(newKey), await revision(store), op(), soon()))).toMatchObject(
      {
        code: "IMMUTABLE",
        outcome: "not_applied",
        hint: expect.stringContaining("another name"),
      },
    );
    expect((await store.preflight(soon())).find(({ id }) => id === "secret")).toMatchObject({
      code: "IMMUTABLE",
    });
  });
});

describe("preflight", () => {
  test("asks for each right by name, and shows what to paste", async () => {
    for (const verb of ["get", "patch", "create"]) {
      kube.denied.clear();
      kube.denied.add(verb);
      const checks = await open({ context: "prod", create: true }).preflight(soon());
      const failed = checks.filter(({ status: said }) => said === "fail");
      expect(failed.map(({ id, code }) => [id, code])).toEqual([[`may-${verb}`, "AUTHZ"]]);
      expect(failed[0]?.fix).toContain(`kubectl --context 'prod' -n chat create role`);
    }
  });

  test("asks for get and patch of that very name; a right to create has none", async () => {
    await open({ create: true }).preflight(soon());
    const asked = kube.requests
      .filter(({ path }) => path.includes("selfsubject"))
      .map(
        ({ body }) => (JSON.parse(body) as { spec: { resourceAttributes: unknown } }).spec.resourceAttributes,
      );
    const attributes = { group: "", version: "v1", resource: "secrets", namespace: "chat" };
    expect(new Set(asked)).toEqual(
      new Set([
        { ...attributes, verb: "get", name: "imkit-secrets" },
        { ...attributes, verb: "patch", name: "imkit-secrets" },
        { ...attributes, verb: "create" },
      ]),
    );
  });

  test("without an answer to that, it is unproved", async () => {
    kube.fault = ({ path }) => (path.includes("selfsubject") ? status(403, "Forbidden") : null);
    const checks = await open().preflight(soon());
    expect(checks.filter(({ status: said }) => said === "unproved").map(({ id }) => id)).toEqual([
      "may-get",
      "may-patch",
    ]);
  });

  test("a policy that would refuse the write is found before it, by a dry run that changes nothing", async () => {
    const count = kube.writes();
    kube.fault = ({ dryRun }) =>
      dryRun ? status(400, "", {}, 'admission webhook "x" denied the request:') : null;
    const checks = await open().preflight(soon());
    clean(...checks);
    expect(checks.find(({ id }) => id === "dry-run")).toMatchObject({ status: "fail", code: "AUTHZ" });
    kube.fault = ({ dryRun }) =>
      dryRun ? status(400, "BadRequest", {}, "webhook does not support dry run") : null;
    expect((await open().preflight(soon())).find(({ id }) => id === "dry-run")).toMatchObject({
      status: "warn",
    });
    expect(kube.writes()).toBe(count);
  });

  test("says what is odd: white space at the end, a manifest that holds an old key", async () => {
    const annotations = { "kubectl.kubernetes.io/last-applied-configuration": base64(oldKey) };
    kube.put(WHERE, { metadata: { annotations }, data: { "api-key": base64(`${oldKey}\n`) } });
    const checks = await open().preflight(soon());
    clean(...checks);
    expect(checks.filter(({ status: said }) => said === "warn").map(({ id }) => id)).toEqual([
      "value",
      "last-applied",
    ]);
  });
});
