/** What a signal means just now. */
type Receive = (name: NodeJS.Signals) => void;

/** How often a signal came from the system itself, how often by way of the launcher, and how often it was handed on. */
type Heard = { own: number; relayed: number; told: number };

const receivers = new Map<NodeJS.Signals, Receive>();
const heard = new Map<NodeJS.Signals, Heard>();

/** Who signals a whole process group signals the launcher, too: what comes both ways came once. */
const arrive = (name: NodeJS.Signals, way: "own" | "relayed"): void => {
  const counts = heard.get(name) ?? { own: 0, relayed: 0, told: 0 };
  heard.set(name, counts);
  counts[way]++;
  if (Math.max(counts.own, counts.relayed) === counts.told) return;
  counts.told++;
  receivers.get(name)?.(name);
};

/**
 * Who is told of these signals from now on. A listener stays for good and only changes hands: between two of them a signal would be lost,
 * or would end this process and leave what it started alone.
 */
export const onSignals = (names: readonly NodeJS.Signals[], receive: Receive): void => {
  for (const name of names) {
    if (!receivers.has(name)) process.on(name, () => arrive(name, "own"));
    receivers.set(name, receive);
  }
};

/** What the launcher tells by message of what it was sent itself (bin/imkit-rotator.cjs). */
const RELAYED: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"];

/** Where a launcher started this process. What nobody here listens to does what the system does with it. */
export const listenToLauncher = (): void => {
  const { channel, env } = process;
  if (channel === undefined || env["IMKIT_ROTATOR_LAUNCHED"] !== "1") return;
  process.on("message", (said: unknown) => {
    const name = typeof said === "object" && said !== null && "signal" in said ? said.signal : null;
    const known = RELAYED.find((one) => one === name);
    if (known === undefined) return;
    if (receivers.has(known)) arrive(known, "relayed");
    else process.kill(process.pid, known);
  });
  channel.unref();
};
