import { createHmac, randomBytes } from "node:crypto";
import * as z from "zod/mini";
import { ProviderError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Check, Revision, Store, Stored } from "../../src/ports.ts";
import { timeLimit } from "../config-keys.ts";
import { CALL_LIMIT_MS, check, defineStore, durationMs, movedOn, refused, type Tools } from "../kit.ts";
import { type Ended, programCheck, runProgram } from "../program.ts";

const argv = z.array(z.string()).check(z.minLength(1));
const schema = z.strictObject({
  read: argv.check(
    z.describe(
      "Program and arguments, no shell, that print the key. Exit 0 = printed, 3 = there is none, anything else = cannot say.",
    ),
  ),
  write: z.optional(
    argv.check(
      z.describe(
        "Program and arguments, no shell, that store the key given on standard input (no newline). Exit 0 = stored for good, " +
          "4 = refused and nothing changed, anything else = cannot say, the key is read back.",
      ),
    ),
  ),
  remove: z.optional(
    argv.check(
      z.describe(
        "For an inbox: program and arguments, no shell, that take the key away once it was taken in. Exit 0 = gone, 4 = refused.",
      ),
    ),
  ),
  timeout: timeLimit(
    "30s",
    { leastMs: 1, mostMs: 59_999, rule: "at most 59s" },
    "How long each of the two may take, at most 59s.",
  ),
});
type Config = z.infer<typeof schema>;

const ABSENT = 3;
const REFUSED = 4;
const OUTPUT_CAP = 64 * 1024;
const NO_WRITE = "Add write: [program, …], or write: false if something else fills this store.";

/**
 * Any program as a store. The key leaves it on standard output and enters it on standard input, never by argument or environment; what
 * it says on standard error is dropped. There is no conditional write: `expect` is compared with a read just before, so a change in
 * between is overwritten. A write that was cut off, or failed without exit 4, is `unknown` until a read decides.
 */
export default defineStore({ kind: "exec", schema, open: (config, tools) => openExec(config, tools) });

const openExec = (
  { read: readArgv, write: writeArgv, remove: removeArgv, timeout }: Config,
  tools: Tools,
): Store => {
  const reader = readArgv[0] ?? "";

  const read = async (signal: AbortSignal): Promise<Stored | null> => {
    const limitMs = durationMs(timeout);
    const ended = await runProgram(readArgv, tools, { signal, limitMs, keep: OUTPUT_CAP });
    if (ended.how !== "exit") throw cutOff(ended, reader);
    if (ended.status === ABSENT) return null;
    if (ended.status !== 0) throw refused("UNAVAILABLE", `${reader}: exit status ${ended.status}`);
    const bytes = withoutNewline(ended.output);
    if (bytes.length === 0) {
      throw refused("CONFIG", `${reader} printed nothing; exit ${ABSENT} means that there is no key`);
    }
    const secret = new Secret(bytes);
    return { secret, revision: revisionOf(secret), createdAt: null, witness: null };
  };

  const write: Store["write"] = async (next, expect, _op, signal) => {
    if (writeArgv === undefined) throw refused("UNSUPPORTED", "there is no write command");
    const began = performance.now();
    const before = await read(signal);
    if (before?.secret.equals(next)) return before.revision;
    if ((before?.revision ?? null) !== expect) throw movedOn();
    await change(writeArgv, began, signal, next.reveal());
    return revisionOf(next);
  };

  const change = async (
    words: readonly string[],
    began: number,
    signal: AbortSignal,
    input?: string,
  ): Promise<void> => {
    const [program = ""] = words;
    // Both programs together stay under the limit of one call.
    const limitMs = Math.min(durationMs(timeout), CALL_LIMIT_MS - (performance.now() - began));
    const given = input === undefined ? {} : { input };
    const ended = await runProgram(words, tools, { signal, limitMs, ...given });
    if (ended.how !== "exit") throw cutOff(ended, program, "unknown");
    if (ended.status === REFUSED) throw refused("AUTHZ", `${program} refused (exit ${REFUSED})`);
    if (ended.status !== 0)
      throw new ProviderError("UNAVAILABLE", "unknown", `${program}: exit status ${ended.status}`);
  };

  const remove = async (words: readonly string[], expect: Revision, signal: AbortSignal): Promise<void> => {
    const began = performance.now();
    const before = await read(signal);
    if (before === null) return;
    if (before.revision !== expect) throw movedOn();
    await change(words, began, signal);
  };

  const preflight = async (signal: AbortSignal): Promise<readonly Check[]> => {
    const programs = [
      await programCheck("read-program", reader, "read", tools),
      writeArgv === undefined
        ? check.fail("write-program", "there is no write command", NO_WRITE, "UNSUPPORTED")
        : await programCheck("write-program", writeArgv[0] ?? "", "write", tools),
    ];
    if (programs.some((check) => check.status === "fail")) return programs;
    try {
      await read(signal);
      return [...programs, check.ok("readable", `${reader} answers`)];
    } catch (error) {
      if (!(error instanceof ProviderError)) return [...programs, check.unproved("readable", "no answer")];
      const fix = `Run ${reader} by hand and mend what it says.`;
      return [...programs, check.fail("readable", error.hint, fix, error.code)];
    }
  };

  return {
    where: `exec:${reader}`,
    caps: { staging: false, compareAndSwap: false, witness: false, retire: false },
    preflight,
    read,
    write,
    ...(removeArgv === undefined
      ? {}
      : { remove: (expect: Revision, signal: AbortSignal) => remove(removeArgv, expect, signal) }),
  };
};

const cutOff = (
  ended: Exclude<Ended, { how: "exit" }>,
  program: string,
  outcome: "unknown" | "not_applied" = "not_applied",
) => {
  switch (ended.how) {
    case "missing":
      return refused("CONFIG", `no program ${program} to run`);
    case "late":
      return new ProviderError("TIMEOUT", outcome, `${program} did not end in time`);
    case "signal":
      return new ProviderError("UNAVAILABLE", outcome, `${program} was ended by a signal`);
    case "too-much":
      return new ProviderError("TOO_LARGE", outcome, `${program} printed more than 64 KiB`);
  }
};

const withoutNewline = (bytes: Buffer): Buffer => {
  if (bytes.at(-1) !== 0x0a) return bytes;
  return bytes.subarray(0, bytes.at(-2) === 0x0d ? -2 : -1);
};

/** Keyed by this process alone: a plain digest of the key must not reach the ledger. Later processes read a revision anew. */
const REVISION_KEY = randomBytes(32);
const revisionOf = (secret: Secret): Revision =>
  createHmac("sha256", REVISION_KEY).update(secret.reveal()).digest("hex").slice(0, 32) as Revision;
