import { once } from "node:events";
import { createServer, type IncomingMessage, request as plain, type ServerResponse } from "node:http";
import { request as secure } from "node:https";
import type { AddressInfo } from "node:net";

/** One request as it passes. `path` with its query. */
export type Passing = {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
  /** Of the answer; null while there is none. */
  status: number | null;
};
export type Held = {
  /** Hands it over to the server now, however long ago it was sent. @returns the status of the answer, which nobody waits for any more */
  readonly release: () => Promise<number>;
};
export type Gate = {
  readonly url: string;
  /** What came by, in order. */
  readonly seen: readonly Passing[];
  /** Keeps the next request that fits: the server does not see it, and its sender waits. */
  readonly hold: (fits: (request: Passing) => boolean) => Promise<Held>;
  /** Cuts every connection while true. */
  down: boolean;
  readonly close: () => Promise<void>;
};

type Answer = {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly body: Buffer;
};

/** Stands before a server of somebody else's and passes everything on as it came, but for what is held. On a port of its own. */
export const gateTo = async (target: string, ca?: Buffer): Promise<Gate> => {
  const seen: Passing[] = [];
  let holding: { readonly fits: (request: Passing) => boolean; readonly took: (held: Held) => void } | null =
    null;

  const pass = async ({ method, path, headers, body }: Passing): Promise<Answer> => {
    const make = target.startsWith("https:") ? secure : plain;
    const { connection: _, ...kept } = headers;
    const call = make(`${target}${path}`, { method, headers: kept, ...(ca === undefined ? {} : { ca }) });
    call.end(body);
    const [answer] = (await once(call, "response")) as [IncomingMessage];
    return { status: answer.statusCode ?? 0, headers: answer.headers, body: await allOf(answer) };
  };

  const serve = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    const body = (await allOf(incoming)).toString("utf8");
    const { method = "", url: path = "", headers } = incoming;
    const request: Passing = { method, path, headers, body, status: null };
    seen.push(request);
    if (gate.down) return void outgoing.destroy();
    if (holding?.fits(request) === true) {
      const { took } = holding;
      holding = null;
      return took({ release: async () => (await pass(request)).status });
    }
    const answer = await pass(request);
    request.status = answer.status;
    const { "transfer-encoding": _, connection: __, ...kept } = answer.headers;
    outgoing.writeHead(answer.status, kept);
    outgoing.end(answer.body);
  };

  const server = createServer(
    (incoming, outgoing) => void serve(incoming, outgoing).catch(() => outgoing.destroy()),
  );
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const gate: Gate = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    down: false,
    hold: (fits) => {
      const { promise, resolve } = Promise.withResolvers<Held>();
      holding = { fits, took: resolve };
      return promise;
    },
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
  return gate;
};

const allOf = async (stream: AsyncIterable<Buffer>): Promise<Buffer> => {
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
};
