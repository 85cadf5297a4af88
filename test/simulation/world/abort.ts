/**
 * Node's AbortController for a world of one thread: the same order of events without weak references, which keep whole worlds from the
 * garbage collector for a while.
 */
type Listener = () => void;
type ListenOptions = { readonly once?: boolean; readonly signal?: QuickSignal };

class QuickSignal {
  aborted = false;
  reason: unknown = undefined;
  readonly #listeners = new Set<Listener>();
  readonly #dependents: QuickSignal[] = [];

  static any(sources: readonly QuickSignal[]): QuickSignal {
    const made = new QuickSignal();
    const over = sources.find((source) => source.aborted);
    if (over === undefined) for (const source of sources) source.#dependents.push(made);
    else made.#mark(over.reason);
    return made;
  }

  /** Every listener here is told once at most: a signal aborts once. */
  addEventListener(_type: "abort", listener: Listener, options: ListenOptions = {}): void {
    const { signal } = options;
    if (signal?.aborted === true) return;
    this.#listeners.add(listener);
    signal?.addEventListener("abort", () => this.removeEventListener("abort", listener));
  }

  removeEventListener(_type: "abort", listener: Listener): void {
    this.#listeners.delete(listener);
  }

  throwIfAborted(): void {
    if (this.aborted) throw this.reason;
  }

  #mark(reason: unknown): void {
    this.aborted = true;
    this.reason = reason;
  }

  /** As in Node: all that depends on it is aborted before anybody is told. */
  abort(reason: unknown): void {
    const all = [this, ...this.#dependents].filter((signal) => !signal.aborted);
    for (const signal of all) signal.#mark(reason);
    for (const signal of all) for (const listener of signal.#listeners) listener();
  }
}

class QuickController {
  readonly signal = new QuickSignal();
  abort(reason: unknown = "aborted"): void {
    this.signal.abort(reason);
  }
}

/** Under the names of Node, for a copy of the sources that asks for them at the head of a file. */
export { QuickController as AbortController, QuickSignal as AbortSignal };
