import type { Io } from "./io.ts";

/** Waits for Enter at most `ms`; true when it came. Ctrl-C stays what it is. */
export const pressEnter = (io: Io, ms: number): Promise<boolean> =>
  new Promise((resolve) => {
    const { stdin } = process;
    const end = (came: boolean): void => {
      clearTimeout(timer);
      stdin.off("data", onData);
      stdin.pause();
      io.signal.removeEventListener("abort", onAbort);
      resolve(came);
    };
    const onData = (): void => end(true);
    const onAbort = (): void => end(false);
    const timer = setTimeout(() => end(false), ms);
    stdin.on("data", onData);
    stdin.resume();
    io.signal.addEventListener("abort", onAbort, { once: true });
  });

/** What Ctrl-C does where no question is open: a question takes it for itself. */
export const interrupt = (): void => void process.kill(process.pid, "SIGINT");
