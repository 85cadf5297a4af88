import type { Entry, LedgerEvent } from "../../../src/core/events.ts";
import type { AppState } from "../../../src/core/state.ts";
import type { Imkit } from "./imkit.ts";
import type { TrueStore, TrueWorkload, Watcher } from "./places.ts";
import type { Proc } from "./process.ts";
import type { Product } from "./product.ts";
import type { TrueEscrow, TrueLedger } from "./record.ts";
import type { Timeline } from "./timeline.ts";

/** What must hold in every world, whatever goes wrong in it. */
export type Checks = Watcher & {
  readonly entered: (proc: Proc, entry: Entry, before: AppState) => void;
  readonly mutates: (proc: Proc, what: string) => void;
  readonly escrowRemoved: (proc: Proc, fp: string) => void;
  /** A person was told that the key is safe. */
  readonly acknowledged: (text: string) => void;
  /** A person reads that an old key may be revoked now. */
  readonly saysRevoke: (proc: Proc) => void;
  /** A command came to its end, and that is how it saw the ledger. */
  readonly returned: (proc: Proc, s: AppState) => void;
  /** A person tells that process to go back to a leaked key if need be. */
  readonly acceptsLeaked: (inst: string) => void;
  /** Somebody took that key out of escrow. */
  readonly taken: (fp: string) => void;
  readonly atEnd: () => void;
  readonly fpOf: (text: string) => string;
};

type Around = {
  readonly sound: Product;
  readonly time: Timeline;
  readonly stores: ReadonlyMap<string, TrueStore>;
  readonly workloads: ReadonlyMap<string, TrueWorkload>;
  readonly escrow: () => TrueEscrow;
  readonly ledger: () => TrueLedger;
  readonly imkit: Imkit;
  readonly processes: ReadonlyMap<string, Proc>;
  readonly violated: (what: string) => void;
  readonly probes: number;
  /** Wall clock of the world's begin, and whether some process has another. */
  readonly epoch: number;
  readonly isSkewed: () => boolean;
};

type Intent = {
  readonly id: string;
  readonly inst: string;
  readonly rotation: string;
  readonly target: string;
  readonly action: "write" | "roll";
  readonly fp: string;
  readonly opId: string;
  readonly at: number;
  readonly mode: string | null;
  /** Nothing works, or a key leaked: nothing waits for anything. */
  readonly urgent: boolean;
  closed: boolean;
  begun: number;
  /** Old keys when its effect began, as far as its process could know. */
  olds: ReadonlySet<string>;
};

/** After these every store has to be read again before anybody is asked to revoke; after a proof, before it is over. */
const WORK: ReadonlySet<string> = new Set(["intent", "result", "restarted"]);
const MOST_TRIES = 3;
const FRESH_MS = 30_000;
const SILENCE_MS = 90_000;

