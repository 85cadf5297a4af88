import { z } from "zod";
import { defineRollout } from "../kit.ts";

const schema = z.strictObject({
  reason: z
    .string()
    .trim()
    .min(1)
    .max(200)
    .describe("Why nothing has to be restarted, e.g. “reads the file on each call”. Goes into the ledger."),
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
