import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type LookupFunction } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import tls from "node:tls";
import { inspect } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { checkBaseUrl, type ImkitOptions, imkitPlatform } from "../../src/io/imkit.ts";
import type { Probe } from "../../src/ports.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { http, never, OK, type RawServer, rawServer, realClock, type Script } from "./imkit-server.ts";

const TIMEOUTS = { connect: 400, headers: 400, total: 900 };
const sends =
  (bytes: string | Buffer): Script =>
  (socket) =>
    socket.end(bytes);

const ask = async (baseUrl: string, more: Partial<ImkitOptions> = {}): Promise<Probe> => {
  const key = madeKey();
  const platform = imkitPlatform({ baseUrl, clock: realClock, timeouts: TIMEOUTS, ...more });
  const probe = await platform.probe(new Secret(key), { urgent: true }, never());
  const told = [probe, platform].map((value) => inspect(value, { depth: Infinity, showHidden: true }));
  expect(findKey(`${told.join()}${JSON.stringify(probe)}`, key)).toEqual([]);
  return probe;
};

/** A little certificate authority in a folder. `days` < 0 makes a certificate that ran out. */
const certificates = (dir: string) => {
  const at = (name: string): string => join(dir, name);
  const openssl = (...args: string[]): void =>
    void execFileSync("openssl", args, { cwd: dir, stdio: "ignore" });
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const load = (name: string) => ({
    key: readFileSync(at(`${name}.key`)),
    cert: readFileSync(at(`${name}.pem`)),
  });
  openssl("req", "-x509", ...ec, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA", "-days", "2");
  openssl(
    "req",
    "-x509",
    ...ec,
    "-keyout",
    "self.key",
    "-out",
    "self.pem",
    "-subj",
    "/CN=127.0.0.1",
    "-days",
    "2",
    "-addext",
    "subjectAltName=IP:127.0.0.1",
  );
  const issue = (name: string, san: string, days: string) => {
    writeFileSync(at(`${name}.ext`), `subjectAltName=${san}\n`);
    openssl("req", "-new", ...ec, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", "/CN=server");
    openssl(
      "x509",
      "-req",
      "-in",
      `${name}.csr`,
      "-CA",
      "ca.pem",
      "-CAkey",
      "ca.key",
      "-CAcreateserial",
      "-out",
      `${name}.pem`,
      "-days",
      days,
      "-extfile",
      `${name}.ext`,
    );
    return load(name);
  };
  return {
    ca: readFileSync(at("ca.pem"), "utf8"),
    good: issue("good", "IP:127.0.0.1,DNS:app.example", "2"),
    wrongName: issue("wrong", "DNS:other.example,IP:127.0.0.2", "2"),
    expired: issue("expired", "IP:127.0.0.1", "-1"),
    selfSigned: load("self"),
  };
};

let dir: string;
let made: ReturnType<typeof certificates>;
let systemCas: string[];
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "imkit-tls-"));
  made = certificates(dir);
  systemCas = tls.getCACertificates("default");
  tls.setDefaultCACertificates([made.ca]);
});
afterAll(() => {
  tls.setDefaultCACertificates(systemCas);
  rmSync(dir, { recursive: true });
});

const tlsServer = (options: tls.TlsOptions, script: Script = sends(http("200 OK", OK))): Promise<RawServer> =>
  rawServer(script, (onSocket) => tls.createServer(options, onSocket).on("tlsClientError", () => {}));

