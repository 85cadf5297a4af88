import type { EventType } from "./events.ts";

/** What can be wrong with a ledger, in the words of `audit verify` (docs/ledger-format.md). */
export type ProblemCode =
  | "UNREADABLE"
  | "NOT_CANONICAL"
  | "BAD_HASH"
  | "BAD_SEQ"
  | "BAD_PREV"
  | "UNKNOWN_TYPE"
  | "NO_INTENT"
  | "OPEN_AFTER_END"
  | "HEAD_MISMATCH"
  | "BEHIND_STORE";
export type ShapeProblem = "NOT_CANONICAL" | "UNKNOWN_TYPE" | null;

type Check = (value: unknown) => boolean;
type Fields = Readonly<Record<string, Check>>;

const isText: Check = (v) => typeof v === "string" && v !== "";
const isNumber: Check = (v) => Number.isSafeInteger(v);
const isScalar: Check = (v) => typeof v === "string" || isNumber(v);
const isHash: Check = (v) => typeof v === "string" && /^[0-9a-f]{64}$/.test(v);
const isOutcome: Check = (v) => v === "ok" || v === "failed" || v === "unknown";
const orAbsent =
  (check: Check): Check =>
  (v) =>
    v === undefined || v === null || check(v);

const mayRotate: Fields = { rotation: orAbsent(isText) };
const rotates: Fields = { rotation: isText };

/** Every event type of version 1 with the fields that the format promises; all others may be there or not. */
const EVENTS: Readonly<Record<EventType, Fields>> = {
  genesis: { salt: isHash },
  adopted: mayRotate,
  staged: mayRotate,
  discarded: mayRotate,
  opened: rotates,
  "plan-amended": rotates,
  "emergency-requested": mayRotate,
  "mode-found": mayRotate,
  "run-started": rotates,
  claimed: {
    ...mayRotate,
    inst: isText,
    host: isText,
    bootId: isScalar,
    pidNamespace: isScalar,
    pid: isNumber,
    startTime: isScalar,
  },
  renewed: mayRotate,
  released: mayRotate,
  intent: {
    rotation: isText,
    run: isScalar,
    target: isText,
    action: isText,
    opId: isText,
    fp: isText,
  },
  result: { ...mayRotate, intent: isText, outcome: isOutcome },
  observed: { ...mayRotate, intent: orAbsent(isText), outcome: orAbsent(isOutcome) },
  waiting: mayRotate,
  notified: mayRotate,
  restarted: mayRotate,
  "rollback-requested": rotates,
  "wrong-key-revoked": mayRotate,
  proof: mayRotate,
  waived: mayRotate,
  "late-effect": mayRotate,
  closing: rotates,
  done: rotates,
  abandoned: rotates,
};
const TABLE: ReadonlyMap<unknown, readonly (readonly [string, Check])[]> = new Map(
  Object.entries(EVENTS).map(([type, fields]) => [type, Object.entries(fields)]),
);

const isObject = (v: unknown): v is Readonly<Record<string, unknown>> =>
  typeof v === "object" && v !== null && !Array.isArray(v);

/** Is this one event of version 1? Extra fields are tolerated, and so are absent ones that the format does not promise. */
export const shapeProblem = (event: unknown): ShapeProblem => {
  if (!isObject(event) || typeof event["type"] !== "string") return "NOT_CANONICAL";
  const fields = TABLE.get(event["type"]);
  if (fields === undefined) return "UNKNOWN_TYPE";
  for (const [name, check] of fields) if (!check(event[name])) return "NOT_CANONICAL";
  return null;
};

const isInstant = (v: unknown): boolean => {
  if (typeof v !== "string" || !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(v)) return false;
  const time = Date.parse(v);
  return !Number.isNaN(time) && new Date(time).toISOString() === v;
};

/** Is this the body `R` of an entry of version 1? `genesis` must be the first event of entry 0, and stand nowhere else. */
export const entryProblem = (body: unknown): ShapeProblem => {
  if (!isObject(body) || !isNumber(body["v"])) return "NOT_CANONICAL";
  if (body["v"] !== 1) return "UNKNOWN_TYPE";
  const { ledger, seq, prev, ts, inst, actor, events } = body;
  const sound =
    isText(ledger) &&
    isNumber(seq) &&
    (prev === null || isHash(prev)) &&
    isInstant(ts) &&
    isText(inst) &&
    isObject(actor) &&
    isText(actor["kind"]) &&
    typeof actor["id"] === "string" &&
    Array.isArray(events);
  if (!sound) return "NOT_CANONICAL";
  for (const event of events) {
    const problem = shapeProblem(event);
    if (problem !== null) return problem;
  }
  if (seq === 0 && events[0]?.type !== "genesis") return "NOT_CANONICAL";
  const first = seq === 0 ? 1 : 0;
  return events.some((event, index) => index >= first && event.type === "genesis") ? "NOT_CANONICAL" : null;
};
