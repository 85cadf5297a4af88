import { chmod, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { expect, it } from "vitest";
import exec from "../../providers/rollouts/exec.ts";
import kubernetes from "../../providers/rollouts/kubernetes.ts";
import manual from "../../providers/rollouts/manual.ts";
import none from "../../providers/rollouts/none.ts";
import webhook from "../../providers/rollouts/webhook.ts";
import { kubeServer } from "../kit/kube-server.ts";
import { tempDir, toolsIn } from "../kit/provider-tools.ts";
import { rolloutContract, VENDOR_TEXT } from "./rollout.ts";

const bench = { it, expect };

rolloutContract({
  ...bench,
  name: "exec",
  how: "auto",
  open: async () => {
    const { dir, remove } = await tempDir();
    const script = `#!/bin/sh
[ -e broken ] && { echo ${VENDOR_TEXT}; echo ${VENDOR_TEXT} >&2; exit 7; }
echo "$IMKIT_ROTATOR_APP $IMKIT_ROTATOR_ROTATION $IMKIT_ROTATOR_FINGERPRINT" >> seen
`;
    await writeFile(join(dir, "restart.sh"), script);
    await chmod(join(dir, "restart.sh"), 0o755);
    return {
      rollout: exec.open({ command: ["./restart.sh"], timeout: "10s" }, toolsIn(dir).tools),
      seen: async () =>
        (await readFile(join(dir, "seen"), "utf8").catch(() => "")).split("\n").filter((line) => line !== ""),
      breakIt: async () => await writeFile(join(dir, "broken"), ""),
      close: remove,
    };
  },
});

rolloutContract({
  ...bench,
  name: "webhook",
  how: "auto",
  open: async () => {
    const seen: string[] = [];
    let status = 204;
    const server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        seen.push(Buffer.concat(chunks).toString());
        response.writeHead(status, { "x-why": VENDOR_TEXT }).end(status === 204 ? undefined : VENDOR_TEXT);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const config = {
      url: `http://127.0.0.1:${port}/restart`,
      secret: { valueFrom: { env: "HOOK" } },
      timeout: "5s",
    };
    return {
      rollout: webhook.open(config, toolsIn("/").tools),
      seen: async () => seen,
      breakIt: async () => {
        status = 400;
      },
      close: async () => {
        server.closeAllConnections();
        await new Promise((resolve) => server.close(resolve));
      },
    };
  },
});

rolloutContract({
  ...bench,
  name: "kubernetes",
  how: "auto",
  open: async () => {
    const { dir, remove } = await tempDir();
    const kube = await kubeServer();
    kube.set("deployments", "chat/api", {
      spec: { replicas: 2, template: { metadata: { labels: { app: "api" } } } },
      status: { observedGeneration: 1, replicas: 2, updatedReplicas: 2, availableReplicas: 2 },
    });
    await writeFile(join(dir, "kubeconfig"), kube.kubeconfig());
    const config = {
      kubeconfig: "kubeconfig",
      namespace: "chat",
      workloads: ["deployment/api"],
      timeout: "5m",
    };
    return {
      rollout: kubernetes.open(config, toolsIn(dir).tools),
      seen: async () =>
        kube.requests.filter(({ method, dryRun }) => method === "PATCH" && !dryRun).map(({ body }) => body),
      breakIt: async () => {
        const body = { kind: "Status", reason: "Invalid", message: VENDOR_TEXT, details: { name: "api" } };
        kube.fault = ({ method }) => (method === "PATCH" ? { kind: "answer", status: 422, body } : null);
      },
      close: async () => {
        await kube.close();
        await remove();
      },
    };
  },
});

rolloutContract({
  ...bench,
  name: "manual",
  how: "manual",
  open: async () => ({
    rollout: manual.open({ instructions: "Restart the chat servers." }, toolsIn("/").tools),
  }),
});

rolloutContract({
  ...bench,
  name: "none",
  how: "none",
  open: async () => ({ rollout: none.open({ reason: "reads the file on each call" }, toolsIn("/").tools) }),
});
