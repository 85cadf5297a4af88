import { mayOpen, nextInstant, type Schedule, tickAfter } from "../../core/schedule.ts";
import { showFp } from "../../core/secret.ts";
import type { InboxFind } from "../../flow/inbox.ts";
import { tellOfRun, type Ticked, tick } from "../../flow/tick.ts";
import { readSchedule } from "../../io/cron.ts";
import type { Io } from "../io.ts";
import type { Wired } from "../wire.ts";
import { follow, type RotateFlags } from "./rotate.ts";
import { type Outcome, printRefusal, printRotated, type TickEnd } from "./rotate-result.ts";

/** One unattended pass with its result line. @throws RotatorError that stopped it before anything could be said of the app */
export const tickOne = async (io: Io, wired: Wired, flags: RotateFlags): Promise<Outcome> => {
  const { lastTick, people: whom, config } = wired;
  const [hands, inboxes, people, previous, schedule] = await Promise.all([
    wired.hands(),
    wired.inboxes(),
    whom(),
    config.schedule === null ? null : lastTick.read(),
    readSchedule(config.schedule, config.timezone),
  ]);
  const unattended = { ...hands, actor: { ...hands.actor, kind: "tick" } };
  const began = wired.now();
  let ticked: Ticked | null = null;
  const rotated = await follow(io, wired, flags, async (rotate) => {
    ticked = await tick(unattended, { rotate, inboxes, people, mayOpen: mayOpen(schedule, previous, began) });
    return ticked.rotated;
  });
  const done = seen(ticked);
  // A key that came while the tick waited was gone on with.
  const isLater = rotated !== done.rotated;
  if (isLater) await tellOfRun(unattended, people, { waits: true, error: null });
  const isThrough = done.error === null && !io.signal.aborted;
  if (schedule !== null && isThrough) await lastTick.write(tickAfter(previous, began));
  const more = moreOf(done);
  sayFinds(io, wired, done);
  if (done.error !== null && !isLater) return printRefusal(io, wired, done.error, more);
  const end = { ...more, ...heldOf(wired, isLater ? { ...done, held: null } : done, schedule) };
  return printRotated(io, wired, rotated, end);
};

const seen = (ticked: Ticked | null): Ticked => {
  if (ticked === null) throw new Error("a tick that did not begin");
  return ticked;
};

const moreOf = ({ drift, inbox, held, retryAt }: Ticked): TickEnd => ({
  more: {
    drift: drift.map((d) => ({ ...d, fp: undefined, fingerprint: d.fp === null ? null : showFp(d.fp) })),
    inbox: inbox.map(shownFind),
    held,
    retryAt,
  },
});

const shownFind = (find: InboxFind): Readonly<Record<string, unknown>> => {
  if (find.state === "error") return find;
  const { fp, ...rest } = find;
  return { ...rest, fingerprint: showFp(fp) };
};

const sayFinds = (io: Io, wired: Wired, { drift, held, retryAt }: Ticked): void => {
  if (held === "backoff" && retryAt !== null)
    io.say(`  … It failed a short while ago, and is left alone until ${wired.clock(retryAt)}.`);
  for (const { name, state, fp, code } of drift) {
    const what =
      state === "error" ? `cannot be read (${code ?? ""})` : state === "absent" ? "holds no key" : "drifts";
    io.say(`  ! ${name}: ${what}${fp === null ? "" : `; it holds ${showFp(fp)}`}`);
  }
};

const heldOf = (
  wired: Wired,
  { held, retryAt, rotated: { phase } }: Ticked,
  schedule: Schedule | null,
): Omit<TickEnd, "more"> => {
  const again = `imkit-rotator rotate ${wired.name}`;
  if (held === "backoff" && retryAt !== null) {
    const text = `It failed a short while ago; a tick tries again after ${wired.clock(retryAt)}. Or now`;
    // Nothing that the ledger knows has failed: a run ended without getting on, or was stopped.
    return { isHeld: phase === "rotating", first: [{ who: "tool", text, command: again }] };
  }
  if (held !== "schedule" || schedule === null) return {};
  const at = nextInstant(schedule, wired.now());
  const when = at === null ? "" : `, ${wired.clock(new Date(at).toISOString())}`;
  const text = `The staged key is written by the first tick after the next time of the schedule${when}. Or now`;
  return { isHeld: true, first: [{ who: "tool", text, command: again }] };
};
