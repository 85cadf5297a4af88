import { systemClock } from "../../io/clock.ts";
import type { Log } from "./log.ts";

export type TimerOptions = {
  /** Six fields, in UTC. */
  readonly cron: string;
  /** Must not reject. */
  readonly pass: () => Promise<void>;
  readonly onSkip: () => void;
  readonly log: Log;
};
export type Timer = {
  /** No further pass begins. @returns true once the running one is over, false after `patienceMs` */
  readonly stop: (patienceMs: number) => Promise<boolean>;
};

/** One pass at once, then one at each instant of the cron line. Never two at a time: an instant that comes during a pass is left out. */
export const startTimer = async ({ cron, pass, onSkip, log }: TimerOptions): Promise<Timer> => {
  const { schedule, setLogger } = await import("node-cron");
  // It would write to the console: of what it says only that instants were missed matters, and the next one makes up for them.
  const said = (message: string | Error): void =>
    log.debug(typeof message === "string" ? message : "node-cron", {});
  setLogger({ info: said, warn: said, error: said, debug: said });
  let running: Promise<void> | null = null;
  let isStopped = false;
  const run = async (): Promise<void> => {
    if (isStopped) return;
    if (running !== null) return onSkip();
    running = pass().catch(() => log.error("A pass failed as a whole.", {}));
    await running;
    running = null;
  };
  const task = schedule(cron, run, { timezone: "Etc/UTC", noOverlap: true, suppressMissedWarning: true });
  task.on("execution:overlap", onSkip);
  void run();
  return {
    stop: async (patienceMs) => {
      isStopped = true;
      await task.destroy();
      if (running === null) return true;
      const over = new AbortController();
      const late = systemClock.sleep(patienceMs, over.signal).then(() => false);
      const isOver = await Promise.race([running.then(() => true), late]);
      over.abort();
      return isOver;
    },
  };
};
