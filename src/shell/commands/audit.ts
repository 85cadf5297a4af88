import { existsSync } from "node:fs";
import { RotatorError } from "../../core/errors.ts";
import { openEntry } from "../../core/chain.ts";
import { type Report, verifyLedger } from "../../core/verify.ts";
import { readLedgerPath } from "../../io/ledger/export.ts";
import { fileLedger } from "../../io/ledger/file.ts";
import type { Config } from "../../io/config.ts";
import type { Witness } from "../../ports.ts";
import type { Globals, Io } from "../io.ts";
import { paint } from "../print.ts";
import { ledgerDir, pickApp, readConfig, wire } from "../wire.ts";

export type VerifyFlags = { readonly head?: string; readonly stores?: boolean };

const headOf = (text: string | undefined): { seq: number; h16: string } | undefined => {
  if (text === undefined) return undefined;
  const match = /^(\d{1,15}):([0-9a-f]{16,64})$/.exec(text);
  if (match === null) throw new RotatorError("USAGE", { what: "--head wants seq:h16, as a final line quotes it." });
  return { seq: Number(match[1]), h16: match[2] ?? "" };
};

/** A path or `-` needs no config, network or state; an app's name, or nothing, does. The worst exit of all. */
export const verifyCommand = async (
  io: Io,
  globals: Globals,
  what: string | undefined,
  flags: VerifyFlags,
): Promise<number> => {
  const head = headOf(flags.head);
  const targets = await targetsOf(io, globals, what);
  if (targets.length > 1 && head !== undefined) throw new RotatorError("USAGE", { what: "--head goes with one ledger." });
  let worst = 0;
  for (const { name, path } of targets) {
    const { folder, lines, ...rest } = await readLedgerPath(path, process.stdin);
    const witnesses = flags.stores ? await witnessesOf(io, globals, name) : [];
    const report = verifyLedger(lines, { folder, ...rest, witnesses, ...(head === undefined ? {} : { head }) });
    print(io, name, report);
    if (!report.ok) worst = 5;
  }
  return worst;
};

const targetsOf = async (
  io: Io,
  globals: Globals,
  what: string | undefined,
): Promise<readonly { name: string; path: string }[]> => {
  if (what === "-" || (what !== undefined && (/[/.]/.test(what) || (existsSync(what) && !(await isApp(io, globals, what)))))) {
    return [{ name: what, path: what }];
  }
  const config = await readConfig(io, globals);
  const names = what === undefined ? [...config.apps.keys()] : [pickApp(config, what).name];
  const begun = names.filter((name) => existsSync(ledgerDir(config, name)));
  if (begun.length === 0) {
    throw new RotatorError("INPUT_MISSING", { what: "There is no ledger yet.", do: ["imkit-rotator status"] });
  }
  return begun.map((name) => ({ name, path: ledgerDir(config, name) }));
};

/** What the app's stores quote of its ledger. */
const witnessesOf = async (io: Io, globals: Globals, name: string): Promise<readonly Witness[]> => {
  const config = await readConfig(io, globals);
  const { app } = await wire(io, config, pickApp(config, name));
  const quoted = await Promise.all(
    app.stores.map(async ({ plan, store }) => {
      const stored = await store.read(io.signal).catch(() => {
        io.warn(`  ${plan.name} could not be read, so it proves nothing.`);
        return null;
      });
      return stored?.witness ?? null;
    }),
  );
  return quoted.filter((w) => w !== null);
};

const isApp = async (io: Io, globals: Globals, name: string): Promise<boolean> => {
  try {
    return (await readConfig(io, globals)).apps.has(name);
  } catch {
    return false;
  }
};

const print = (io: Io, name: string, report: Report): void => {
  if (io.json) {
    io.out(JSON.stringify(report));
    return;
  }
  const { head } = report;
  const at = head.hash === null ? "" : `, head ${head.seq}:${head.hash.slice(0, 16)}`;
  const mark = report.ok ? paint(io, "green", "✔") : paint(io, "red", "✖");
  io.out(`${mark} ${name}: ${report.entries} entries, ${report.open} open intent(s)${at}${report.partial ? ", partial" : ""}`);
  for (const p of report.problems) io.out(`  entry ${p.seq}: ${p.code}`);
  if (report.ok) io.say("  Unchanged since that head was quoted elsewhere; a cut tail shows only against --head.");
};

const oneLedger = async (io: Io, globals: Globals, app: string | undefined): Promise<readonly Uint8Array[]> => {
  const config: Config = await readConfig(io, globals);
  const { name } = pickApp(config, app);
  const lines = await fileLedger(ledgerDir(config, name)).read(0);
  if (lines.length === 0) throw new RotatorError("INPUT_MISSING", { what: `${name} has no ledger yet.` });
  return lines;
};

/** One event a line. */
export const listCommand = async (io: Io, globals: Globals, app: string | undefined): Promise<number> => {
  for (const bytes of await oneLedger(io, globals, app)) {
    const opened = openEntry(bytes);
    if ("problem" in opened) throw new RotatorError("LEDGER_BROKEN", { why: opened.problem });
    const { seq, ts, actor, events } = opened.entry;
    events.forEach((event, index) => {
      if (io.json) io.out(JSON.stringify({ seq, index, ts, actor, ...event }));
      else {
        const { type, ...rest } = event;
        const words = Object.entries(rest).filter(([, v]) => ["string", "number", "boolean"].includes(typeof v));
        io.out(`${String(seq).padStart(4)} ${ts} ${actor.id} ${type.padEnd(12)} ${words.map(([k, v]) => `${k}=${String(v)}`).join(" ")}`);
      }
    });
  }
  return 0;
};

/** The entry files joined: JSONL, byte for byte. */
export const exportCommand = async (io: Io, globals: Globals, app: string | undefined): Promise<number> => {
  for (const bytes of await oneLedger(io, globals, app)) io.out(Buffer.from(bytes).toString("utf8").replace(/\n$/, ""));
  return 0;
};
