import { spawn } from "node:child_process";
import { once } from "node:events";
import { inspect } from "node:util";
import { brotliCompressSync, gzipSync } from "node:zlib";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { imkitPlatform } from "../../src/io/imkit.ts";
import type { Platform, Probe } from "../../src/ports.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import {
  http,
  keyOf,
  NO,
  NO_ENVELOPE,
  never,
  OK,
  type RawServer,
  rawServer,
  realClock,
  type Script,
} from "./imkit-server.ts";

const TIMEOUTS = { connect: 400, headers: 400, total: 900 };

/** One server for all: what it answers is chosen by the key that it is asked with. */
const scripts = new Map<string, Script>();
let server: RawServer;
let platform: Platform;
beforeAll(async () => {
  server = await rawServer((socket, request) => scripts.get(keyOf(request))?.(socket, request));
  platform = imkitPlatform({
    baseUrl: server.url,
    clock: realClock,
    callsPerMinute: 100_000,
    timeouts: TIMEOUTS,
  });
});
afterAll(() => server.close());

/** Asks with a fresh key, and holds everything that came back against that key. */
const ask = async (script: Script, on: Platform = platform): Promise<Probe> => {
  const key = madeKey();
  scripts.set(key, script);
  const probe = await on.probe(new Secret(key), { urgent: true }, never());
  expect(
    findKey(`${inspect(probe, { depth: Infinity, showHidden: true })}${JSON.stringify(probe)}`, key),
  ).toEqual([]);
  return probe;
};
const sends =
  (bytes: string | Buffer): Script =>
  (socket) =>
    socket.end(bytes);
/** Answers with `make(key)`: a server that tells the key back. */
const echoes =
  (make: (key: string) => string | Buffer): Script =>
  (socket, request) =>
    socket.end(make(keyOf(request)));
/** Writes `piece` every 20 ms until the client goes. */
const drips =
  (start: string, piece: string): Script =>
  (socket) => {
    socket.write(start);
    const timer = setInterval(() => socket.write(piece), 20);
    socket.on("close", () => clearInterval(timer));
  };
const chunked = "Transfer-Encoding: chunked";
const gone = "http://127.0.0.1:1/";

describe("clear words over HTTP", () => {
  const date = "Mon, 01 Jun 2026 10:00:00 GMT";
  const chunks = `${OK.length.toString(16)}\r\n${OK}\r\n0\r\n\r\n`;
  test.each<[string, string, string, string[]]>([
    ["accepted", "200 OK", OK, []],
    ["accepted, chunked", "200 OK", chunks, [chunked]],
    ["accepted, Content-Encoding: identity", "200 OK", OK, ["Content-Encoding: identity"]],
    ["accepted, with a cookie", "200 OK", OK, ["Set-Cookie: a=b"]],
    ["rejected, flat", "401 Unauthorized", NO, []],
    ["rejected, envelope", "401 Unauthorized", NO_ENVELOPE, []],
    ["rejected, WWW-Authenticate", "401 Unauthorized", NO, ["WWW-Authenticate: Basic"]],
  ])("%s", async (name, status, body, more) => {
    const isYes = name.startsWith("accepted");
    expect(await ask(sends(http(status, body, [...more, `Date: ${date}`])))).toEqual({
      verdict: isYes ? "accepted" : "rejected",
      status: isYes ? 200 : 401,
      code: isYes ? null : "INVALID_API_KEY",
      date,
      retryAfterMs: null,
      why: "",
    });
  });

  test("asks by GET with the key in one header, and nothing else that could tell", async () => {
    const key = madeKey();
    scripts.set(key, sends(http("200 OK", OK, ["Set-Cookie: sid=1"])));
    await platform.probe(new Secret(key), { urgent: false }, never());
    await platform.probe(new Secret(key), { urgent: false }, never());
    const [, again] = server.requests.filter((request) => request.includes(key));
    const [line, ...headers] = (again ?? "").trim().split("\r\n");
    expect(line).toBe("GET /admin/connection-count HTTP/1.1");
    expect(
      headers
        .map((header) => header.toLowerCase().split(":")[0] ?? "")
        .toSorted((a, b) => a.localeCompare(b)),
    ).toEqual(["accept", "accept-encoding", "connection", "host", "im-api-key", "user-agent"]);
    expect(again).toMatch(/accept-encoding: identity\r\n/i);
    expect(again).toMatch(/user-agent: imkit-rotator\r\n/i);
    expect((again ?? "").split(key)).toHaveLength(2);
  });
});

