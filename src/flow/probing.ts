import type { Evidence, LedgerEvent, Mode, SameApp, TriadEvidence } from "../core/events.ts";
import type { Fp, Secret } from "../core/secret.ts";
import { type AppState, isFresh } from "../core/state.ts";
import { controlRejects, judgeTriad } from "../core/verdict.ts";
import type { Probe } from "../ports.ts";
import type { Hands } from "./hands.ts";
import { type Pass, rotationOf } from "./pass.ts";

/** A 429 is waited for at most this long in all, then the answer stays unclear. */
const THROTTLE_PATIENCE_MS = 10_000;

/** What is left of that time for one process, and until when it waits already: two that wait side by side cost no more than one. */
const patience = new WeakMap<Hands["platform"], { leftMs: number; untilMs: number }>();

const mayWait = ({ platform, clock }: Hands, ms: number): boolean => {
  const now = clock.monotonic();
  const { leftMs, untilMs } = patience.get(platform) ?? { leftMs: THROTTLE_PATIENCE_MS, untilMs: now };
  const more = Math.max(0, now + ms - Math.max(now, untilMs));
  if (more > leftMs) return false;
  patience.set(platform, { leftMs: leftMs - more, untilMs: Math.max(untilMs, now + ms) });
  return true;
};

/** One probe, waiting out a short throttle. */
export const probeKey = async (
  hands: Hands,
  key: Secret,
  signal: AbortSignal,
  urgent = false,
): Promise<Probe> => {
  for (;;) {
    const probe = await hands.platform.probe(key, { urgent }, signal);
    const wait = probe.retryAfterMs ?? (probe.status === 429 ? 1_000 : null);
    if (wait === null || signal.aborted || !mayWait(hands, wait)) return probe;
    await hands.clock.sleep(wait, signal);
  }
};

/** RFC 3339. What is said of a key holds for when it was asked about, not for when that is written down. */
export const wallClock = ({ clock }: Pick<Hands, "clock">): string => new Date(clock.now()).toISOString();

/** How an event tells since when, at the latest, a yes is old. */
export const acceptedAt = (verdict: Probe["verdict"], askedTs: string): { readonly acceptedTs?: string } =>
  verdict === "accepted" ? { acceptedTs: askedTs } : {};

export type Examined = {
  readonly probe: Probe;
  readonly control: Probe | null;
  /** Just before the question went out, RFC 3339. */
  readonly askedTs: string;
  /** The verdict on the key, after the made-up key was asked too: a door that opens to anyone says nothing of a key. */
  readonly verdict: Probe["verdict"];
  readonly why: string;
};

/** A vague no counts beside an accepted key, both asked in the same minute, if a made-up key got the same answer: that is a triad. */
export const judgeBeside = (accepted: Probe | undefined, control: Probe | null, probe: Probe): Probe => {
  if (accepted?.verdict !== "accepted" || probe.verdict !== "unclear") return probe;
  return { ...probe, verdict: judgeTriad({ new: accepted, old: probe, control }) };
};

/** The same among keys that were asked together; the made-up key is asked only where it can tell something. */
export const clarify = async <T extends { readonly key: Secret; readonly probe: Probe }>(
  hands: Hands,
  asked: readonly T[],
  signal: AbortSignal,
): Promise<readonly T[]> => {
  const accepted = asked.find((a) => a.probe.verdict === "accepted");
  const isVague = asked.some((a) => a.probe.verdict === "unclear" && controlRejects(a.probe));
  if (!isVague || accepted === undefined || !hands.app.revoke.control) return asked;
  const control = await probeKey(hands, accepted.key.lookalike(hands.entropy), signal);
  return asked.map((a) => ({ ...a, probe: judgeBeside(accepted.probe, control, a.probe) }));
};

/** A new key beside a made-up one. */
export const examine = async (hands: Hands, key: Secret, signal: AbortSignal): Promise<Examined> => {
  const askedTs = wallClock(hands);
  const [probe, control] = await Promise.all([
    probeKey(hands, key, signal),
    hands.app.revoke.control ? probeKey(hands, key.lookalike(hands.entropy), signal) : null,
  ]);
  if (probe.verdict === "accepted" && control !== null && !controlRejects(control)) {
    const why =
      control.verdict === "accepted" ? "a made-up key is accepted too" : `a made-up key: ${control.why}`;
    return { probe, control, askedTs, verdict: "unclear", why };
  }
  return { probe, control, askedTs, verdict: probe.verdict, why: probe.why };
};

/**
 * Whether a key belongs to the same IMKIT app: by the current key if it works, else by what the ledger remembers. No other old key will do:
 * a discarded one may be of another app itself.
 */
export const compareApps = async (
  hands: Hands,
  s: AppState,
  key: Secret,
  old: readonly OldProbe[],
  signal: AbortSignal,
): Promise<{ readonly sameApp: SameApp; readonly appFingerprint: string | null }> => {
  const salt = s.salt ?? "";
  const mine = (await hands.platform.appIdentity(key, signal))?.fingerprint(salt) ?? null;
  if (mine === null) return { sameApp: "unproved", appFingerprint: null };
  const current = old.find((o) => o.fp === s.current && o.probe.verdict === "accepted");
  if (current !== undefined) {
    const theirs = (await hands.platform.appIdentity(current.key, signal))?.fingerprint(salt) ?? null;
    if (theirs !== null) return { sameApp: theirs === mine ? "proved" : "different", appFingerprint: mine };
  }
  if (s.appFingerprint === null) return { sameApp: "unproved", appFingerprint: mine };
  return { sameApp: s.appFingerprint === mine ? "remembered" : "different", appFingerprint: mine };
};

