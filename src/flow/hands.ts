import type { LedgerEvent, PlannedRollout, PlannedStore } from "../core/events.ts";
import type { Clock, Escrow, Host, Ledger, Platform, Rollout, Store } from "../ports.ts";

/** One app as the config has it now, with its targets opened. */
export type App = {
  readonly name: string;
  readonly stores: readonly { readonly plan: PlannedStore; readonly store: Store }[];
  /** Never empty: an app without rollouts has one `manual`. */
  readonly rollouts: readonly { readonly plan: PlannedRollout; readonly rollout: Rollout }[];
  readonly soakMs: number;
  readonly revoke: { readonly probes: number; readonly everyMs: number; readonly control: boolean };
  readonly rotateEveryMs: number | null;
};

/**
 * What the flow tells while it works: each durable ledger event, those that another process wrote since this one began to follow the ledger
 * (`heard`; two that follow it tell both), and remarks that are in no ledger.
 */
export type Told =
  | { readonly kind: "heard"; readonly event: LedgerEvent; readonly seq: number; readonly id: string }
  | { readonly kind: "event"; readonly event: LedgerEvent; readonly seq: number; readonly id: string }
  | { readonly kind: "note"; readonly text: string };

/** Every hand of a use case. No use case reaches for anything else. */
export type Hands = {
  readonly app: App;
  readonly ledger: Ledger;
  readonly escrow: Escrow;
  readonly platform: Platform;
  readonly clock: Clock;
  readonly host: Host;
  readonly entropy: (bytes: number) => Uint8Array;
  readonly actor: { readonly kind: string; readonly id: string };
  /** Aborts when the person or the system asks us to stop. */
  readonly signal: AbortSignal;
  readonly tell: (told: Told) => void;
};

/** Whatever was thrown, as an Error; what is none carries nothing over. */
export const asError = (thrown: unknown): Error =>
  thrown instanceof Error ? thrown : new Error("not an error");
