import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { failure, makeVault, type Vault, type VaultAnswer, type VaultRequest } from "./vault.ts";

/** What goes wrong with one request, after the login. `after`: it has taken effect, and the answer is lost or another one. */
export type Fault = {
  readonly when?: "before" | "after";
  /** `drop`: the connection is cut. `hang`: no answer until the end. */
  readonly how: "drop" | "hang" | Answered;
};
type Answered = {
  readonly status: number;
  readonly text: string;
  readonly headers?: Readonly<Record<string, string>>;
};

export type VaultServer = {
  readonly url: string;
  /** The authority that signed for it, PEM, in a file. */
  readonly caFile: string;
  readonly token: string;
  readonly vault: Vault;
  /** Every request that came with a token, in order. */
  readonly seen: readonly VaultRequest[];
  /** Requests without a token, each of which was challenged. */
  readonly challenged: () => number;
  /** Tokens that its own authority was asked for. */
  readonly logins: () => number;
  /** Asked before every request that has a token. */
  fault: (request: VaultRequest) => Fault | null;
  /** Another day: what is under way moves on. */
  readonly advance: (ms: number) => void;
  readonly setTime: (ms: number) => void;
  readonly close: () => Promise<void>;
};

/** The one client that its authority knows. */
export const LOGIN = { tenant: "TENANT", client: "client-id", secret: "stand-in-secret" };

export type ServerOptions = {
  /** Ahead of the ids in the answers; its own address by default. */
  readonly baseUrl?: string;
  readonly newId?: () => string;
  /** What the challenge asks a login for. */
  readonly resource?: string;
};

/** Key Vault over HTTPS on a port of its own, with an authority made for this start. `close` takes all of it away. */
export const startVault = async (options: ServerOptions = {}): Promise<VaultServer> => {
  const dir = mkdtempSync(join(tmpdir(), "imkit-rotator-vault-"));
  const token = "stand-in-token";
  let [shift, fixed, challenged, logins] = [0, null as number | null, 0, 0];
  const now = (): number => (fixed ?? Date.now()) + shift;
  const sockets = new Set<{ destroy(): void }>();
  const seen: VaultRequest[] = [];
  const own = { url: "" };
  const vault = makeVault({
    baseUrl: () => options.baseUrl ?? own.url,
    now,
    ...(options.newId === undefined ? {} : { newId: options.newId }),
  });

  const answer = (res: ServerResponse, { status, body }: VaultAnswer, more: Record<string, string> = {}) => {
    const text = body === null ? "" : JSON.stringify(body);
    res.writeHead(status, {
      ...(body === null ? {} : { "content-type": "application/json; charset=utf-8" }),
      "x-ms-keyvault-service-version": "1.9.538.1",
      "x-ms-request-id": "00000000-0000-0000-0000-000000000000",
      date: new Date(now()).toUTCString(),
      ...more,
    });
    res.end(text);
  };
  const challenge = (res: ServerResponse, message: string) =>
    answer(res, failure(401, "Unauthorized", message), {
      "www-authenticate": `Bearer authorization="https://login.windows.net/TENANT", resource="${options.resource ?? "https://vault.azure.net"}"`,
    });

  /** As much of a login authority as a client with a secret needs. */
  const login = (res: ServerResponse, path: string, form: URLSearchParams): void => {
    const at = `${own.url}/TENANT`;
    const known = {
      token_endpoint: `${at}/oauth2/v2.0/token`,
      authorization_endpoint: `${at}/authorize`,
      jwks_uri: `${at}/keys`,
      issuer: `${at}/v2.0`,
    };
    if (path.endsWith("/openid-configuration")) return answer(res, { status: 200, body: known });
    logins += 1;
    if (form.get("client_secret") === LOGIN.secret)
      return answer(res, {
        status: 200,
        body: { token_type: "Bearer", expires_in: 3_600, access_token: token },
      });
    const error_description = `AADSTS7000215: Invalid client secret provided: ${form.get("client_secret")}`;
    answer(res, { status: 401, body: { error: "invalid_client", error_description } });
  };

  const serve = async (req: IncomingMessage, res: ServerResponse): Promise<void> => {
    const parts: Buffer[] = [];
    for await (const part of req) parts.push(part as Buffer);
    const text = Buffer.concat(parts).toString("utf8");
    const { pathname, searchParams } = new URL(req.url ?? "/", own.url);
    if (/^\/tenant\//i.test(pathname)) return login(res, pathname, new URLSearchParams(text));
    const { authorization } = req.headers;
    if (authorization === undefined) {
      challenged += 1;
      return challenge(res, "AKV10000: Request is missing a Bearer or PoP token.");
    }
    if (authorization !== `Bearer ${server.token}`) {
      const words =
        "Expected one of https://sts.windows.net/TENANT/, found https://sts.windows.net/OTHER-TENANT/.";
      return challenge(res, `AKV10032: Invalid issuer. ${words}`);
    }
    const request: VaultRequest = {
      method: req.method ?? "",
      path: pathname,
      query: Object.fromEntries(searchParams),
      body: parsed(text),
    };
    seen.push(request);
    const fault = server.fault(request);
    const done = fault === null || fault.when === "after" ? vault.handle(request) : null;
    if (fault === null) return answer(res, done ?? failure(500, "", ""));
    if (fault.how === "hang") return;
    if (fault.how === "drop") return void req.socket.destroy();
    res.writeHead(fault.how.status, { "content-type": "text/html", ...fault.how.headers });
    res.end(fault.how.text);
  };

  const https = createServer(certificate(dir), (req, res) => void serve(req, res).catch(() => res.destroy()));
  https.on("secureConnection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => https.listen(0, "127.0.0.1", resolve));
  own.url = `https://127.0.0.1:${(https.address() as AddressInfo).port}`;

  const server: VaultServer = {
    url: own.url,
    caFile: join(dir, "ca.pem"),
    token,
    vault,
    seen,
    challenged: () => challenged,
    logins: () => logins,
    fault: () => null,
    advance: (ms) => void (shift += ms),
    setTime: (ms) => {
      [fixed, shift] = [ms, 0];
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => void https.close(() => resolve()));
      rmSync(dir, { recursive: true, force: true });
    },
  };
  return server;
};

const parsed = (text: string): unknown => {
  try {
    return text === "" ? null : JSON.parse(text);
  } catch {
    return text;
  }
};

/** An authority and a server certificate that it signed: Python's client takes no server that is its own authority. */
const certificate = (dir: string): { readonly key: Buffer; readonly cert: Buffer } => {
  const run = (words: string): void =>
    void execFileSync("openssl", words.split(" "), { cwd: dir, stdio: "ignore" });
  const made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
  run(`${made} -keyout ca.key -out ca.pem -subj /CN=stand-in`);
  const server = "-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
  run(`${made} -CA ca.pem -CAkey ca.key -keyout server.key -out server.pem -subj /CN=127.0.0.1 ${server}`);
  return { key: readFileSync(join(dir, "server.key")), cert: readFileSync(join(dir, "server.pem")) };
};
