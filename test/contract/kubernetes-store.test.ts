import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import kubernetes from "../../providers/stores/kubernetes-secret.ts";
import { kubeServer } from "../kit/kube-server.ts";
import { tempDir, toolsIn } from "../kit/provider-tools.ts";
import { storeContract } from "./store.ts";

const WHERE = "chat/imkit-secrets";

storeContract({
  it,
  expect,
  name: "kubernetes-secret",
  open: async () => {
    const { dir, remove } = await tempDir();
    const kube = await kubeServer();
    kube.put(WHERE, {
      metadata: { labels: { team: "chat" }, annotations: { note: "kept" } },
      data: { "client-key": "bm90LW91cnM=" },
      type: "Opaque",
    });
    await writeFile(join(dir, "kubeconfig"), kube.kubeconfig());
    const config = { kubeconfig: "kubeconfig", namespace: "chat", secret: "imkit-secrets", key: "api-key" };
    return {
      store: kubernetes.open({ ...config, create: false, adopt: false }, toolsIn(dir).tools),
      put: async (secret) =>
        kube.put(WHERE, { data: { "api-key": Buffer.from(secret.reveal()).toString("base64") } }),
      breakIt: kube.close,
      neighbours: async () => neighboursOf(kube.secrets.get(WHERE)),
      writes: async () => kube.writes(),
      close: async () => {
        await kube.close();
        await remove();
      },
    };
  },
});

/** All of it but our entry, our annotations and the version. */
const neighboursOf = (object: unknown): string =>
  JSON.stringify(object, (name, value: unknown) =>
    name === "resourceVersion" || name === "api-key" || name.startsWith("imkit-rotator/") ? undefined : value,
  );
