import type { Bug } from "./bugs.ts";
import type { Copies } from "./copy.ts";
import { simulate } from "./simulate.ts";

export type Found = {
  readonly name: string;
  /** How many worlds it took; null = not found. */
  readonly worlds: number | null;
  readonly violation: string;
};

/** A plant that does not fit the sources any more is no mistake that somebody could make. */
const BROKEN = /ends in (Type|Reference|Syntax)Error/;

/** Plants each bug by itself and looks for it in at most `most` worlds. */
export const hunt = async (
  copies: Copies,
  bugs: readonly Bug[],
  from: number,
  most: number,
): Promise<readonly Found[]> => {
  const sound = await copies.load([]);
  const found: Found[] = [];
  for (const bug of bugs) {
    const product = await copies.load(bug.changes);
    let here: Found = { name: bug.name, worlds: null, violation: "" };
    for (let n = 1; n <= most && here.worlds === null; n++) {
      const [violation] = (await simulate(from + n - 1, { product, sound })).violations;
      if (violation !== undefined && BROKEN.test(violation)) throw new Error(`${bug.name}: ${violation}`);
      if (violation !== undefined) here = { ...here, worlds: n, violation: violation.split("\n")[0] ?? "" };
    }
    found.push(here);
  }
  return found;
};
