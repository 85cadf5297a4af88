import * as z from "zod/mini";
import { defineRollout } from "../kit.ts";

const schema = z.strictObject({
  instructions: z.optional(
    z
      .string()
      .check(
        z.trim(),
        z.minLength(1),
        z.maxLength(500),
        z.describe("What the person has to restart, in words that he understands at night."),
      ),
  ),
});

/** A person restarts what reads the stores and says so with `rotate <app> --restarted`. */
export default defineRollout({
  kind: "manual",
  schema,
  open: ({ instructions = "Restart everything that reads the stores." }) => ({
    where: "manual",
    how: "manual",
    reason: instructions,
    preflight: async () => [],
    trigger: async () => ({ state: "held", proof: 0, reason: instructions }),
  }),
});
