import { RotatorError } from "../../core/errors.ts";
import type { Io } from "../io.ts";
import { paint } from "../print.ts";

export type StepLine = { readonly step: number; readonly text: string; readonly figure: string };

/** What a step found, and the command that did it. */
export type Told = { readonly figure: string; readonly command?: string };

export type Screen = {
  readonly say: (line: string) => void;
  /**
   * Does a step and shows it; on a terminal `text` stands there while it is done.
   * @throws RotatorError INTERNAL when it does not go as it should
   */
  readonly step: (text: string, work: () => Promise<Told>) => Promise<void>;
  readonly steps: () => readonly StepLine[];
};

const WIDTH = 79;

export const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

/** Stops the demo: something is not as it should be. */
export const wrong = (why: string): RotatorError => new RotatorError("INTERNAL", { why });

/** @throws RotatorError INTERNAL with `why` */
export const must = (good: boolean, why: string): void => {
  if (!good) throw wrong(why);
};

export const openScreen = (io: Io): Screen => {
  const say = io.json ? io.say : io.out;
  const { stdout } = process;
  const live = !io.json && stdout.isTTY && io.env["TERM"] !== "dumb";
  const steps: StepLine[] = [];

  const step = async (text: string, work: () => Promise<Told>): Promise<void> => {
    const number = steps.length + 1;
    const lead = `${String(number).padStart(2)} `;
    if (live) stdout.write(`${lead}… ${text}`);
    const clear = (): void => {
      if (live) stdout.write("\r\u001b[2K");
    };
    try {
      const { figure, command } = await work();
      clear();
      const room = WIDTH - lead.length - 2 - text.length;
      const end = paint(io, "bold", figure);
      say(`${lead}${paint(io, "green", "✔")} ${text}${" ".repeat(Math.max(2, room - figure.length))}${end}`);
      if (command !== undefined) say(paint(io, "dim", `     $ ${command}`));
      steps.push({ step: number, text, figure });
    } catch (error) {
      clear();
      if (error instanceof RotatorError && error.code === "INTERRUPTED") throw error;
      say(`${lead}${paint(io, "red", "✖")} ${text}`);
      if (error instanceof RotatorError) {
        throw new RotatorError("INTERNAL", {
          what: `The demo stopped at step ${number}.`,
          why: error.why || error.what,
          state: "What it had started is ended, and its files are gone. Nothing of yours was touched.",
          do: ["Run the demo again; report it if it stays."],
        });
      }
      throw error;
    }
  };
  return { say, step, steps: () => steps };
};