const pad = (size: number, body = OK): string =>
  `${body.slice(0, -1)},"pad":"${"x".repeat(size - body.length - 9)}"}`;
const hostile: readonly [string, Script][] = [
  ...[301, 302, 303, 307, 308].flatMap((status): [string, Script][] => [
    [`${status} to another host`, sends(http(`${status} Moved`, OK, ["Location: https://example.com/"]))],
    [`${status} to itself`, sends(http(`${status} Moved`, NO, ["Location: /admin/connection-count"]))],
    [`${status} without Location`, sends(http(`${status} Moved`, OK))],
  ]),
  ["300", sends(http("300 Multiple Choices", OK))],
  ["304", sends(http("304 Not Modified", ""))],
  ...[
    "201 Created",
    "202 Accepted",
    "203 Non-Authoritative",
    "206 Partial Content",
    "226 IM Used",
    "299 X",
  ].map((status): [string, Script] => [status, sends(http(status, OK))]),
  ["204", sends(http("204 No Content", ""))],
  ["205", sends(http("205 Reset Content", ""))],
  ...[
    "400 Bad",
    "402 Pay",
    "403 Forbidden",
    "404 Not Found",
    "407 Proxy",
    "408 Slow",
    "409 No",
    "410 Gone",
    "418 Tea",
    "421 Mis",
    "423 L",
    "425 E",
    "426 Up",
    "431 H",
    "451 L",
  ].map((status): [string, Script] => [`${status} with INVALID_API_KEY`, sends(http(status, NO))]),
  ...["500 X", "501 X", "502 X", "503 X", "504 X", "511 Login", "520 X", "525 X", "530 X", "599 X"].flatMap(
    (status): [string, Script][] => [
      [`${status} with INVALID_API_KEY`, sends(http(status, NO))],
      [`${status} with the success`, sends(http(status, OK))],
    ],
  ),
  ["status 999", sends(http("999 Odd", NO))],
  ["a captive portal", sends(http("200 OK", "<html><form>login</form></html>", ["Content-Type: text/html"]))],
  [
    "a filter's 401 page",
    sends(http("401 Unauthorized", "<html>INVALID_API_KEY</html>", ["Content-Type: text/html"])),
  ],
  ["a filter's 403 page", sends(http("403 Forbidden", "<html>denied</html>", ["Content-Type: text/html"]))],
  ["JSON that calls itself HTML", sends(http("401 Unauthorized", NO, ["Content-Type: text/html"]))],
  ["empty 200", sends(http("200 OK", ""))],
  ["empty 401", sends(http("401 Unauthorized", ""))],
  ["gzip", sends(http("200 OK", gzipSync(OK), ["Content-Encoding: gzip"]))],
  ["gzip of a rejection", sends(http("401 Unauthorized", gzipSync(NO), ["Content-Encoding: gzip"]))],
  ["brotli", sends(http("200 OK", brotliCompressSync(OK), ["Content-Encoding: br"]))],
  ["plain that says gzip", sends(http("200 OK", OK, ["Content-Encoding: gzip"]))],
  ["plain that says nothing as encoding", sends(http("401 Unauthorized", NO, ["Content-Encoding:"]))],
  ["a chain of encodings", sends(http("401 Unauthorized", NO, ["Content-Encoding: identity, gzip"]))],
  [
    "two encoding headers",
    sends(http("401 Unauthorized", NO, ["Content-Encoding: identity", "Content-Encoding: gzip"])),
  ],
  ["an unknown encoding", sends(http("200 OK", OK, ["Content-Encoding: x-custom"]))],
  ["gzip without saying so", sends(http("200 OK", gzipSync(OK)))],
  ["a gzip bomb", sends(http("200 OK", gzipSync(Buffer.alloc(30_000_000)), ["Content-Encoding: gzip"]))],
  ["transfer-coding gzip", sends(http("200 OK", OK, ["Transfer-Encoding: gzip, chunked"]))],
  ["64 KiB + 1", sends(http("200 OK", pad(64 * 1024 + 1)))],
  ["64 KiB + 1 of a rejection", sends(http("401 Unauthorized", pad(64 * 1024 + 1, NO)))],
  ["10 MB", sends(http("200 OK", pad(10_000_000)))],
  ["UTF-16", sends(http("200 OK", Buffer.from(OK, "utf16le")))],
  ["UTF-16 with its mark", sends(http("401 Unauthorized", Buffer.from(`\uFEFF${NO}`, "utf16le")))],
  ["a UTF-8 mark", sends(http("401 Unauthorized", `\uFEFF${NO}`))],
  [
    "broken UTF-8",
    sends(
      http(
        "401 Unauthorized",
        Buffer.concat([Buffer.from(NO.slice(0, -2)), Buffer.from([0xff, 0x22, 0x7d])]),
      ),
    ),
  ],
  [
    "latin-1",
    sends(http("401 Unauthorized", Buffer.from('{"error":"INVALID_API_KEY","message":"é"}', "latin1"))),
  ],
  ["a NUL behind it", sends(http("401 Unauthorized", `${NO}\0`))],
  ["cut short of its length", sends(http("200 OK", OK, [`Content-Length: ${OK.length + 10}`]))],
  [
    "a rejection cut short of its length",
    sends(http("401 Unauthorized", NO, [`Content-Length: ${NO.length + 1}`])),
  ],
  ["longer than its length", sends(http("401 Unauthorized", NO, [`Content-Length: ${NO.length - 1}`]))],
  ["a negative length", sends(http("200 OK", OK, ["Content-Length: -1"]))],
  ["a length that is no number", sends(http("200 OK", OK, ["Content-Length: ten"]))],
  ["two lengths", sends(http("200 OK", OK, [`Content-Length: ${OK.length}`, "Content-Length: 5"]))],
  ["length and chunks", sends(http("200 OK", OK, [chunked, `Content-Length: ${OK.length}`]))],
  ["chunks cut short", sends(`HTTP/1.1 401 No\r\n${chunked}\r\n\r\n${NO.length.toString(16)}\r\n${NO}\r\n`)],
  ["chunk junk", sends(`HTTP/1.1 200 OK\r\n${chunked}\r\n\r\nzz\r\n${OK}\r\n0\r\n\r\n`)],
  ["headers of 1 MB", sends(http("200 OK", OK, [`X-Big: ${"x".repeat(1_000_000)}`]))],
  [
    "10,000 headers",
    sends(
      http(
        "200 OK",
        OK,
        Array.from({ length: 10_000 }, (_, n) => `X-${n}: y`),
      ),
    ),
  ],
  ["a header of 17 KiB", sends(http("401 Unauthorized", NO, [`X-Big: ${"x".repeat(17 * 1024)}`]))],
  ["a bare line feed in a header", sends(http("401 Unauthorized", NO, ["X-A: b\nX-C"]))],
  ["a NUL in a header", sends(http("401 Unauthorized", NO, ["X-A: b\0"]))],
  ["HTTP/0.9", sends(NO)],
  ["HTTP/2 unasked", sends("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")],
  ["another protocol", sends("220 mail.example.com ESMTP\r\n")],
  ["TLS bytes on a plain port", sends(Buffer.from("15030300020228", "hex"))],
  ["closed without a word", (socket) => socket.destroy()],
  ["reset", (socket) => socket.resetAndDestroy()],
  ["half a status line", sends("HTTP/1.1 40")],
  [
    "reset in the headers",
    (socket) => socket.write("HTTP/1.1 401 No\r\nContent-", () => socket.resetAndDestroy()),
  ],
  [
    "reset in the body",
    (socket) => socket.write(http("401 No", NO, ["Content-Length: 500"]), () => socket.resetAndDestroy()),
  ],
  ["100 and then nothing", (socket) => socket.end("HTTP/1.1 100 Continue\r\n\r\n")],
  ["101", sends("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")],
  [
    "the key told back in the body",
    echoes((key) => http("401 No", JSON.stringify({ error: key, message: key }))),
  ],
  [
    "the key told back as code",
    echoes((key) => http("403 No", JSON.stringify({ RC: 403, error: { code: key } }))),
  ],
  [
    "the key told back in every header",
    echoes((key) =>
      http(`403 ${key}`, NO, [`Date: ${key}`, `Location: /${key}`, `Retry-After: ${key}`, `X: ${key}`]),
    ),
  ],
  [
    "the key told back in a redirect",
    echoes((key) => http("302 No", key, [`Location: http://127.0.0.1:1/?${key}`])),
  ],
  ["the key told back in a broken answer", echoes((key) => `HTTP/1.1 200 OK\r\n${key}\r\n\r\n${key}`)],
];
const slow: readonly [string, Script][] = [
  ["silence", () => {}],
  ["headers byte by byte", drips("HTTP/1.1 200 OK\r\nX: ", "x")],
  ["1xx without end", drips("", "HTTP/1.1 102 Processing\r\n\r\n")],
  ["a body byte by byte", drips(`HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n`, "x")],
  ["chunks without end", drips(`HTTP/1.1 200 OK\r\n${chunked}\r\n\r\n`, "1\r\n \r\n")],
  [
    "a whole rejection without an end",
    (socket) => socket.write(`HTTP/1.1 401 No\r\nContent-Type: application/json\r\n\r\n${NO}`),
  ],
  ["headers and then silence", (socket) => socket.write("HTTP/1.1 401 No\r\nContent-Length: 80\r\n\r\n")],
];

