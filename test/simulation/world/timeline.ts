/** Virtual time: things happen in order of their time, then of their making. */
export type Timeline = {
  /** Virtual ms since the world began. */
  readonly now: () => number;
  readonly at: (time: number, happen: () => void) => void;
  readonly after: (ms: number, happen: () => void) => void;
  /** Lets things happen until nothing is left, `isOver` says so, or `maxSteps` are used up. @returns steps taken */
  readonly run: (isOver: () => boolean, maxSteps: number) => Promise<number>;
};

type Happening = { readonly time: number; readonly order: number; readonly happen: () => void };

const isBefore = (a: Happening, b: Happening): boolean =>
  a.time < b.time || (a.time === b.time && a.order < b.order);

export const timeline = (): Timeline => {
  const heap: Happening[] = [];
  let clock = 0;
  let order = 0;

  const push = (item: Happening): void => {
    let i = heap.push(item) - 1;
    while (i > 0) {
      const up = (i - 1) >> 1;
      const parent = heap[up];
      if (parent === undefined || !isBefore(item, parent)) break;
      heap[i] = parent;
      i = up;
    }
    heap[i] = item;
  };

  const pop = (): Happening | undefined => {
    const top = heap[0];
    const last = heap.pop();
    if (top === undefined || last === undefined || heap.length === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      const left = heap[child];
      const right = heap[child + 1];
      if (left === undefined) break;
      let best = left;
      if (right !== undefined && isBefore(right, left)) {
        best = right;
        child++;
      }
      if (!isBefore(best, last)) break;
      heap[i] = best;
      i = child;
    }
    heap[i] = last;
    return top;
  };

  const at = (time: number, happen: () => void): void =>
    push({ time: Math.max(time, clock), order: order++, happen });
  return {
    now: () => clock,
    at,
    after: (ms, happen) => at(clock + ms, happen),
    run: (isOver, maxSteps) =>
      new Promise((resolve, reject) => {
        let steps = 0;
        // Every promise that a happening settles is followed to its end before the next one: a tick comes after all microtasks.
        const goOn = (): void => {
          if (steps % 1_000 === 0) setImmediate(step);
          else process.nextTick(step);
        };
        const step = (): void => {
          try {
            if (isOver() || steps >= maxSteps) return resolve(steps);
            const item = pop();
            if (item === undefined) return resolve(steps);
            steps++;
            clock = item.time;
            item.happen();
            queueMicrotask(goOn);
          } catch (error) {
            reject(error);
          }
        };
        setImmediate(step);
      }),
  };
};
