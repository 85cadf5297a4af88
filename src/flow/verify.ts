import type { LedgerEvent } from "../core/events.ts";
import { type Fp, type Secret, showFp } from "../core/secret.ts";
import { isFresh, unproved } from "../core/state.ts";
import { type Pass, rotationOf } from "./pass.ts";
import {
  acceptedAt,
  clarify,
  compareApps,
  examine,
  judgeBeside,
  modeOf,
  probeKey,
  ripen,
  runTriads,
  verdictNews,
  wallClock,
} from "./probing.ts";
import { preflightRollout } from "./roll.ts";
import { preflightStore } from "./push.ts";

type Facts = readonly LedgerEvent[];
/** A new key that seems revoked is asked again after this long before anything is called wrong. */
const SECOND_LOOK_MS = 2_000;

type Held = { readonly fp: Fp; readonly key: Secret };

/** The old keys that we can still ask about. */
const heldKeys = async (pass: Pass, fps: readonly Fp[]): Promise<readonly Held[]> => {
  const all = await Promise.all(fps.map(async (fp) => ({ fp, key: await pass.keys.find(fp) })));
  return all.flatMap(({ fp, key }) => (key === null ? [] : [{ fp, key }]));
};

const probeAll = (pass: Pass, keys: readonly Held[]) =>
  Promise.all(
    keys.map(async (k) => ({
      ...k,
      askedTs: wallClock(pass.hands),
      probe: await probeKey(pass.hands, k.key, pass.looking),
    })),
  );

/** The new key, every old key and a made-up one: may we begin, and in which mode. */
export const verify = async (pass: Pass): Promise<Facts> => {
  const { hands, journal, run, looking: signal } = pass;
  const r = rotationOf(pass);
  const fp = r.newFp ?? "";
  const no = (code: string, verdict: "rejected" | "unclear"): LedgerEvent => ({
    type: "observed",
    what: "verdict",
    rotation: r.id,
    run,
    fp,
    verdict,
    code,
  });
  const key = await pass.keys.get(fp);
  if (key === null) return [no("ESCROW_LOST", "unclear")];
  const old = unproved(journal.state());
  const [examined, asked] = await Promise.all([
    examine(hands, key, signal),
    heldKeys(pass, old).then((keys) => probeAll(pass, keys)),
  ]);
  // From now on a store may lose them, by us or by anybody.
  for (const held of asked) await pass.keys.keep(held.fp, held.key);
  const { control } = examined;
  const probes = asked.map((a) => ({ ...a, probe: judgeBeside(examined.probe, control, a.probe) }));
  const works = asked.find((a) => a.probe.verdict === "accepted")?.probe;
  const verdict =
    examined.verdict === "unclear" ? judgeBeside(works, control, examined.probe).verdict : examined.verdict;
  const news = verdictNews(pass, probes);
  if (verdict !== "accepted" || examined.verdict !== "accepted") {
    if (examined.why !== "") hands.tell({ kind: "note", text: `IMKIT on the new key: ${examined.why}` });
    return [...news, verdict === "rejected" ? no("KEY_REJECTED", verdict) : no("IMKIT_UNCLEAR", "unclear")];
  }
  const compared = await compareApps(hands, journal.state(), key, probes, signal);
  const isMeant = pass.acceptApp !== null && compared.appFingerprint?.startsWith(pass.acceptApp) === true;
  const accepted = isMeant ? { acceptedApp: true } : {};
  if (pass.acceptApp !== null && !isMeant && compared.sameApp === "different")
    hands.tell({
      kind: "note",
      text: `--accept-app ${pass.acceptApp} is not the app of the new key: IMKIT shows ${showFp(compared.appFingerprint ?? "")}.`,
    });
  return [
    ...news,
    {
      type: "mode-found",
      rotation: r.id,
      run,
      mode: modeOf(
        old,
        probes.filter((p) => !isFresh(journal.state(), p.fp)),
      ),
      fp,
      ...compared,
      ...accepted,
      ...acceptedAt("accepted", examined.askedTs),
    },
  ];
};

