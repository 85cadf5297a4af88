import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { RotatorError } from "../../src/core/errors.ts";
import { verifyLedger } from "../../src/core/verify.ts";
import { kubernetesLedger } from "../../src/io/ledger/kubernetes.ts";
import { kubernetesPredecessor } from "../../src/io/ledger/kubernetes-successor.ts";
import { ledgerContract } from "../contract/ledger.ts";
import { type FakeKube, type KubeRequest, kubeServer, problem } from "../kit/kube-server.ts";
import { chainOf, STORY } from "../kit/ledger-story.ts";
import { tempDir } from "../kit/provider-tools.ts";

const VENDOR = "vendor-words-that-nobody-may-see";
const lines = chainOf(STORY);
const line = (seq: number): Uint8Array => lines[seq] ?? new Uint8Array();
const other = chainOf(STORY, { inst: "inst-2" });

const place = async () => {
  const { dir, remove } = await tempDir();
  const kube = await kubeServer();
  await writeFile(join(dir, "kubeconfig"), kube.kubeconfig());
  const options = (app = "chat-prod") => ({
    kubeconfig: "kubeconfig",
    namespace: "imkit-ledger",
    app,
    tools: { configDir: dir, env: { HOME: dir } },
    pause: async () => {},
  });
  const gone = async () => {
    await kube.close();
    await remove();
  };
  return { kube, options, gone };
};

ledgerContract("ConfigMaps", async () => {
  const { options, gone } = await place();
  return { open: () => kubernetesLedger(options()), gone };
});

let kube: FakeKube;
let options: Awaited<ReturnType<typeof place>>["options"];
let gone: () => Promise<void>;
beforeEach(async () => {
  ({ kube, options, gone } = await place());
});
afterEach(async () => await gone());

const open = (app?: string) => kubernetesLedger(options(app));
const fill = async (count = lines.length) => {
  for (const [seq, bytes] of lines.slice(0, count).entries()) await open().create(seq, bytes);
};
const nameOf = (seq: number, base = "imkit-ledger-chat-prod") =>
  `configmaps/imkit-ledger/${base}-${String(seq).padStart(8, "0")}`;
const failure = async (work: Promise<unknown>): Promise<RotatorError> => {
  const error = await work.then(
    () => new Error("it went well"),
    (caught: unknown) => caught,
  );
  if (!(error instanceof RotatorError)) throw error;
  expect(inspect(error, { depth: 8, showHidden: true })).not.toContain(VENDOR);
  expect(error.cause).toBeUndefined();
  return error;
};
const posting = ({ method, path }: KubeRequest) => method === "POST" && path.endsWith("/configmaps");
/** Each creation goes wrong in this way, `times` times. */
const breaking = (fault: ReturnType<FakeKube["fault"]>, times = Number.POSITIVE_INFINITY) => {
  let left = times;
  kube.fault = (request) => (posting(request) && left-- > 0 ? fault : null);
};
const said = (status: number, reason: string, message = VENDOR, details = {}) =>
  ({ kind: "answer", status, body: { kind: "Status", reason, message, details } }) as const;

describe("what is written", () => {
  test("an immutable ConfigMap for each entry, its bytes in binaryData, by POST and GET alone", async () => {
    await fill(2);
    expect(kube.others.get(nameOf(1))).toMatchObject({
      kind: "ConfigMap",
      immutable: true,
      binaryData: { "entry.json": Buffer.from(line(1)).toString("base64") },
      metadata: {
        labels: { "app.kubernetes.io/managed-by": "imkit-rotator", "imkit-rotator/app": "chat-prod" },
      },
    });
    await open().read(0);
    expect(new Set(kube.requests.map(({ method }) => method))).toEqual(new Set(["GET", "POST"]));
    expect(open().where).toBe("kubernetes:imkit-ledger/imkit-ledger-chat-prod");
  });

  test("names of apps never meet", async () => {
    await open("a").create(0, line(0));
    await open("a-00000000").create(0, other[0] ?? line(0));
    expect(await open("a").read(0)).toHaveLength(1);
    expect(await open("a-00000000").read(0)).toHaveLength(1);
    expect(await open("a").read(1)).toEqual([]);
  });

  test("no entry behind a gap: in a namespace that was emptied while we ran", async () => {
    const ledger = open();
    await ledger.create(0, line(0));
    kube.others.clear();
    expect(await failure(ledger.create(1, line(1)))).toMatchObject({
      code: "LEDGER_UNWRITABLE",
      why: expect.stringContaining("the one before, is gone"),
    });
  });
});

