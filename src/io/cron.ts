import type { Schedule } from "../core/schedule.ts";

/** What the config's cron line means, as node-cron reads it; null = it has none. The config was checked, so it can be read. */
export const readSchedule = async (line: string | null, timezone: string): Promise<Schedule | null> => {
  if (line === null) return null;
  const { parse } = await import("node-cron");
  return { fields: parse(line.trim()), timezone };
};
