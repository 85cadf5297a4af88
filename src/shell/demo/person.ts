import { Agent, request } from "node:http";
import { parseObject } from "../sandbox/answers.ts";

type Reply = { readonly status: number; readonly body: Readonly<Record<string, unknown>> };

const call = (
  url: string,
  method: "GET" | "POST",
  headers: Readonly<Record<string, string>>,
  body = "",
): Promise<Reply> =>
  new Promise((resolve, reject) => {
    // An agent of its own: no proxy of the environment may come between.
    const options = {
      method,
      headers: { accept: "application/json", ...headers },
      agent: new Agent(),
      timeout: 10_000,
    };
    const sent = request(url, options, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body: parseObject(text) ?? {} }));
      response.on("error", reject);
    });
    sent.on("timeout", () => sent.destroy()).on("error", reject);
    sent.end(body);
  });

const textOf = (value: unknown): string => (typeof value === "string" ? value : "");

/** The person's two acts, done at the sandbox's Dashboard, and a look at IMKIT that is not the rotator's. */
export type Person = {
  /** Issues a key and reads it, the one time it is shown. */
  readonly issue: () => Promise<string>;
  /** Revokes the oldest key that still works; false when the Dashboard refuses. */
  readonly revokeOldest: () => Promise<boolean>;
  /** `200`, or the error code that IMKIT answers to this key. */
  readonly ask: (key: string) => Promise<string>;
};

/** @param url base URL of the sandbox */
export const person = (url: string): Person => ({
  issue: async () => {
    const { body } = await call(`${url}/dashboard/issue`, "POST", {});
    return textOf(body["key"]);
  },
  revokeOldest: async () => {
    const { body } = await call(`${url}/dashboard`, "GET", {});
    const keys = Array.isArray(body["keys"]) ? body["keys"] : [];
    const live = keys.find((key: { readonly revokedAt: unknown }) => key.revokedAt === null);
    const headers = { "content-type": "application/json" };
    const asked = JSON.stringify({ id: live?.id });
    return (await call(`${url}/dashboard/revoke`, "POST", headers, asked)).status === 200;
  },
  ask: async (key) => {
    const { status, body } = await call(`${url}/admin/connection-count`, "GET", { "im-api-key": key });
    return status === 200 ? "200" : textOf(body["error"]) || String(status);
  },
});
