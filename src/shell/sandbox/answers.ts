import type { IncomingMessage, ServerResponse } from "node:http";

/** `flat`: `{"error":CODE,…}`. `envelope`: `{"RC":…,"error":{"code":CODE,…}}`. `mixed`: one after the other. */
export type ErrorShape = "flat" | "envelope" | "mixed";

const WORDS: Readonly<Record<string, { readonly status: number; readonly message: string }>> = {
  INVALID_API_KEY: { status: 401, message: "The provided API key is invalid or expired" },
  UNAUTHORIZED: { status: 401, message: "Unauthorized" },
  INVALID_AUTH: { status: 401, message: "Invalid authentication" },
  MISSING_API_KEY: { status: 401, message: "IM-API-KEY header is required" },
  RATE_LIMIT_EXCEEDED: { status: 429, message: "Too many requests, please try again later" },
  INSUFFICIENT_PERMISSIONS: { status: 403, message: "API key does not have permission for this operation" },
  BAD_REQUEST: { status: 400, message: "The request is not valid" },
  NOT_FOUND: { status: 404, message: "No such resource" },
  METHOD_NOT_ALLOWED: { status: 405, message: "Method not allowed" },
  PAYLOAD_TOO_LARGE: { status: 413, message: "The body is too large" },
  MISDIRECTED: { status: 421, message: "This name is not served here" },
  INTERNAL: { status: 500, message: "Internal error" },
};

const RM: Readonly<Record<number, string>> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  413: "Payload Too Large",
  421: "Misdirected Request",
  429: "Too Many Requests",
  500: "Internal Server Error",
};

export const sendJson = (response: ServerResponse, status: number, body: unknown, headers = {}): void => {
  const bytes = Buffer.from(JSON.stringify(body));
  response.writeHead(status, {
    "content-type": "application/json; charset=utf-8",
    "content-length": bytes.length,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    ...headers,
  });
  response.end(response.req.method === "HEAD" ? undefined : bytes);
};

/** IMKIT's success envelope. */
export const sendResult = (response: ServerResponse, result: unknown): void =>
  sendJson(response, 200, { RC: 0, RM: "OK", result });

/** Sends one of IMKIT's errors in the shape that is set. `retryAfter` (seconds) goes into the body. */
export type SendError = (response: ServerResponse, code: string, retryAfter?: number) => void;

/** @param header also sends `retryAfter` as an HTTP `Retry-After` header */
export const errorSender = (shape: ErrorShape, header: boolean): SendError => {
  let turn = 0;
  return (response, code, retryAfter) => {
    const { status, message } = WORDS[code] ?? { status: 500, message: "Internal error" };
    const wait = retryAfter === undefined ? {} : { retryAfter };
    const flat = shape === "flat" || (shape === "mixed" && turn++ % 2 === 0);
    const body = flat
      ? { error: code, message, ...wait }
      : { RC: status, RM: RM[status], error: { code, message, ...wait } };
    sendJson(
      response,
      status,
      body,
      header && retryAfter !== undefined ? { "retry-after": `${retryAfter}` } : {},
    );
  };
};

/** The body as text; null when it is over `max` bytes (the rest is not read). Rejects when the connection breaks. */
export const readBody = async (request: IncomingMessage, max = 64 * 1024): Promise<string | null> => {
  const chunks: Buffer[] = [];
  let size = 0;
  // Not destroyed on an early return: the answer must still go out.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > max) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
};

/** A JSON object's own fields; null for everything else. */
export const parseObject = (text: string): Readonly<Record<string, unknown>> | null => {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Readonly<Record<string, unknown>>)
      : null;
  } catch {
    return null;
  }
};
