import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openKube } from "../providers/kubernetes.ts";
import { kubernetesLedger } from "../src/io/ledger/kubernetes.ts";
import { chainOf, STORY } from "../test/kit/ledger-story.ts";
import { bind, LEDGER } from "../test/peers/kubernetes-role.ts";
import { kubernetes } from "../test/peers/kubernetes.ts";
import type { KubernetesPeer } from "../test/peers/up/kubernetes.ts";
import { runToEnd } from "../test/peers/up/peer.ts";
import type { Row } from "./four-stores.ts";

const SCRIPT = join(import.meta.dirname, "..", "test", "peers", "up", "kubernetes.sh");
const ENTRIES = 300;

/** An entry of the ledger in a cluster against one request that creates a ConfigMap of that size, over the same connection, in turns. */
export const kubernetesAppend = async (folder: string): Promise<Row> => {
  const peerDir = join(folder, "kubernetes-peer");
  mkdirSync(peerDir);
  await runToEnd("bash", [SCRIPT, "start", peerDir, "--owner", String(process.pid)]);
  try {
    const kube = kubernetes(JSON.parse(readFileSync(join(peerDir, "peer.json"), "utf8")) as KubernetesPeer);
    const namespace = await kube.namespace();
    await bind(kube, namespace, LEDGER);
    const kubeconfig = join(folder, "kubeconfig");
    writeFileSync(kubeconfig, kube.kubeconfig({ token: await kube.tokenOf(namespace) }));
    const tools = { configDir: folder, env: { HOME: folder } };
    const ledger = kubernetesLedger({ kubeconfig, namespace, app: "bench", tools });
    const raw = openKube({ kubeconfig }, tools);
    const line = chainOf(STORY)[1] ?? new Uint8Array();
    const create = async (name: string): Promise<void> => {
      const body = {
        metadata: { name },
        immutable: true,
        binaryData: { "entry.json": Buffer.from(line).toString("base64") },
      };
      const path = `/api/v1/namespaces/${namespace}/configmaps`;
      const { status } = await raw.call({ method: "POST", path, body }, AbortSignal.timeout(10_000));
      if (status !== 201) throw new Error(`HTTP ${status}`);
    };
    const [ours, floor]: [number[], number[]] = [[], []];
    await ledger.read(0);
    for (let seq = 0; seq < ENTRIES; seq++) {
      const start = performance.now();
      await ledger.create(seq, line);
      const between = performance.now();
      await create(`raw-${seq}`);
      if (seq < 20) continue;
      ours.push(between - start);
      floor.push(performance.now() - between);
    }
    return {
      name: "ledger append in Kubernetes / one raw create of a ConfigMap",
      ours,
      floor,
      target: 2,
      note: "ours asks beside it, at the same time, for the entry before and for a ledger in its place",
    };
  } finally {
    await runToEnd("bash", [SCRIPT, "stop", peerDir]);
  }
};
