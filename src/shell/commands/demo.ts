import { RotatorError } from "../../core/errors.ts";
import { openPlace } from "../demo/place.ts";
import { openScreen } from "../demo/screen.ts";
import { type Facts, tellStory } from "../demo/story.ts";
import type { Io } from "../io.ts";
import { paint } from "../print.ts";

const INTRO = `A pretend IMKIT, and a chat service that sends it 20 requests a second. While it
works, its API Key is replaced. Nothing leaves this computer, and no key of
yours is used. Keys are shown as fingerprints of 8 digits, never themselves.
`;

const NEXT = [
  {
    text: "Do it by hand, with a Dashboard to click in",
    command: "imkit-rotator sandbox --write-dotenv play.env --write-config play.yaml",
  },
  { text: "Write a config for your own app", command: "imkit-rotator init" },
];

/**
 * The whole story, driven through the program itself. Leaves nothing behind.
 * @returns 0 when every step and every figure was as it should be
 * @throws RotatorError INTERNAL at the first that was not; INTERRUPTED
 */
export const runDemo = async (io: Io): Promise<number> => {
  const started = performance.now();
  const screen = openScreen(io);
  screen.say(INTRO);
  const place = await openPlace(io.env, io.signal);
  let facts: Facts;
  try {
    facts = await tellStory(place, screen, io.signal);
  } catch (error) {
    if (io.json && !(error instanceof RotatorError && error.code === "INTERRUPTED")) {
      io.out(JSON.stringify({ schemaVersion: 1, ok: false, steps: screen.steps(), exitCode: 1 }));
    }
    throw error;
  } finally {
    await place.close();
  }
  const ms = Math.round(performance.now() - started);
  screen.say(`\nDone in ${(ms / 1000).toFixed(1)} s. Nothing is left behind.\n`);
  screen.say(paint(io, "bold", "Next"));
  for (const { text, command } of NEXT) {
    screen.say(`  ${text}:`);
    // Cut where the shell can join it again, to stay within 80 columns.
    const typed = io.paste(command).replace(" --write-dotenv", " \\\n      --write-dotenv");
    screen.say(`    ${paint(io, "cyan", typed)}`);
  }
  if (io.json) {
    const answer = {
      schemaVersion: 1,
      ok: true,
      ms,
      ...facts,
      steps: screen.steps(),
      next: NEXT,
      exitCode: 0,
    };
    io.out(JSON.stringify(answer));
  }
  return 0;
};
