/** Known to be zones without asking: the first question to Intl takes some 10 ms of a start. */
const ZONES: ReadonlySet<string> = new Set([
  "UTC",
  "Etc/UTC",
  "Asia/Taipei",
  "Asia/Tokyo",
  "Asia/Seoul",
  "Asia/Shanghai",
  "Asia/Hong_Kong",
  "Asia/Singapore",
  "Asia/Kolkata",
  "Australia/Sydney",
  "Europe/London",
  "Europe/Paris",
  "Europe/Berlin",
  "America/New_York",
  "America/Chicago",
  "America/Los_Angeles",
]);

/** Whether Intl knows a time zone of that name. */
export const isTimezone = (zone: string): boolean => {
  if (ZONES.has(zone)) return true;
  try {
    Intl.DateTimeFormat("en", { timeZone: zone });
    return true;
  } catch {
    return false;
  }
};
