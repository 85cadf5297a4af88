const SECOND = 1_000;
const MINUTE = 60_000;
const HOUR = 3_600_000;
const DAY = 86_400_000;

/**
 * A cron line (six fields, with seconds) that comes every `ms` milliseconds, aligned to the clock in UTC. null where no such line exists: the
 * time must divide a minute, an hour or a day.
 */
export const cronOfEvery = (ms: number): string | null => {
  if (!Number.isSafeInteger(ms) || ms <= 0) return null;
  if (ms < MINUTE) return ms % SECOND === 0 && MINUTE % ms === 0 ? `*/${ms / SECOND} * * * * *` : null;
  if (ms < HOUR) return ms % MINUTE === 0 && HOUR % ms === 0 ? `0 */${ms / MINUTE} * * * *` : null;
  if (ms < DAY) return ms % HOUR === 0 && DAY % ms === 0 ? `0 0 */${ms / HOUR} * * *` : null;
  return ms === DAY ? "0 0 0 * * *" : null;
};
