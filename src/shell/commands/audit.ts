import { existsSync } from "node:fs";
import { follow } from "../../core/chain.ts";
import { RotatorError } from "../../core/errors.ts";
import type { Entry } from "../../core/events.ts";
import { type Report, verifyLedger } from "../../core/verify.ts";
import { isInterrupt, orElse } from "../../flow/interrupt.ts";
import { type LedgerLines, readLedgerPath } from "../../io/ledger/export.ts";
import type { Witness } from "../../ports.ts";
import { asRotatorError } from "../fault.ts";
import type { Globals, Io } from "../io.ts";
import { headText, paint, shownEvent } from "../print.ts";
import { ledgerLines, openRooms } from "../rooms.ts";
import { pickApp, readConfig, wire } from "../wire.ts";

export type VerifyFlags = { readonly head?: string; readonly stores?: boolean };

type Head = { readonly seq: number; readonly h16: string };
type Target = {
  readonly name: string;
  readonly app: string | null;
  readonly lines: () => Promise<LedgerLines>;
};

const headOf = (text: string | undefined): Head | undefined => {
  if (text === undefined) return undefined;
  const [, seq, h16 = ""] = /^(\d{1,15}):([0-9a-f]{16,64})$/.exec(text) ?? [];
  if (seq === undefined) {
    throw new RotatorError("USAGE", {
      what: "--head wants seq:h16, such as 12:4f0c9b7e55aa10d3, as a final line quotes it.",
    });
  }
  return { seq: Number(seq), h16 };
};

/** A path or `-` needs no config, network or state; an app's name, or nothing, does. @returns the worst exit of all */
export const verifyCommand = async (
  io: Io,
  globals: Globals,
  what: string | undefined,
  flags: VerifyFlags,
): Promise<number> => {
  const head = headOf(flags.head);
  const targets = await targetsOf(io, globals, what);
  if (targets.length > 1 && head !== undefined)
    throw new RotatorError("USAGE", { what: "--head goes with one ledger: name the app." });
  let isSound = true;
  let error: RotatorError | null = null;
  for (const target of targets) {
    try {
      const report = await verifyOne(io, globals, target, head, flags.stores === true);
      print(io, target, report);
      isSound &&= report.ok;
    } catch (thrown) {
      if (isInterrupt(thrown)) throw thrown;
      error ??= asRotatorError(thrown);
    }
  }
  if (error !== null && (isSound || error.exit === 5)) throw error;
  return isSound ? 0 : 5;
};

const verifyOne = async (
  io: Io,
  globals: Globals,
  { app, lines: read }: Target,
  head: Head | undefined,
  stores: boolean,
): Promise<Report> => {
  if (stores && app === null) {
    throw new RotatorError("USAGE", { what: "--stores wants the name of an app: a file has no stores." });
  }
  const stop = (): void => void process.stdin.destroy();
  io.signal.addEventListener("abort", stop, { once: true });
  try {
    const { lines, ...rest } = await read();
    const witnesses = stores && app !== null ? await witnessesOf(io, globals, app) : [];
    return verifyLedger(lines, { ...rest, witnesses, head });
  } catch (error) {
    throw io.signal.aborted ? new RotatorError("INTERRUPTED") : error;
  } finally {
    io.signal.removeEventListener("abort", stop);
  }
};

const none: LedgerLines = { folder: true, lines: [], seqs: [] };

const targetsOf = async (io: Io, globals: Globals, what: string | undefined): Promise<readonly Target[]> => {
  if (what !== undefined && (await isPath(io, globals, what)))
    return [{ name: what, app: null, lines: () => readLedgerPath(what, process.stdin) }];
  const config = await readConfig(io, globals);
  const names = what === undefined ? [...config.apps.keys()] : [pickApp(config, what).name];
  const begun = await Promise.all(
    names.map(async (name): Promise<readonly Target[]> => {
      const lines = ledgerLines(io, config, name);
      // One that cannot be read is said in its turn.
      const isBegun = await lines.then((found) => found !== null).catch(() => true);
      return isBegun ? [{ name, app: name, lines: async () => (await lines) ?? none }] : [];
    }),
  ).then((targets) => targets.flat());
  if (begun.length === 0) {
    throw new RotatorError("INPUT_MISSING", {
      what: "There is no ledger yet.",
      why: `Nothing was staged, adopted or rotated for ${names.join(", ")} with this state directory.`,
      do: ["imkit-rotator status"],
    });
  }
  return begun;
};