export const checksOf = (around: Around): Checks => {
  const { sound, time, stores, workloads, imkit, violated } = around;
  const intents = new Map<string, Intent>();
  const byOp = new Map<string, Intent>();
  const authors: string[] = [];
  const lastEntryAt = new Map<string, number>();
  const acked = new Map<string, string>();
  const strange = new Set<string>();
  const mayWork = new Set<string>();
  const taken = new Set<string>();
  const fearless = new Set<string>();
  const acceptedLeaks = new Set<string>();
  const tries = new Map<string, number>();
  const fps = new Map<string, string>();
  const texts = new Map<string, string>();
  let workedAt = 0;
  let provedAt = 0;
  let grewAt = 0;
  let calledAt = Number.NEGATIVE_INFINITY;

  const state = (): AppState => around.ledger().state();
  const fpOf = (text: string): string => {
    const known = fps.get(text);
    if (known !== undefined) return known;
    const { salt } = state();
    if (salt === null) return "";
    const fp = new sound.Secret(text).fingerprint(salt);
    fps.set(text, fp);
    texts.set(fp, text);
    return fp;
  };
  const textOf = (fp: string): string | null => {
    const known = texts.get(fp);
    if (known !== undefined) return known;
    for (const text of imkit.keys.keys()) fpOf(text);
    return texts.get(fp) ?? null;
  };
  const short = (fp: string | null): string => fp?.slice(0, 8) ?? "-";

  /** The world behind "every store and workload has the new key". What somebody changed after the last look is nobody's fault. */
  const isEverywhere = (proc: Proc, claim: string, since = workedAt): void => {
    const r = state().rotation;
    if (r === null || r.newFp === null) return violated(`${claim} without a new key`);
    const text = textOf(r.newFp);
    for (const planned of r.stores.values()) {
      const store = stores.get(planned.name);
      if (store === undefined || !planned.required || planned.state === "dropped" || store.value === text)
        continue;
      if ((store.lies.get(text) ?? -1) >= since) continue;
      const looked = store.looks.get(text) ?? -1;
      const isNews = looked >= since && store.changedAt >= looked;
      if (!isNews)
        violated(`${claim} by ${proc.name}, but the store ${store.plan.name} does not hold the new key`);
    }
    for (const planned of r.rollouts.values()) {
      const w = workloads.get(planned.name);
      if (w === undefined || !planned.required || planned.state === "dropped" || w.how === "none") continue;
      if (w.uses === text) continue;
      const store = stores.get(w.reads);
      // It was restarted while somebody had put another value there, who took it away again before anyone looked.
      // Or an old answer said that the new key stood there already, to whoever had it restarted.
      const sinceLie = w.loadedAt - (store?.lies.get(text) ?? Number.NEGATIVE_INFINITY);
      const wasLiedTo = proc.memory.lies.has(w.reads) || (sinceLie >= 0 && sinceLie < 30_000);
      const isHidden = (w.tainted && store?.changedBy !== "us") || wasLiedTo;
      const read = r.stores.get(w.reads);
      const isOutside =
        store === undefined || read === undefined || read.state === "dropped" || !store.plan.required;
      if (!isHidden && !isOutside && store.value === text) {
        violated(`${claim} by ${proc.name}, but the workload ${w.plan.name} uses an old key`);
      }
    }
  };

  const isOpenFor = (target: string, rotation: string): Intent | undefined => {
    for (const i of intents.values())
      if (!i.closed && i.target === target && i.rotation === rotation) return i;
    return undefined;
  };

  const intended = (proc: Proc, e: LedgerEvent & { type: "intent" }, id: string, before: AppState): void => {
    const r = before.rotation;
    const what = `${proc.name} intends to ${e.action} ${e.target}`;
    const open = isOpenFor(e.target, e.rotation);
    if (open !== undefined) violated(`${what} while ${open.id} has no known end`);
    if (r === null || r.ended !== null || r.id !== e.rotation)
      violated(`${what} outside of an open rotation`);
    else {
      if (r.newFp !== e.fp) violated(`${what} for a key that is not the new one`);
      if (before.old.has(e.fp)) violated(`${what} for a key that has to die`);
      if (r.wrongKey || r.newRejected) violated(`${what} although the new key was seen dead`);
      if (r.closing) violated(`${what} while closing`);
      const targets = [...r.stores.values(), ...r.rollouts.values()].filter(
        (t) => t.required && t.state !== "dropped",
      );
      // In an emergency a target that may not be written stops itself alone.
      const asked = r.emergency === null ? targets : targets.filter((t) => t.name === e.target);
      const unsure = asked.filter((t) => t.preflight?.run !== e.run || !t.preflight.ok);
      if (before.leaked.has(e.fp) && !acceptedLeaks.has(e.fp)) violated(`${what} with a leaked key`);
      if (unsure.length > 0)
        violated(`${what} before the preflight of ${unsure.map((t) => t.name).join(", ")}`);
      if (r.verified?.run !== e.run || !r.verified.ok) violated(`${what} before the new key was verified`);
      const left = [...before.old].filter(([, k]) => !k.proved && !k.waived);
      const dead = left.every(([fp]) => before.verdicts.get(fp)?.verdict === "rejected");
      const canaries = [...r.rollouts.values()].filter(
        (w) => w.canary && w.state !== "done" && w.state !== "dropped",
      );
      const isUrgent = r.emergency !== null || r.mode === "replace" || (left.length > 0 && dead);
      if (r.sameApp === "different" && !r.acceptedApp) violated(`${what} for a key of another app`);
      const name = `${r.id} ${e.run} ${e.target} ${e.fp}`;
      const times = (tries.get(name) ?? 0) + 1;
      tries.set(name, times);
      // Each write of a store may call for one more round of restarts.
      if (times > (e.action === "roll" ? 4 * MOST_TRIES : MOST_TRIES))
        violated(`${what} for the ${times}th time in one run`);
      if (
        e.action === "roll" &&
        !isUrgent &&
        r.rollouts.get(e.target)?.canary === false &&
        canaries.length > 0
      ) {
        violated(`${what} before the canary`);
      }
    }
    if (before.claim?.inst !== proc.claim.inst) violated(`${what} without the claim`);
    if (e.action === "roll") isEverywhereStores(proc, what);
    const intent: Intent = {
      id,
      inst: proc.claim.inst,
      rotation: e.rotation,
      target: e.target,
      action: e.action,
      fp: e.fp,
      opId: e.opId,
      at: time.now(),
      mode: r?.emergency ? "replace" : (r?.mode ?? null),
      urgent: r !== null && sound.isUrgent(before, r),
      closed: false,
      begun: 0,
      olds: new Set(),
    };
    intents.set(id, intent);
    byOp.set(e.opId, intent);
  };

  /** With a leaked key about, no workload waits for another one. */
  const noCanaryFirst = (proc: Proc, entry: Entry, before: AppState): void => {
    const rolls = entry.events.flatMap((e) => (e.type === "intent" && e.action === "roll" ? [e.target] : []));
    if (!rolls.some((name) => before.rotation?.rollouts.get(name)?.canary)) return;
    for (const w of before.rotation?.rollouts.values() ?? []) {
      const isReady = w.state === "pending" && w.type !== "manual" && w.tries === 0 && w.open === null;
      if (isReady && w.preflight?.ok && w.retryAtMs === null && !rolls.includes(w.name))
        violated(`${proc.name} restarts a canary first although a key leaked`);
    }
  };

  /** In an emergency whatever can be written is written, whatever became of the rest. */
  const returned = (proc: Proc, s: AppState): void => {
    const r = s.rotation;
    const isAtWork = r?.ended === null && r.emergency !== null && r.verified?.run === r.run && r.verified.ok;
    // Who decided just before is followed by the one who called.
    if (time.now() - calledAt < 1_000) return;
    if (!isAtWork || proc.signal.aborted || r.newRejected || r.wrongKey) return;
    const isIdle = sound.phaseOf(s) === "rotating" && r.waitingFor !== "soak" && s.claim === null;
    const isUnsure = [...r.stores.values(), ...r.rollouts.values()].some((t) => t.open !== null);
    if (isIdle && !isUnsure) violated(`${proc.name} stops in the middle of an emergency`);
    if (s.claim !== null || (r.sameApp === "different" && !r.acceptedApp)) return;
    for (const t of r.stores.values()) {
      const mayGo = t.preflight?.run === r.run && t.preflight.ok && t.write && t.open === null;
      if (mayGo && t.state === "pending" && t.tries === 0 && t.code === null)
        violated(`${proc.name} leaves ${t.name} alone although a key leaked`);
    }
  };

  /** No restart before the stores are written. */
  const isEverywhereStores = (proc: Proc, what: string): void => {
    const r = state().rotation;
    const text = r?.newFp ? textOf(r.newFp) : null;
    for (const planned of r?.stores.values() ?? []) {
      const store = stores.get(planned.name);
      if (store === undefined || !planned.required || planned.state === "dropped" || store.value === text)
        continue;
      if (proc.memory.lies.get(planned.name)?.value === text) continue;
      const isTaken = planned.state === "written" || planned.state === "unchanged";
      if (r?.emergency && !isTaken) continue;
      // What a stranger did since is found before the gate, and everything is restarted again then.
      const isStrange = ["foreign", "late", "mirror"].includes(store.changedBy);
      if (!isStrange || !isTaken)
        violated(`${what}, but the store ${planned.name} does not hold the new key (${proc.name})`);
    }
  };

  const ended = (proc: Proc, e: LedgerEvent, intent: Intent | undefined): void => {
    if (e.type !== "result" && e.type !== "observed") return;
    if (intent === undefined) return violated(`${proc.name} records the end of an intent that is not there`);
    if (e.outcome === "unknown") return;
    const read = proc.memory.reads.get(intent.target);
    const isGivenUp =
      e.code === "DROPPED" &&
      [...(state().rotation?.stores.values() ?? []), ...(state().rotation?.rollouts.values() ?? [])].some(
        (t) => t.name === intent.target && t.state === "dropped",
      );
    if (
      intent.action === "write" &&
      e.type === "observed" &&
      !isGivenUp &&
      (read === undefined || read.at < intent.at)
    ) {
      violated(`${proc.name} closes ${intent.id} without a look at ${intent.target}`);
    }
    const saw = proc.memory.saw.get(intent.target)?.get(textOf(intent.fp)) ?? -1;
    if (intent.action === "write" && e.outcome === "ok" && saw < intent.at) {
      violated(`${proc.name} says that ${intent.target} was written, which it did not see`);
    }
    const code = e.code ?? "";
    const isApplied = (stores.get(intent.target)?.ops.get(intent.opId) ?? 0) > 0;
    if (e.type === "result" && e.outcome === "failed" && isApplied && code !== "VERIFY_MISMATCH") {
      violated(`${proc.name} says that ${intent.target} was not written (${code}), and it was`);
    }
    intent.closed = true;
  };

  const proved = (proc: Proc, e: LedgerEvent & { type: "proof" }): void => {
    const text = textOf(e.fp);
    const key = text === null ? undefined : imkit.keys.get(text);
    if (key === undefined) return violated(`${proc.name} proves a key that IMKIT never issued`);
    if (key.revokedAt === null) violated(`${proc.name} proves ${short(e.fp)} dead, which nobody revoked`);
    else if (imkit.works(key.text)) violated(`${proc.name} proves ${short(e.fp)} dead, which still works`);
    if (e.triads.length < around.probes) violated(`${proc.name} proves with ${e.triads.length} triads`);
    const isSound = e.triads.every((t) => t.new.verdict === "accepted" && t.old.verdict !== "accepted");
    if (!isSound) violated(`${proc.name} proves with a triad that proves nothing`);
  };

  const isClosable = (proc: Proc, what: string, before: AppState): void => {
    const open = [...before.old].filter(([, k]) => !k.proved && !k.waived).map(([fp]) => short(fp));
    if (open.length > 0) violated(`${what} by ${proc.name} while ${open.join(", ")} may work`);
    for (const [fp, k] of before.old) {
      const text = textOf(fp);
      if (k.proved && text !== null && imkit.works(text))
        violated(`${what} while the proved key ${short(fp)} works`);
    }
    const now = before.rotation?.newFp ? imkit.keys.get(textOf(before.rotation.newFp) ?? "") : undefined;
    if (now === undefined) violated(`${what} without a new key`);
    isEverywhere(proc, what, Math.max(workedAt, provedAt));
  };

  const forget = (fp: string | null | undefined): void => {
    const text = fp === null || fp === undefined ? null : textOf(fp);
    if (text !== null) acked.delete(text);
  };

  /** Every key that the ledger ever took for one that works has to be dead when it is over, or a person answers for it. */
  const noneWorks = (proc: Proc, before: AppState): void => {
    for (const fp of mayWork) {
      const text = textOf(fp);
      const key = text === null ? undefined : imkit.keys.get(text);
      const isLeft = before.old.get(fp)?.proved === false || before.staged?.fp === fp;
      if (key === undefined || fp === before.rotation?.newFp || key.revokedAt !== null || isLeft) continue;
      violated(`${proc.name} is done while ${short(fp)} works`);
    }
  };

  const claimed = (proc: Proc, e: LedgerEvent & { type: "claimed" }, before: AppState): void => {
    const other = before.claim;
    if (other === null || other.inst === e.inst) return;
    const isGone = other.host === e.host && around.processes.get(other.inst)?.isDead() !== false;
    const silent = time.now() - (lastEntryAt.get(other.inst) ?? 0);
    if (!isGone && silent < SILENCE_MS) violated(`${proc.name} takes a live claim over after ${silent} ms`);
    const holder = around.processes.get(other.inst);
    const canSpeak = holder?.isDead() === false && !holder.memory.ledgerFailed;
    const isAwake = canSpeak && time.now() - holder.pausedUntil() > SILENCE_MS;
    if (!isGone && isAwake)
      violated(`${proc.name} takes over from ${holder.name}, which is awake and said nothing`);
  };

  /** A leak is over when the key is dead or a person answers for it, and in no other way. */
  const leakStays = (proc: Proc, e: LedgerEvent, before: AppState): void => {
    const after = state();
    for (const fp of before.leaked) {
      if (!before.old.has(fp) || after.old.has(fp) || acceptedLeaks.has(fp)) continue;
      const isOver =
        before.old.get(fp)?.proved ||
        before.old.get(fp)?.waived ||
        after.dead.has(fp) ||
        (e.type === "abandoned" && fearless.has(proc.claim.inst));
      if (!isOver) violated(`the leaked key ${short(fp)} is forgotten by ${proc.name}: ${e.type}`);
    }
    const now = after.rotation?.ended === null ? after.rotation.newFp : after.current;
    const isNews = now !== (before.rotation?.ended === null ? before.rotation.newFp : before.current);
    if (isNews && now !== null && after.leaked.has(now) && !acceptedLeaks.has(now) && e.type !== "adopted")
      violated(`the leaked key ${short(now)} is the new one by ${proc.name}: ${e.type}`);
  };

  const goesBack = (proc: Proc, e: LedgerEvent & { type: "rollback-requested" }, before: AppState): void => {
    const text = textOf(e.to);
    if (before.leaked.has(e.to) && !fearless.has(proc.claim.inst))
      violated(`${proc.name} goes back to the leaked key ${short(e.to)}`);
    acceptedLeaks.add(e.to);
    const key = text === null ? undefined : imkit.keys.get(text);
    if (key === undefined || key.deadAt <= proc.startedAt)
      violated(`${proc.name} goes back to ${short(e.to)}, which is dead`);
    if (text === null || taken.has(e.to)) return;
    acked.set(text, e.to);
    if (!isKept(e.to)) violated(`${proc.name} goes back to ${short(e.to)}, which nobody has`);
  };

  const saysNo = (e: LedgerEvent): boolean =>
    e.type === "proof" || e.type === "wrong-key-revoked" || ("verdict" in e && e.verdict === "rejected");

  /** What is on record about a key's life is true: it worked when it was seen to, and was dead when it was seen dead. */
  const sightings = (proc: Proc, e: LedgerEvent, ts: string): void => {
    const fps =
      "fp" in e && typeof e.fp === "string" ? [e.fp] : e.type === "wrong-key-revoked" ? [e.new] : [];
    for (const fp of fps) {
      const sight = state().verdicts.get(fp);
      const text = textOf(fp);
      const key = text === null ? undefined : imkit.keys.get(text);
      if (sight === undefined || key === undefined) continue;
      // A key that IMKIT did not know yet was truly rejected.
      const isNo = saysNo(e) && sight.rejectedTs === ts && key.worksAt <= proc.startedAt;
      if (isNo && imkit.works(key.text)) violated(`${proc.name} calls ${short(fp)} rejected, which works`);
      const at = (text: string): number => Date.parse(text) - around.epoch;
      const late = sight.acceptedTs === null ? 0 : at(sight.acceptedTs) - key.deadAt;
      if (late > 0 && !around.isSkewed())
        violated(`${short(fp)} was seen to work ${late} ms after its death (${proc.name})`);
    }
  };

  const judge = (proc: Proc, e: LedgerEvent, id: string, ts: string, before: AppState): void => {
    const isWork = e.type === "observed" ? e.intent !== undefined : WORK.has(e.type);
    if (isWork) workedAt = time.now();
    if (e.type === "intent") intended(proc, e, id, before);
    if (e.type === "result") ended(proc, e, intents.get(e.intent));
    if (e.type === "observed" && e.intent !== undefined) ended(proc, e, intents.get(e.intent));
    if (e.type === "proof") {
      provedAt = time.now();
      proved(proc, e);
    }
    if (e.type === "rollback-requested") goesBack(proc, e, before);
    if (e.type === "discarded" && e.fp === before.current) violated(`${proc.name} discards the key in use`);
    if (e.type === "waiting" && e.for === "soak" && before.rotation?.emergency)
      violated(`${proc.name} waits for a soak although a key leaked`);
    if (e.type === "wrong-key-revoked") {
      const key = imkit.keys.get(textOf(e.new) ?? "");
      if (key?.revokedAt === null) violated(`${proc.name} calls ${short(e.new)} revoked, which nobody did`);
    }
    sightings(proc, e, ts);
    if (e.type === "waived") forget(e.fp);
    if (e.type === "claimed") claimed(proc, e, before);
    if (e.type === "waiting" && e.for === "revoke") isEverywhere(proc, "asks to revoke");
    if (e.type === "closing") isClosable(proc, e.type, before);
    if (e.type === "done") {
      if (before.rotation?.closing !== true) violated(`${proc.name} is done without closing`);
      for (const fp of before.rotation?.emergency?.leaked ?? []) {
        const isOver = before.dead.has(fp) || before.old.get(fp)?.waived || acceptedLeaks.has(fp);
        if (!isOver) violated(`${proc.name} is done while the leaked key ${short(fp)} is not proved dead`);
      }
      noneWorks(proc, before);
      forget(before.rotation?.newFp);
    }
    if (e.type === "adopted") {
      for (const { fp } of e.stores) if (fp !== null && imkit.works(textOf(fp) ?? "")) mayWork.add(fp);
    }
    if (e.type === "staged") mayWork.add(e.fp);
    if (e.type === "discarded" && e.forget) {
      mayWork.delete(e.fp);
      forget(e.fp);
    }
    if (e.type === "waived" && e.fp !== undefined) mayWork.delete(e.fp);
    // A key of another app, as far as anybody can tell, is dropped when another one takes its place.
    if ((e.type === "staged" || e.type === "mode-found") && e.sameApp === "different") {
      forget(e.fp);
      strange.add(e.fp);
      mayWork.delete(e.fp);
    }
  };

  const entered = (proc: Proc, entry: Entry, before: AppState): void => {
    authors[entry.seq] = proc.claim.inst;
    const line = Buffer.from(around.ledger().lines[entry.seq] ?? []).toString("latin1");
    for (const text of imkit.keys.keys()) {
      if (line.includes(text.slice(4, 24)) || line.includes(text.slice(30, 50)))
        violated("a key is in the ledger");
    }
    entry.events.forEach((e, index) => judge(proc, e, `${entry.seq}.${index}`, entry.ts, before));
    if (before.rotation?.emergency) noCanaryFirst(proc, entry, before);
    const { rotation: now, staged } = state();
    if (now?.ended === null && !now.closing && now.newFp === null && staged !== null)
      violated(`${short(staged.fp)} is staged, and the rotation waits for a key (${proc.name})`);
    const last = entry.events.at(-1);
    if (before.leaked.size > 0 && last !== undefined) leakStays(proc, last, before);
    lastEntryAt.set(proc.claim.inst, time.now());
    grewAt = time.now();
    if (entry.events.some((e) => e.type === "emergency-requested")) calledAt = time.now();
  };

  /** Nothing is done in the world before its durable intent, by a process that still is the holder as far as it can know. */
  const begins = (proc: Proc, target: string, opId: string, fp: string | null): void => {
    const intent = byOp.get(opId);
    const what = `${proc.name} acts on ${target}`;
    if (intent === undefined || intent.target !== target || intent.inst !== proc.claim.inst) {
      return violated(`${what} without a durable intent`);
    }
    if (fp !== null && intent.fp !== fp) violated(`${what} with another key than intended`);
    if (intent.closed) violated(`${what} after the intent was closed`);
    if (proc.memory.ledgerFailed) violated(`${what} after the ledger failed it`);
    const age = time.now() - proc.memory.appendedAt;
    if (age >= FRESH_MS) violated(`${what} ${age} ms after its last entry`);
    const { shown } = proc.memory;
    if (authors[shown - 1] !== proc.claim.inst) violated(`${what} although the head it saw is not its own`);
    const r = state().rotation;
    if (
      shown === around.ledger().lines.length &&
      (r === null || r.newFp !== intent.fp || r.wrongKey || r.ended !== null)
    ) {
      violated(`${what}, which is not wanted any more`);
    }
  };

  /** Before the first store is switched every one that has a slot holds the value ready. */
  const isTooEarly = (proc: Proc, text: string, intent: Intent | undefined): boolean => {
    const s = state();
    const r = s.rotation;
    if (r === null || intent === undefined || intent.urgent || sound.isUrgent(s, r)) return false;
    const places = [...r.stores.values()].flatMap((p) =>
      p.state === "dropped" || !p.required || !p.write ? [] : (stores.get(p.name) ?? []),
    );
    if ([...stores.values()].some((o) => o.value === text)) return false;
    // An old answer, or one from before a stranger came, cannot be told from the truth.
    const looksReady = (name: string): boolean => proc.memory.reads.get(name)?.value === text;
    return places.some((o) => o.staging && o.slot !== text && !looksReady(o.plan.name));
  };

  const isKept = (fp: string): boolean => {
    const text = textOf(fp);
    return (
      around.escrow().blobs.has(fp) || [...stores.values()].some((s) => s.value !== null && s.value === text)
    );
  };

  /** It was in a store a moment ago, and somebody took it out of there since. */
  const wasSeen = (proc: Proc | null, text: string): boolean =>
    [...stores.values()].some((s) => {
      const read = proc?.memory.reads.get(s.plan.name);
      return read !== undefined && read.value === text && time.now() - read.at < 90_000;
    });

  const noneLost = (why: string, proc: Proc | null = null): void => {
    const s = state();
    for (const [text, fp] of acked) {
      const isReleased = s.forgotten.has(fp) || s.dead.has(fp) || taken.has(fp);
      const isForeign = imkit.keys.get(text)?.app !== "app-1";
      if (isReleased || isForeign || isKept(fp)) continue;
      // What a stranger takes from the stores after it was closed is in nobody's hands.
      if (wasSeen(proc, text)) acked.delete(text);
      if (!acked.has(text)) continue;
      violated(`the acknowledged key ${short(fp)} is lost: ${why}`);
    }
  };

  return {
    entered,
    writeBegins: (proc, store, text, opId) => {
      begins(proc, store.plan.name, opId, fpOf(text));
      const intent = byOp.get(opId);
      if (intent !== undefined && proc.memory.shown === around.ledger().lines.length)
        intent.olds = new Set(state().old.keys());
      if (!store.plan.write) violated(`${proc.name} writes the mirror ${store.plan.name}`);
    },
    writeHappens: (proc, store, text, opId, late) => {
      const name = store.plan.name;
      if ((store.ops.get(opId) ?? 0) > 0 && store.value !== text)
        violated(`${proc.name} writes ${name} twice for one intent`);
      if (!late && isTooEarly(proc, text, byOp.get(opId)))
        violated(`${proc.name} switches ${name} before another store has the value ready`);
      const { value } = store;
      if (value === null || value === text) return;
      const fp = fpOf(value);
      const s = state();
      const meant = [...intents.values()].some((i) => i.target === name && i.fp === fp);
      const isOurs = fp === s.current || fp === s.rotation?.newFp || s.lastSeen.get(name) === fp || meant;
      const read = proc.memory.reads.get(name);
      const wasSeen = read?.value === value;
      const mayGo = byOp.get(opId)?.mode === "replace" && !imkit.works(value);
      if (!isOurs && !mayGo && !late && (wasSeen || store.cas))
        violated(`${proc.name} overwrites a stranger's value in ${name}`);
      const key = s.old.get(fp);
      const isElsewhere = [...stores.values()].some((o) => o !== store && o.value === value);
      const wasLiedTo =
        read?.honest === false || (store.changedBy === "foreign" && (read?.at ?? 0) < store.changedAt);
      const isKeptElsewhere = around.escrow().blobs.has(fp) || isElsewhere || taken.has(fp);
      const wasOld = byOp.get(opId)?.olds.has(fp) === true;
      if (key && wasOld && !key.proved && !key.waived && !wasLiedTo && !isKeptElsewhere) {
        violated(`the old key ${short(fp)} is lost: ${proc.name} overwrites its last copy in ${name}`);
      }
    },
    written: (store) => noneLost(`${store.plan.name} was written`),
    rollBegins: (proc, w, opId) => {
      begins(proc, w.plan.name, opId, null);
      const intent = byOp.get(opId);
      if (intent === undefined) return;
      intent.begun++;
      if (intent.begun > 1) violated(`${proc.name} triggers ${w.plan.name} twice for one intent`);
    },
    mutates: (proc, what) => {
      if (proc.memory.ledgerFailed) violated(`${proc.name} ${what} after the ledger failed it`);
    },
    escrowRemoved: (proc, fp) => {
      noneLost(`${short(fp)} was dropped from escrow`, proc);
      if (state().rotation?.closing === true) forget(fp);
    },
    acknowledged: (text) => {
      if (strange.has(fpOf(text))) return;
      acked.set(text, fpOf(text));
      noneLost("it never was kept");
    },
    fpOf,
    returned,
    saysRevoke: (proc) => {
      // Who was stopped in his last word says what was true before.
      const wasStopped = proc.pausedUntil() > 0 && time.now() - proc.pausedUntil() < 1_000;
      const isNews = proc.memory.shown < around.ledger().lines.length && time.now() - grewAt < 50;
      if (!wasStopped && !isNews && !proc.signal.aborted)
        isEverywhere(proc, "says that it is safe to revoke");
    },
    acceptsLeaked: (inst) => void fearless.add(inst),
    taken: (fp) => void taken.add(fp),
    atEnd: () => {
      noneLost("at the end");
      const report = sound.verifyLedger(around.ledger().lines, { folder: true });
      if (!report.ok)
        violated(`the ledger does not verify: ${report.problems.map((p) => p.code).join(", ")}`);
    },
  };
};