describe("TLS", () => {
  const old = { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" } as const;
  test.each<[string, () => tls.TlsOptions, string]>([
    ["self-signed", () => made.selfSigned, "TLS certificate not trusted"],
    ["for another name", () => made.wrongName, "TLS certificate is for another host"],
    ["expired", () => made.expired, "TLS certificate expired"],
    ["an old protocol", () => ({ ...made.good, ...old }), "no common TLS version or a broken handshake"],
  ])("unclear and no key sent: %s", async (_, options, why) => {
    const server = await tlsServer(options());
    const probe = await ask(`https://127.0.0.1:${server.port}`);
    expect(probe).toMatchObject({ verdict: "unclear", status: null, why });
    expect(server.requests).toEqual([]);
    await server.close();
  });

  test("a good certificate is accepted, by address and by name", async () => {
    const server = await tlsServer(made.good);
    const toUs: LookupFunction = (_, options, done) =>
      options.all ? done(null, [{ address: "127.0.0.1", family: 4 }]) : done(null, "127.0.0.1", 4);
    expect((await ask(`https://127.0.0.1:${server.port}`)).verdict).toBe("accepted");
    expect((await ask(`https://app.example:${server.port}`, { lookup: toUs })).verdict).toBe("accepted");
    expect((await ask(`https://else.example:${server.port}`, { lookup: toUs })).why).toBe(
      "TLS certificate is for another host",
    );
    await server.close();
  });

  test.each<[string, Script, string]>([
    ["a plain HTTP server", sends(http("200 OK", OK)), "no common TLS version or a broken handshake"],
    ["a reset in the handshake", (socket) => socket.resetAndDestroy(), "connection broken off"],
    ["silence in the handshake", () => {}, "no connection within 0.4 s"],
  ])("unclear: %s", async (_, script, why) => {
    // The ClientHello has no blank line, so the script is started by the connection itself.
    const server = await rawServer(script, (onSocket) =>
      createServer((socket) => {
        onSocket(socket);
        socket.once("data", () => script(socket, ""));
      }),
    );
    expect(await ask(`https://127.0.0.1:${server.port}`)).toMatchObject({
      verdict: "unclear",
      status: null,
      why,
    });
    await server.close();
  });
});

describe("the key goes to one host only", () => {
  let trap: RawServer;
  beforeAll(async () => {
    trap = await rawServer(sends(http("200 OK", OK)));
  });
  afterAll(() => trap.close());

  const statuses = [300, 301, 302, 303, 305, 307, 308];
  const targets = (port: number): string[] => [
    `http://127.0.0.1:${port}/`,
    `http://127.0.0.2:${port}/`,
    `http://localhost:${port}/admin/connection-count`,
    `//127.0.0.1:${port}/`,
    `http://user:pass@127.0.0.1:${port}/`,
  ];

  test.each(statuses)(
    "%i to another host, another port, from https down to http: nobody else hears of it",
    async (status) => {
      for (const target of targets(trap.port)) {
        const more = [
          `Location: ${target}`,
          `Refresh: 0; url=${target}`,
          `Content-Location: ${target}`,
          `Alt-Svc: h2="127.0.0.1:${trap.port}"`,
        ];
        const script = sends(http(`${status} Moved`, OK, more));
        const [plain, secure] = await Promise.all([rawServer(script), tlsServer(made.good, script)]);
        for (const url of [plain.url, `https://127.0.0.1:${secure.port}`]) {
          expect(await ask(url)).toMatchObject({
            verdict: "unclear",
            status,
            why: expect.stringContaining("redirect"),
          });
        }
        expect([plain.requests.length, secure.requests.length]).toEqual([1, 1]);
        await Promise.all([plain.close(), secure.close()]);
      }
      expect(trap.requests).toEqual([]);
    },
  );
});

describe("addresses that no key is sent to", () => {
  const finds =
    (...addresses: string[]): LookupFunction =>
    (_, options, done) => {
      const all = addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));
      return options.all ? done(null, all) : done(null, all[0]?.address ?? "", all[0]?.family);
    };
  const refused = "the host name leads to an address that no key is sent to";

  test.each([
    ["169.254.169.254"],
    ["169.254.170.2"],
    ["::ffff:169.254.169.254"],
    ["fe80::1"],
    ["fd00:ec2::254"],
    ["100.100.100.200"],
    ["64:ff9b::a9fe:a9fe"],
    ["0.0.0.0"],
    ["::"],
    ["93.184.216.34", "169.254.169.254"],
    ["not an address"],
    [],
  ])("a name that leads to %o %o", async (...found) => {
    expect(await ask("https://app.example", { lookup: finds(...found) })).toMatchObject({
      verdict: "unclear",
      why: refused,
    });
  });

  test("a name that flips between two calls is caught at the second", async () => {
    const server = await tlsServer(made.good);
    const answers = ["127.0.0.1", "169.254.169.254"];
    const flip: LookupFunction = (name, options, done) => finds(answers.shift() ?? "")(name, options, done);
    const platform = imkitPlatform({
      baseUrl: `https://app.example:${server.port}`,
      clock: realClock,
      timeouts: TIMEOUTS,
      lookup: flip,
    });
    const probe = () => platform.probe(new Secret(madeKey()), { urgent: true }, never());
    expect((await probe()).verdict).toBe("accepted");
    expect((await probe()).why).toBe(refused);
    await server.close();
  });

  test("plain http goes to loopback only, whatever localhost means here", async () => {
    const server = await rawServer(sends(http("200 OK", OK)));
    const base = `http://localhost:${server.port}`;
    expect((await ask(base, { lookup: finds("127.0.0.1") })).verdict).toBe("accepted");
    expect((await ask(base, { lookup: finds("10.0.0.1") })).why).toBe(refused);
    expect((await ask(base, { lookup: finds("127.0.0.1", "10.0.0.1") })).why).toBe(refused);
    await server.close();
  });
});

