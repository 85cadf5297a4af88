import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { runToEnd } from "./peer.ts";

/** Paths and login of the running API server, as `kubernetes.sh` writes them. */
export type KubernetesPeer = {
  readonly server: string;
  readonly caFile: string;
  readonly adminToken: string;
  readonly clientCert: string;
  readonly clientKey: string;
  /** The server's audit log, one JSON object a line, without bodies. */
  readonly audit: string;
  readonly version: string;
};
declare module "vitest" {
  interface ProvidedContext {
    readonly kubernetes: KubernetesPeer;
  }
}

const SCRIPT = join(import.meta.dirname, "kubernetes.sh");

/** A real API server with RBAC on, its controllers and scheduler, and nodes without machines. Built first where it is not in the cache yet, which takes minutes. */
export default async (project: TestProject): Promise<() => Promise<void>> => {
  const dir = await mkdtemp(join(tmpdir(), "imkit-rotator-peers-kubernetes-"));
  const args = ["start", dir, "--controllers", "--owner", String(process.pid)];
  const starting = spawn("bash", [SCRIPT, ...args], { stdio: ["ignore", "inherit", "inherit"] });
  const [status] = (await once(starting, "exit")) as [number | null];
  if (status !== 0)
    throw new Error(`the peer kubernetes did not start; its words are above, its logs in ${dir}`);
  project.provide("kubernetes", JSON.parse(await readFile(join(dir, "peer.json"), "utf8")) as KubernetesPeer);
  return async () => {
    await runToEnd("bash", [SCRIPT, "stop", dir]);
    await rm(dir, { recursive: true, force: true });
  };
};
