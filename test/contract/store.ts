import { randomBytes } from "node:crypto";
import { inspect } from "node:util";
import { PROVIDER_CODES } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Check, Revision, Store, WriteOp } from "../../src/ports.ts";
import { findKey, madeKey } from "../kit/leak.ts";

/** What the suite needs of vitest: pass its own `it` and `expect`. */
export type Bench = { readonly it: It; readonly expect: Expect };
type It = (name: string, test: () => Promise<void>) => void;
type Expect = (
  value: unknown,
  message?: string,
) => {
  toBe(expected: unknown): void;
  toEqual(expected: unknown): void;
  toBeNull(): void;
};

/** One fresh place: the file, secret or vault is there, the entry for the key is not. */
export type Place = {
  readonly store: Store;
  /** Somebody else writes a value, not through this store object. */
  readonly put: (secret: Secret) => Promise<void>;
  /** From now on nothing can be read or written: the place is gone, closed, or unreachable. */
  readonly breakIt: () => Promise<void>;
  /** All that the place holds beside the key, as text: neighbours, labels, modes. */
  readonly neighbours?: () => Promise<string>;
  /** How many times the place was really written to. */
  readonly writes?: () => Promise<number>;
  /** Ids of checks that stay `unproved` even where all is well: the service cannot be asked about them without writing. */
  readonly unproved?: readonly string[];
  readonly close?: () => Promise<void>;
};

export type StoreUnderTest = Bench & {
  readonly name: string;
  readonly open: () => Promise<Place>;
};

