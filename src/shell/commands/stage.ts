import { readFile } from "node:fs/promises";
import { RotatorError } from "../../core/errors.ts";
import { checkKey } from "../../core/intake.ts";
import { phaseOf } from "../../core/outcome.ts";
import { nextSteps } from "../../core/report.ts";
import { type Secret, showFp } from "../../core/secret.ts";
import { discard, type StageOptions, type StageResult, stage } from "../../flow/stage.ts";
import { askSecret, askYes, type Io, readStdin } from "../io.ts";
import { paint, printNext } from "../print.ts";
import type { Wired } from "../wire.ts";
import { rotateCommand } from "./rotate.ts";

export type StageFlags = {
  readonly fromStdin?: boolean;
  readonly fromFile?: string;
  readonly fromEnv?: string;
  readonly replace?: boolean;
  readonly discard?: boolean;
  readonly forget?: boolean;
};

/** @returns the exit status: accepted 0, unclear 1, rejected or of another app 4. */
export const stageCommand = async (io: Io, wired: Wired, flags: StageFlags): Promise<number> => {
  if (flags.forget && !flags.discard) throw new RotatorError("USAGE", { what: "--forget goes with --discard." });
  if (flags.discard) return discardCommand(io, wired, flags.forget === true);
  const { key, source } = await readKey(io, flags, wired.name);
  const hands = await wired.hands();
  const result = await stage(hands, key, { source, replace: flags.replace === true });
  return tell(io, wired, result);
};

type Sources = Pick<StageFlags, "fromStdin" | "fromFile" | "fromEnv">;

/** Takes a key from where the flags say, else by a hidden prompt. @throws RotatorError KEY_MALFORMED, INPUT_MISSING, USAGE */
export const readKey = async (
  io: Io,
  flags: Sources,
  app: string,
): Promise<{ key: Secret; source: StageOptions["source"] }> => {
  const given = [flags.fromStdin, flags.fromFile, flags.fromEnv].filter((f) => f !== undefined && f !== false);
  if (given.length > 1) throw new RotatorError("USAGE", { what: "Only one of --from-stdin, --from-file, --from-env." });
  const { text, source } = await readText(io, flags, app);
  const checked = checkKey(text);
  if (!checked.ok) {
    throw new RotatorError("KEY_MALFORMED", {
      why: checked.why,
      do: ["Copy the API Key in the Dashboard (API Settings) again", `imkit-rotator stage ${app}`],
    });
  }
  for (const note of checked.notes) io.say(`  ${paint(io, "yellow", "!")} ${note}`);
  return { key: checked.secret, source };
};

const readText = async (
  io: Io,
  flags: Sources,
  app: string,
): Promise<{ text: string; source: StageOptions["source"] }> => {
  if (flags.fromStdin) return { text: await readStdin(), source: "stdin" };
  if (flags.fromFile !== undefined) return { text: await readKeyFile(flags.fromFile), source: "file" };
  if (flags.fromEnv !== undefined) {
    const text = io.env[flags.fromEnv];
    if (text === undefined) {
      throw new RotatorError("INPUT_MISSING", { what: `The environment variable ${flags.fromEnv} is not set.` });
    }
    return { text, source: "env" };
  }
  if (!io.interactive) {
    throw new RotatorError("USAGE", {
      what: "No key was given.",
      why: "There is no terminal to ask on.",
      do: [`imkit-rotator stage ${app} --from-stdin < key.txt`],
    });
  }
  return { text: await askSecret(`New API Key of ${app} (hidden)`), source: "prompt" };
};

const MAX_FILE = 64 * 1024;

