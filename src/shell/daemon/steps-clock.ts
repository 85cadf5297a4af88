type Event = Readonly<Record<string, unknown>>;
type Action = "write" | "roll";

const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6;

/** Follows the events of one tick, and tells how long each step took from its intent to its result. */
export const stepsClock = (
  took: (action: Action, seconds: number) => void,
  now: () => number = monotonicMs,
): ((seq: number, event: Event) => void) => {
  const began = new Map<string, { readonly action: Action; readonly at: number }>();
  let entry = -1;
  let index = 0;
  return (seq, event) => {
    index = seq === entry ? index + 1 : 0;
    entry = seq;
    const { type, action, intent } = event;
    if (type === "intent" && (action === "write" || action === "roll"))
      began.set(`${seq}.${index}`, { action, at: now() });
    if (type !== "result" || typeof intent !== "string") return;
    const start = began.get(intent);
    if (start !== undefined) took(start.action, (now() - start.at) / 1_000);
    began.delete(intent);
  };
};
