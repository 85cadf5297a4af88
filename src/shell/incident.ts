import { follow } from "../core/chain.ts";
import { RotatorError } from "../core/errors.ts";
import type { Entry } from "../core/events.ts";
import { type Incident, incident } from "../core/incident.ts";
import { incidentWords } from "../core/incident-words.ts";
import type { Ledger } from "../ports.ts";
import { type ReportFiles, writeReport } from "../io/report-file.ts";
import type { Io } from "./io.ts";
import type { Wired } from "./wire.ts";

/** Where the report is, and what it says. */
export type Reported = ReportFiles & { readonly incident: Incident };

/**
 * Writes the incident report of a rotation, open or ended, as Markdown and JSON, and says on stderr where it is. A rotation without an
 * emergency has none. Never rejects: a report that cannot be made is remarked, and stops nothing.
 * @returns null where there is none
 */
export const reportIncident = async (
  io: Pick<Io, "say" | "warn" | "command">,
  wired: Wired,
  rotation: string,
): Promise<Reported | null> => {
  try {
    const { ledger } = await wired.hands();
    const { baseUrl, timezone } = wired.config;
    const context = { app: wired.name, host: new URL(baseUrl).host, timezone, command: io.command };
    const found = incident(await entriesOf(ledger), rotation, context);
    if (found === null) return null;
    const markdown = incidentWords(found);
    const files = await writeReport(wired.reportsDir, rotation, { markdown, json: found });
    io.say(`  Incident report: ${files.markdown}`);
    io.say(`                   ${files.json}`);
    return { ...files, incident: found };
  } catch (error) {
    const why = error instanceof RotatorError ? (error.why ?? error.what) : "the ledger makes no sense";
    io.warn(`  ! The incident report could not be written: ${why}`);
    return null;
  }
};

/** @throws RotatorError LEDGER_BROKEN */
const entriesOf = async (ledger: Ledger): Promise<readonly Entry[]> => {
  const entries: Entry[] = [];
  for (const bytes of await ledger.read(0)) {
    const followed = follow(entries.at(-1) ?? null, bytes);
    if ("problem" in followed)
      throw new RotatorError("LEDGER_BROKEN", { why: `Entry ${entries.length}: ${followed.problem}.` });
    entries.push(followed.entry);
  }
  return entries;
};
