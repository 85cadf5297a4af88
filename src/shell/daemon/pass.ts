import { RotatorError } from "../../core/errors.ts";
import type { AppConfig, Config } from "../../io/config.ts";
import { rotateOne } from "../commands/rotate.ts";
import { type Outcome, statusOf } from "../commands/rotate-result.ts";
import { asRotatorError } from "../fault.ts";
import { exitOfError } from "../interrupt.ts";
import type { Io } from "../io.ts";
import { type Wired, wire } from "../wire.ts";
import type { Log } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import { stepsClock } from "./steps-clock.ts";
import { type View, viewOf } from "./view.ts";

export type Daemon = {
  readonly io: Io;
  readonly config: Config;
  readonly log: Log;
  readonly metrics: Metrics;
  /** What the last tick saw of each app. */
  readonly views: Map<string, View>;
  /** Apps whose ledger the last tick could not read. */
  readonly unread: Set<string>;
  /** Apps whose claim another process held at the last tick. */
  readonly locked: Set<string>;
};

/** Long enough to see that whoever holds a claim is silent, and to take over: in a cluster nothing else shows that a pod is gone. */
const WATCH = "2m";
/** Apps at work side by side: each waits for the network most of its time. */
const MOST_AT_ONCE = 4;

/** One tick over every app, some side by side. What stops one app stops no other. Never rejects. */
export const passOver = async (daemon: Daemon): Promise<Readonly<Record<string, number>>> => {
  const { io, config } = daemon;
  const left = [...config.apps.values()];
  const ends: Record<string, number> = {};
  // All that listens for the end of this pass goes with it, and nothing is left hanging on the process's own signal.
  const stop = new AbortController();
  const end = (): void => stop.abort(io.signal.reason);
  io.signal.addEventListener("abort", end, { once: true });
  if (io.signal.aborted) end();
  const worker = async (): Promise<void> => {
    for (let app = left.shift(); app !== undefined && !stop.signal.aborted; app = left.shift()) {
      const status = await oneApp(daemon, app, stop.signal);
      ends[status] = (ends[status] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: MOST_AT_ONCE }, worker));
  io.signal.removeEventListener("abort", end);
  return ends;
};

const oneApp = async (daemon: Daemon, app: AppConfig, signal: AbortSignal): Promise<string> => {
  const { io, config, log, metrics, locked } = daemon;
  const heard = hearing(daemon, app.name);
  const none = (): void => {};
  const own: Io = {
    ...io,
    json: true,
    interactive: false,
    colour: false,
    signal,
    out: heard.line,
    raw: none,
    say: none,
    warn: none,
    detail: none,
  };
  let wired: Wired | null = null;
  let outcome: Outcome;
  try {
    wired = await wire(own, config, app, true);
    outcome = await rotateOne(own, wired, { due: true, ...(locked.has(app.name) ? { wait: WATCH } : {}) });
  } catch (thrown) {
    const error = asRotatorError(thrown);
    const exit = exitOfError(io, error);
    outcome = { exit, status: statusOf(exit), error };
  }
  if (outcome.status === "locked") locked.add(app.name);
  else locked.delete(app.name);
  metrics.ticked(app.name, outcome.status);
  sayError(log, app.name, outcome);
  if (!signal.aborted) await look(daemon, app.name, wired, heard.drift());
  return outcome.status;
};

const sayError = (log: Log, app: string, { error, status }: Outcome): void => {
  if (error === null || error.code === "INTERRUPTED") return;
  const { code, what, why, state, do: steps } = error;
  const say = status === "locked" ? log.info : log.error;
  say(what, { app, code, why, state, do: steps });
};

const look = async (
  daemon: Daemon,
  name: string,
  wired: Wired | null,
  drift: ReadonlySet<string>,
): Promise<void> => {
  const { log, metrics, views, unread } = daemon;
  try {
    if (wired === null) throw new RotatorError("CONFIG_INVALID");
    const view = await viewOf(wired, drift, views.get(name) ?? null);
    views.set(name, view);
    unread.delete(name);
    metrics.set(name, view);
  } catch (thrown) {
    unread.add(name);
    metrics.set(name, null);
    log.debug("The ledger cannot be read.", { app: name, code: asRotatorError(thrown).code });
  }
};

/** What a tick does often and nobody wants to read each time. */
const QUIET: ReadonlySet<unknown> = new Set(["claimed", "renewed", "released", "run-started", "observed"]);

type Json = Readonly<Record<string, unknown>>;

/** Turns what a tick prints under --json into lines of the log and numbers. */
const hearing = ({ log, metrics }: Daemon, app: string) => {
  let drift: ReadonlySet<string> = new Set();
  const clock = stepsClock((action, seconds) => metrics.step(app, action, seconds));
  const onEvent = (seq: unknown, event: Json): void => {
    clock(Number(seq), event);
    if (event["type"] === "notified" && event["sending"] !== true && event["over"] !== true)
      metrics.told(app, event["ok"] === true);
    (QUIET.has(event["type"]) ? log.debug : log.info)(String(event["type"]), { app, seq, event });
  };
  const onResult = (result: Json): void => {
    drift = new Set(listOf(result["drift"]).map(({ name }) => String(name)));
    const { status, exitCode, rotation, mode, next, head, held, retryAt } = result;
    const isQuiet = status === "nothing" && drift.size === 0;
    const steps = listOf(next).map(({ text, command }) => ({ text, command }));
    const fields = {
      app,
      status,
      exitCode,
      rotation,
      mode,
      held,
      retryAt,
      drift: result["drift"],
      head,
      next: steps,
    };
    (isQuiet ? log.debug : drift.size > 0 ? log.warn : log.info)("tick", fields);
  };
  const line = (text: string): void => {
    const said = parsed(text);
    if (said["type"] === "event") onEvent(said["seq"], objectOf(said["event"]));
    else if (said["type"] === "note") log.warn(String(said["text"]), { app });
    else if (said["type"] === "result") onResult(said);
  };
  return { line, drift: () => drift };
};

const objectOf = (value: unknown): Json =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {};
const listOf = (value: unknown): readonly Json[] => (Array.isArray(value) ? value.map(objectOf) : []);
const parsed = (text: string): Json => {
  try {
    return objectOf(JSON.parse(text));
  } catch {
    return {};
  }
};
