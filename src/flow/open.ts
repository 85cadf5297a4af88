import { brokenLedger } from "../core/contradiction.ts";
import { RotatorError } from "../core/errors.ts";
import type { LedgerEvent, PlannedRollout, PlannedStore } from "../core/events.ts";
import type { Rotation } from "../core/rotation.ts";
import type { Fp } from "../core/secret.ts";
import { type AppState, isOpen, unproved } from "../core/state.ts";
import { takenOver } from "./claim.ts";
import type { Hands } from "./hands.ts";
import { hex, type Journal, Moved, Superseded } from "./journal.ts";

/** Decides again until the ledger stands still under the decision. `make` returns nothing when there is nothing to write. */
export const settle = async (
  journal: Journal,
  make: () => readonly LedgerEvent[] | Promise<readonly LedgerEvent[]>,
): Promise<void> => {
  for (;;) {
    const events = await make();
    if (events.length === 0) return;
    try {
      await journal.decide(events);
      return;
    } catch (error) {
      if (error instanceof Superseded) throw takenOver(journal.state().app ?? "<app>");
      if (!(error instanceof Moved)) throw error;
    }
  }
};

/** Why no ledger is begun where sealed keys lie. */
export const lostLedger = ({ ledger, escrow }: Pick<Hands, "ledger" | "escrow">): string =>
  `There is no ledger in ${ledger.where}, but ${escrow.where} holds keys of one.`;

/** The first entry of a ledger, with its public salt. */
export const ensureGenesis = (hands: Hands, journal: Journal): Promise<void> =>
  settle(journal, async () => {
    // A key is sealed after the first entry alone: sealed keys without one are those of a ledger that is gone.
    if (journal.state().salt === null && (await hands.escrow.list()).length > 0) {
      // Or of one that was begun a moment ago.
      await journal.refresh();
      if (journal.state().salt === null) throw brokenLedger(hands.app.name, lostLedger(hands));
    }
    const s = journal.state();
    if (s.salt === null) return [{ type: "genesis", app: hands.app.name, salt: hex(hands.entropy(32)) }];
    if (s.app !== null && s.app !== hands.app.name) {
      throw brokenLedger(hands.app.name, `The ledger in ${hands.ledger.where} belongs to another app.`);
    }
    return [];
  });

/** The one key that waits to become, or is becoming, the current one. */
export const pendingKey = (journal: Journal): string | null => {
  const s = journal.state();
  // A rotation that is closing has its key; what is staged now is for the next one.
  const r = isOpen(s) && s.rotation?.closing === false ? s.rotation : null;
  return r?.newFp ?? s.staged?.fp ?? null;
};

export type OpenOptions = {
  readonly reason: string | null;
  readonly ticket: string | null;
  readonly drop: readonly string[];
};

/**
 * Opens a rotation for the staged key, or brings the open one's plan in step with the config.
 * @returns whether the same entry began its first run: this process holds the claim, and has to give it back
 */
export const openRotation = async (
  hands: Hands,
  journal: Journal,
  options: OpenOptions,
): Promise<boolean> => {
  let isBegun = false;
  await settle(journal, () => {
    const s = journal.state();
    isBegun = false;
    if (isOpen(s) && s.rotation !== null) return amendments(hands, s.rotation, options);
    if (s.staged === null) return [];
    const opened = openedFor(hands, s, s.staged.fp, options);
    isBegun = s.claim === null;
    return isBegun ? [opened, ...runStart(hands, opened.rotation, 1)] : [opened];
  });
  return isBegun;
};

/** One more run of a rotation, with the claim that it needs. */
export const runStart = (hands: Hands, rotation: string, run: number): readonly LedgerEvent[] => [
  { type: "run-started", rotation, run },
  { type: "claimed", ...hands.host.claim, rotation },
];

/** The plan as the config has it now. Without a new key (null) the rotation waits for one. */
export const openedFor = (
  hands: Hands,
  s: AppState,
  newFp: Fp | null,
  options: OpenOptions,
): LedgerEvent & { readonly type: "opened" } => {
  const current = s.current === newFp ? null : s.current;
  return {
    type: "opened",
    rotation: `r-${hex(hands.entropy(6))}`,
    new: newFp,
    current,
    old: [...new Set([...(current === null ? [] : [current]), ...unproved(s)])],
    stores: hands.app.stores.map((t) => t.plan),
    rollouts: hands.app.rollouts.map((t) => t.plan),
    reason: options.reason,
    ticket: options.ticket,
  };
};

type Planned = PlannedStore | PlannedRollout;

/** What has to be recorded so that the open rotation fits the config. @throws RotatorError PLAN_CHANGED, USAGE */
export const amendments = (hands: Hands, r: Rotation, options: OpenOptions): readonly LedgerEvent[] => {
  const config = new Map<string, { half: "store" | "rollout"; plan: Planned }>([
    ...hands.app.stores.map(({ plan }) => [plan.name, { half: "store" as const, plan }] as const),
    ...hands.app.rollouts.map(({ plan }) => [plan.name, { half: "rollout" as const, plan }] as const),
  ]);
  const recorded = [
    ...[...r.stores.values()].map((t) => ({ half: "store" as const, t })),
    ...[...r.rollouts.values()].map((t) => ({ half: "rollout" as const, t })),
  ];
  const gone = recorded.filter(({ half, t }) => {
    const now = config.get(t.name);
    return t.state !== "dropped" && (now === undefined || now.half !== half || now.plan.type !== t.type);
  });
  const events: LedgerEvent[] = [];
  const missing = gone.filter(({ t }) => t.required && !options.drop.includes(t.name)).map(({ t }) => t.name);
  for (const name of options.drop) {
    if (recorded.some(({ t }) => t.name === name && t.state === "dropped")) continue;
    if (!gone.some(({ t }) => t.name === name)) {
      throw new RotatorError("USAGE", {
        what: `--drop ${name}: that target is still in the config, or was never planned.`,
      });
    }
    events.push({
      type: "waived",
      rotation: r.id,
      target: name,
      reason: options.reason ?? "dropped by the operator",
    });
  }
  if (missing.length > 0) {
    throw new RotatorError("PLAN_CHANGED", {
      why: `The open rotation ${r.id} needs: ${missing.join(", ")}.`,
      state: "The rotation stays open; nothing was written.",
      do: [
        "Put the target back into the config with the same name and type",
        ...missing.map((name) => `imkit-rotator rotate ${hands.app.name} --drop ${name}`),
      ],
    });
  }
  const known = new Map(recorded.map(({ t }) => [t.name, t]));
  const goneNames = new Set(gone.map(({ t }) => t.name));
  const differs = (plan: Planned): boolean => {
    const t = known.get(plan.name);
    if (t === undefined) return true;
    if (t.state === "dropped" || goneNames.has(plan.name)) return false;
    const before: Readonly<Record<string, unknown>> = { ...t };
    return Object.entries(plan).some(([key, value]) => JSON.stringify(value) !== JSON.stringify(before[key]));
  };
  const stores = hands.app.stores.map((t) => t.plan).filter(differs);
  const rollouts = hands.app.rollouts.map((t) => t.plan).filter(differs);
  const dropped = gone.filter(({ t }) => !t.required).map(({ t }) => t.name);
  if (stores.length + rollouts.length + dropped.length > 0) {
    events.push({ type: "plan-amended", rotation: r.id, stores, rollouts, dropped });
  }
  return events;
};
