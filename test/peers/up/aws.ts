import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { answers, freePort, pythonWith, type Running, startPeer } from "./peer.ts";

declare module "vitest" {
  interface ProvidedContext {
    readonly aws: { readonly moto: string; readonly ministack: string };
  }
}

const MOTO = "5.2.5";
const MINISTACK = "1.5.33";

/** Two servers of AWS's protocol that we did not write. */
export default async (project: TestProject): Promise<() => Promise<void>> => {
  const dir = await mkdtemp(join(tmpdir(), "imkit-rotator-peers-aws-"));
  const started: Running[] = [];
  const down = async (): Promise<void> => {
    await Promise.all(started.map(({ stop }) => stop()));
    await rm(dir, { recursive: true, force: true });
  };
  const start = async (name: string, command: readonly string[], env: NodeJS.ProcessEnv, url: string) =>
    started.push(
      await startPeer(name, dir, command, { ...process.env, ...env, HOME: dir }, () => answers(url)),
    );
  try {
    const [motoPython, ministackPython] = [
      await pythonWith(`moto-${MOTO}`, `moto[server]==${MOTO}`),
      await pythonWith(`ministack-${MINISTACK}`, `ministack==${MINISTACK}`),
    ];
    const [motoPort, ministackPort] = [await freePort(), await freePort()];
    const [moto, ministack] = [`http://127.0.0.1:${motoPort}`, `http://127.0.0.1:${ministackPort}`];
    await Promise.all([
      start(
        "moto",
        [motoPython, "-m", "moto.server", "-H", "127.0.0.1", "-p", `${motoPort}`],
        {},
        `${moto}/moto-api/data.json`,
      ),
      // Its own command would bind every interface.
      start(
        "ministack",
        [ministackPython, "-m", "hypercorn", "ministack.app:app", "-b", `127.0.0.1:${ministackPort}`],
        { GATEWAY_PORT: `${ministackPort}`, LOG_LEVEL: "WARNING", SERVICES: "secretsmanager,sts,iam" },
        `${ministack}/_ministack/health`,
      ),
    ]);
    project.provide("aws", { moto, ministack });
    return down;
  } catch (error) {
    await down();
    throw error;
  }
};
