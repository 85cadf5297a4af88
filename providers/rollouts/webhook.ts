import { createHmac } from "node:crypto";
import * as z from "zod/mini";
import { ProviderError } from "../../src/core/errors.ts";
import type { RolloutOp, RolloutState } from "../../src/ports.ts";
import { bounded, CALL_LIMIT_MS, DURATION, defineRollout, durationMs } from "../kit.ts";

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

const named = (words: string) => z.string().check(z.minLength(1), z.describe(words));

const schema = z.strictObject({
  url: z
    .string()
    .check(
      z.refine(isAllowed, "an https URL (http only to this machine), without user and password"),
      z.describe("Where the signed POST goes. https, or http to this machine. Redirects are not followed."),
    ),
  secret: z
    .strictObject({
      valueFrom: z
        .strictObject({
          env: z.exactOptional(named("Name of an environment variable.")),
          file: z.exactOptional(named("Path of a file.")),
          credential: z.exactOptional(named("Name of a systemd credential.")),
        })
        .check(
          z.refine((from) => Object.keys(from).length === 1, "exactly one of env, file, credential"),
          z.describe("One of env, file, credential."),
        ),
    })
    .check(z.describe("The shared secret of the signature: where it is read from, never itself.")),
  timeout: z
    ._default(
      z.string().check(
        z.regex(DURATION),
        z.refine((text) => durationMs(text) >= 1 && durationMs(text) < 60_000, "under 60s"),
      ),
      "15s",
    )
    .check(z.describe("How long the answer may take, under 60s.")),
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
      if (text === "")
        throw new ProviderError("CONFIG", "not_applied", "the webhook's secret cannot be read, or is empty");
      return text;
    };

    const trigger = async (op: RolloutOp, signal: AbortSignal): Promise<RolloutState> => {
      const now = new Date();
      const body = JSON.stringify({ ...bodyOf(op), at: now.toISOString() });
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
        const readable = await sharedSecret().then(
          () => true,
          () => false,
        );
        if (readable) return [{ id: "secret", status: "ok", message: "the shared secret can be read" }];
        const fix = "Set what secret.valueFrom names.";
        return [
          { id: "secret", status: "fail", message: "the shared secret cannot be read", fix, code: "CONFIG" },
        ];
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

const bodyOf = ({ app, rotation, opId, fingerprint }: RolloutOp) => ({ app, rotation, opId, fingerprint });

const judge = (status: number, retryAfter: string | null): RolloutState => {
  if (status >= 200 && status < 300) return { state: "done", proof: 0, reason: "" };
  if (status === 429)
    throw new ProviderError("THROTTLED", "not_applied", "the webhook answered 429", retryAfterMs(retryAfter));
  if (status >= 500) {
    throw new ProviderError(
      "UNAVAILABLE",
      "unknown",
      `the webhook answered ${status}`,
      retryAfterMs(retryAfter),
    );
  }
  return { state: "failed", proof: 0, reason: `the webhook answered ${status}` };
};

/** Whole seconds, clamped to 1-3600 s; null for a date or anything else. */
const retryAfterMs = (header: string | null): number | null =>
  header !== null && /^\d{1,9}$/.test(header) ? Math.min(Math.max(Number(header), 1), 3_600) * 1_000 : null;

/** fetch hides the reason in `cause`. Only these prove that nothing was sent. */
const unsent = (error: unknown): never => {
  const cause = error instanceof Error ? error.cause : undefined;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const refused = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN"].includes(code);
  throw new ProviderError("UNAVAILABLE", refused ? "not_applied" : "unknown", "the webhook gave no answer");
};
