import { ProviderError } from "../core/errors.ts";
import type { Secret } from "../core/secret.ts";

/** Where a key source gets the key from, and its clock. Times are of a monotonic clock, in ms. */
export type SourceHands = {
  /** @returns null = proven absent. @throws ProviderError */
  readonly read: (signal: AbortSignal) => Promise<Secret | null>;
  readonly monotonic: () => number;
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly ttlMs: number;
};

export type SecretSource = {
  /** The key as it was read at most `ttlMs` ago; the last good one while the store cannot be read. @throws ProviderError */
  readonly get: () => Promise<Secret>;
  /** IMKIT rejected the key: reads anew, at most once in 10 s. @returns what is current then, which may be the same. @throws ProviderError */
  readonly rejected: () => Promise<Secret>;
  /** Drops the key. Whoever asks later is refused. */
  readonly close: () => void;
};

/** Whoever has a key that worked is not kept waiting longer than this for a newer one. */
const PATIENCE_MS = 2_000;
/** Between two reads after a rejection, and after a read that failed. */
const REST_MS = 10_000;

/** One key, read when it is asked for, one read at a time. */
export const secretSource = ({ read, monotonic, sleep, ttlMs }: SourceHands): SecretSource => {
  let key: Secret | null = null;
  let readAt = Number.NEGATIVE_INFINITY;
  let triedAt = Number.NEGATIVE_INFINITY;
  let askedAt = Number.NEGATIVE_INFINITY;
  let reading: Promise<Secret> | null = null;
  const stop = new AbortController();

  const readOnce = async (): Promise<Secret> => {
    triedAt = monotonic();
    const found = await read(stop.signal);
    if (found === null) throw new ProviderError("NOT_FOUND", "not_applied", "the store holds no key");
    if (stop.signal.aborted) throw closed();
    key = found;
    readAt = monotonic();
    return found;
  };

  const refresh = (): Promise<Secret> => {
    reading ??= readOnce().finally(() => {
      reading = null;
    });
    return reading;
  };

  /** The newest there is: the last good one where reading fails or takes its time. */
  const newest = async (): Promise<Secret> => {
    const reading = refresh();
    if (key === null) return reading;
    const last = key;
    const late = new AbortController();
    const signal = AbortSignal.any([stop.signal, late.signal]);
    const patience = sleep(PATIENCE_MS, signal).then(() => last);
    try {
      return await Promise.race([reading.catch(() => last), patience]);
    } finally {
      late.abort("over");
    }
  };

  return {
    get: async () => {
      if (stop.signal.aborted) throw closed();
      const now = monotonic();
      if (key !== null && (now - readAt < ttlMs || now - triedAt < Math.min(ttlMs, REST_MS))) return key;
      return newest();
    },
    rejected: async () => {
      if (stop.signal.aborted) throw closed();
      const now = monotonic();
      if (key !== null && now - askedAt < REST_MS) return reading === null ? key : newest();
      askedAt = now;
      return newest();
    },
    close: () => {
      stop.abort("closed");
      key = null;
    },
  };
};

const closed = (): ProviderError => new ProviderError("CONFIG", "not_applied", "the key source is closed");