describe("hostile answers", () => {
  test("there are at least 80 of them", () => {
    expect(hostile.length + slow.length).toBeGreaterThanOrEqual(80);
  });

  test.each(hostile)("unclear: %s", async (_, script) => {
    const probe = await ask(script);
    expect(probe.verdict).toBe("unclear");
    expect(probe.why).toMatch(/^[\x20-\x7e]{5,80}$/);
  });

  test("unclear, and in time: whatever is slow", async () => {
    const started = performance.now();
    const probes = await Promise.all(slow.map(([, script]) => ask(script)));
    expect(performance.now() - started).toBeLessThan(TIMEOUTS.total + 2_000);
    expect(probes.map(({ verdict, why }, at) => [slow[at]?.[0], verdict, why])).toEqual(
      slow.map(([name], at) => [
        name,
        "unclear",
        at < 3 ? "no answer within 0.4 s" : "no whole answer within 0.9 s",
      ]),
    );
  });

  test("no connection is left open, also by those that end in the middle", async () => {
    await expect.poll(() => server.open()).toBe(0);
  });

  test("what is given up is hung up on at once: a body without end, a change of protocol, an encoded body", async () => {
    const piece = Buffer.alloc(64 * 1024, " ");
    const floods =
      (head: string): Script =>
      (socket) => {
        socket.write(`${head}\r\n\r\n`);
        const more = (): void => {
          while (!socket.destroyed && socket.write(piece));
        };
        socket.on("drain", more);
        more();
      };
    const started = performance.now();
    const probes = await Promise.all([
      ask(floods("HTTP/1.1 200 OK")),
      ask(floods("HTTP/1.1 200 OK\r\nContent-Encoding: gzip")),
      ask((socket) => socket.write("HTTP/1.1 101 No\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")),
    ]);
    await expect.poll(() => server.open()).toBe(0);
    expect(performance.now() - started).toBeLessThan(TIMEOUTS.total - 300);
    expect(probes.map(({ verdict }) => verdict)).toEqual(["unclear", "unclear", "unclear"]);
  });

  test("exactly 64 KiB is read", async () => {
    expect((await ask(sends(http("200 OK", pad(64 * 1024))))).verdict).toBe("accepted");
  });

  test("an answer too many is never taken for the next key's", async () => {
    const verdicts = new Set<string>();
    for (let n = 0; n < 150; n += 1) {
      const twice: Script = (socket) => {
        socket.setNoDelay();
        socket.write(http("200 OK", OK));
        if (n % 5 === 0) socket.write(http("401 Unauthorized", NO));
        else setTimeout(() => socket.write(http("401 Unauthorized", NO)), n % 3);
      };
      verdicts.add((await ask(twice)).verdict);
    }
    expect([...verdicts]).not.toContain("rejected");
    expect([...verdicts]).toContain("accepted");
  });

  test("noise on the wire: a clear word only where the bytes still say it", async () => {
    const base = fc.constantFrom(
      http("200 OK", OK),
      http("401 Unauthorized", NO),
      http("401 Unauthorized", NO_ENVELOPE),
    );
    const noise = fc.tuple(
      base,
      fc.nat(),
      fc.integer({ min: 0, max: 255 }),
      fc.constantFrom("drop", "insert", "change"),
    );
    const seen = { accepted: 0, rejected: 0, unclear: 0 };
    await fc.assert(
      fc.asyncProperty(noise, async ([bytes, at, byte, kind]) => {
        const spot = at % bytes.length;
        const put = Buffer.from(kind === "drop" ? [] : [byte]);
        const sent = Buffer.concat([
          bytes.subarray(0, spot),
          put,
          bytes.subarray(kind === "insert" ? spot : spot + 1),
        ]);
        const { verdict } = await ask(sends(sent));
        seen[verdict] += 1;
        // HTTP lets an empty line stand before an answer.
        const text = sent.toString("latin1").replace(/^[\r\n]+/, "");
        const may = [
          "unclear",
          ...(/^HTTP\/1\.[01] 200/.test(text) && /"count":\s*-?[0-9]/.test(text) ? ["accepted"] : []),
          ...(/^HTTP\/1\.[01] 401/.test(text) && text.includes('"INVALID_API_KEY"') ? ["rejected"] : []),
        ];
        expect(may).toContain(verdict);
      }),
      { numRuns: 400 },
    );
    expect(Math.min(seen.accepted, seen.rejected, seen.unclear)).toBeGreaterThan(10);
  });
});

