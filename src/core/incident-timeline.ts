import type { LedgerEvent, Usage } from "./events.ts";
import { type Mark, meaning, type Reading, type Told } from "./incident-read.ts";
import { plain } from "./incident-text.ts";
import { numbersOf } from "./incident-usage.ts";
import type { Fp } from "./secret.ts";

export type TimelineLine = Mark & { readonly text: string };

/** One line for each event that matters, in the order of the ledger. */
export const timelineOf = (reading: Reading): readonly TimelineLine[] => {
  const { told, inside, r, old } = reading;
  const ours = new Set<Fp>([...old, ...(r.newFp === null ? [] : [r.newFp])]);
  const mine = new Set(inside);
  const isEarlier = ({ event }: Told): boolean => event.type === "staged" && ours.has(event.fp);
  return told
    .filter((one) => mine.has(one) || isEarlier(one))
    .flatMap(({ event, mark }) => {
      const text = lineOf(event, reading);
      return text === null ? [] : [{ ...mark, text }];
    });
};

const name = (text: string): string => plain(text, 60);
const capital = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}`;

const lineOf = (e: LedgerEvent, reading: Reading): string | null => {
  const { r } = reading;
  const key = (fp: Fp | null | undefined): string => (fp ? meaning(reading, fp) : "no key");
  const Key = (fp: Fp): string => capital(key(fp));
  switch (e.type) {
    case "adopted":
      return `The stores were read; key in use: ${key(e.current)}.`;
    case "staged":
      return `${Key(e.fp)} was given to the rotator (${e.source}); IMKIT's answer: ${e.verdict}.`;
    case "discarded":
      return `${Key(e.fp)} was discarded${e.forget ? ", and no proof of it is asked for" : ""}.`;
    case "opened":
      return `Rotation opened; key in use: ${key(e.current)}; new key: ${e.new === null ? "not given yet" : key(e.new)}.`;
    case "plan-amended":
      return planLine(e);
    case "emergency-requested":
      return `Emergency declared (${e.order}) for ${e.leaked === null ? "a leak of nobody knows which key" : `the ${key(e.leaked)}`}.`;
    case "rollback-requested":
      return `A person asked for the way back to ${key(e.to)}.`;
    case "run-started":
      return `Run ${e.run} began.`;
    case "mode-found":
      return `IMKIT answered the ${key(e.fp)} with yes; mode ${e.mode}; same app: ${e.sameApp}.`;
    case "result":
      return resultLine(r.intents.get(e.intent)?.target, r.stores, e.outcome, e.code, e.changed);
    case "observed":
      return observedLine(e, r, key);
    case "waiting":
      return WAITING[e.for] ?? null;
    case "restarted":
      return `A person said that these were restarted: ${e.targets.map(name).join(", ") || "none"}.`;
    case "wrong-key-revoked":
      return `Wrong key revoked: the ${key(e.new)} was answered with no, while ${e.old.map(key).join(", ")} still worked.`;
    case "proof":
      return `${Key(e.fp)} was answered with no ${e.triads.length} times${e.control ? ", and so was a made-up key" : ""}; the new key with yes.`;
    case "waived":
      if (e.fp !== undefined)
        return `A person attested, without proof, that the ${key(e.fp)} is dead: ${plain(e.reason)}`;
      return `A person left out ${name(e.target ?? "a target")}: ${plain(e.reason)}`;
    case "late-effect":
      return `A rotator that had been given up for dead may have written ${name(e.target)} after all; it was read again: ${key(e.fp)}.`;
    case "done":
      return "Rotation done.";
    case "abandoned":
      return `Rotation given up: ${plain(e.why)}`;
    case "genesis":
    case "claimed":
    case "renewed":
    case "released":
    case "intent":
    case "notified":
    case "closing":
      return null;
  }
};

const planLine = (e: LedgerEvent & { type: "plan-amended" }): string | null => {
  const added = [...e.stores, ...e.rollouts].map((t) => name(t.name));
  const dropped = e.dropped.map(name);
  const what = [
    ...(added.length > 0 ? [`added or changed: ${added.join(", ")}`] : []),
    ...(dropped.length > 0 ? [`left out by a person: ${dropped.join(", ")}`] : []),
  ];
  return what.length === 0 ? null : `Plan changed; ${what.join("; ")}.`;
};

const WAITING: Readonly<Record<string, string>> = {
  key: "Waiting for a person: a new key is needed.",
  restart: "Waiting for a person: restart what reads the stores.",
  revoke: "Waiting for a person: the old key is still to be revoked in the Dashboard.",
  soak: "Waiting: the restarted workloads run on the new key for a while.",
  mirror: "Waiting: a store that something else fills does not show the new key yet.",
};

const resultLine = (
  target: string | undefined,
  stores: ReadonlyMap<string, unknown>,
  outcome: string,
  code: string | undefined,
  changed: boolean | undefined,
): string => {
  const who = name(target ?? "a target");
  const isStore = target !== undefined && stores.has(target);
  const why = code === undefined ? "" : ` (${plain(code, 40)})`;
  if (outcome === "unknown") return `${who}: no sure answer${why}; it is looked at again.`;
  if (outcome === "failed") return `${who}: failed${why}.`;
  if (!isStore) return `${who}: restarted.`;
  return changed === false ? `${who}: held the new key already.` : `${who}: new key written and read back.`;
};

const observedLine = (
  e: LedgerEvent & { type: "observed" },
  r: Reading["r"],
  key: (fp: Fp | null | undefined) => string,
): string | null => {
  switch (e.what) {
    case "verdict":
      return `IMKIT's answer to the ${key(e.fp)}: ${e.verdict ?? "unclear"}${e.code === undefined ? "" : ` (${plain(e.code, 40)})`}.`;
    case "usage":
      return `Counts of the last hour ${e.when === "after" ? "after" : "before"}: ${countWords(numbersOf(e.usage ?? null))}.`;
    case "intent": {
      const target = r.intents.get(e.intent ?? "")?.target;
      const found =
        e.outcome === "ok" ? "it had taken place" : e.outcome === "failed" ? "it had not" : "still not known";
      return `${name(target ?? "a target")}: an interrupted step was looked at: ${found}.`;
    }
    case "preflight":
      return e.outcome === "ok"
        ? null
        : `${name(e.target ?? "a target")}: cannot be used (${plain(e.code ?? "unknown", 40)}).`;
    case "target":
      if (e.outcome !== "ok")
        return `${name(e.target ?? "a store")}: could not be read (${plain(e.code ?? "unknown", 40)}).`;
      return e.fp === r.newFp ? null : `${name(e.target ?? "a store")}: held ${key(e.fp)}, not the new key.`;
  }
};

const countWords = (u: Usage | null): string => {
  if (u === null) return "IMKIT gave none";
  const n = (x: number | null): string => (x === null ? "?" : String(x));
  return `${n(u.users)} users, ${n(u.rooms)} rooms, ${n(u.messages)} messages, ${n(u.peakConnections)} connections at most`;
};
