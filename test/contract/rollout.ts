import { randomBytes } from "node:crypto";
import { inspect } from "node:util";
import { PROVIDER_CODES } from "../../src/core/errors.ts";
import type { Rollout, RolloutOp } from "../../src/ports.ts";
import type { Bench } from "./store.ts";

export type Workload = {
  readonly rollout: Rollout;
  /** What reached the workload so far, one text for each restart. Not for `manual` and `none`. */
  readonly seen?: () => Promise<readonly string[]>;
  /** The workload refuses, or the restart fails. */
  readonly breakIt?: () => Promise<void>;
  readonly close?: () => Promise<void>;
};

export type RolloutUnderTest = Bench & {
  readonly name: string;
  readonly how: Rollout["how"];
  readonly open: () => Promise<Workload>;
};

/** What every rollout promises (`src/ports.ts`). */
export const rolloutContract = ({ it, expect, name, how, open }: RolloutUnderTest): void => {
  const promise = (words: string, test: (workload: Workload) => Promise<void>) =>
    it(`${name}: ${words}`, async () => {
      const workload = await open();
      try {
        await test(workload);
      } finally {
        await workload.close?.();
      }
    });

  promise("says how it works, and where, on one line", async ({ rollout }) => {
    expect(rollout.how).toBe(how);
    expect(/^[ -~]{1,200}$/.test(rollout.where)).toBe(true);
  });

  promise("passes the preflight where it can work, and starts nothing by it", async ({ rollout, seen }) => {
    const checks = await rollout.preflight(soon());
    expect(checks.filter(({ status }) => status === "fail" || status === "unproved")).toEqual([]);
    expect((await seen?.()) ?? []).toEqual([]);
  });

  promise("answers with a state that the port knows", async ({ rollout }) => {
    const state = await rollout.trigger(op(), soon());
    expect(["rolling", "done", "failed", "held"].includes(state.state)).toBe(true);
    expect([0, 1, 2].includes(state.proof)).toBe(true);
    expect(typeof state.reason).toBe("string");
  });

  if (how !== "auto") return;

  promise("tells the workload the rotation, the same at every repeat", async ({ rollout, seen }) => {
    const once = op();
    await rollout.trigger(once, soon());
    await rollout.trigger(once, soon());
    const told = (await seen?.()) ?? [];
    expect(told.length > 0).toBe(true);
    expect(told.every((text) => text.includes(once.rotation) && text.includes(once.app))).toBe(true);
  });

  promise("never says done of what failed", async ({ rollout, breakIt }) => {
    await breakIt?.();
    const answer = await rollout.trigger(op(), soon()).catch((error: unknown) => error);
    if (answer instanceof Error) expect(isProblem(answer)).toBe(true);
    else expect((answer as { readonly state?: unknown }).state).toBe("failed");
    expect(inspect(answer, { depth: 8, showHidden: true }).includes(VENDOR_TEXT)).toBe(false);
  });

  promise("starts nothing for a signal that is aborted already", async ({ rollout, seen }) => {
    const error = await rollout.trigger(op(), AbortSignal.abort()).catch((caught: unknown) => caught);
    expect(isProblem(error)).toBe(true);
    expect((await seen?.()) ?? []).toEqual([]);
  });
};

/** A workload under test says this when it fails: it must not come out of the rollout. */
export const VENDOR_TEXT = "vendor-words-that-nobody-may-see";

const soon = (): AbortSignal => AbortSignal.timeout(20_000);
const op = (): RolloutOp => ({
  app: "chat-prod",
  rotation: randomBytes(8).toString("hex"),
  opId: randomBytes(16).toString("hex"),
  fingerprint: randomBytes(8).toString("hex"),
});

const isProblem = (error: unknown): boolean => {
  const { name, code, outcome } = error as {
    readonly name?: unknown;
    readonly code?: unknown;
    readonly outcome?: unknown;
  };
  return (
    name === "ProviderError" && PROVIDER_CODES.some((known) => known === code) && typeof outcome === "string"
  );
};