describe("no answer at all", () => {
  const lone = (options: Partial<Parameters<typeof imkitPlatform>[0]>): Platform =>
    imkitPlatform({ baseUrl: gone, clock: realClock, timeouts: TIMEOUTS, ...options });

  test.each([
    ["a refused connection", gone, "connection refused"],
    [
      "a name that does not exist",
      "https://no-such-host.invalid",
      /^(host name not found|the name service does not answer)$/,
    ],
  ])("unclear: %s", async (_, baseUrl, why) => {
    const probe = await ask(() => {}, lone({ baseUrl }));
    expect(probe).toMatchObject({ verdict: "unclear", status: null, code: null, retryAfterMs: null });
    expect(probe.why).toMatch(why);
  });

  test("an abort ends a running call at once, and a later one before it starts", async () => {
    const key = madeKey();
    const running = new AbortController();
    scripts.set(key, () => running.abort());
    const started = performance.now();
    const probe = await platform.probe(new Secret(key), { urgent: true }, running.signal);
    expect(probe).toMatchObject({ verdict: "unclear", why: "interrupted" });
    expect(performance.now() - started).toBeLessThan(TIMEOUTS.headers - 100);
    const before = server.requests.length;
    expect(await platform.probe(new Secret(key), { urgent: true }, AbortSignal.abort())).toMatchObject({
      why: "interrupted",
    });
    expect(await platform.appIdentity(new Secret(key), AbortSignal.abort())).toBeNull();
    expect(server.requests.length).toBe(before);
  });

  test.each([
    "",
    " ",
    "a b",
    "key\n",
    " key",
    "key\r\nX-Evil: 1",
    "k\0",
    "ключ",
    "\u00a0key",
    "x".repeat(5000),
  ])("a key that is no header value is never sent: %o", async (bad) => {
    const before = server.requests.length;
    expect(await platform.probe(new Secret(bad), { urgent: true }, never())).toMatchObject({
      verdict: "unclear",
      status: null,
      why: "the key holds bytes that no header can carry",
    });
    expect(server.requests.length).toBe(before);
  });
});

