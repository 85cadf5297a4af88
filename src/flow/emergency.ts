import { RotatorError } from "../core/errors.ts";
import type { LedgerEvent } from "../core/events.ts";
import type { Emergency } from "../core/rotation.ts";
import { type Fp, findFp, showFp } from "../core/secret.ts";
import { type AppState, isOpen } from "../core/state.ts";
import type { Hands } from "./hands.ts";
import type { Journal } from "./journal.ts";
import { type OpenOptions, openedFor, settle } from "./open.ts";

/** A leak as it is reported. null = not said. */
export type Alarm = {
  /** Prefix of the fingerprint of the key that leaked; default: the current key. */
  readonly leaked: string | null;
  /** RFC 3339 UTC: since when it may be in foreign hands. */
  readonly since: string | null;
  readonly order: Emergency["order"];
};

/**
 * Records that a key leaked: opens a rotation, or makes an emergency of the open one. Needs no claim: whoever holds it acts on it from then on.
 * Said again, it changes nothing.
 * @returns the rotation's id; null where the open one is closing by now, and has to end first
 * @throws RotatorError USAGE for a fingerprint that nobody knows, or of a key that is proved dead
 */
export const declareEmergency = async (
  hands: Hands,
  journal: Journal,
  alarm: Alarm,
  options: OpenOptions,
): Promise<string | null> => {
  let isLate = false;
  await settle(journal, (): readonly LedgerEvent[] => {
    const s = journal.state();
    const open = isOpen(s) ? s.rotation : null;
    isLate = open?.closing === true;
    if (isLate) return [];
    const before = open?.emergency ?? null;
    const leaked = alarm.leaked === null ? (before?.leaked[0] ?? s.current) : named(hands, s, alarm.leaked);
    // Somebody went back to it in spite of the leak: this is another word on it.
    const isBack = leaked !== null && open?.newFp === leaked;
    const isKnown = before !== null && !isBack && (leaked === null || before.leaked.includes(leaked));
    const isSaid =
      isKnown && before.order === alarm.order && (alarm.since === null || before.since === alarm.since);
    if (isSaid) return [];
    const staged = s.staged?.fp === leaked ? null : (s.staged?.fp ?? null);
    const opened = open === null ? openedFor(hands, s, staged, options) : null;
    const rotation = open?.id ?? opened?.rotation ?? "";
    const said: LedgerEvent = {
      type: "emergency-requested",
      rotation,
      leaked,
      since: alarm.since,
      order: alarm.order,
    };
    return opened === null ? [said] : [opened, said];
  });
  return isLate ? null : (journal.state().rotation?.id ?? "");
};

const named = (hands: Hands, s: AppState, prefix: string): Fp => {
  const fp = findFp(prefix, [...s.known]);
  const status = `imkit-rotator status ${hands.app.name}`;
  if (fp === null) {
    const alive = [...s.known].filter((one) => !s.dead.has(one)).map(showFp);
    throw new RotatorError("USAGE", {
      what: "--leaked: no key of this app has that fingerprint.",
      why: `Known and not proved dead: ${alive.join(", ") || "none"}.`,
      do: [
        ...alive.map((one) => `imkit-rotator rotate ${hands.app.name} --emergency --leaked ${one}`),
        `imkit-rotator fingerprint ${hands.app.name}   # of the key that was found, on standard input`,
      ],
    });
  }
  if (!s.dead.has(fp)) return fp;
  throw new RotatorError("USAGE", {
    what: `--leaked ${showFp(fp)}: that key is dead already, and the ledger holds the proof.`,
    do: [status, `imkit-rotator audit list ${hands.app.name}`],
  });
};
