import { once } from "node:events";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import type { Clock } from "../../src/ports.ts";

/** Answers one request on its socket; may do anything a hostile server can. */
export type Script = (socket: Socket, request: string) => void;

export type RawServer = {
  readonly url: string;
  readonly port: number;
  /** The heads of all requests, as they came. */
  readonly requests: readonly string[];
  /** Sockets that are still open. */
  readonly open: () => number;
  readonly close: () => Promise<void>;
};

/** A TCP server on a free loopback port that hands every request head to `script`. `make` puts something else in front, say TLS. */
export const rawServer = async (
  script: Script,
  make: (onSocket: (socket: Socket) => void) => Server = createServer,
): Promise<RawServer> => {
  const sockets = new Set<Socket>();
  const requests: string[] = [];
  const server = make((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    let head = "";
    socket.on("data", (chunk) => {
      head += chunk.toString("latin1");
      if (!head.includes("\r\n\r\n")) return;
      requests.push(head);
      const request = head;
      head = "";
      script(socket, request);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    requests,
    open: () => sockets.size,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
};

/** The key that a request carries. */
export const keyOf = (request: string): string => /^im-api-key: (.*)$/im.exec(request)?.[1]?.trim() ?? "";

export const OK = '{"RC":0,"RM":"OK","result":{"count":128}}';
export const NO = '{"error":"INVALID_API_KEY","message":"The provided API key is invalid or expired"}';
export const NO_ENVELOPE = '{"RC":401,"RM":"Unauthorized","error":{"code":"INVALID_API_KEY","message":"no"}}';

/** A whole HTTP answer. `more` are header lines; one of a default's name replaces the default, a transfer-coding the length. */
export const http = (status: string, body: string | Buffer, more: readonly string[] = []): Buffer => {
  const lines = ["Content-Type: application/json", `Content-Length: ${Buffer.byteLength(body)}`, ...more];
  const names = lines.map((line) => line.split(":")[0]?.toLowerCase());
  const own = names.slice(2);
  if (own.includes("transfer-encoding")) own.push("content-length");
  const kept = lines.filter((_, at) => at >= 2 || !own.includes(names[at]));
  const head = `HTTP/1.1 ${status}\r\n${kept.map((line) => `${line}\r\n`).join("")}\r\n`;
  return Buffer.concat([Buffer.from(head, "latin1"), Buffer.from(body)]);
};

/** The real clock; the client's own timeouts are real time, too. */
export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve();
      });
    }),
};

export const never = (): AbortSignal => new AbortController().signal;