describe("throttled", () => {
  test("the larger of body and header, and no call before that time is over", async () => {
    let now = 0;
    const clock = { ...realClock, monotonic: () => now };
    const own = imkitPlatform({ baseUrl: server.url, clock, timeouts: TIMEOUTS });
    const body = '{"error":"RATE_LIMIT_EXCEEDED","message":"m","retryAfter":60}';
    const first = await ask(sends(http("429 Too Many", body, ["Retry-After: 90"])), own);
    expect(first).toMatchObject({
      verdict: "unclear",
      status: 429,
      code: "RATE_LIMIT_EXCEEDED",
      retryAfterMs: 90_000,
    });

    const before = server.requests.length;
    now = 30_000;
    const held = await ask(sends(http("200 OK", OK)), own);
    expect(held).toMatchObject({ verdict: "unclear", status: null, retryAfterMs: 60_000 });
    expect(await own.appIdentity(new Secret(madeKey()), never())).toBeNull();
    expect(server.requests.length).toBe(before);

    now = 90_000;
    expect((await ask(sends(http("200 OK", OK)), own)).verdict).toBe("accepted");
  });

  test.each([
    ["0", 1_000],
    ["-1", 1_000],
    ["1e12", 3_600_000],
    ["2147483648", 3_600_000],
    ["1.5", 1_500],
    ['"30"', 30_000],
    ['"soon"', null],
    ["1e999", null],
    ["null", null],
    ["{}", null],
    ['"Mon, 01 Jun 2026 10:00:00 GMT"', null],
  ])("retryAfter %s in the body: %o ms", async (given, ms) => {
    const own = imkitPlatform({ baseUrl: server.url, clock: realClock, timeouts: TIMEOUTS });
    const probe = await ask(
      sends(http("429 Too Many", `{"error":"RATE_LIMIT_EXCEEDED","retryAfter":${given}}`)),
      own,
    );
    expect(probe).toMatchObject({ verdict: "unclear", status: 429, retryAfterMs: ms });
  });

  test("a throttled look at the app's identity holds the probes, too", async () => {
    const own = imkitPlatform({ baseUrl: server.url, clock: realClock, timeouts: TIMEOUTS });
    const key = madeKey();
    scripts.set(key, sends(http("429 Too Many", "", ["Retry-After: 5"])));
    expect(await own.appIdentity(new Secret(key), never())).toBeNull();
    expect((await own.probe(new Secret(key), { urgent: true }, never())).why).toContain("pause");
  });
});