/** What every store promises (`src/ports.ts`). A provider is done when this passes. */
export const storeContract = ({ it, expect, name, open }: StoreUnderTest): void => {
  const promise = (words: string, test: (place: Place, keys: Keys) => Promise<void>) =>
    it(`${name}: ${words}`, async () => {
      const place = await open();
      try {
        await test(place, {
          first: new Secret(madeKey()),
          second: new Secret(madeKey()),
          third: new Secret(madeKey()),
        });
      } finally {
        await place.close?.();
      }
    });

  promise("says null for an entry that is proven absent", async ({ store }) => {
    expect(await store.read(soon())).toBeNull();
  });

  promise(
    "gives back what was written, under the revision that write returned",
    async ({ store }, { first }) => {
      const revision = await store.write(first, null, op(), soon());
      const found = await store.read(soon());
      expect(found?.secret.equals(first)).toBe(true);
      expect(found?.revision).toBe(revision);
      expect(/^[ -~]{1,200}$/.test(revision)).toBe(true);
    },
  );

  promise(
    "replaces one key by the next, byte for byte, and sees what others wrote",
    async ({ store, put }, keys) => {
      await put(keys.first);
      const before = await store.read(soon());
      expect(before?.secret.equals(keys.first)).toBe(true);
      await store.write(keys.second, before?.revision ?? null, op(), soon());
      expect((await store.read(soon()))?.secret.equals(keys.second)).toBe(true);
      await put(keys.third);
      expect((await store.read(soon()))?.secret.equals(keys.third)).toBe(true);
    },
  );

  promise(
    "takes an entry away only as it was seen, if it can at all",
    async ({ store, put, neighbours }, keys) => {
      if (store.remove === undefined) return;
      const around = await neighbours?.();
      await put(keys.first);
      const before = await store.read(soon());
      await put(keys.second);
      const seen = before?.revision ?? ("" as Revision);
      expect(problem(await caught(store.remove(seen, soon())))).toEqual({
        code: "CONFLICT",
        outcome: "not_applied",
      });
      const now = await store.read(soon());
      expect(now?.secret.equals(keys.second)).toBe(true);
      await store.remove(now?.revision ?? seen, soon());
      expect(await store.read(soon())).toBeNull();
      if (around !== undefined) expect(await neighbours?.()).toBe(around);
      // Twice is once.
      await store.remove(now?.revision ?? seen, soon());
      const revision = await store.write(keys.third, null, op(), soon());
      expect((await store.read(soon()))?.revision).toBe(revision);
    },
  );

  promise("takes the same op twice as one write", async ({ store, writes }, { first, second }) => {
    const before = await store.write(first, null, op(), soon());
    const once = op();
    const revision = await store.write(second, before, once, soon());
    const count = await writes?.();
    expect(await store.write(second, before, once, soon())).toBe(revision);
    expect(await writes?.()).toBe(count);
    expect((await store.read(soon()))?.secret.equals(second)).toBe(true);
  });

  promise(
    "takes a write of the value that is there as done, whatever was expected",
    async ({ store, put, writes }, { first }) => {
      await put(first);
      const count = await writes?.();
      const revision = await store.write(first, null, op(), soon());
      expect((await store.read(soon()))?.revision).toBe(revision);
      expect(await writes?.()).toBe(count);
    },
  );

  // Without compareAndSwap a change in the last instant can be lost; one that was there before the call must still be seen.
  promise(
    "refuses a stale revision and changes nothing",
    async ({ store, put }, { first, second, third }) => {
      const stale = await store.write(first, null, op(), soon());
      await put(second);
      expect(problem(await caught(store.write(third, stale, op(), soon())))).toEqual({
        code: "CONFLICT",
        outcome: "not_applied",
      });
      expect(problem(await caught(store.write(third, null, op(), soon())))).toEqual({
        code: "CONFLICT",
        outcome: "not_applied",
      });
      expect((await store.read(soon()))?.secret.equals(second)).toBe(true);
    },
  );

  promise(
    "lays a value ready where nobody reads it, then makes it the current one, or takes it off",
    async ({ store, put }, { first, second, third }) => {
      expect(store.caps.staging).toBe(store.stage !== undefined);
      if (store.stage === undefined) return;
      await put(first);
      const before = await store.read(soon());
      const revision = before?.revision ?? null;
      const once = op();
      const off = await store.stage(second, revision, op(), soon());
      expect(await store.read(soon())).toEqual(before);
      await off.drop(soon());
      expect(await store.read(soon())).toEqual(before);

      const staged = await store.stage(second, revision, once, soon());
      expect(await store.read(soon())).toEqual(before);
      const written = await staged.commit(soon());
      const now = await store.read(soon());
      expect(now?.secret.equals(second)).toBe(true);
      expect(now?.revision).toBe(written);
      // Twice is once, in either way.
      expect(await store.write(second, revision, once, soon())).toBe(written);
      await (await store.stage(second, revision, once, soon())).commit(soon());
      expect((await store.read(soon()))?.revision).toBe(written);
      expect(problem(await caught(store.stage(third, revision, op(), soon())))).toEqual({
        code: "CONFLICT",
        outcome: "not_applied",
      });
    },
  );

  promise(
    "refuses to make a value the current one that was laid beside another",
    async ({ store, put }, { first, second, third }) => {
      if (store.stage === undefined) return;
      await put(first);
      const before = await store.read(soon());
      const staged = await store.stage(second, before?.revision ?? null, op(), soon());
      await put(third);
      expect(problem(await caught(staged.commit(soon())))).toEqual({
        code: "CONFLICT",
        outcome: "not_applied",
      });
      const now = await store.read(soon());
      expect(now?.secret.equals(third)).toBe(true);
      await store.write(second, now?.revision ?? null, op(), soon());
      expect((await store.read(soon()))?.secret.equals(second)).toBe(true);
    },
  );

  promise("refuses to write over nothing when something was expected", async ({ store }, { first }) => {
    const never = "never-there" as Revision;
    expect(problem(await caught(store.write(first, never, op(), soon()))).code).toBe("CONFLICT");
    expect(await store.read(soon())).toBeNull();
  });

  promise("throws, and never says null, when it cannot know", async ({ store, breakIt }, { first }) => {
    await store.write(first, null, op(), soon());
    await breakIt();
    expect(isProblem(await caught(store.read(soon())))).toBe(true);
  });

  promise(
    "does not say that it wrote what it could not write",
    async ({ store, breakIt }, { first, second }) => {
      const revision = await store.write(first, null, op(), soon());
      await breakIt();
      const error = await caught(store.write(second, revision, op(), soon()));
      expect(isProblem(error)).toBe(true);
      expect(problem(error).outcome === "applied").toBe(false);
    },
  );

  promise("passes the preflight where it can be written, without a visible write", async (place) => {
    const before = await place.neighbours?.();
    expect(faults(await place.store.preflight(soon()), place.unproved)).toEqual([]);
    expect(await place.store.read(soon())).toBeNull();
    expect(await place.neighbours?.()).toBe(before);
  });

  promise(
    "never rejects in a preflight, and does not pass it when it is broken",
    async ({ store, breakIt, unproved }) => {
      await breakIt();
      const checks = await store.preflight(soon());
      expect(faults(checks, unproved).length > 0).toBe(true);
      expect(checks.every((check) => check.status !== "fail" || isCode(check.code))).toBe(true);
    },
  );

  promise("leaves its neighbours as they are", async ({ store, neighbours }, { first, second }) => {
    const before = await neighbours?.();
    const revision = await store.write(first, null, op(), soon());
    await store.write(second, revision, op(), soon());
    if (before !== undefined) expect(withoutKeys(await neighbours?.(), first, second)).toBe(before);
  });

  promise("does nothing for a signal that is aborted already", async ({ store }, { first }) => {
    const over = AbortSignal.abort();
    expect(problem(await caught(store.read(over))).code).toBe("TIMEOUT");
    expect(problem(await caught(store.write(first, null, op(), over)))).toEqual({
      code: "TIMEOUT",
      outcome: "not_applied",
    });
    expect(faults(await store.preflight(over)).length > 0).toBe(true);
    expect(await store.read(soon())).toBeNull();
  });

  promise("answers within a second when it is aborted at work", async ({ store }, { first }) => {
    const call = new AbortController();
    const began = performance.now();
    const answer = store.write(first, null, op(), call.signal).then(
      () => null,
      (error: unknown) => error,
    );
    call.abort();
    const error = await answer;
    expect(performance.now() - began < 1_000).toBe(true);
    if (error === null || problem(error).outcome !== "not_applied") return;
    expect(await store.read(soon())).toBeNull();
  });

  promise(
    "keeps the key out of its address, checks and errors",
    async ({ store, put, breakIt }, { first, second, third }) => {
      const said: unknown[] = [store.where, await store.preflight(soon())];
      const revision = await store.write(first, null, op(), soon());
      const found = await store.read(soon());
      await put(second);
      said.push(
        found,
        revision,
        await store.preflight(soon()),
        await caught(store.write(third, revision, op(), soon())),
      );
      await breakIt();
      said.push(
        await caught(store.read(soon())),
        await caught(store.write(third, revision, op(), soon())),
        await store.preflight(soon()),
      );
      const text = said.map(spoken).join("\n");
      for (const key of [first, second, third]) expect(findKey(text, key.reveal())).toEqual([]);
    },
  );
};

