import { RotatorError } from "../core/errors.ts";
import type { LedgerEvent } from "../core/events.ts";
import { type Action, nameOf, next, PROBE_EVERY_MS, type Run } from "../core/next.ts";
import type { Fp } from "../core/secret.ts";
import { isOpen } from "../core/state.ts";
import { awaitFree } from "./claim.ts";
import { finish } from "./close.ts";
import type { Hands } from "./hands.ts";
import { hex, type Journal, Moved, Superseded } from "./journal.ts";
import type { Keys } from "./keys.ts";
import { type Pass, rotationOf } from "./pass.ts";
import type { ProofEnd } from "./probing.ts";
import { observeStore, rereadStores, watchMirror, writeStore } from "./push.ts";
import { observeRollout, roll } from "./roll.ts";
import { preflight, probeBoth, prove, verify } from "./verify.ts";

export type LoopOptions = {
  /** `confirm-revoked`: prove now. */
  readonly confirm: boolean;
  /** How long to wait for another rotator's claim. */
  readonly lockWaitMs: number;
  readonly acceptApp: string | null;
};

const TICK_MS = 10_000;
const RENEW_AFTER_MS = 20_000;
/** Intents of one start share an entry; this many fit into 16 KiB. */
const MOST_AT_ONCE = 32;

/**
 * One pass: decide, write down, act, write down, until nothing may start and nothing runs. Killed at any point and called again it goes
 * on where it was. Holds the claim while it acts, none when it returns.
 * @returns how the triads of this pass ended, by old key.
 * @throws RotatorError LOCKED, LEDGER_BROKEN, LEDGER_UNWRITABLE, ESCROW_FAILED
 */
export const runLoop = async (
  hands: Hands,
  journal: Journal,
  keys: Keys,
  options: LoopOptions,
): Promise<ReadonlyMap<Fp, ProofEnd>> => {
  const ends = new Map<Fp, ProofEnd>();
  if (!isOpen(journal.state())) return ends;
  await awaitFree(hands, journal, options.lockWaitMs);
  if (!isOpen(journal.state())) return ends;
  const loop = new Loop(hands, journal, keys, options, ends);
  try {
    await loop.run();
    return ends;
  } catch (error) {
    if (error instanceof Superseded) throw await loop.superseded();
    throw error;
  }
};

/** The state of one pass. Internal to this file: the only place where actions run side by side. */
class Loop {
  readonly #hands: Hands;
  readonly #journal: Journal;
  readonly #options: LoopOptions;
  readonly #pass: Pass;
  readonly #stop = new AbortController();
  readonly #running = new Map<string, Promise<void>>();
  readonly #tried = new Set<string>();
  #probedAt: number | null = null;
  #failure: unknown = null;
  #claimed = false;
  #number: number;

