import { createHmac } from "node:crypto";
import * as z from "zod/mini";
import { ProviderError } from "../../src/core/errors.ts";
import type { RolloutOp, RolloutState } from "../../src/ports.ts";
import { secretFrom, timeLimit } from "../config-keys.ts";
import { bounded, CALL_LIMIT_MS, check, defineRollout, durationMs, errnoOf, refused } from "../kit.ts";

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

const schema = z.strictObject({
  url: z
    .string()
    .check(
      z.refine(isAllowed, "an https URL (http only to this machine), without user and password"),
      z.describe("Where the signed POST goes. https, or http to this machine. Redirects are not followed."),
    ),
  secret: secretFrom("The shared secret of the signature: where it is read from, never itself."),
  timeout: timeLimit(
    "15s",
    { leastMs: 1, mostMs: 59_999, rule: "under 60s" },
    "How long the answer may take, under 60s.",
  ),
});

/**
 * A signed POST asks another system to restart the workload; 2xx = done. JSON body `{app, rotation, opId, fingerprint, at}`, headers
 * `x-imkit-rotator-id` (the op: the same for every repeat), `x-imkit-rotator-timestamp` (epoch seconds) and
 * `x-imkit-rotator-signature: sha256=<hex>`, the HMAC-SHA-256 of `<timestamp>.<body>`. The answer's body is never read.
 */
export default defineRollout({
  kind: "webhook",
  schema,
  open: ({ url, secret, timeout }, tools) => {
    const { origin } = new URL(url);

    const sharedSecret = async (): Promise<string> => {
      // It rejects with the words of the config room; this room has its own code.
      const text = await tools.valueOf(secret).catch(() => "");
      if (text === "") throw refused("CONFIG", "the webhook's secret cannot be read, or is empty");
      return text;
    };

    const trigger = async (op: RolloutOp, signal: AbortSignal): Promise<RolloutState> => {
      const now = new Date();
      const { app, rotation, opId, fingerprint } = op;
      const body = JSON.stringify({ app, rotation, opId, fingerprint, at: now.toISOString() });
      const timestamp = String(Math.floor(now.getTime() / 1_000));
      const signature = createHmac("sha256", await sharedSecret())
        .update(`${timestamp}.${body}`)
        .digest("hex");
      const limitMs = Math.min(durationMs(timeout), CALL_LIMIT_MS);
      return bounded(signal, limitMs, async (signal, commit) => {
        commit();
        const headers = {
          "content-type": "application/json",
          "x-imkit-rotator-id": op.opId,
          "x-imkit-rotator-timestamp": timestamp,
          "x-imkit-rotator-signature": `sha256=${signature}`,
        };
        const response = await fetch(url, {
          method: "POST",
          body,
          headers,
          redirect: "manual",
          signal,
        }).catch(unsent);
        await response.body?.cancel().catch(() => {});
        return judge(response.status, response.headers.get("retry-after"));
      });
    };

    return {
      // The path may be a secret of the receiver.
      where: `webhook:${origin}`,
      how: "auto",
      reason: "",
      preflight: async () => {
        const fix = "Set what secret.valueFrom names.";
        return await sharedSecret().then(
          () => [check.ok("secret", "the shared secret can be read")],
          () => [check.fail("secret", "the shared secret cannot be read", fix, "CONFIG")],
        );
      },
      trigger,
    };
  },
});

function isAllowed(text: string): boolean {
  const url = URL.parse(text);
  if (url === null || url.username !== "" || url.password !== "") return false;
  return url.protocol === "https:" || (url.protocol === "http:" && LOOPBACK.test(url.hostname));
}

const judge = (status: number, retryAfter: string | null): RolloutState => {
  if (status >= 200 && status < 300) return { state: "done", proof: 0, reason: "" };
  const said = `the webhook answered ${status}`;
  const waitMs = retryAfterMs(retryAfter);
  if (status === 429) throw refused("THROTTLED", said, waitMs);
  if (status >= 500) throw new ProviderError("UNAVAILABLE", "unknown", said, waitMs);
  return { state: "failed", proof: 0, reason: said };
};

/** Whole seconds, clamped to 1-3600 s; null for a date or anything else. */
const retryAfterMs = (header: string | null): number | null =>
  header !== null && /^\d{1,9}$/.test(header) ? Math.min(Math.max(Number(header), 1), 3_600) * 1_000 : null;

/** fetch hides the reason in `cause`. Only these prove that nothing was sent. */
const unsent = (error: unknown): never => {
  const cause = error instanceof Error ? error.cause : undefined;
  const isUnsent = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN"].includes(errnoOf(cause));
  throw new ProviderError("UNAVAILABLE", isUnsent ? "not_applied" : "unknown", "the webhook gave no answer");
};
