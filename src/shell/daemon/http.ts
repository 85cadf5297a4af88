import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { RotatorError } from "../../core/errors.ts";

export type Pages = {
  /** Reasons why it is not ready; none = it is. */
  readonly unready: () => readonly string[];
  readonly metrics: () => Promise<{ readonly type: string; readonly body: string }>;
};
export type Listening = {
  readonly address: string;
  readonly port: number;
  readonly close: () => Promise<void>;
};

type Answer = { readonly status: number; readonly type: string; readonly body: string };
const TEXT = "text/plain; charset=utf-8";
const JSON_TYPE = "application/json; charset=utf-8";

const answerTo = async (method: string, path: string, pages: Pages): Promise<Answer> => {
  if (method !== "GET" && method !== "HEAD") return { status: 405, type: TEXT, body: "GET or HEAD only\n" };
  switch (path) {
    case "/healthz":
      return { status: 200, type: TEXT, body: "ok\n" };
    case "/readyz": {
      const why = pages.unready();
      const body = `${JSON.stringify({ ready: why.length === 0, why })}\n`;
      return { status: why.length === 0 ? 200 : 503, type: JSON_TYPE, body };
    }
    case "/metrics":
      return { status: 200, ...(await pages.metrics()) };
    default:
      return { status: 404, type: TEXT, body: "/healthz /readyz /metrics\n" };
  }
};

/**
 * Three pages that can be read and nothing else: a request changes nothing, and its body is never read.
 * @throws RotatorError CONFIG_INVALID where the address cannot be listened on
 */
export const listen = async (host: string, port: number, pages: Pages): Promise<Listening> => {
  const server = createServer({ maxHeaderSize: 16_384, requireHostHeader: true }, (request, response) => {
    const path = (request.url ?? "").split("?")[0] ?? "";
    const send = ({ status, type, body }: Answer): void => {
      response.writeHead(status, {
        "content-type": type,
        "content-length": Buffer.byteLength(body),
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        ...(status === 405 ? { allow: "GET, HEAD" } : {}),
        ...(request.method === "GET" || request.method === "HEAD" ? {} : { connection: "close" }),
      });
      response.end(request.method === "HEAD" ? undefined : body);
    };
    answerTo(request.method ?? "", path, pages).then(send, () =>
      send({ status: 500, type: TEXT, body: "no answer\n" }),
    );
  });
  server.headersTimeout = 5_000;
  server.requestTimeout = 10_000;
  server.keepAliveTimeout = 5_000;
  server.maxConnections = 64;
  await opened(server, host, port);
  const at = server.address() as AddressInfo;
  return {
    address: at.address,
    port: at.port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
};

const opened = (server: Server, host: string, port: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const fail = (error: NodeJS.ErrnoException): void => {
      const why = /^E[A-Z]+$/.test(error.code ?? "") ? ` (${error.code})` : "";
      const what = "The address of serve.listen cannot be listened on.";
      const text =
        error.code === "EADDRINUSE" ? "Another program, or another daemon, listens there" : "It was refused";
      reject(
        new RotatorError("CONFIG_INVALID", {
          what,
          why: `${text}${why}.`,
          do: ["Name another address in serve.listen."],
        }),
      );
    };
    server.once("error", fail);
    server.listen({ host, port }, () => {
      server.off("error", fail);
      server.on("error", () => {});
      resolve();
    });
  });