type Keys = { readonly first: Secret; readonly second: Secret; readonly third: Secret };

const soon = (): AbortSignal => AbortSignal.timeout(20_000);
const op = (): WriteOp => ({ id: randomBytes(16).toString("hex"), witness: null });

/** The error of a call that must fail. */
const caught = async (call: Promise<unknown>): Promise<unknown> => {
  try {
    await call;
  } catch (error) {
    return error;
  }
  throw new Error("this call had to be refused, and was not");
};

const isCode = (code: unknown): boolean => PROVIDER_CODES.some((known) => known === code);

/** By shape: the suite may be loaded beside another copy of the program. */
const problem = (error: unknown): { readonly code: unknown; readonly outcome: unknown } => {
  const { code, outcome } = error as { readonly code?: unknown; readonly outcome?: unknown };
  return { code, outcome };
};

const isProblem = (error: unknown): boolean => {
  const { code, outcome } = problem(error);
  return (
    error instanceof Error && error.name === "ProviderError" && isCode(code) && typeof outcome === "string"
  );
};

const faults = (checks: readonly Check[], unproved: readonly string[] = []): readonly Check[] =>
  checks.filter(({ id, status }) => status === "fail" || (status === "unproved" && !unproved.includes(id)));

/** What a log could show of it, and then some. */
const spoken = (value: unknown): string => {
  const cause = value instanceof Error ? [value.message, value.stack, value.cause] : [];
  return [
    String(value),
    JSON.stringify(value),
    inspect(value, { depth: 8, showHidden: true }),
    ...cause.map(String),
  ].join("\n");
};

const withoutKeys = (text: string | undefined, ...keys: readonly Secret[]): string | undefined =>
  keys.reduce((left, key) => left?.replaceAll(key.reveal(), ""), text);
