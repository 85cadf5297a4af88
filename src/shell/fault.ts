import { RotatorError } from "../core/errors.ts";

/** Anything that was thrown, as an error that may be shown. A fault of ours may carry anything in its text: only its kind and place stay. */
export const asRotatorError = (error: unknown): RotatorError => {
  if (error instanceof RotatorError) return error;
  const place =
    error instanceof Error ? (error.stack?.split("\n").find((line) => /^\s+at /.test(line)) ?? "") : "";
  const name = error instanceof Error ? error.name : typeof error;
  const why = `${name} ${/([\w.-]+:\d+:\d+)\)?$/.exec(place)?.[1] ?? ""}`.trim();
  return new RotatorError("INTERNAL", { why, state: "What was done so far is in the ledger." });
};