  constructor(
    hands: Hands,
    journal: Journal,
    keys: Keys,
    options: LoopOptions,
    ends: Map<Fp, ProofEnd>,
  ) {
    this.#hands = hands;
    this.#journal = journal;
    this.#options = options;
    this.#number = rotationOf({ journal }).run + 1;
    const self = this;
    this.#pass = {
      hands,
      journal,
      keys,
      acceptApp: options.acceptApp,
      signal: this.#stop.signal,
      ends,
      get run() {
        return self.#number;
      },
    };
  }

  async run(): Promise<void> {
    for (;;) {
      if (this.#failure !== null) break;
      const actions = this.#hands.signal.aborted ? [] : next(this.#journal.state(), this.#view());
      if (actions.length === 0 && this.#running.size === 0) break;
      try {
        if (actions.length > 0) await this.#start(actions.slice(0, MOST_AT_ONCE));
        else await this.#settle();
      } catch (error) {
        if (!(error instanceof Moved)) this.#failure ??= error;
      }
    }
    await this.#drain();
    if (this.#failure !== null) throw this.#failure;
    if (this.#claimed && this.#journal.state().claim?.inst === this.#inst) {
      await this.#journal.record([{ type: "released", inst: this.#inst }]);
    }
  }

  get #inst(): string {
    return this.#hands.host.claim.inst;
  }

  #view(): Run {
    return {
      number: this.#number,
      running: new Set(this.#running.keys()),
      tried: this.#tried,
      monoMs: this.#hands.clock.monotonic(),
      wallMs: this.#hands.clock.now(),
      probedAt: this.#probedAt,
      confirm: this.#options.confirm,
      soakMs: this.#hands.app.soakMs,
    };
  }

  /** Everything but a look at what a waiting person did needs the claim. */
  async #claim(actions: readonly Action[]): Promise<void> {
    if (this.#claimed || actions.every((a) => a.do === "probe" || a.do === "reread")) return;
    await awaitFree(this.#hands, this.#journal, this.#options.lockWaitMs);
    const { run, id } = rotationOf(this.#pass);
    this.#number = run + 1;
    await this.#journal.decide([
      { type: "run-started", rotation: id, run: this.#number },
      { type: "claimed", ...this.#hands.host.claim, rotation: id },
    ]);
    this.#claimed = true;
  }

  async #start(actions: readonly Action[]): Promise<void> {
    if (!this.#claimed) {
      await this.#claim(actions);
      if (this.#claimed) return;
    }
    const r = rotationOf(this.#pass);
    const effects = actions.filter((a) => a.do === "write" || a.do === "roll" || a.do === "close");
    const intents = effects.map((a): LedgerEvent => {
      if (a.do === "close") return { type: "closing", rotation: r.id };
      const opId = hex(this.#hands.entropy(16));
      const target = "target" in a ? a.target : "";
      const action = a.do === "write" ? "write" : "roll";
      return { type: "intent", rotation: r.id, run: this.#number, target, action, opId, fp: r.newFp ?? "" };
    });
    const at = intents.length > 0 ? await this.#journal.decide(intents) : { seq: 0, first: 0 };
    effects.forEach((a, i) => this.#launch(a, `${at.seq}.${at.first + i}`));
    for (const a of actions) if (!effects.some((e) => e === a)) this.#launch(a, "");
  }

  #launch(action: Action, intent: string): void {
    if (action.do === "close") return;
    const name = nameOf(action);
    const work = async (): Promise<void> => {
      const facts = await this.#perform(action, intent);
      try {
        await this.#journal.record(facts);
      } catch (error) {
        if (error instanceof Superseded && intent !== "" && "target" in action) this.#late.push({ action, intent });
        throw error;
      }
    };
    const done = work()
      .catch((error: unknown) => {
        this.#failure ??= error;
      })
      .finally(() => this.#running.delete(name));
    this.#running.set(name, done);
  }

  readonly #late: { action: Action & { target: string }; intent: string }[] = [];

  async #perform(action: Action, intent: string): Promise<readonly LedgerEvent[]> {
    const { clock } = this.#hands;
    switch (action.do) {
      case "verify":
        this.#probedAt = clock.monotonic();
        return verify(this.#pass);
      case "preflight":
        return preflight(this.#pass);
      case "observe":
        this.#tried.add(nameOf(action));
        return rotationOf(this.#pass).stores.has(action.target)
          ? observeStore(this.#pass, action.target, action.intent)
          : observeRollout(this.#pass, action.target, action.intent);
      case "write":
        this.#tried.delete(`observe:${action.target}`);
        return writeStore(this.#pass, action.target, intent);
      case "roll":
        this.#tried.delete(`observe:${action.target}`);
        return roll(this.#pass, action.target, intent);
      case "mirror":
        return watchMirror(this.#pass, action.target);
      case "reread":
        this.#tried.add("reread");
        return this.#news(await rereadStores(this.#pass));
      case "probe":
        this.#probedAt = clock.monotonic();
        return probeBoth(this.#pass);
      case "pause":
        await clock.sleep(action.ms, this.#pass.signal);
        return [];
      case "prove":
        this.#tried.add("prove");
        this.#probedAt = clock.monotonic();
        return prove(this.#pass, action.keys);
      case "close":
        return [];
      case "finish":
        return finish(this.#pass);
    }
  }

  /** A second look that shows what is on record already, since the last change and proof, is not written again. */
  #news(facts: readonly LedgerEvent[]): readonly LedgerEvent[] {
    const r = rotationOf(this.#pass);
    const since = Math.max(r.wroteAt, r.rolledAt, r.provedAt);
    const known = facts.every((e) => {
      if (e.type !== "observed" || e.target === undefined) return false;
      const seenAt = r.stores.get(e.target)?.seenAt ?? 0;
      return e.outcome === "ok" && e.fp === r.newFp && seenAt > since;
    });
    return known ? [] : facts;
  }

  /** Waits for one action to end; renews the claim and looks up every few seconds meanwhile. */
  async #settle(): Promise<void> {
    const tick = new AbortController();
    const ms = Math.min(TICK_MS, PROBE_EVERY_MS);
    const stopped = new Promise<void>((resolve) => {
      this.#hands.signal.addEventListener("abort", () => resolve(), { once: true, signal: tick.signal });
    });
    await Promise.race([...this.#running.values(), this.#hands.clock.sleep(ms, tick.signal), stopped]);
    tick.abort();
    if (this.#claimed && this.#journal.ownHeadAgeMs() > RENEW_AFTER_MS && this.#failure === null) {
      await this.#journal.refresh();
      if (this.#journal.superseded()) throw new Superseded();
      await this.#journal.decide([{ type: "renewed", inst: this.#inst }]);
    }
    if (this.#hands.signal.aborted) await this.#drain();
  }

  /** Nothing new starts; what runs is given a moment to end by itself, then is told to stop. */
  async #drain(): Promise<void> {
    if (this.#running.size === 0) return;
    const all = Promise.all(this.#running.values());
    if (this.#failure === null) {
      const patience = new AbortController();
      await Promise.race([all, this.#hands.clock.sleep(TICK_MS, patience.signal)]);
      patience.abort();
    }
    this.#stop.abort();
    await all;
  }

  /** Someone took over while we slept: say what we may have done late, then leave. */
  async superseded(): Promise<RotatorError> {
    for (const { action, intent } of this.#late) {
      const found = action.do === "write" ? await observeStore(this.#pass, action.target, intent) : [];
      const fp = found[0]?.type === "observed" ? (found[0].fp ?? null) : null;
      const rotation = rotationOf(this.#pass).id;
      await this.#journal
        .record([{ type: "late-effect", rotation, intent, target: action.target, fp }], { late: true })
        .catch(() => {});
    }
    return new RotatorError("LOCKED", {
      why: "Another rotator took over while this one was paused.",
      state: "The other one goes on. Whatever this one may have written late is in the ledger.",
      do: [`imkit-rotator status ${this.#hands.app.name}`],
    });
  }
}