export type OldProbe = { readonly fp: Fp; readonly key: Secret; readonly probe: Probe };

/** Mode as found: an old key that is not proven dead counts as working, so that nothing is rushed on a doubt. */
export const modeOf = (old: readonly Fp[], probes: readonly OldProbe[]): Mode => {
  if (old.length === 0) return "first";
  const dead = new Set(probes.filter((p) => p.probe.verdict === "rejected").map((p) => p.fp));
  return old.every((fp) => dead.has(fp)) ? "replace" : "overlap";
};

export type Answer = { readonly fp: Fp; readonly askedTs: string; readonly probe: Pick<Probe, "verdict"> };

/** `observed` events for verdicts that the ledger does not hold yet. An unclear answer is no news. */
export const verdictNews = (
  pass: Pick<Pass, "journal" | "keys" | "run">,
  answers: readonly Answer[],
): readonly LedgerEvent[] => {
  const { journal, keys, run } = pass;
  const { verdicts } = journal.state();
  const rotation = rotationOf(pass).id;
  for (const { fp, probe, askedTs } of answers)
    if (probe.verdict === "accepted") keys.accepted.set(fp, askedTs);
  return answers
    .filter(({ fp, probe }) => probe.verdict !== "unclear" && verdicts.get(fp)?.verdict !== probe.verdict)
    .map(({ fp, probe: { verdict } }) => {
      const acceptedTs = keys.accepted.get(fp);
      const seen = acceptedTs === undefined ? {} : { acceptedTs };
      return { type: "observed", what: "verdict", rotation, run, fp, verdict, ...seen };
    });
};

export type ProofEnd = {
  readonly fp: Fp;
  readonly verdict: Probe["verdict"];
  readonly triads: readonly TriadEvidence[];
  readonly why: string;
};

/** So long a no may mean that a key is too young, and so old it has to be for it not to matter. */
const RIPE_MS = 30_000;
const OLD_MS = 600_000;

/** Before the triads: a key that was never seen to work gets time to begin. */
export const ripen = async (
  hands: Hands,
  s: AppState,
  fps: readonly Fp[],
  signal: AbortSignal,
): Promise<void> => {
  const isYoung = (fp: Fp): boolean =>
    isFresh(s, fp) && hands.clock.now() - Date.parse(s.came.get(fp) ?? "") < OLD_MS;
  if (fps.some(isYoung)) await hands.clock.sleep(RIPE_MS, signal);
};

/** The triads: new accepted, old rejected, a made-up key rejected, several times, some seconds apart, all fresh. */
export const runTriads = async (
  hands: Hands,
  fresh: Secret,
  old: readonly { readonly fp: Fp; readonly key: Secret }[],
  signal: AbortSignal,
): Promise<readonly ProofEnd[]> => {
  const { probes, everyMs, control } = hands.app.revoke;
  const started = hands.clock.monotonic();
  const evidence = (p: Probe): Evidence => ({
    verdict: p.verdict,
    status: p.status,
    code: p.code,
    atMs: Math.round(hands.clock.monotonic() - started),
    date: p.date,
  });
  type End = { verdict: Probe["verdict"]; why: string; readonly triads: TriadEvidence[] };
  const ends = new Map<Fp, End>(old.map(({ fp }) => [fp, { verdict: "rejected", why: "", triads: [] }]));
  for (let round = 0; round < probes && [...ends.values()].some((e) => e.verdict === "rejected"); round++) {
    if (round > 0) await hands.clock.sleep(everyMs, signal);
    const made = control ? fresh.lookalike(hands.entropy) : null;
    const [newProbe, controlProbe, ...oldProbes] = await Promise.all([
      probeKey(hands, fresh, signal, true),
      made === null ? null : probeKey(hands, made, signal, true),
      ...old.map(({ key }) => probeKey(hands, key, signal, true)),
    ]);
    old.forEach(({ fp }, i) => {
      const end = ends.get(fp);
      const oldProbe = oldProbes[i];
      if (end === undefined || oldProbe === undefined || oldProbe === null || end.verdict !== "rejected")
        return;
      end.triads.push({
        new: evidence(newProbe),
        old: evidence(oldProbe),
        control: controlProbe === null ? null : evidence(controlProbe),
      });
      end.verdict = judgeTriad({ new: newProbe, old: oldProbe, control: controlProbe });
      if (signal.aborted && end.verdict === "rejected") end.verdict = "unclear";
      if (end.verdict === "unclear") end.why = doubt(newProbe, oldProbe, controlProbe);
    });
  }
  return [...ends].map(([fp, end]) => ({ fp, ...end }));
};

const doubt = (fresh: Probe, old: Probe, control: Probe | null): string => {
  if (fresh.verdict !== "accepted") return `the new key: ${fresh.why || fresh.verdict}`;
  if (control !== null && !controlRejects(control)) return `a made-up key: ${control.why || control.verdict}`;
  return `the old key: ${old.why || old.verdict}`;
};
