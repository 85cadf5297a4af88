import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import type { NotifyConfig } from "../../src/io/config.ts";
import { checkHookUrl, openNotifiers } from "../../src/io/notify.ts";
import { RotatorError } from "../../src/core/errors.ts";
import { NOTICE_TYPES } from "../../src/core/notice.ts";
import type { Clock, Message } from "../../src/ports.ts";

type Call = { readonly headers: IncomingHttpHeaders; readonly body: string; readonly path: string };
type Answer = (response: ServerResponse, nth: number) => void;

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

const receiver = async (answer: Answer) => {
  const calls: Call[] = [];
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      calls.push({
        headers: request.headers,
        body: Buffer.concat(parts).toString(),
        path: request.url ?? "",
      });
      answer(response, calls.length);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  closing.push(async () => {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  });
  return { calls, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook/T0/x?a=b` };
};
const status =
  (...codes: readonly number[]): Answer =>
  (response, nth) =>
    void response.writeHead(codes[nth - 1] ?? codes.at(-1) ?? 200).end("never read");

/** Sleeps take no time, and are kept. */
const fastClock = () => {
  const slept: number[] = [];
  const clock: Clock = {
    now: () => Date.parse("2026-06-01T10:00:00.000Z"),
    monotonic: () => 0,
    sleep: async (ms) => void slept.push(ms),
  };
  return { slept, clock };
};

const message: Message = {
  id: "1f2e/r-1/waiting-revoke/aaaa0000",
  app: "chat",
  type: "waiting-revoke",
  rotation: "r-1",
  state: "waiting-revoke",
  text: "chat: revoke <!channel> & <https://evil.example|this>",
  at: "2026-06-01T10:00:00.000Z",
  owners: ["may@example.com"],
  head: "12:0123456789abcdef",
  next: [{ who: "you", text: "Then have it proved", command: "imkit-rotator confirm-revoked chat" }],
};

const SECRET = "shared-secret-of-a-test";
const open = (config: NotifyConfig, more: { readonly clock?: Clock } = {}) => {
  const [notifier] = openNotifiers([config], {
    clock: more.clock ?? fastClock().clock,
    timeouts: { connect: 1_000, headers: 300, total: 500 },
    valueOf: async ({ valueFrom }) => {
      if (valueFrom.env === "SECRET") return SECRET;
      if (valueFrom.env?.startsWith("http")) return valueFrom.env;
      throw new RotatorError("CONFIG_INVALID", { why: "The environment variable X is not set or empty." });
    },
  });
  if (notifier === undefined) throw new Error("no notifier");
  return notifier;
};
const webhook = (
  url: string,
  change: Partial<Extract<NotifyConfig, { type: "webhook" }>> = {},
): NotifyConfig => ({
  type: "webhook",
  url,
  on: ["*"],
  ...change,
});
const send = (config: NotifyConfig, clock?: Clock) =>
  open(config, clock === undefined ? {} : { clock }).notify(message, new AbortController().signal);

describe("webhook", () => {
  test("a CloudEvents envelope, signed over timestamp and body, the same for each try", async () => {
    const { calls, url } = await receiver(status(503, 200));
    expect(await send(webhook(url, { secret: { valueFrom: { env: "SECRET" } } }))).toEqual({
      ok: true,
      why: "",
    });
    expect(calls.length).toBe(2);
    for (const { headers, body, path } of calls) {
      expect(path).toBe("/hook/T0/x?a=b");
      expect(headers["content-type"]).toBe("application/cloudevents+json; charset=utf-8");
      const timestamp = String(headers["x-imkit-rotator-timestamp"]);
      const expected = createHmac("sha256", SECRET).update(`${timestamp}.${body}`).digest("hex");
      expect(headers["x-imkit-rotator-signature"]).toBe(`sha256=${expected}`);
      expect(headers["x-imkit-rotator-id"]).toBe(message.id);
      expect(JSON.parse(body)).toEqual({
        specversion: "1.0",
        id: message.id,
        source: "/imkit-rotator/chat",
        type: "imkit-rotator.waiting-revoke",
        subject: "chat",
        time: message.at,
        datacontenttype: "application/json",
        data: {
          schemaVersion: 1,
          app: "chat",
          type: "waiting-revoke",
          rotation: "r-1",
          state: "waiting-revoke",
          text: message.text,
          owners: message.owners,
          head: message.head,
          next: message.next,
        },
      });
      expect(`${JSON.stringify(headers)}${body}`).not.toContain(SECRET);
    }
  });

  test("without a secret it is not signed", async () => {
    const { calls, url } = await receiver(status(204));
    expect((await send(webhook(url))).ok).toBe(true);
    expect(calls[0]?.headers["x-imkit-rotator-signature"]).toBeUndefined();
  });

  test.each([
    ["500, three times", status(500), 3, "HTTP 500"],
    ["429, three times", status(429), 3, "HTTP 429"],
    ["a refusal is not tried again", status(403), 1, "HTTP 403"],
    ["silence", () => {}, 3, "no answer within 0.3 s"],
    ["a broken connection", (r: ServerResponse) => void r.destroy(), 3, "connection broken off"],
  ] as const)("%s", async (_, answer, times, why) => {
    const { calls, url } = await receiver(answer);
    const { clock, slept } = fastClock();
    expect(await send(webhook(url), clock)).toEqual({ ok: false, why });
    expect(calls.length).toBe(times);
    expect(slept).toEqual(times === 1 ? [] : [1_000, 2_000]);
  });

  test("Retry-After is honoured; what would take too long is left to a later tick", async () => {
    const wait =
      (seconds: string): Answer =>
      (response, nth) =>
        void (
          nth === 1 ? response.writeHead(429, { "retry-after": seconds }) : response.writeHead(200)
        ).end();
    const short = await receiver(wait("4"));
    const { clock, slept } = fastClock();
    expect((await send(webhook(short.url), clock)).ok).toBe(true);
    expect(slept).toEqual([4_000]);
    const long = await receiver(wait("600"));
    expect(await send(webhook(long.url))).toEqual({ ok: false, why: "HTTP 429" });
    expect(long.calls.length).toBe(1);
  });

  test("no redirect is followed", async () => {
    const other = await receiver(status(200));
    const { url } = await receiver((response) => void response.writeHead(307, { location: other.url }).end());
    expect(await send(webhook(url))).toEqual({ ok: false, why: "HTTP 307" });
    expect(other.calls).toEqual([]);
  });

  test("an answer that never ends takes no time and no memory", async () => {
    const { url } = await receiver((response) => {
      response.writeHead(200);
      response.write("x".repeat(1_000_000));
    });
    expect((await send(webhook(url))).ok).toBe(true);
  });

  test("told to stop, it stops", async () => {
    const { url } = await receiver(() => {});
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 20);
    expect(await open(webhook(url)).notify(message, stop.signal)).toEqual({ ok: false, why: "interrupted" });
  });

  test("an address or a secret that cannot be had: in our words, and nothing is sent", async () => {
    const { calls, url } = await receiver(status(200));
    const unsigned = webhook(url, { secret: { valueFrom: { env: "X" } } });
    expect(await send(unsigned)).toEqual({
      ok: false,
      why: "The environment variable X is not set or empty.",
    });
    expect(await open(unsigned).problem()).toMatch(/variable X/);
    expect(await open(webhook(url)).problem()).toBeNull();
    const elsewhere = webhook("http://hooks.example.com/secret-path");
    expect(await send(elsewhere)).toEqual({
      ok: false,
      why: expect.stringMatching(/^its URL cannot be used/),
    });
    expect(JSON.stringify(await send(elsewhere))).not.toContain("secret-path");
    expect(calls).toEqual([]);
  });
});

test("where a message may go", () => {
  for (const url of [
    "https://hooks.example.com/a?b=c",
    "http://127.0.0.1:1/x",
    "http://localhost/x",
    "http://[::1]/",
  ])
    expect([url, checkHookUrl(url)]).toEqual([url, null]);
  for (const url of [
    "http://hooks.example.com/",
    "https://u:p@hooks.example.com/",
    "https://169.254.169.254/latest",
    "ftp://hooks.example.com/",
    "hooks.example.com",
    "https://höoks.example.com/",
  ])
    expect([url, typeof checkHookUrl(url)]).toEqual([url, "string"]);
});

describe("slack", () => {
  const slack = (url: string): NotifyConfig => ({
    type: "slack",
    url: { valueFrom: { env: url } },
    on: ["*"],
  });

  test("plain text blocks in which nothing is a mention, a link or a style", async () => {
    const { calls, url } = await receiver(status(200));
    expect((await send(slack(url))).ok).toBe(true);
    const body = JSON.parse(calls[0]?.body ?? "") as {
      text: string;
      mrkdwn: boolean;
      blocks: { type: string; text: { type: string; text: string } }[];
    };
    expect(body.mrkdwn).toBe(false);
    expect(body.blocks.every((b) => b.type === "section" && b.text.type === "plain_text")).toBe(true);
    expect(calls[0]?.body).not.toMatch(/<|>/);
    const all = body.blocks.map((b) => b.text.text).join("\n");
    expect(all).toContain("&lt;!channel&gt; &amp; &lt;https://evil.example|this&gt;");
    for (const part of [
      "imkit-rotator confirm-revoked chat",
      "12:0123456789abcdef",
      "may@example.com",
      "r-1",
    ])
      expect(all).toContain(part);
    expect(body.blocks.every((b) => b.text.text.length < 3_000)).toBe(true);
  });

  test("its address is in no name and no message", async () => {
    const { url } = await receiver(status(404));
    expect(open(slack(url)).name).toBe("slack");
    expect(await send(slack(url))).toEqual({ ok: false, why: "HTTP 404" });
    expect(await open(slack("none")).problem()).not.toMatch(/none/);
  });
});

test("`on` chooses by type and by group, and an escalation by what it says again", () => {
  const wanted = (...on: NotifyConfig["on"]) => {
    const notifier = open(webhook("https://hooks.example.com/", { on }));
    return NOTICE_TYPES.filter((type) => notifier.wants(type, type));
  };
  expect(wanted("*")).toEqual(NOTICE_TYPES);
  expect(wanted("waiting", "failed")).toEqual(["waiting-key", "waiting-restart", "waiting-revoke", "failed"]);
  expect(wanted("due", "inbox")).toEqual(["due-in", "inbox-rejected"]);
  const notifier = open(webhook("https://hooks.example.com/", { on: ["waiting-revoke"] }));
  expect(notifier.wants("escalated", "waiting-revoke")).toBe(true);
  expect(notifier.wants("escalated", "overdue")).toBe(false);
});

test("two receivers on one host have two names, without their paths", () => {
  const names = openNotifiers(
    [webhook("https://hooks.example.com/one"), webhook("https://hooks.example.com/two")],
    { clock: fastClock().clock, valueOf: async () => "" },
  ).map((n) => n.name);
  expect(names).toEqual(["webhook:hooks.example.com", "webhook:hooks.example.com#2"]);
});