describe("appIdentity", () => {
  const identity = (script: Script, key = madeKey()): Promise<Secret | null> => {
    scripts.set(key, script);
    return platform.appIdentity(new Secret(key), never());
  };
  const stats = (clientKey: string, apiKey = "k"): string =>
    JSON.stringify({ RC: 0, RM: "OK", result: { clientKey, apiKey, userList: [], roomCount: 3 } });

  test("the client key alone, and not to be printed", async () => {
    const key = madeKey();
    const found = await identity(
      echoes((told) => http("200 OK", stats("head.body.sign", told))),
      key,
    );
    expect(found?.reveal()).toBe("head.body.sign");
    expect(findKey(inspect(found, { showHidden: true, depth: Infinity }), key)).toEqual([]);
    expect(inspect(found, { showHidden: true, depth: Infinity })).not.toContain("head.body");
    expect(server.requests.at(-1)).toMatch(/^GET \/admin\/stats HTTP/);
  });

  test("null where there is a doubt", async () => {
    const doubts: readonly Script[] = [
      sends(http("401 No", NO)),
      sends(http("200 OK", stats(""))),
      sends(http("200 OK", OK)),
      sends(http("302 Moved", stats("a.b.c"), ["Location: /"])),
      sends(http("200 OK", gzipSync(stats("a.b.c")), ["Content-Encoding: gzip"])),
      sends(http("200 OK", stats("a.b.c").padEnd(70_000))),
      echoes((key) => http("200 OK", stats(key))),
      (socket) => socket.destroy(),
    ];
    for (const script of doubts) expect(await identity(script)).toBeNull();
  });
});

