import { ProviderError, RETRYABLE, RotatorError } from "../core/errors.ts";
import { needsAnother } from "../core/next.ts";
import type { Rotation } from "../core/rotation.ts";
import type { Fp } from "../core/secret.ts";
import type { Hands } from "./hands.ts";
import { isInterrupt } from "./interrupt.ts";
import { type Journal, Moved, Superseded } from "./journal.ts";
import type { Keys } from "./keys.ts";
import type { ProofEnd } from "./probing.ts";

/** One pass of the loop over one open rotation: what every action needs. */
export type Pass = {
  readonly hands: Hands;
  readonly journal: Journal;
  readonly keys: Keys;
  readonly run: number;
  /** `--accept-app`: a person named this app fingerprint. */
  readonly acceptApp: string | null;
  /** Of what changes something: it has a moment to end by itself before this aborts. */
  readonly signal: AbortSignal;
  /** Of what only asks: aborts as soon as this process is told to stop. */
  readonly looking: AbortSignal;
  /** How the triads of this pass ended, by old key; kept in no ledger unless they proved something. */
  readonly ends: Map<Fp, ProofEnd>;
};

/** The open rotation. Actions are only decided while there is one. */
export const rotationOf = (pass: { readonly journal: Journal }): Rotation => {
  const r = pass.journal.state().rotation;
  if (r === null) throw new RotatorError("INTERNAL", { why: "no rotation is open" });
  return r;
};

/** Whether what was intended is still wanted: the same new key, and nobody has found it dead meanwhile. */
export const isWanted = (pass: { readonly journal: Journal }, intent: string): boolean => {
  const s = pass.journal.state();
  const r = s.rotation;
  return r !== null && r.ended === null && r.intents.get(intent)?.fp === r.newFp && !needsAnother(s);
};

/**
 * Whatever a provider threw, as our error: what it did not promise to throw is doubt, and its text is dropped.
 * @throws RotatorError INTERRUPTED: a question that was given up was not answered
 */
export const asProviderError = (error: unknown): ProviderError => {
  if (isInterrupt(error)) throw error;
  return error instanceof ProviderError
    ? error
    : new ProviderError("UNAVAILABLE", "unknown", "the provider failed");
};

/** The code of an effect's end for the ledger: what was cut off because we were told to stop was not too slow. */
export const codeOf = ({ signal }: Pick<Pass, "signal">, { code }: ProviderError): string =>
  signal.aborted && code === "TIMEOUT" ? "INTERRUPTED" : code;

/** The same where our own ledger and escrow were used too: their failures are no answer of a provider. @throws those */
export const asAnswer = (error: unknown): ProviderError => {
  if (error instanceof RotatorError || error instanceof Superseded || error instanceof Moved) throw error;
  return asProviderError(error);
};

/** A read that may be tried again: up to 3 times for what can pass by itself. */
export const patiently = async <T>(hands: Hands, signal: AbortSignal, read: () => Promise<T>): Promise<T> => {
  for (let attempt = 1; ; attempt++) {
    try {
      return await read();
    } catch (thrown) {
      const error = asProviderError(thrown);
      if (attempt >= 3 || !RETRYABLE.has(error.code) || signal.aborted) throw error;
      await hands.clock.sleep(Math.min(error.retryAfterMs ?? 1_000 * attempt, 10_000), signal);
    }
  }
};