/** What looks like a path, or is one and no app's name. */
const isPath = async (io: Io, globals: Globals, what: string): Promise<boolean> => {
  if (what === "-" || /[/.]/.test(what)) return true;
  if (!existsSync(what)) return false;
  try {
    return !(await readConfig(io, globals)).apps.has(what);
  } catch {
    return true;
  }
};

/** What the app's stores quote of its ledger. */
const witnessesOf = async (io: Io, globals: Globals, name: string): Promise<readonly Witness[]> => {
  const config = await readConfig(io, globals);
  const { app, signal } = await (await wire(io, config, pickApp(config, name))).hands();
  const quoted = await Promise.all(
    app.stores.map(async ({ plan, store }) => {
      const stored = await orElse(store.read(signal), "unread");
      if (stored !== "unread") return stored?.witness ?? null;
      io.warn(`  ${plan.name} could not be read, so it proves nothing.`);
      return null;
    }),
  );
  return quoted.filter((w) => w !== null);
};

const print = (io: Io, { name, app }: Target, report: Report): void => {
  if (io.json) {
    io.out(JSON.stringify({ schemaVersion: 1, ...report, ...(app === null ? {} : { app }) }));
    return;
  }
  const { seq, hash } = report.head;
  const head = seq === null || hash === null ? "" : `, head ${headText({ seq, h: hash }) ?? ""}`;
  const mark = report.ok ? paint(io, "green", "✔") : paint(io, "red", "✖");
  const more = report.partial ? ", partial (does not begin at entry 0)" : "";
  io.out(`${mark} ${name}: ${report.entries} entries, ${report.open} open intent(s)${head}${more}`);
  for (const p of report.problems) io.out(`  entry ${p.seq}: ${p.code}`);
  if (report.ok)
    io.say("  Sound. That nothing was cut off its end shows only against a head quoted elsewhere (--head).");
};

/** The one ledger that is meant. @throws RotatorError USAGE, INPUT_MISSING, LEDGER_BROKEN */
const oneLedger = async (
  io: Io,
  globals: Globals,
  app: string | undefined,
): Promise<readonly Uint8Array[]> => {
  const config = await readConfig(io, globals);
  const { name } = pickApp(config, app);
  const lines = await (await openRooms(io, config, name)).predecessor().ledger.read(0);
  if (lines.length > 0) return lines;
  throw new RotatorError("INPUT_MISSING", {
    what: `${name} has no ledger yet.`,
    why: "Nothing was staged, adopted or rotated with this state directory.",
    do: [`imkit-rotator status ${name}`],
  });
};

/** One event a line. */
export const listCommand = async (io: Io, globals: Globals, app: string | undefined): Promise<number> => {
  let before: Entry | null = null;
  for (const bytes of await oneLedger(io, globals, app)) {
    const followed = follow(before, bytes);
    if ("problem" in followed) {
      throw new RotatorError("LEDGER_BROKEN", {
        what: "The ledger is broken; the list ends before the first bad entry.",
        why: `Entry ${before === null ? 0 : before.seq + 1}: ${followed.problem}.`,
      });
    }
    before = followed.entry;
    const { seq, ts, actor, events } = followed.entry;
    events.forEach((event, index) => {
      const shown = shownEvent(event);
      if (io.json) io.out(JSON.stringify({ seq, index, ts, actor, ...shown }));
      else io.out(`${String(seq).padStart(4)} ${ts} ${actor.id} ${event.type.padEnd(12)} ${factsOf(shown)}`);
    });
  }
  return 0;
};

const factsOf = (event: Record<string, unknown>): string =>
  Object.entries(event)
    .filter(([key, v]) => key !== "type" && ["string", "number", "boolean"].includes(typeof v))
    .map(([key, v]) => `${key}=${String(v)}`)
    .join(" ");

/** The entry files joined: JSONL, byte for byte. */
export const exportCommand = async (io: Io, globals: Globals, app: string | undefined): Promise<number> => {
  for (const bytes of await oneLedger(io, globals, app)) io.raw(bytes);
  return 0;
};
