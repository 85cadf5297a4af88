import { createHmac } from "node:crypto";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { inspect } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import * as z from "zod/mini";
import webhook from "../../providers/rollouts/webhook.ts";
import { toolsIn, refusal } from "../kit/provider-tools.ts";

type Request = {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
};

const rollOp = { app: "chat-prod", rotation: "r1", opId: "ab".repeat(16), fingerprint: "0123456789abcdef" };
const soon = () => AbortSignal.timeout(10_000);
const secret = { valueFrom: { env: "HOOK_SECRET" } };

let server: Server;
let seen: Request[];
let answer: { readonly status: number; readonly headers?: Record<string, string> } | "hang" | "drop";
beforeEach(async () => {
  seen = [];
  answer = { status: 204 };
  server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const { method = "", url = "", headers } = request;
      seen.push({ method, url, headers, body: Buffer.concat(chunks).toString() });
      if (answer === "drop") request.socket.destroy();
      else if (answer !== "hang") response.writeHead(answer.status, answer.headers).end("vendor words");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

const opened = (timeout = "5s") => {
  const { port } = server.address() as AddressInfo;
  return webhook.open(
    { url: `http://127.0.0.1:${port}/hooks/s3cret-path?x=1`, secret, timeout },
    toolsIn("/").tools,
  );
};

test("posts what and which, signed over time and body, with the op as the id of every repeat", async () => {
  const rollout = opened();
  expect(await rollout.trigger(rollOp, soon())).toEqual({ state: "done", proof: 0, reason: "" });
  await rollout.trigger(rollOp, soon());
  const [first, second] = seen;
  expect([first?.method, first?.url]).toEqual(["POST", "/hooks/s3cret-path?x=1"]);
  expect(first?.headers).toMatchObject({
    "content-type": "application/json",
    "x-imkit-rotator-id": rollOp.opId,
  });
  expect(second?.headers["x-imkit-rotator-id"]).toBe(rollOp.opId);
  const body = JSON.parse(first?.body ?? "") as Record<string, unknown>;
  expect(body).toEqual({ ...rollOp, at: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) });
  const timestamp = String(first?.headers["x-imkit-rotator-timestamp"]);
  expect(Number(timestamp) * 1_000).toBe(Math.floor(Date.parse(String(body["at"])) / 1_000) * 1_000);
  const mac = createHmac("sha256", "shared-secret").update(`${timestamp}.${first?.body}`).digest("hex");
  expect(first?.headers["x-imkit-rotator-signature"]).toBe(`sha256=${mac}`);
});

test("its address keeps the path to itself: it may be a secret", () => {
  expect(opened().where).toMatch(/^webhook:http:\/\/127\.0\.0\.1:\d+$/);
});

describe("answers", () => {
  test.each([200, 201, 202, 204, 299])("%i is done", async (status) => {
    answer = { status };
    expect(await opened().trigger(rollOp, soon())).toMatchObject({ state: "done" });
  });

  test.each([400, 401, 403, 404, 410])("%i failed, and its words stay outside", async (status) => {
    answer = { status };
    expect(await opened().trigger(rollOp, soon())).toEqual({
      state: "failed",
      proof: 0,
      reason: `the webhook answered ${status}`,
    });
  });

  test.each([301, 302, 307, 308])("%i is not followed", async (status) => {
    answer = { status, headers: { location: "/elsewhere" } };
    expect(await opened().trigger(rollOp, soon())).toMatchObject({ state: "failed" });
    expect(seen).toHaveLength(1);
  });

  test.each([
    [429, {}, { code: "THROTTLED", outcome: "not_applied", retryAfterMs: null }],
    [429, { "retry-after": "7" }, { code: "THROTTLED", outcome: "not_applied", retryAfterMs: 7_000 }],
    [429, { "retry-after": "0" }, { code: "THROTTLED", outcome: "not_applied", retryAfterMs: 1_000 }],
    [
      429,
      { "retry-after": "99999999" },
      { code: "THROTTLED", outcome: "not_applied", retryAfterMs: 3_600_000 },
    ],
    [429, { "retry-after": "-1" }, { code: "THROTTLED", outcome: "not_applied", retryAfterMs: null }],
    [500, {}, { code: "UNAVAILABLE", outcome: "unknown", retryAfterMs: null }],
    [503, { "retry-after": "30" }, { code: "UNAVAILABLE", outcome: "unknown", retryAfterMs: 30_000 }],
  ])("%i with %o may be tried again", async (status, headers, expected) => {
    answer = { status, headers };
    const error = await refusal(opened().trigger(rollOp, soon()));
    expect(error).toMatchObject(expected);
    expect(inspect(error, { depth: 8, showHidden: true })).not.toContain("vendor words");
  });

  test("a lost answer is unknown, no connection is not", async () => {
    answer = "drop";
    expect(await refusal(opened().trigger(rollOp, soon()))).toMatchObject({
      code: "UNAVAILABLE",
      outcome: "unknown",
    });
    const rollout = opened();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    const error = await refusal(rollout.trigger(rollOp, soon()));
    expect(error).toMatchObject({ code: "UNAVAILABLE", outcome: "not_applied" });
    expect(error.cause).toBeUndefined();
    expect(inspect(error, { depth: 8 })).not.toContain("s3cret-path");
  });

  test("no answer in time: TIMEOUT, unknown", async () => {
    answer = "hang";
    expect(await refusal(opened("150ms").trigger(rollOp, soon()))).toMatchObject({
      code: "TIMEOUT",
      outcome: "unknown",
    });
  });
});

test.each([
  ["that cannot be read", async () => await Promise.reject(new Error("vendor words"))],
  ["that is empty", async () => ""],
])("a shared secret %s: CONFIG, nothing is sent", async (_, valueOf) => {
  const { port } = server.address() as AddressInfo;
  const rollout = webhook.open(
    { url: `http://127.0.0.1:${port}/`, secret, timeout: "5s" },
    { ...toolsIn("/").tools, valueOf },
  );
  expect(await refusal(rollout.trigger(rollOp, soon()))).toMatchObject({
    code: "CONFIG",
    outcome: "not_applied",
  });
  expect(await rollout.preflight(soon())).toMatchObject([{ status: "fail", code: "CONFIG" }]);
  expect(seen).toEqual([]);
});

test.each([
  ["https://ops.example.com/restart", true],
  ["http://localhost:8080/x", true],
  ["http://127.9.9.9/", true],
  ["http://[::1]:8080/", true],
  ["http://ops.example.com/", false],
  ["http://127.0.0.1.example.com/", false],
  ["http://localhost.example.com/", false],
  ["https://user:word@ops.example.com/", false],
  ["ftp://ops.example.com/", false],
  ["ops.example.com", false],
  ["", false],
])("url %s: %s", (url, valid) => {
  expect(z.safeParse(webhook.schema, { url, secret }).success).toBe(valid);
});

test.each([{}, { env: "A", file: "b" }, { value: "inline" }])("secret from %o is refused", (valueFrom) => {
  expect(z.safeParse(webhook.schema, { url: "https://a.example.com/", secret: { valueFrom } }).success).toBe(
    false,
  );
  expect(z.safeParse(webhook.schema, { url: "https://a.example.com/", secret: "inline" }).success).toBe(
    false,
  );
});
