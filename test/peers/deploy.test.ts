import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { afterAll, beforeAll, describe, expect, inject, it, test } from "vitest";
import {
  documentsOf,
  kustomize,
  type Manifest,
  OVERLAYS,
  overlayDir,
  podOf,
  rotatorOf,
} from "../deploy/manifests.ts";
import { findKey } from "../kit/leak.ts";
import { jsonLines, lastJson } from "../kit/world.ts";
import { rightsTests } from "./deploy/rights.ts";
import { type Deploy, openDeploy } from "./deploy/world.ts";
import { kubernetes } from "./kubernetes.ts";

/** deploy/kubernetes on a real API server: what is applied, what it lets the rotator do, what its pods do. */
const base64 = (text: string) => Buffer.from(text).toString("base64");
const resultsOf = (stdout: string) => jsonLines(stdout).filter(({ type }) => type === "result");

let world: Deploy;
beforeAll(async () => void (world = await openDeploy(kubernetes(inject("kubernetes")))));
afterAll(async () => await world.close());

describe("the manifests", () => {
  it.each(OVERLAYS)("%s: kubectl makes of it what our own reading does", (overlay) => {
    const theirs = documentsOf(world.must(["kustomize", overlayDir(overlay)]));
    const hash = /^imkit-rotator-config-[0-9a-z]{10}$/;
    const plain = (m: Manifest): unknown => {
      const { labels, name, ...metadata } = m.metadata;
      const { "app.kubernetes.io/part-of": _, ...others } = labels ?? {};
      const text = JSON.stringify({
        ...m,
        metadata: {
          ...metadata,
          name: name.replace(hash, "imkit-rotator-config"),
          ...(Object.keys(others).length > 0 ? { labels: others } : {}),
        },
      });
      return JSON.parse(text.replaceAll(/imkit-rotator-config-[0-9a-z]{10}/g, "imkit-rotator-config"));
    };
    const sorted = (all: readonly Manifest[]) =>
      all
        .map(plain)
        .toSorted((a, b) =>
          JSON.stringify([
            (a as Manifest).kind,
            (a as Manifest).metadata.namespace,
            (a as Manifest).metadata.name,
          ]) <
          JSON.stringify([
            (b as Manifest).kind,
            (b as Manifest).metadata.namespace,
            (b as Manifest).metadata.name,
          ])
            ? -1
            : 1,
        );
    expect(sorted(theirs)).toEqual(sorted(kustomize(overlayDir(overlay))));
  });

  it("are let in without a warning, and are the same when they are applied again; a pod that is laxer is not", () => {
    const said = world.printed.join("");
    expect(said).not.toMatch(/warning/i);
    for (const overlay of OVERLAYS)
      expect(
        world
          .apply(overlay)
          .split("\n")
          .filter((line) => line !== "" && !line.endsWith(" unchanged")),
      ).toEqual([]);
    const pod = podOf(
      documentsOf(world.must(["kustomize", overlayDir("emergency")])).find(
        ({ kind }) => kind === "Job",
      ) as Manifest,
    );
    const lax = {
      ...pod,
      containers: pod?.containers.map((c) => ({
        ...c,
        securityContext: { ...c.securityContext, allowPrivilegeEscalation: true },
      })),
    };
    const one = (name: string, spec: unknown) =>
      JSON.stringify({ apiVersion: "v1", kind: "Pod", metadata: { name, namespace: "imkit-rotator" }, spec });
    expect(world.kubectl(["apply", "--dry-run=server", "-f", "-"], one("as-it-is", pod)).status).toBe(0);
    expect(world.kubectl(["apply", "--dry-run=server", "-f", "-"], one("lax", lax))).toMatchObject({
      status: 1,
      said: expect.stringContaining("violates PodSecurity"),
    });
  });
});

rightsTests(() => world);