/** Every target at once. Before the first write one `fail` stops all. Old keys found in stores are put into escrow here. */
export const preflight = async (pass: Pass): Promise<Facts> => {
  const r = rotationOf(pass);
  const asOf = pass.journal.head()?.seq ?? 0;
  const live = (t: { readonly state: string }): boolean => t.state !== "dropped";
  const findings = await Promise.all([
    ...[...r.stores.values()].filter(live).map((s) => preflightStore(pass, s.name)),
    ...[...r.rollouts.values()].filter(live).map((w) => preflightRollout(pass, w.name)),
  ]);
  for (const { target, checks } of findings) {
    for (const c of checks) {
      if (c.status === "fail" || c.status === "warn") {
        pass.hands.tell({ kind: "note", text: `${target}: ${c.message}${c.fix ? `  Fix: ${c.fix}` : ""}` });
      }
    }
  }
  const base = { type: "observed", rotation: r.id, run: pass.run } as const;
  const answers = findings.map(({ target, code, ...found }): LedgerEvent => {
    const said = code === null ? ({ outcome: "ok" } as const) : ({ outcome: "failed", code } as const);
    const revision = "replaced" in found ? { revision: found.replaced } : {};
    return { ...base, what: "preflight", target, ...said, ...revision };
  });
  const drifted = findings.flatMap(({ target, fp }): LedgerEvent[] => {
    const isWritten = ["written", "unchanged"].includes(r.stores.get(target)?.state ?? "");
    return isWritten && fp !== undefined && fp !== r.newFp
      ? [{ ...base, what: "target", target, outcome: "ok", fp, asOf }]
      : [];
  });
  return [...answers, ...drifted];
};

/** One look at both sides. The new key rejected while an old one works means that a person revoked the wrong one. */
export const probeBoth = async (pass: Pass): Promise<Facts> => {
  const { hands, journal } = pass;
  const r = rotationOf(pass);
  const s = journal.state();
  const old = [...s.old].filter(([, k]) => !k.waived).map(([fp]) => fp);
  const { newFp } = r;
  const keys = await heldKeys(pass, newFp === null ? old : [newFp, ...old]);
  // After an alarm anybody may put another key into a store by hand: the one that leaked has to be at hand until it is proved dead.
  if (r.emergency !== null) for (const { fp, key } of keys) if (fp !== newFp) await pass.keys.keep(fp, key);
  const first = await clarify(hands, await probeAll(pass, keys), pass.looking);
  const isDead = (probes: typeof first): boolean =>
    probes.some((p) => p.fp === newFp && p.probe.verdict === "rejected");
  const isWrong = (probes: typeof first): boolean =>
    isDead(probes) && probes.some((p) => p.fp !== newFp && p.probe.verdict === "accepted");
  const isYoung = newFp !== null && isFresh(s, newFp);
  if (r.wrongKey || isYoung || !isDead(first)) return verdictNews(pass, first);
  await hands.clock.sleep(SECOND_LOOK_MS, pass.looking);
  const second = await clarify(hands, await probeAll(pass, keys), pass.looking);
  const news = verdictNews(pass, second);
  if (newFp === null || !isWrong(second) || pass.looking.aborted) return news;
  const works = second.filter((p) => p.fp !== newFp && p.probe.verdict === "accepted").map((p) => p.fp);
  return [...news, { type: "wrong-key-revoked", rotation: r.id, new: newFp, old: works }];
};

/** The triads over all old keys. A key that is gone from escrow cannot be proved. */
export const prove = async (pass: Pass, fps: readonly Fp[]): Promise<Facts> => {
  const { hands, journal, run } = pass;
  const r = rotationOf(pass);
  const fresh = r.newFp === null ? null : await pass.keys.get(r.newFp);
  const held = await heldKeys(pass, fps);
  if (fresh === null || held.length < fps.length) {
    hands.tell({
      kind: "note",
      text: "A key that is needed for the proof is neither in escrow nor in a store.",
    });
  }
  if (fresh === null) return [];
  await ripen(hands, journal.state(), fps, pass.looking);
  const acceptedTs = wallClock(hands);
  const ends = await runTriads(hands, fresh, held, pass.looking);
  const s = journal.state();
  for (const end of ends) pass.ends.set(end.fp, end);
  return ends.flatMap((end): readonly LedgerEvent[] => {
    if (end.verdict === "rejected") {
      return [
        { type: "proof", rotation: r.id, fp: end.fp, control: hands.app.revoke.control, triads: end.triads },
      ];
    }
    if (end.why !== "") hands.tell({ kind: "note", text: `No clear answer: ${end.why}` });
    if (end.verdict === "unclear" || s.verdicts.get(end.fp)?.verdict === "accepted") return [];
    return [
      { type: "observed", what: "verdict", rotation: r.id, run, fp: end.fp, verdict: "accepted", acceptedTs },
    ];
  });
};
