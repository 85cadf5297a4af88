import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export type Received = {
  readonly type: string;
  readonly id: string;
  readonly data: Readonly<Record<string, unknown>>;
};

/** A webhook on this machine that keeps what it is told. */
export const hookReceiver = async () => {
  const got: Received[] = [];
  const bodies: string[] = [];
  const kept = { status: 200 };
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      const body = Buffer.concat(parts).toString();
      bodies.push(body);
      const { type, id, data } = JSON.parse(body) as Received;
      if (kept.status < 300) got.push({ type: type.replace("imkit-rotator.", ""), id, data });
      response.writeHead(kept.status).end();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`;
  return Object.assign(kept, {
    url,
    /** Lines for the end of a config. */
    config: `notify: [{ type: webhook, url: "${url}", on: ["*"] }]`,
    /** What it answered with yes. */
    got,
    bodies,
    types: () => got.map((one) => one.type),
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  });
};
