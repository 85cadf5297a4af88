import type { Phase } from "../../core/outcome.ts";
import type { View } from "./view.ts";

/** The numbers of the daemon. Labels are names from the config and words of ours: never a key, a fingerprint or an address. */
export type Metrics = {
  /** What stands after a tick; null where the ledger could not be read. */
  readonly set: (app: string, view: View | null) => void;
  readonly ticked: (app: string, status: string) => void;
  readonly passed: (seconds: number, endedMs: number) => void;
  readonly skipped: () => void;
  readonly step: (app: string, action: "write" | "roll", seconds: number) => void;
  readonly told: (app: string, isOk: boolean) => void;
  readonly configChanged: (isChanged: boolean) => void;
  readonly text: () => Promise<{ readonly type: string; readonly body: string }>;
};

const PHASES = [
  "new",
  "idle",
  "staged",
  "rotating",
  "waiting-key",
  "waiting-restart",
  "waiting-revoke",
  "wrong-key-revoked",
  "failed",
  "blackout",
] as const satisfies readonly Phase[];
const COUNTS = ["users", "rooms", "totalRooms", "messages", "peakConnections"] as const;
const seconds = (ms: number): number => ms / 1_000;

/** `now` gives epoch ms; `apps` are there from the start, so that an alert can see one that never comes. */
export const openMetrics = async (
  apps: readonly string[],
  version: string,
  now: () => number,
): Promise<Metrics> => {
  const { Counter, Gauge, Histogram, Registry } = await import("prom-client");
  const registry = new Registry();
  const registers = [registry];
  const views = new Map<string, View | null>();
  const startedMs = now();

  const gauge = <L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
    collect?: () => void,
  ) => new Gauge({ name, help, labelNames, registers, ...(collect === undefined ? {} : { collect }) });
  /** One value an app, made when it is asked for; null = no such value now. */
  const perApp = (name: string, help: string, value: (view: View) => number | null): void => {
    const made = gauge(name, help, ["app"], () => {
      made.reset();
      for (const [app, view] of views) {
        const one = view === null ? null : value(view);
        if (one !== null) made.set({ app }, one);
      }
    });
  };

  gauge("imkit_rotator_build_info", "Version of the program.", ["version"]).set({ version }, 1);
  gauge("process_start_time_seconds", "When the daemon started.", []).set(seconds(startedMs));
  registry.registerMetric(
    new Gauge({
      name: "process_resident_memory_bytes",
      help: "Memory of the daemon.",
      registers: [],
      collect() {
        this.set(process.memoryUsage.rss());
      },
    }),
  );
  perApp("imkit_rotator_key_age_seconds", "Age of the current key, from the last finished rotation.", (v) =>
    v.freshMs === null ? null : Math.max(0, seconds(now() - v.freshMs)),
  );
  perApp("imkit_rotator_key_due_timestamp_seconds", "When the key is due.", (v) =>
    v.dueMs === null ? null : seconds(v.dueMs),
  );
  perApp(
    "imkit_rotator_old_key_accepted",
    "1: IMKIT still accepted an old key when it was last asked.",
    (v) => Number(v.isOldAccepted),
  );
  perApp(
    "imkit_rotator_waiting_for_human_seconds",
    "How long a person has been waited for; 0 = nobody is.",
    (v) => (v.waitingMs === null ? 0 : Math.max(0, seconds(now() - v.waitingMs))),
  );
  perApp(
    "imkit_rotator_ledger_entries_total",
    "Entries of the ledger. It never goes back.",
    (v) => v.entries,
  );
  perApp(
    "imkit_rotator_ledger_verified_timestamp_seconds",
    "When the chain was last read and found whole.",
    (v) => seconds(v.verifiedMs),
  );
  const readable = gauge("imkit_rotator_ledger_readable", "0: the last tick could not read the ledger.", [
    "app",
  ]);
  const state = gauge("imkit_rotator_rotation_state", "1 for the state that the app is in.", [
    "app",
    "state",
  ]);
  const inSync = gauge(
    "imkit_rotator_store_in_sync",
    "1: when last looked at, the store held the key that it should.",
    ["app", "store"],
  );
  const usage = gauge("imkit_rotator_usage", "What IMKIT counts for the last hour.", ["app", "count"]);
  const rotations = new Counter({
    name: "imkit_rotator_rotations_total",
    help: "Rotations that ended (done, abandoned) or came to a stop (failed), seen by this daemon.",
    labelNames: ["app", "result"],
    registers,
  });
  for (const app of apps)
    for (const result of ["done", "abandoned", "failed"]) rotations.inc({ app, result }, 0);
  const step = new Histogram({
    name: "imkit_rotator_step_duration_seconds",
    help: "From the intent to its result: a store written, a rollout started.",
    labelNames: ["app", "action"],
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300],
    registers,
  });
  const ticks = new Counter({
    name: "imkit_rotator_ticks_total",
    help: "Ticks of an app, by how they ended.",
    labelNames: ["app", "status"],
    registers,
  });
  const pass = new Histogram({
    name: "imkit_rotator_tick_duration_seconds",
    help: "One pass over all apps.",
    buckets: [0.1, 0.5, 1, 5, 15, 60, 300, 600],
    registers,
  });
  const lastTick = gauge(
    "imkit_rotator_last_tick_timestamp_seconds",
    "When the last pass over all apps ended.",
    [],
  );
  const skips = new Counter({
    name: "imkit_rotator_ticks_skipped_total",
    help: "Ticks that were left out because the one before still ran.",
    registers,
  });
  const notifications = new Counter({
    name: "imkit_rotator_notifications_total",
    help: "Messages that this daemon sent, or failed to.",
    labelNames: ["app", "result"],
    registers,
  });
  for (const app of apps) for (const result of ["ok", "failed"]) notifications.inc({ app, result }, 0);
  const changed = gauge(
    "imkit_rotator_config_changed",
    "1: the config file is not the one that was read at the start.",
    [],
  );
  changed.set(0);

  const count = (app: string, before: View | null | undefined, view: View): void => {
    const isNew = view.ended !== null && view.ended.id !== before?.ended?.id;
    // What ended before this daemon began is not its to count.
    if (view.ended !== null && isNew && (before !== undefined || view.ended.atMs >= startedMs))
      rotations.inc({ app, result: view.ended.how });
    if (view.phase === "failed" && before?.phase !== "failed") rotations.inc({ app, result: "failed" });
  };

  return {
    set: (app, view) => {
      readable.set({ app }, Number(view !== null));
      if (view === null) {
        for (const name of PHASES) state.set({ app, state: name }, Number(name === "failed"));
        return;
      }
      count(app, views.get(app), view);
      views.set(app, view);
      for (const name of PHASES) state.set({ app, state: name }, Number(name === view.phase));
      for (const [store, isThere] of view.stores) inSync.set({ app, store }, Number(isThere));
      for (const name of COUNTS) {
        const value = view.usage?.counts[name] ?? null;
        const label = { app, count: name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`) };
        if (value === null) usage.remove(label);
        else usage.set(label, value);
      }
    },
    ticked: (app, status) => ticks.inc({ app, status }),
    passed: (took, endedMs) => {
      pass.observe(took);
      lastTick.set(seconds(endedMs));
    },
    skipped: () => skips.inc(),
    step: (app, action, took) => step.observe({ app, action }, took),
    told: (app, isOk) => notifications.inc({ app, result: isOk ? "ok" : "failed" }),
    configChanged: (isChanged) => changed.set(Number(isChanged)),
    text: async () => ({ type: registry.contentType, body: await registry.metrics() }),
  };
};
