import type { LedgerEvent, Mode, SameApp } from "../core/events.ts";
import type { Fp, Secret } from "../core/secret.ts";
import type { Sighting } from "../core/sightings.ts";
import { isOpen, unproved } from "../core/state.ts";
import type { Hands } from "./hands.ts";
import type { Journal } from "./journal.ts";
import type { Keys } from "./keys.ts";
import {
  type Answer,
  compareApps,
  type Examined,
  examine,
  judgeBeside,
  modeOf,
  probeKey,
  verdictNews,
  wallClock,
} from "./probing.ts";

/** What IMKIT says of a key that is being staged, and of the old ones beside it. */
export type Look = {
  readonly examined: Examined;
  readonly mode: Mode | null;
  readonly sameApp: SameApp;
  readonly appFingerprint: string | null;
  readonly old: readonly OldAnswer[];
};
/** `before`: what the ledger said of that key when it was asked about. */
type OldAnswer = Answer & { readonly before: Sighting | undefined };

/** The key is safe by now: told to stop before it was answered about, it is taken in as it is. */
export const UNSEEN: Look = {
  examined: {
    probe: {
      verdict: "unclear",
      status: null,
      code: null,
      date: null,
      retryAfterMs: null,
      why: "interrupted",
    },
    control: null,
    askedTs: "",
    verdict: "unclear",
    why: "interrupted",
  },
  mode: null,
  sameApp: "unproved",
  appFingerprint: null,
  old: [],
};

export const look = async (hands: Hands, journal: Journal, keys: Keys, key: Secret): Promise<Look> => {
  const s = journal.state();
  const oldFps = [...new Set([...(s.current === null ? [] : [s.current]), ...unproved(s)])];
  const [examined, probes] = await Promise.all([
    examine(hands, key, hands.signal),
    Promise.all(
      oldFps.map(async (fp) => {
        const old = await keys.find(fp);
        if (old === null) return [];
        const asked = { fp, key: old, before: s.verdicts.get(fp), askedTs: wallClock(hands) };
        return [{ ...asked, probe: await probeKey(hands, old, hands.signal) }];
      }),
    ).then((all) => all.flat()),
  ]);
  const beside = probes.map((p) => ({ ...p, probe: judgeBeside(examined.probe, examined.control, p.probe) }));
  if (examined.verdict !== "accepted") {
    return { examined, mode: null, sameApp: "unproved", appFingerprint: null, old: beside };
  }
  const compared = await compareApps(hands, s, key, beside, hands.signal);
  return { examined, mode: s.adopted ? modeOf(oldFps, beside) : null, ...compared, old: beside };
};

/** For the open rotation: what was seen of its old keys, but where somebody wrote down a younger answer meanwhile. */
export const newsOfOld = (
  journal: Journal,
  keys: Keys,
  fp: Fp,
  old: readonly OldAnswer[],
): readonly LedgerEvent[] => {
  const s = journal.state();
  if (!isOpen(s) || s.rotation === null || s.rotation.closing) return [];
  const news = old.filter((a) => a.fp !== fp && s.verdicts.get(a.fp) === a.before);
  return verdictNews({ journal, keys, run: s.rotation.run }, news);
};
