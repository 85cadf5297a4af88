import { randomBytes } from "node:crypto";
import { userInfo } from "node:os";
import { join } from "node:path";
import { rolloutKinds, schemaOf, storeKinds } from "../../providers/index.ts";
import type { Tools } from "../../providers/kit.ts";
import { EMPTY, type AppState } from "../core/state.ts";
import { nextSteps } from "../core/steps.ts";
import type { App, Hands } from "../flow/hands.ts";
import type { Inbox } from "../flow/inbox.ts";
import { stoppable } from "../flow/interrupt.ts";
import { openJournal } from "../flow/journal.ts";
import type { Predecessor } from "../flow/succeed.ts";
import type { People } from "../flow/tick.ts";
import { systemClock } from "../io/clock.ts";
import {
  type AppConfig,
  type Config,
  findConfig,
  loadConfig,
  type ValueFrom,
  valueOf,
} from "../io/config.ts";
import { thisHost } from "../io/host.ts";
import { imkitPlatform } from "../io/imkit.ts";
import { type LastTick, lastTick } from "../io/last-tick.ts";
import type { Globals, Io } from "./io.ts";
import { teller } from "./print.ts";
import { appDir, openRooms } from "./rooms.ts";
import { openInboxes, openTargets } from "./targets.ts";

/** One app of the config with everything that its use cases need. */
export type Wired = {
  readonly name: string;
  readonly config: AppConfig;
  readonly app: App;
  /** Where incident reports go. */
  readonly reportsDir: string;
  readonly hands: () => Promise<Hands>;
  /** Opened when a tick, or `doctor`, wants them. @throws RotatorError CONFIG_INVALID */
  readonly inboxes: () => Promise<readonly Inbox[]>;
  /** Whom to tell; opened when there is something to tell. */
  readonly people: () => Promise<People>;
  readonly lastTick: LastTick;
  /** The ledger as what another one may follow. */
  readonly predecessor: () => Predecessor;
  /** An instant as the operator's clock shows it: `14:02`, with the date when it was not today. */
  readonly clock: (ts: string) => string;
  readonly now: () => number;
  /** What was remarked about one target so far, the last word first. */
  readonly notes: (target: string) => readonly string[];
  /** Until when IMKIT asked to be left alone (429), epoch ms; null = it did not, or that is over. */
  readonly pauseUntil: () => number | null;
  /** State for a refusal's result line, read anew; empty when the ledger cannot be read. */
  readonly lastState: () => Promise<{
    readonly state: AppState;
    readonly head: { seq: number; h: string } | null;
  }>;
};

/** @throws RotatorError CONFIG_MISSING, CONFIG_INVALID */
export const readConfig = async (io: Io, globals: Globals): Promise<Config> =>
  loadConfig(await findConfig({ flag: globals.config, env: io.env, cwd: io.cwd }), {
    env: io.env,
    schemaOf,
    kindsOf: (half) => (half === "store" ? storeKinds : rolloutKinds),
  });

export { pickApp } from "../io/config-app.ts";

/** Opens one app's targets and hands. Nothing is read or written yet. `ndjson`: under --json each event is a line on stdout. */
export const wire = async (io: Io, config: Config, app: AppConfig, ndjson = false): Promise<Wired> => {
  const rooms = await openRooms(io, config, app.name);
  const value = (source: ValueFrom) => valueOf(source, { dir: config.dir, env: io.env });
  const { backup } = rooms;
  const tools: Tools = { app: app.name, configDir: config.dir, env: io.env, valueOf: value, backup };
  const opened = await openTargets(app, tools);
  const notes: string[] = [];
  const tell = teller(io, app.name, ndjson);
  let pause = 0;
  const hands = lazily(async (): Promise<Hands> => {
    const platform = imkitPlatform({ baseUrl: app.baseUrl, clock: systemClock });
    return stoppable({
      app: opened,
      ledger: rooms.ledger(),
      escrow: rooms.escrow,
      platform: {
        ...platform,
        probe: async (...args) => {
          const probe = await platform.probe(...args);
          if (probe.retryAfterMs !== null) pause = Math.max(pause, systemClock.now() + probe.retryAfterMs);
          return probe;
        },
      },
      clock: systemClock,
      host: await thisHost(),
      entropy: (n) => randomBytes(n),
      actor: { kind: "person", id: actorId(io) },
      signal: io.signal,
      tell: (told) => {
        if (told.kind === "note") notes.unshift(told.text);
        tell(told);
      },
    });
  });
  const clock = clockIn(app.timezone);
  const people = lazily(async (): Promise<People> => {
    const { remindBeforeMs, revoke, owners } = app;
    const notifiers =
      config.notify.length === 0
        ? []
        : (await import("../io/notify.ts")).openNotifiers(config.notify, {
            clock: systemClock,
            valueOf: value,
          });
    const steps: People["steps"] = (state, phase) => nextSteps(app.name, state, phase, clock);
    return { notifiers, owners, remindBeforeMs, escalateAfterMs: revoke.escalateAfterMs, steps };
  });
  return {
    name: app.name,
    config: app,
    app: opened,
    inboxes: lazily(() => openInboxes(app, opened, tools)),
    people,
    lastTick: lastTick(appDir(config, app.name)),
    reportsDir: join(appDir(config, app.name), "reports"),
    hands,
    predecessor: rooms.predecessor,
    clock,
    now: () => systemClock.now(),
    notes: (target) =>
      notes.filter((n) => n.startsWith(`${target}: `)).map((n) => n.slice(target.length + 2)),
    pauseUntil: () => (pause > systemClock.now() ? pause : null),
    lastState: async () => {
      try {
        const journal = await openJournal(await hands());
        return { state: journal.state(), head: journal.head() };
      } catch {
        return { state: EMPTY, head: null };
      }
    },
  };
};

const lazily = <T>(make: () => Promise<T>): (() => Promise<T>) => {
  let made: Promise<T> | null = null;
  return () => {
    made ??= make();
    return made;
  };
};

/** The login name; a number where the user has none (containers). Other text is percent-encoded by the ledger. */
const actorId = (io: Io): string => io.env["SUDO_USER"] ?? (loginName ??= askLoginName());
let loginName: string | null = null;
const askLoginName = (): string => {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.() ?? "unknown");
  }
};

/** By time zone, made at the first use: that takes longer than all else that is done here. */
const formats = new Map<string, { readonly time: Intl.DateTimeFormat; readonly day: Intl.DateTimeFormat }>();
const formatsOf = (timeZone: string) => {
  const made = formats.get(timeZone) ?? {
    time: new Intl.DateTimeFormat("en-GB", { timeZone, hour: "2-digit", minute: "2-digit" }),
    day: new Intl.DateTimeFormat("en-CA", { timeZone, year: "numeric", month: "2-digit", day: "2-digit" }),
  };
  formats.set(timeZone, made);
  return made;
};

const clockIn =
  (timeZone: string) =>
  (ts: string): string => {
    const { time, day } = formatsOf(timeZone);
    const at = new Date(ts);
    const today = day.format(new Date()) === day.format(at);
    return today ? time.format(at) : `${day.format(at)} ${time.format(at)}`;
  };
