import { existsSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { RotatorError } from "../../core/errors.ts";
import { type Act, type Order, tellLeak } from "../demo/leak.ts";
import { openPlace } from "../demo/place.ts";
import { openScreen, type Screen, seconds } from "../demo/screen.ts";
import { tellStory } from "../demo/story.ts";
import type { Io } from "../io.ts";
import { selfCommand, shellWord } from "../myself.ts";
import { paint } from "../print.ts";

const INTRO = `A pretend IMKIT, and a chat service that sends it 20 requests a second. While it
works, its API Key is replaced. Nothing leaves this computer, and no key of
yours is used. Keys are shown as fingerprints of 8 digits, never themselves.
`;
const LEAK_INTRO = `A pretend IMKIT, and a chat service that sends it 20 requests a second. Its API
Key leaks into its log. The same emergency, in both orders. Nothing leaves this
computer, no key of yours is used, and no key is printed.
`;
const ACTS: readonly (readonly [Order, title: string])[] = [
  ["revoke-first", "Revoke first, as IMKIT says: the leak ends at once, and the service fails"],
  ["replace-first", "Replace first: nothing fails, and the leak stays open longer"],
];

type Next = { readonly text: string; readonly command: string };
const NEXT: readonly Next[] = [
  {
    text: "Do it by hand, with a Dashboard to click in",
    command: "imkit-rotator sandbox --write-dotenv play.env --write-config play.yaml",
  },
  { text: "Write a config for your own app", command: "imkit-rotator init" },
];
const LEAK_NEXT: readonly Next[] = [
  {
    text: "A key of yours leaked? In the folder of the .env that holds it",
    command: "imkit-rotator init --yes",
  },
  { text: "Then, and it tells you what to do", command: "imkit-rotator rotate --emergency --wait=4h" },
];

/**
 * The whole story, or with `isLeak` an emergency in both orders, driven through the program itself. Leaves nothing behind.
 * @returns 0 when every step and every figure was as it should be
 * @throws RotatorError INTERNAL at the first that was not; INTERRUPTED
 */
export const runDemo = async (io: Io, isLeak = false): Promise<number> => {
  const started = performance.now();
  const screen = openScreen(io);
  screen.say(isLeak ? LEAK_INTRO : INTRO);
  let facts: object;
  try {
    facts = isLeak ? await leaks(io, screen) : await story(io, screen);
  } catch (error) {
    if (io.json && !(error instanceof RotatorError && error.code === "INTERRUPTED")) {
      io.out(JSON.stringify({ schemaVersion: 1, ok: false, steps: screen.steps(), exitCode: 1 }));
    }
    throw error;
  }
  const ms = Math.round(performance.now() - started);
  screen.say(`\nDone in ${seconds(ms)}. Nothing is left behind.\n`);
  const next = isLeak ? [...LEAK_NEXT, ...page(io)] : NEXT;
  sayNext(io, screen, next);
  if (io.json) {
    io.out(
      JSON.stringify({ schemaVersion: 1, ok: true, ms, ...facts, steps: screen.steps(), next, exitCode: 0 }),
    );
  }
  return 0;
};

const story = async (io: Io, screen: Screen): Promise<object> => {
  const place = await openPlace(io.env, io.signal);
  try {
    return await tellStory(place, screen, io.signal);
  } finally {
    await place.close();
  }
};

/** Each act has an IMKIT, a service and a ledger of its own. */
const leaks = async (io: Io, screen: Screen): Promise<{ readonly acts: readonly Act[] }> => {
  const acts: Act[] = [];
  for (const [order, title] of ACTS) {
    screen.say(paint(io, "bold", `${acts.length === 0 ? "" : "\n"}${title}`));
    const place = await openPlace(io.env, io.signal, selfCommand(), true);
    try {
      acts.push(await tellLeak(place, order, screen, io.signal));
    } finally {
      await place.close();
    }
  }
  screen.say(`\n${" ".repeat(15)}the key was open   the service was down   failed   served`);
  for (const { order, exposure, blackout, failed, served } of acts) {
    const cells = [
      order.padEnd(14),
      seconds(exposure.reallyMs).padStart(17),
      seconds(blackout.reallyMs).padStart(23),
      String(failed).padStart(9),
      String(served).padStart(9),
    ];
    screen.say(cells.join(""));
  }
  return { acts };
};

/** The page that tells a person what to do, where it came with the program. */
const page = (io: Io): readonly Next[] => {
  const file = join(dirname(selfCommand()[1]), "..", "docs", "leak.md");
  if (!existsSync(file)) return [];
  const near = relative(io.env["INIT_CWD"] ?? io.cwd, file);
  return [
    { text: "All of it on one page", command: `less ${shellWord(near.startsWith("..") ? file : near)}` },
  ];
};

const sayNext = (io: Io, { say }: Screen, next: readonly Next[]): void => {
  say(paint(io, "bold", "Next"));
  for (const { text, command } of next) {
    say(`  ${text}:`);
    // Cut where the shell can join it again, to stay within 80 columns.
    const typed = io.paste(command).replace(" --write-dotenv", " \\\n      --write-dotenv");
    say(`    ${paint(io, "cyan", typed)}`);
  }
};
