import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import { Decrypter, generateX25519Identity } from "age-encryption";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { kubernetesEscrow } from "../../src/io/escrow/kubernetes.ts";
import { escrowContract } from "../contract/escrow.ts";
import { type FakeKube, type KubeRequest, kubeServer } from "../kit/kube-server.ts";
import { findKey } from "../kit/leak.ts";
import { tempDir } from "../kit/provider-tools.ts";

const VENDOR = "vendor-words-that-nobody-may-see";
const WHERE = "imkit-rotator/imkit-rotator-escrow-chat-prod";
const FP = "00112233445566aa";
const OTHER = "ffeeddccbbaa9988";
const keyText = (): string => Buffer.from(randomBytes(32).toString("base64")).toString("base64");
const identity = await generateX25519Identity();

const places: { readonly kube: FakeKube; readonly dir: string; readonly remove: () => Promise<void> }[] = [];
const place = async () => {
  const { dir, remove } = await tempDir();
  const kube = await kubeServer();
  await writeFile(join(dir, "kubeconfig"), kube.kubeconfig());
  kube.put(WHERE, { data: {} });
  places.push({ kube, dir, remove });
  const open = (sealed: string | null) =>
    kubernetesEscrow({
      kubeconfig: "kubeconfig",
      namespace: "imkit-rotator",
      app: "chat-prod",
      identity: sealed === null ? null : async () => sealed,
      tools: { configDir: dir, env: { HOME: dir } },
      pause: async () => {},
    });
  return { kube, open };
};
afterEach(async () => {
  for (const { kube, remove } of places.splice(0)) {
    await kube.close();
    await remove();
  }
});

for (const [name, sealed] of [
  ["sealed with age", identity],
  ["as the cluster keeps it", null],
] as const)
  escrowContract(`a Secret, ${name}`, async () => {
    const { kube, open } = await place();
    return {
      escrow: open(sealed),
      again: () => open(sealed),
      damage: async (fp) => {
        const bytes = Buffer.from(dataIn(kube)[fp] ?? "", "base64");
        bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
        kube.put(WHERE, { data: { [fp]: bytes.toString("base64") } });
      },
    };
  });

const dataIn = (kube: FakeKube) =>
  (kube.secrets.get(WHERE) as { readonly data: Readonly<Record<string, string>> }).data;

let kube: FakeKube;
let open: Awaited<ReturnType<typeof place>>["open"];
const text = keyText();
beforeEach(async () => {
  ({ kube, open } = await place());
});
const patching = ({ method }: KubeRequest) => method === "PATCH";
const wordsOf = async (work: Promise<unknown>): Promise<string> => {
  const error: unknown = await work.then(
    () => null,
    (caught: unknown) => caught,
  );
  expect(error).toMatchObject({ code: "ESCROW_FAILED" });
  const words = `${inspect(error, { depth: 8, showHidden: true })} ${JSON.stringify(error)}`;
  expect(words).not.toContain(VENDOR);
  expect(findKey(words, text)).toEqual([]);
  return words;
};
const said = (status: number, reason: string, message = VENDOR, details = {}) =>
  ({ kind: "answer", status, body: { kind: "Status", reason, message, details, data: text } }) as const;

describe("what lies there", () => {
  test("sealed: the age format, which the library opens without us; the key is in no request", async () => {
    await open(identity).put(FP, new Secret(text));
    const blob = Buffer.from(dataIn(kube)[FP] ?? "", "base64");
    const decrypter = new Decrypter();
    decrypter.addIdentity(identity);
    expect(await decrypter.decrypt(blob, "text")).toBe(text);
    expect(findKey(kube.requests.map(({ body }) => body).join("\n"), text)).toEqual([]);
  });

  test("neighbours stay; it is changed under the version that was seen, by GET and PATCH of that one name", async () => {
    kube.put(WHERE, { data: { note: "a2VwdA==" } });
    const escrow = open(null);
    await escrow.put(FP, new Secret(text));
    await escrow.put(OTHER, new Secret(keyText()));
    await escrow.remove(FP);
    expect(Object.keys(dataIn(kube)).sort()).toEqual([OTHER, "note"]);
    expect(await escrow.list()).toEqual([OTHER]);
    const writes = kube.requests.filter(patching).map(({ body }) => JSON.parse(body) as { metadata: object });
    expect(writes.every(({ metadata }) => "resourceVersion" in metadata)).toBe(true);
    expect(new Set(kube.requests.map(({ method, path }) => `${method} ${path}`))).toEqual(
      new Set(
        ["GET", "PATCH"].map(
          (verb) => `${verb} /api/v1/namespaces/imkit-rotator/secrets/${WHERE.split("/")[1]}`,
        ),
      ),
    );
  });

  test("what was kept plainly is opened after an identity was set; sealed keys need theirs", async () => {
    await open(null).put(FP, new Secret(text));
    expect((await open(identity).get(FP))?.equals(new Secret(text))).toBe(true);
    await open(identity).put(OTHER, new Secret(text));
    expect(await wordsOf(open(null).get(OTHER))).toContain("escrow.identity is not set");
    expect(await wordsOf(open(await generateX25519Identity()).get(OTHER))).toContain(
      "another escrow identity",
    );
    expect(await open(null).list()).toEqual([FP, OTHER]);
  });

  test("two that keep a key at the same time both keep it", async () => {
    const keys = [FP, OTHER].map((fp) => ({ fp, key: new Secret(keyText()) }));
    await Promise.all(keys.map(async ({ fp, key }) => await open(null).put(fp, key)));
    for (const { fp, key } of keys) expect((await open(null).get(fp))?.equals(key)).toBe(true);
  });
});

