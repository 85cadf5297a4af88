import * as z from "zod/mini";
import { defineRollout } from "../kit.ts";

const schema = z.strictObject({
  reason: z
    .string()
    .check(
      z.trim(),
      z.minLength(1),
      z.maxLength(200),
      z.describe(
        "Why nothing has to be restarted, e.g. “reads the file on each call”. Goes into the ledger.",
      ),
    ),
});

/** Nothing to restart, and somebody said why. */
export default defineRollout({
  kind: "none",
  schema,
  open: ({ reason }) => ({
    where: "none",
    how: "none",
    reason,
    preflight: async () => [],
    trigger: async () => ({ state: "done", proof: 0, reason }),
  }),
});
