/** The option that a person most likely meant by `word`, or null when none is near: one slip in four letters, case and `-`/`_` free. */
export const nearest = (word: string, options: Iterable<string>): string | null => {
  const wanted = plain(word);
  if (wanted === "" || wanted.length > 64) return null;
  let best: { readonly option: string; readonly slips: number } | null = null;
  for (const option of options) {
    const longer = Math.max(wanted.length, plain(option).length);
    const allowed = longer < 3 ? 0 : Math.max(1, Math.floor(longer / 4));
    const slips = distance(wanted, plain(option), allowed);
    if (slips <= allowed && (best === null || slips < best.slips)) best = { option, slips };
  }
  return best?.option ?? null;
};

/** `, did you mean "x"?` or nothing. */
export const didYouMean = (word: string, options: Iterable<string>): string => {
  const option = nearest(word, options);
  return option === null ? "" : `, did you mean "${option}"?`;
};

const plain = (text: string): string => text.toLowerCase().replaceAll(/[-_ ]/g, "");

/** Edits (insert, delete, replace, swap of two neighbours) from `a` to `b`; anything above `limit` when they are further apart. */
const distance = (a: string, b: string, limit: number): number => {
  if (Math.abs(a.length - b.length) > limit) return limit + 1;
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row += 1) {
    const here = [row];
    for (let column = 1; column <= b.length; column += 1) {
      const differs = a[row - 1] === b[column - 1] ? 0 : 1;
      const swaps = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      here.push(
        Math.min(
          (last[column] ?? 0) + 1,
          (here[column - 1] ?? 0) + 1,
          (last[column - 1] ?? 0) + differs,
          swaps ? (before[column - 2] ?? 0) + 1 : Number.POSITIVE_INFINITY,
        ),
      );
    }
    before = last;
    last = here;
  }
  return last[b.length] ?? limit + 1;
};