/** The next four build on one another: one app's life in a cluster, with kubectl as the only tool of a person. */
describe("what the pods run", () => {
  it("the CronJob's tick: adopts, and with nothing to do exits 0; doctor finds all rights, a ledger, and keys that rest sealed", async () => {
    const pod = await world.asPod("cronjob");
    const first = await pod.run();
    expect([first.code, lastJson(first.stdout)], first.stderr).toMatchObject([
      0,
      { type: "summary", exitCode: 0, apps: [{ app: "chat-prod", status: "nothing" }] },
    ]);
    const doctor = await pod.run({ args: ["doctor", "--json"] });
    const { ok, checks } = JSON.parse(doctor.stdout) as {
      readonly ok: boolean;
      readonly checks: readonly { readonly id: string; readonly status: string }[];
    };
    expect([doctor.code, ok, checks.filter(({ status }) => status !== "ok")]).toEqual([0, true, []]);
    expect(checks.map(({ id }) => id)).toEqual(expect.arrayContaining(["ledger", "escrow.sealed", "intake"]));
    expect(await world.dataOf("imkit-rotator", "imkit-rotator-escrow-chat-prod")).toEqual({});
  });

  it("a key laid into the inbox with kubectl, as the page says: the tick takes it, four pods are made again; the wait for a person ends in exit 0", async () => {
    const key = world.issue();
    world.lay(key);
    const tick = await (await world.asPod("cronjob")).run();
    const [result] = resultsOf(tick.stdout);
    expect([tick.code, result], tick.stderr).toMatchObject([
      0,
      {
        status: "waiting",
        stores: [{ state: "written" }],
        workloads: [{ name: "api", state: "done", proof: 1 }],
      },
    ]);
    expect((await world.dataOf("chat", "imkit-secrets"))["api-key"]).toBe(base64(key));
    expect(await world.dataOf("chat", "imkit-key-inbox")).toEqual({});
    const kept = Object.values(await world.dataOf("imkit-rotator", "imkit-rotator-escrow-chat-prod"));
    // The old key and the new one, which only the identity opens.
    expect(kept).toHaveLength(2);
    for (const one of kept)
      expect(Buffer.from(one, "base64").toString("latin1")).toMatch(/^age-encryption\.org\//);
    const { items } = JSON.parse(world.must(["-n", "chat", "get", "pods", "-o", "json"])) as {
      readonly items: readonly {
        readonly metadata: { readonly annotations?: Readonly<Record<string, string>> };
      }[];
    };
    expect(
      items.filter(
        ({ metadata }) => metadata.annotations?.["imkit-rotator/rotation"] === result?.["rotation"],
      ),
    ).toHaveLength(4);
  }, 240_000);

  it("the daemon: once the old key is revoked it proves it dead and closes; SIGTERM ends it with 143", async () => {
    world.sandbox.revoke(1);
    const daemon = await (await world.asPod("daemon")).run({ on: /"msg":"done"[^]*\n/ });
    expect([daemon.code, daemon.stderr]).toEqual([143, ""]);
    expect(await world.dataOf("imkit-rotator", "imkit-rotator-escrow-chat-prod")).toEqual({});
  });

  it("the emergency Job: stopped while it waits it ends with 143; the next one goes on, takes the key from the inbox, and ends with 0", async () => {
    const stopped = await (await world.asPod("emergency")).run({ on: /waiting/ });
    expect(stopped.code, stopped.stderr).toBe(143);
    const fresh = world.issue();
    world.lay(fresh);
    world.sandbox.revoke(2);
    const pod = await world.asPod("emergency");
    const ended = await pod.run();
    const result = resultsOf(ended.stdout).at(-1);
    expect([ended.code, result], ended.stderr).toMatchObject([0, { status: "done", exitCode: 0 }]);
    expect(existsSync(String(result?.["report"]))).toBe(true);
    expect(dirname(String(result?.["report"]))).toContain("/var/lib/imkit-rotator/");
    expect((await world.dataOf("chat", "imkit-secrets"))["api-key"]).toBe(base64(fresh));
  }, 120_000);

  it("the emergency Job once more: nobody comes, 3; a store that cannot be written, 1; that mended, 0", async () => {
    const pod = await world.asPod("emergency");
    const { container } = rotatorOf(kustomize(overlayDir("emergency")));
    const current = lastJson((await pod.run({ args: ["status", "--json"] })).stdout)["apps"] as readonly [
      { readonly fingerprint: string },
    ];
    const job = container.args.map((word) => (word === "--wait=4h" ? "--wait=2s" : word));
    const alone = await pod.run({ args: [...job, "--leaked", current[0].fingerprint] });
    expect(alone.code, alone.stderr).toBe(3);
    world.must(["-n", "chat", "delete", "secret", "imkit-secrets"]);
    const fresh = world.issue();
    world.lay(fresh);
    world.sandbox.revoke(3);
    const failed = await pod.run({ args: job });
    expect([failed.code, resultsOf(failed.stdout).at(-1)], failed.stderr).toMatchObject([
      1,
      { stores: [{ state: "failed", code: "NOT_FOUND" }] },
    ]);
    world.must(["-n", "chat", "create", "secret", "generic", "imkit-secrets"]);
    const mended = await pod.run();
    expect([mended.code, resultsOf(mended.stdout).at(-1)], mended.stderr).toMatchObject([
      0,
      { status: "done" },
    ]);
    expect((await world.dataOf("chat", "imkit-secrets"))["api-key"]).toBe(base64(fresh));
  }, 240_000);

  test("no key is in anything that was printed, nor in an object of the cluster that is no Secret", () => {
    const all =
      world.printed.join("") +
      world.must(["get", "configmaps,deployments,pods,events,jobs,cronjobs", "-A", "-o", "json"]);
    for (const key of [world.sandbox.firstKey(), world.identity, ...world.issued])
      expect(findKey(all, key)).toEqual([]);
  });
});
