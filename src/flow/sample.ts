import type { Usage } from "../core/events.ts";
import { wanted } from "../core/state.ts";
import type { Hands } from "./hands.ts";
import type { Journal } from "./journal.ts";
import { openKeys } from "./keys.ts";

/** What IMKIT counts for the app, asked with the key that the stores should hold. null = nothing to ask with, or not to be had. */
export const sampleUsage = async (hands: Hands, journal: Journal): Promise<Usage | null> => {
  const s = journal.state();
  const fp = wanted(s);
  if (fp === null || s.verdicts.get(fp)?.verdict === "rejected") return null;
  const key = await openKeys(hands, journal).find(fp);
  return key === null ? null : hands.platform.usage(key, hands.signal);
};
