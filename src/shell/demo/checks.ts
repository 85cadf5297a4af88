import { readdirSync } from "node:fs";
import { join } from "node:path";
import { RotatorError } from "../../core/errors.ts";
import { APP, type Place } from "./place.ts";
import type { Answer } from "./program.ts";
import { must, wrong } from "./screen.ts";

/** @throws RotatorError INTERNAL when a run ended in another way */
export const expectCode = ({ code, last }: Answer, name: string, wanted: number): void => {
  const said = last["type"] === "error" ? ` (${String(last["code"])}: ${String(last["what"])})` : "";
  must(code === wanted, `${name} ended with exit ${code} and not ${wanted}${said}.`);
};

/** Runs the program, which must end with `wanted`. @throws RotatorError INTERNAL, INTERRUPTED */
export const ran = async (
  { program }: Place,
  args: readonly string[],
  { wanted = 0, stdin }: { readonly wanted?: number; readonly stdin?: string } = {},
): Promise<Answer> => {
  const answer = await program.run(args, stdin);
  expectCode(answer, args.slice(0, args.indexOf(APP)).join(" "), wanted);
  return answer;
};

/** Whether one of the keys, or a piece of one, stands in `text`. */
export const showsAny = (text: string, keys: readonly string[]): boolean =>
  keys.some((key) => shows(text, key));

export const states = (targets: unknown): string =>
  Array.isArray(targets) ? targets.map((t: { readonly state: string }) => t.state).join() : "";

/** Whether `status` says that the one store holds the current key, and that this is `fp`. */
export const holds = async ({ program }: Place, fp: string): Promise<boolean> => {
  const { code, last } = await program.run(["status", APP]);
  const [app] = (last["apps"] ?? []) as readonly Readonly<Record<string, unknown>>[];
  return (
    code === 0 &&
    fp !== "" &&
    app?.["fingerprint"] === fp &&
    states(app["stores"]) === "in-sync" &&
    app["state"] === "idle"
  );
};

export const ledgerDir = ({ folder }: Place): string => join(folder, "state", APP, "ledger");

export const ledgerFiles = (place: Place): readonly string[] =>
  readdirSync(ledgerDir(place))
    .filter((name) => name.endsWith(".json"))
    .map((name) => join(ledgerDir(place), name));

export const escrowed = ({ folder }: Place): number =>
  readdirSync(join(folder, "state", APP, "escrow")).filter((name) => name.endsWith(".age")).length;

/** Whether any 8 characters in a row of `key` stand in `text`. */
export const shows = (text: string, key: string): boolean =>
  Array.from({ length: Math.max(0, key.length - 7) }, (_, at) => key.slice(at, at + 8)).some((piece) =>
    text.includes(piece),
  );

/** Looks every 20 ms, for at most 40 s. @throws RotatorError INTERNAL with `why`, INTERRUPTED */
export const until = async (
  good: () => boolean,
  signal: AbortSignal,
  why = "The chat service serves too few requests.",
): Promise<void> => {
  const end = performance.now() + 40_000;
  while (!good()) {
    if (signal.aborted) throw new RotatorError("INTERRUPTED");
    if (performance.now() > end) throw wrong(why);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};