const readKeyFile = async (path: string): Promise<string> => {
  try {
    const bytes = await readFile(path, { signal: AbortSignal.timeout(5_000) });
    if (bytes.length > MAX_FILE) throw new RotatorError("KEY_MALFORMED", { why: `${path} is larger than 64 KiB.` });
    return bytes.toString("utf8");
  } catch (error) {
    if (error instanceof RotatorError) throw error;
    throw new RotatorError("INPUT_MISSING", {
      what: `The file ${path} could not be read.`,
      do: ["Check the path and the permissions"],
    });
  }
};

const tell = async (io: Io, wired: Wired, result: StageResult): Promise<number> => {
  const phase = phaseOf(result.state);
  const different = result.sameApp === "different";
  const exit = different || result.verdict === "rejected" ? 4 : result.verdict === "unclear" ? 1 : 0;
  const next = different ? otherApp(wired, result) : nextSteps(wired.name, result.state, phase, wired.clock);
  if (io.json) {
    io.out(
      JSON.stringify({
        schemaVersion: 1,
        app: wired.name,
        fingerprint: showFp(result.fp),
        verdict: result.verdict,
        durable: true,
        mode: result.mode,
        sameApp: result.sameApp,
        next,
      }),
    );
  } else {
    io.out(`Staged ${showFp(result.fp)} for ${wired.name}: ${result.verdict} by IMKIT; saved, durable.`);
    if (result.mode !== null) io.say(`  Mode ${result.mode}; same app: ${result.sameApp}.`);
    if (exit === 0) printNext(io, next, io.say);
  }
  if (exit !== 0) throw stageFailure(wired, result, next.flatMap((n) => n.command ?? []));
  if (result.mode !== "replace") return 0;
  io.warn(`  ${paint(io, "red", "!")} The old key is dead already: services are failing NOW until the stores are written.`);
  if (!io.interactive || !(await askYes("Rotate now?"))) return 0;
  return rotateCommand(io, wired, { yes: true });
};

const otherApp = (wired: Wired, result: StageResult) => [
  { who: "you" as const, text: "Stage a key of the right app instead", command: `imkit-rotator stage ${wired.name} --replace` },
  {
    who: "you" as const,
    text: "Or, if it really is meant",
    command: `imkit-rotator rotate ${wired.name} --accept-app ${showFp(result.appFingerprint ?? "")}`,
  },
];

const stageFailure = (wired: Wired, result: StageResult, commands: readonly string[]): RotatorError => {
  const state = `The key ${showFp(result.fp)} is saved in escrow (durable). No store was touched.`;
  if (result.sameApp === "different") {
    return new RotatorError("WRONG_APP", { why: "IMKIT shows another app for it than for the current key.", state, do: commands });
  }
  if (result.verdict === "rejected") {
    return new RotatorError("KEY_REJECTED", {
      why: "A fresh key may need some seconds; or it is not an API Key of this app.",
      state,
      do: [`imkit-rotator rotate ${wired.name}`, `imkit-rotator stage ${wired.name} --replace`],
    });
  }
  return new RotatorError("IMKIT_UNCLEAR", {
    why: result.why,
    state,
    do: [`imkit-rotator rotate ${wired.name}`, `imkit-rotator doctor ${wired.name}`],
  });
};

const discardCommand = async (io: Io, wired: Wired, forget: boolean): Promise<number> => {
  const hands = await wired.hands();
  const { fp, state } = await discard(hands, forget);
  const phase = phaseOf(state);
  const next = fp === null ? [] : nextSteps(wired.name, state, phase, wired.clock);
  if (io.json) {
    io.out(
      JSON.stringify({
        schemaVersion: 1,
        app: wired.name,
        fingerprint: fp === null ? null : showFp(fp),
        discarded: fp !== null,
        forgotten: fp !== null && forget,
        next,
      }),
    );
  } else if (fp === null) {
    io.out(`Nothing is staged for ${wired.name}.`);
  } else {
    io.out(`Discarded ${showFp(fp)}. It works in IMKIT until it is revoked there.`);
    printNext(io, next, io.say);
  }
  return phase === "waiting-revoke" ? 3 : 0;
};