describe("a lost answer", () => {
  test.each(["before", "after"] as const)(
    "lost %s the change: the entry is there once, and is ours",
    async (when) => {
      breaking({ kind: "drop", when }, 1);
      expect(await open().create(0, line(0))).toBe("created");
      expect(kube.writes()).toBe(1);
    },
  );

  test("while another one wrote that entry: it is not ours", async () => {
    kube.fault = (request) => {
      if (!posting(request)) return null;
      kube.fault = () => null;
      const binaryData = { "entry.json": Buffer.from(other[0] ?? "").toString("base64") };
      kube.set("configmaps", nameOf(0).replace("configmaps/", ""), { immutable: true, binaryData });
      return { kind: "drop", when: "before" };
    };
    expect(await open().create(0, line(0))).toBe("exists");
  });

  test("an answer of 500 proves nothing; it is looked at again", async () => {
    breaking(said(500, "InternalError"), 2);
    expect(await open().create(0, line(0))).toBe("created");
  });

  test("for good: an error, and the next one to look finds what was written", async () => {
    breaking({ kind: "drop", when: "after" });
    kube.fault = (request) => (posting(request) ? { kind: "drop", when: "after" } : null);
    expect(await failure(open().create(0, line(0)))).toMatchObject({ code: "LEDGER_UNWRITABLE", exit: 1 });
    kube.fault = () => null;
    expect(await open().read(0)).toHaveLength(1);
    expect(await open().create(0, line(0))).toBe("exists");
  });

  test("what the cluster keeps is compared: a webhook that changes it is an error", async () => {
    kube.fault = (request) =>
      posting(request)
        ? {
            kind: "answer",
            status: 201,
            body: { kind: "ConfigMap", immutable: true, binaryData: { "entry.json": "eAo=" } },
          }
        : null;
    expect(await failure(open().create(0, line(0)))).toMatchObject({
      code: "LEDGER_UNWRITABLE",
      why: expect.stringContaining("VERIFY_MISMATCH"),
    });
  });
});

describe("refusals", () => {
  test("no right to create: said with the role that is missing; nothing is there", async () => {
    kube.denied.add("create");
    const error = await failure(open().create(0, line(0)));
    expect(error).toMatchObject({ code: "LEDGER_UNWRITABLE", why: expect.stringContaining("AUTHZ") });
    expect(error.do.join("\n")).toContain("deploy/policies/kubernetes-ledger.yaml");
    expect(error.do).toContain("kubectl -n imkit-ledger auth can-i create configmaps");
    expect(kube.others.size).toBe(0);
  });

  test("no right to get: nothing is taken for an empty ledger", async () => {
    await fill(1);
    kube.denied.add("get");
    expect((await failure(open().read(0))).code).toBe("LEDGER_UNWRITABLE");
    expect((await failure(open().create(1, line(1)))).code).toBe("LEDGER_UNWRITABLE");
  });

  test.each([
    ["a quota", said(403, "Forbidden", `exceeded quota: ${VENDOR}`), "QUOTA", "Raise the quota"],
    [
      "no such namespace",
      said(404, "NotFound", VENDOR, { kind: "namespaces", name: "x" }),
      "NOT_FOUND",
      "kubectl create namespace imkit-ledger",
    ],
    ["a login that ran out", said(401, "Unauthorized"), "AUTHN", "Log in again"],
    [
      "a policy",
      said(403, "Forbidden", `admission webhook "x" denied the request: ${VENDOR}`),
      "AUTHZ",
      "role",
    ],
    [
      "an API server that stays away",
      said(503, "ServiceUnavailable"),
      "UNAVAILABLE",
      "Run the same command again",
    ],
  ])("%s", async (_, fault, code, fix) => {
    breaking(fault);
    const error = await failure(open().create(0, line(0)));
    expect(error.why).toContain(code);
    expect(error.do.join("\n")).toContain(fix);
  });

  test("a bad moment passes: 429, 503, and a 409 that is no AlreadyExists", async () => {
    const faults = [said(429, "TooManyRequests"), said(503, "ServiceUnavailable"), said(409, "Conflict")];
    kube.fault = (request) => (posting(request) ? (faults.shift() ?? null) : null);
    expect(await open().create(0, line(0))).toBe("created");
    let left = 2;
    kube.fault = ({ method }) => (method === "GET" && left-- > 0 ? said(503, "ServiceUnavailable") : null);
    expect(await open().read(0)).toHaveLength(1);
  });

  test("a 404 that is not the API server's own word is no end of the ledger", async () => {
    await fill(3);
    kube.fault = ({ path }) =>
      path.endsWith("-00000002") ? { kind: "answer", status: 404, body: `<html>${VENDOR}</html>` } : null;
    expect((await failure(open().read(0))).code).toBe("LEDGER_UNWRITABLE");
  });
});

