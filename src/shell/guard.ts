import { RotatorError } from "../core/errors.ts";
import type { Env } from "../io/config-find.ts";
import { holdsKey, looksLikeKey } from "../core/intake.ts";

/**
 * What would print the key or weaken TLS is refused before anything is read.
 * @throws RotatorError UNSAFE_ENVIRONMENT, KEY_IN_ARGUMENT
 */
export const guard = (
  argv: readonly string[],
  execArgv: readonly string[],
  env: Env,
  inspecting: boolean,
): void => {
  const refuse = (name: string, why: string): never => {
    throw new RotatorError("UNSAFE_ENVIRONMENT", { why: `${name} is set: ${why}.`, do: [`unset ${name}`] });
  };
  if (env["NODE_TLS_REJECT_UNAUTHORIZED"] === "0") {
    refuse("NODE_TLS_REJECT_UNAUTHORIZED", "with it any server may call itself IMKIT");
  }
  if ((env["NODE_DEBUG"] ?? "") !== "") refuse("NODE_DEBUG", "it prints request headers, and the key is one");
  if ((env["NODE_DEBUG_NATIVE"] ?? "") !== "") refuse("NODE_DEBUG_NATIVE", "it prints what is sent");
  if ((env["SSLKEYLOGFILE"] ?? "") !== "")
    refuse("SSLKEYLOGFILE", "it opens recorded traffic to whoever reads that file");
  const flags = [...execArgv, ...(env["NODE_OPTIONS"] ?? "").split(/\s+/)];
  const bad = flags.find((f) =>
    /^--(inspect|tls-keylog|trace-tls|heapsnapshot|report-on|report-uncaught|diagnostic-dir)/.test(f),
  );
  if (bad !== undefined || inspecting) {
    throw new RotatorError("UNSAFE_ENVIRONMENT", {
      why: `Node was started with ${bad?.split("=")[0] ?? "an open inspector"}, through which the key could be read.`,
      do: ["Start without it (look at NODE_OPTIONS)"],
    });
  }
  for (const word of argv) {
    const value = word.startsWith("-") && word.includes("=") ? word.slice(word.indexOf("=") + 1) : word;
    if (looksLikeKey(word) || looksLikeKey(value) || holdsKey(word))
      throw new RotatorError("KEY_IN_ARGUMENT");
  }
};