describe("trouble", () => {
  test.each(["before", "after"] as const)(
    "an answer that is lost %s the change: the key is kept, once",
    async (when) => {
      let left = 1;
      kube.fault = (request) => (patching(request) && left-- > 0 ? { kind: "drop", when } : null);
      await open(identity).put(FP, new Secret(text));
      expect(await open(identity).list()).toEqual([FP]);
      expect(kube.requests.filter(patching)).toHaveLength(when === "after" ? 1 : 2);
    },
  );

  test("a write that the cluster swallows is no success", async () => {
    kube.fault = (request) =>
      patching(request) ? { kind: "answer", status: 200, body: kube.secrets.get(WHERE) } : null;
    expect(await wordsOf(open(identity).put(FP, new Secret(text)))).toContain(
      "does not hold what was written",
    );
    kube.fault = () => null;
    await open(null).put(FP, new Secret(text));
    kube.fault = (request) =>
      patching(request) ? { kind: "answer", status: 200, body: kube.secrets.get(WHERE) } : null;
    expect(await wordsOf(open(null).remove(FP))).toContain("cannot be removed");
  });

  test("no Secret: said with the way to make it, and never taken for an empty one", async () => {
    kube.secrets.delete(WHERE);
    const escrow = open(null);
    for (const work of [() => escrow.put(FP, new Secret(text)), () => escrow.get(FP), () => escrow.list()])
      expect(await wordsOf(work())).toContain(
        "kubectl -n imkit-rotator create secret generic imkit-rotator-escrow-chat-prod",
      );
    await open(null).remove(FP);
  });

  test.each([
    ["get", "AUTHZ"],
    ["patch", "AUTHZ"],
  ])("no right to %s", async (verb, code) => {
    kube.denied.add(verb);
    const words = await wordsOf(open(null).put(FP, new Secret(text)));
    expect(words).toContain(code);
    expect(words).toContain("deploy/policies/kubernetes-escrow.yaml");
  });

  test.each([
    ["AUTHN", said(401, "Unauthorized")],
    ["UNAVAILABLE", said(503, "ServiceUnavailable")],
    ["AUTHZ", said(403, "Forbidden", `admission webhook "x" denied the request: ${VENDOR}`)],
    ["TOO_LARGE", said(413, "RequestEntityTooLarge")],
    ["CONFLICT", said(409, "Conflict")],
  ])("%s, without the server's words", async (code, fault) => {
    kube.fault = (request) => (patching(request) ? fault : null);
    expect(await wordsOf(open(null).put(FP, new Secret(text)))).toContain(code);
  });

  test("an immutable Secret", async () => {
    kube.put(WHERE, { immutable: true });
    expect(await wordsOf(open(null).put(FP, new Secret(text)))).toContain("immutable");
  });
});

describe("preflight", () => {
  const checks = async (sealed: string | null = identity) =>
    ((await open(sealed).preflight?.(AbortSignal.timeout(10_000))) ?? []).map(({ id, status, code = "" }) =>
      `${id} ${status} ${code}`.trim(),
    );
  test("all is well; without an identity that is said", async () => {
    expect(await checks()).toEqual(["may-get ok", "may-patch ok", "secret ok", "sealed ok"]);
    expect(await checks(null)).toContain("sealed warn");
    expect(kube.requests.filter(patching)).toEqual([]);
  });
  test.each(["get", "patch"])("without %s", async (verb) => {
    kube.denied.add(verb);
    expect(await checks()).toContain(`may-${verb} fail AUTHZ`);
  });
  test("no Secret, an immutable one, no server", async () => {
    kube.put(WHERE, { immutable: true });
    expect(await checks()).toContain("secret fail IMMUTABLE");
    kube.secrets.delete(WHERE);
    expect(await checks()).toContain("secret fail NOT_FOUND");
    await kube.close();
    expect(await checks()).toEqual(["api-server fail UNAVAILABLE"]);
  });
});