describe("what is read", () => {
  const data = (text: string) => ({ binaryData: { "entry.json": Buffer.from(text).toString("base64") } });
  test.each<[string, Record<string, unknown>, string]>([
    ["not immutable", { immutable: false }, "is not immutable"],
    ["without our data", { binaryData: null }, "none that this program wrote"],
    ["empty", data(""), "is empty"],
    ["torn", data("{"), "is torn"],
    ["too long", data(`${"x".repeat(16_384)}\n`), "is over 16 KiB"],
    ["no base64", { binaryData: { "entry.json": "@@@" } }, "is not base64"],
  ])("an entry that is %s breaks the ledger", async (_, change, why) => {
    await fill(3);
    kube.set("configmaps", "imkit-ledger/imkit-ledger-chat-prod-00000001", change);
    const error = await failure(open().read(0));
    expect(error).toMatchObject({ code: "LEDGER_BROKEN", why: expect.stringContaining(why) });
    expect(error.do).toContain("imkit-rotator adopt chat-prod --new-ledger");
  });

  test("an entry that was taken out is missed where later ones are near", async () => {
    await fill();
    kube.others.delete(nameOf(2));
    expect(await failure(open().read(0))).toMatchObject({
      code: "LEDGER_BROKEN",
      why: expect.stringContaining("imkit-ledger-chat-prod-00000002 is missing"),
    });
  });

  test("two that were written while we asked for the first are no gap", async () => {
    await fill(3);
    const name = "imkit-ledger-chat-prod-00000001";
    let isAsked = false;
    kube.fault = ({ path }) => {
      if (!path.endsWith(name) || isAsked) return null;
      isAsked = true;
      return { kind: "answer", ...problem(404, "NotFound", {}, { kind: "configmaps", name }) };
    };
    expect(await open().read(0)).toHaveLength(3);
    expect(isAsked).toBe(true);
  });
});

describe("a ledger that follows another one", () => {
  test("begins under names of its own; the old one stays, and whoever still writes to it is stopped", async () => {
    await fill();
    const late = open();
    await late.read(0);
    const predecessor = kubernetesPredecessor(options());
    expect(await predecessor.look()).toMatchObject({ place: "here", seqs: lines.map((_, seq) => seq) });
    expect(await predecessor.setAside("ab12")).toBe("imkit-ledger/imkit-ledger-chat-prod");
    expect(await failure(late.create(lines.length, line(0)))).toMatchObject({ code: "LEDGER_UNWRITABLE" });

    // Killed here: no other ledger begins by itself, and the work is gone on with.
    expect((await failure(open().read(0))).do).toEqual(["imkit-rotator adopt chat-prod --new-ledger"]);
    const again = kubernetesPredecessor(options());
    expect(await again.look()).toMatchObject({
      place: "aside",
      where: "kubernetes:imkit-ledger/imkit-ledger-chat-prod",
    });
    expect(await again.setAside("ab12")).toBeNull();
    expect(await again.ledger.read(0)).toEqual([]);
    expect(await again.ledger.create(0, other[0] ?? line(0))).toBe("created");

    expect(await open().read(0)).toEqual([Buffer.from(other[0] ?? "")]);
    expect(kube.others.has(nameOf(0, "imkit-ledger-chat-prod.2"))).toBe(true);
    expect(kube.others.has(nameOf(0))).toBe(true);
  });

  test("of two that begin one at the same time, one does", async () => {
    await fill(1);
    const rivals = [kubernetesPredecessor(options()), kubernetesPredecessor(options())];
    for (const one of rivals) await one.look();
    const ends = await Promise.allSettled(rivals.map(async (one) => await one.setAside(null)));
    expect(ends.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    expect(ends.find((end) => end.status === "rejected")?.reason).toMatchObject({ code: "LOCKED" });
  });

  test("what is left of a damaged one is shown with its numbers", async () => {
    await fill();
    kube.others.delete(nameOf(1));
    kube.set("configmaps", "imkit-ledger/imkit-ledger-chat-prod-00000002", { immutable: false });
    const look = await kubernetesPredecessor(options()).look();
    expect(look.seqs).toEqual(lines.map((_, seq) => seq).filter((seq) => seq !== 1));
    expect(look.lines[1]).toEqual(new Uint8Array());
    expect(verifyLedger(look.lines, { folder: true, seqs: look.seqs }).ok).toBe(false);
  });
});

describe("preflight", () => {
  const checks = async () =>
    ((await open().preflight?.(AbortSignal.timeout(10_000))) ?? []).map(({ id, status, code = "" }) =>
      `${id} ${status} ${code}`.trim(),
    );
  test("with the rights to create and get, and no others: all is well, and nothing is written", async () => {
    kube.denied.add("delete");
    expect(await checks()).toEqual(["may-create ok", "may-get ok", "dry-run ok", "append-only ok"]);
    expect(kube.others.size).toBe(0);
  });
  test("an identity that may delete is told so", async () => {
    expect((await checks()).at(-1)).toBe("append-only warn");
  });
  test.each(["create", "get"])("without %s", async (verb) => {
    kube.denied.add(verb);
    expect(await checks()).toContain(`may-${verb} fail AUTHZ`);
  });
  test("no namespace, no server", async () => {
    kube.namespaces = new Set();
    expect(await checks()).toContain("api-server fail NOT_FOUND");
    await kube.close();
    expect(await checks()).toEqual(["api-server fail UNAVAILABLE"]);
  });
});