describe("usage", () => {
  const usage = (script: Script, key = madeKey()): ReturnType<typeof platform.usage> => {
    scripts.set(key, script);
    return platform.usage(new Secret(key), never());
  };
  const stats = (result: object, more: object = {}): string => JSON.stringify({ RC: 0, result, ...more });

  test("counts and nothing else: the same answer carries both keys and the names of users", async () => {
    const key = madeKey();
    const counts = { roomCount: 3, totalRoomCount: 12, messageCount: 0, peakConnectionCount: 128 };
    const found = await usage(
      echoes((told) =>
        http("200 OK", stats({ clientKey: "a.b.c", apiKey: told, userList: ["may", told], ...counts })),
      ),
      key,
    );
    expect(found).toEqual({ users: 2, rooms: 3, totalRooms: 12, messages: 0, peakConnections: 128 });
    expect(server.requests.at(-1)).toMatch(/^GET \/admin\/stats HTTP/);
  });

  test("a count that is none is null", async () => {
    const odd = {
      userList: "may",
      roomCount: -1,
      totalRoomCount: 1.5,
      messageCount: "7",
      peakConnectionCount: 1,
    };
    expect(await usage(sends(http("200 OK", stats(odd))))).toEqual({
      users: null,
      rooms: null,
      totalRooms: null,
      messages: null,
      peakConnections: 1,
    });
  });

  test("null where there is a doubt", async () => {
    const good = stats({ roomCount: 3 });
    const doubts: readonly Script[] = [
      sends(http("401 No", NO)),
      sends(http("200 OK", OK)),
      sends(http("200 OK", "{}")),
      sends(http("200 OK", stats({ roomCount: 3 }, { RC: 1 }))),
      sends(http("200 OK", stats({ roomCount: 3 }, { error: "INVALID_API_KEY" }))),
      sends(http("201 Created", good)),
      sends(http("200 OK", good, ["Content-Type: text/html"])),
      sends(http("302 Moved", good, ["Location: /"])),
      sends(http("200 OK", good.padEnd(70_000))),
      (socket) => socket.destroy(),
    ];
    for (const script of doubts) expect(await usage(script)).toBeNull();
    expect(await usage(sends(http("200 OK", good)))).toMatchObject({ rooms: 3 });
  });
});

test("the environment's proxies are not used, nothing is printed, and got is loaded by the first call only", async () => {
  const key = madeKey();
  scripts.set(key, sends(http("200 OK", OK)));
  const proxy = await rawServer(sends(http("200 OK", OK)));
  const program = `
    import { registerHooks } from "node:module";
    const loaded = [];
    registerHooks({ resolve: (name, context, next) => { loaded.push(name); return next(name, context); } });
    const { imkitPlatform } = await import(${JSON.stringify(new URL("../../src/io/imkit.ts", import.meta.url).href)});
    const { Secret } = await import(${JSON.stringify(new URL("../../src/core/secret.ts", import.meta.url).href)});
    const clock = { now: Date.now, monotonic: () => performance.now(), sleep: async () => {} };
    const platform = imkitPlatform({ baseUrl: process.env.BASE, clock });
    const early = loaded.filter((name) => /^(got|node:https?)$/.test(name));
    const probe = await platform.probe(new Secret(process.env.KEY), { urgent: true }, new AbortController().signal);
    process.stdout.write(JSON.stringify({ verdict: probe.verdict, early, late: loaded.includes("got") }));
  `;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
    env: {
      ...Object.fromEntries(
        ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"].map((name) => [
          name,
          proxy.url,
        ]),
      ),
      NODE_USE_ENV_PROXY: "1",
      BASE: server.url,
      KEY: key,
    },
  });
  let output = "";
  child.stdout.on("data", (chunk) => (output += chunk));
  child.stderr.on("data", (chunk) => (output += chunk));
  await once(child, "close");
  await proxy.close();
  expect(output).toBe('{"verdict":"accepted","early":[],"late":true}');
  expect(proxy.requests).toEqual([]);
});
