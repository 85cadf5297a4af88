import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BUGS } from "./bugs.ts";
import { type Copies, loadAsIs, makeCopies } from "./copy.ts";
import { hunt } from "./hunt.ts";
import { simulate } from "./simulate.ts";

/** The share of `npm test`. The whole of it: npm run simulate. */
const SEEDS = Number(process.env["SIM_SEEDS"] ?? "300");
/** Bugs that only one world in hundreds shows are found by `npm run simulate` alone. */
const WORLDS_FOR_A_BUG = 80;
const FOUND_SOON = 30;

let copies: Copies;
beforeAll(() => {
  copies = makeCopies();
});
afterAll(() => copies.remove());

describe("the real loop in a seeded world", () => {
  test(`${SEEDS} schedules keep every promise`, async () => {
    const product = await copies.load([]);
    const broken: string[] = [];
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { violations } = await simulate(seed, { product });
      if (violations.length > 0)
        broken.push(`seed ${seed} (node test/simulation/run.ts --seed ${seed}): ${violations.join("; ")}`);
    }
    expect(broken).toEqual([]);
  }, 120_000);

  test("the same seed gives the same trace, with the files of the product as with a copy", async () => {
    const [asIs, copy] = [await loadAsIs(), await copies.load([])];
    for (const seed of [3, 17, 101]) {
      const first = await simulate(seed, { product: asIs, traced: true });
      const second = await simulate(seed, { product: asIs, traced: true });
      const third = await simulate(seed, { product: copy, traced: true });
      expect(second.trace).toEqual(first.trace);
      expect(third.hash).toBe(first.hash);
      expect(first.trace.length).toBeGreaterThan(20);
    }
    const other = await simulate(4, { product: asIs, traced: true });
    expect(other.hash).not.toBe((await simulate(3, { product: asIs, traced: true })).hash);
  }, 60_000);

  test("planted bugs are found", async () => {
    expect(BUGS.length).toBeGreaterThanOrEqual(30);
    expect(new Set(BUGS.map((b) => b.name)).size).toBe(BUGS.length);
    const found = await hunt(copies, BUGS, 1, WORLDS_FOR_A_BUG);
    expect(found.filter((f) => f.seeds !== null).length).toBeGreaterThanOrEqual(FOUND_SOON);
  }, 120_000);
});
