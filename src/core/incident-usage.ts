import type { Usage } from "./events.ts";
import { lastTold, type Mark, type Reading, type Told } from "./incident-read.ts";
import { showFp } from "./secret.ts";

/** What IMKIT counted in the hour before it was asked. `counts` null: it gave none. */
export type UsageSample = Mark & { readonly fingerprint: string | null; readonly counts: Usage | null };
export type UsageReport = {
  readonly before: UsageSample | null;
  readonly after: UsageSample | null;
  /** After minus before; null where one of them is missing. */
  readonly difference: Usage | null;
};

export const usageReport = ({ inside }: Reading): UsageReport => {
  const of = (when: "before" | "after"): UsageSample | null =>
    sample(
      lastTold(inside, (e) => e.type === "observed" && e.what === "usage" && (e.when ?? "before") === when),
    );
  const before = of("before");
  const after = of("after");
  return { before, after, difference: differenceOf(before?.counts ?? null, after?.counts ?? null) };
};

/** Numbers alone pass, whatever else an entry may hold there. */
export const numbersOf = (usage: Usage | null): Usage | null => {
  if (usage === null) return null;
  const n = (x: unknown): number | null => (typeof x === "number" && Number.isSafeInteger(x) ? x : null);
  return {
    users: n(usage.users),
    rooms: n(usage.rooms),
    totalRooms: n(usage.totalRooms),
    messages: n(usage.messages),
    peakConnections: n(usage.peakConnections),
  };
};

const sample = (told: Told | undefined): UsageSample | null => {
  if (told?.event.type !== "observed") return null;
  const { fp, usage } = told.event;
  return { ...told.mark, fingerprint: fp ? showFp(fp) : null, counts: numbersOf(usage ?? null) };
};

const differenceOf = (a: Usage | null, b: Usage | null): Usage | null => {
  if (a === null || b === null) return null;
  const minus = (x: number | null, y: number | null): number | null =>
    x === null || y === null ? null : y - x;
  return {
    users: minus(a.users, b.users),
    rooms: minus(a.rooms, b.rooms),
    totalRooms: minus(a.totalRooms, b.totalRooms),
    messages: minus(a.messages, b.messages),
    peakConnections: minus(a.peakConnections, b.peakConnections),
  };
};
