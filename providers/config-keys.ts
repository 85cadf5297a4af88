import * as z from "zod/mini";
import { DURATION, durationMs } from "./kit.ts";

export const nonEmpty = (words: string) => z.string().check(z.minLength(1), z.describe(words));

export const flag = (unset: boolean, words: string) =>
  z._default(z.boolean(), unset).check(z.describe(words));

/** A secret of the target: where it is read from, never itself. */
export const secretFrom = (words: string, file = "Path of a file.") =>
  z
    .strictObject({
      valueFrom: z
        .strictObject({
          env: z.exactOptional(nonEmpty("Name of an environment variable.")),
          file: z.exactOptional(nonEmpty(file)),
          credential: z.exactOptional(nonEmpty("Name of a systemd credential.")),
        })
        .check(
          z.refine((from) => Object.keys(from).length === 1, "exactly one of env, file, credential"),
          z.describe("One of env, file, credential."),
        ),
    })
    .check(z.describe(words));

type Bounds = { readonly leastMs: number; readonly mostMs: number; readonly rule: string };

/** A time limit, as a duration within `bounds`; their `rule` says them to a person. */
export const timeLimit = (unset: string, { leastMs, mostMs, rule }: Bounds, words: string) => {
  const isWithin = (given: string): boolean => durationMs(given) >= leastMs && durationMs(given) <= mostMs;
  return z
    ._default(z.string().check(z.regex(DURATION), z.refine(isWithin, rule)), unset)
    .check(z.describe(words));
};