describe("checkBaseUrl", () => {
  test.each([
    "https://your-app.imkit.io",
    "https://your-app.imkit.io/",
    "https://your-app.imkit.io:8443",
    "HTTPS://Your-App.imkit.io",
    "https://xn--bcher-kva.example",
    "https://10.1.2.3",
    "https://[2001:db8::1]",
    "http://127.0.0.1:7333",
    "http://127.9.9.9",
    "http://127.1:80/",
    "http://[::1]:7333",
    "http://localhost:7333",
  ])("fine: %s", (url) => {
    expect(checkBaseUrl(url)).toBeNull();
  });

  test.each<[string, RegExp]>([
    ["", /ASCII/],
    ["your-app.imkit.io", /not a URL/],
    ["https://", /not a URL/],
    ["https://a..b:99999", /not a URL/],
    ["ftp://your-app.imkit.io", /https:/],
    ["file:///etc/passwd", /https:/],
    ["https:your-app.imkit.io", /https:/],
    ["https:///your-app.imkit.io", /https:/],
    ["https:\\\\your-app.imkit.io", /https:/],
    ["javascript:alert(1)", /https:/],
    ["http://your-app.imkit.io", /must be https/],
    ["http://10.0.0.1", /must be https/],
    ["http://localhost.evil.example", /must be https/],
    ["http://127.0.0.1.evil.example", /must be https/],
    ["http://[::ffff:10.0.0.1]", /must be https/],
    ["https://user@your-app.imkit.io", /user name/],
    ["https://user:pw@your-app.imkit.io", /user name/],
    ["https://@your-app.imkit.io", /user name/],
    ["https://your-app.imkit.io/v1", /path/],
    ["https://your-app.imkit.io/v1/", /path/],
    ["https://your-app.imkit.io//", /path/],
    ["https://your-app.imkit.io/.", /path/],
    ["https://your-app.imkit.io/a/..", /path/],
    ["https://your-app.imkit.io?x=1", /query/],
    ["https://your-app.imkit.io/?", /query/],
    ["https://your-app.imkit.io/#", /query/],
    ["https://your-app.imkit.io\\admin", /query|path/],
    [" https://your-app.imkit.io", /ASCII/],
    ["https://your-app.imkit.io\n", /ASCII/],
    ["https://your-\tapp.imkit.io", /ASCII/],
    ["https://yоur-app.imkit.io", /xn--/],
    ["https://169.254.169.254", /metadata/],
    ["http://169.254.169.254", /metadata/],
    ["https://2852039166", /metadata/],
    ["https://0xa9.0xfe.0xa9.0xfe", /metadata/],
    ["https://[fe80::1]", /metadata/],
    ["https://[::ffff:169.254.169.254]", /metadata/],
    ["https://0.0.0.0", /unspecified/],
    ["https://[::]", /unspecified/],
  ])("refused: %o", (url, why) => {
    expect(checkBaseUrl(url)).toMatch(why);
  });

  test("what it refuses makes no platform, and its words quote nothing of it", () => {
    const key = madeKey();
    let thrown: unknown = null;
    try {
      imkitPlatform({ baseUrl: `https://${key}@app.example`, clock: realClock });
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toMatchObject({ code: "CONFIG_INVALID" });
    expect(findKey(inspect(thrown, { depth: Infinity, showHidden: true }), key)).toEqual([]);
  });
});
