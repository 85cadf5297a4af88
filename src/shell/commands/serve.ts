import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { RotatorError } from "../../core/errors.ts";
import { formatDuration } from "../../core/policy.ts";
import { systemClock } from "../../io/clock.ts";
import { listen } from "../daemon/http.ts";
import { openLog } from "../daemon/log.ts";
import { openMetrics } from "../daemon/metrics.ts";
import { type Daemon, passOver } from "../daemon/pass.ts";
import { startTimer } from "../daemon/timer.ts";
import { aborted, exitOfSignal, type Globals, type Io } from "../io.ts";
import { VERSION } from "../version.ts";
import { readConfig } from "../wire.ts";

/** After a signal a tick may finish the step that it is in; every step of its own ends in less than that. */
const PATIENCE_MS = 60_000;
/** A tick that takes this much longer than its time has come to is late. */
const LATE_MS = 600_000;

/**
 * The daemon: a tick over all apps at once, and then every `serve.every`, until a signal. It changes nothing that a tick does not, and asks
 * nothing. The config is the one at the start.
 * @returns 143 or 130, once the running tick has stopped
 */
export const serveCommand = async (io: Io, globals: Globals): Promise<number> => {
  const config = await readConfig(io, globals);
  const { host, port, everyMs, cron } = config.serve;
  const apps = [...config.apps.keys()];
  if (apps.length === 0)
    throw new RotatorError("CONFIG_INVALID", { why: `${config.path}: apps: has no app` });
  const log = await openLog(io, globals);
  const metrics = await openMetrics(apps, VERSION, () => systemClock.now());
  const daemon: Daemon = { io, config, log, metrics, views: new Map(), unread: new Set(), locked: new Set() };
  const digest = await digestOf(config.path);
  let seen = digest;
  let endedAt: number | null = null;

  const lookAtConfig = async (): Promise<void> => {
    const found = await digestOf(config.path);
    metrics.configChanged(found !== digest);
    if (found !== seen && found !== digest)
      log.warn(
        "The config file was changed. This daemon works with the one that it started with; restart it.",
        { path: config.path },
      );
    seen = found;
  };
  const pass = async (): Promise<void> => {
    const began = systemClock.monotonic();
    await lookAtConfig();
    const ends = await passOver(daemon);
    const ms = systemClock.monotonic() - began;
    metrics.passed(ms / 1_000, systemClock.now());
    endedAt = systemClock.monotonic();
    log.debug("pass", { ms: Math.round(ms), ...ends });
  };
  const unready = (): readonly string[] => {
    if (io.signal.aborted) return ["stopping"];
    if (endedAt === null) return ["the first tick has not ended"];
    const isLate = systemClock.monotonic() - endedAt > 2 * everyMs + LATE_MS;
    return [
      ...(isLate ? ["the last tick ended too long ago"] : []),
      ...[...daemon.unread].map((app) => `the ledger of ${app} cannot be read`),
    ];
  };

  const pages = await listen(host, port, { unready, metrics: metrics.text });
  log.info("listening", { address: pages.address, port: pages.port });
  log.info("serving", { apps, every: formatDuration(everyMs), version: VERSION });
  const timer = await startTimer({ cron, pass, onSkip: metrics.skipped, log });
  await aborted(io.signal);
  log.info("stopping", { signal: String(io.signal.reason) });
  const isOver = await timer.stop(PATIENCE_MS);
  await pages.close();
  if (!isOver) log.warn("The tick did not stop in time. Nothing is lost; the next start goes on.");
  log.info("stopped", {});
  return exitOfSignal(io);
};

/** null = it cannot be read now, which is a change too. */
const digestOf = async (path: string): Promise<string | null> => {
  const bytes = await readFile(path).catch(() => null);
  return bytes === null ? null : createHash("sha256").update(bytes).digest("hex");
};
