import { rolloutsDone, storesDone } from "./next.ts";
import { failureOf, type Phase } from "./outcome.ts";
import { workloadLines } from "./report.ts";
import { type Fp, showFp } from "./secret.ts";
import { type AppState, isOpen, unproved } from "./state.ts";

export type NextStep = {
  readonly who: "you" | "tool";
  readonly text: string;
  readonly command: string | null;
};
type Clock = (ts: string) => string;

const DASHBOARD = "the Dashboard (https://dashboard.imkit.io/, API Settings)";

/** Here it is the newer key that has to go, and the one in use must stay. */
const nameDiscarded = (s: AppState, clock: Clock): string => {
  const names = unproved(s).map((fp) => {
    const ts = s.verdicts.get(fp)?.ts;
    return ts === undefined ? showFp(fp) : `${showFp(fp)}, made before ${clock(ts)}`;
  });
  const keep = s.staged?.fp ?? s.current;
  return `the API Key that was discarded (${names.join("; ")}), not the one in use${keep === null ? "" : ` (${showFp(keep)})`}`;
};

/** How a person finds the right key in the Dashboard, where no fingerprint is shown. */
const nameOldKey = (s: AppState, clock: Clock): string => {
  const r = isOpen(s) ? s.rotation : null;
  if (r === null) return nameDiscarded(s, clock);
  const isDead = (fp: Fp): boolean => s.verdicts.get(fp)?.verdict === "rejected";
  const some = unproved(s).some((fp) => !isDead(fp));
  const names = unproved(s).map(
    (fp) => `${showFp(fp)}${some && isDead(fp) ? ", which IMKIT rejects already" : ""}`,
  );
  const fps = names.join(", ") || "-";
  const which = `(old: ${fps}${r.newFp ? `, new: ${showFp(r.newFp)}` : ""})`;
  if (r.rolledBack)
    return `the newer API Key, the one that was made for this rotation, not the one that was in use before ${clock(r.openedTs)} ${which}`;
  return `${unproved(s).length > 1 ? "every API Key" : "the API Key"} that was issued before ${clock(r.newTs ?? r.openedTs)}, not the one you just made ${which}`;
};

/** The leaked keys that are not seen dead yet. */
const leakedAlive = (s: AppState): readonly Fp[] =>
  (s.rotation?.emergency?.leaked ?? []).filter(
    (fp) => s.verdicts.get(fp)?.verdict !== "rejected" && unproved(s).includes(fp),
  );

const nameLeaked = (s: AppState, fps: readonly Fp[]): string =>
  fps
    .map((fp) =>
      fp === s.current
        ? `the API Key that the services use now (${showFp(fp)})`
        : `the API Key ${showFp(fp)}, which is not the one that the services use`,
    )
    .join(" and ");

const you = (text: string, command: string | null = null): NextStep => ({ who: "you", text, command });
const tool = (text: string, command: string): NextStep => ({ who: "tool", text, command });
const cmd = (rest: string): string => `imkit-rotator ${rest}`;

/** Who has to do what first is all that the order decides; both waits go on side by side. */
const emergencyKey = (app: string, s: AppState): readonly NextStep[] => {
  const alive = leakedAlive(s);
  const inUse = s.current !== null && alive.includes(s.current);
  const revoke = you(
    `Stop the leak: in ${DASHBOARD} revoke ${nameLeaked(s, alive)}${inUse ? ". Every service fails from then on until the new key is in" : ""}`,
  );
  const take = [
    you("Issue a new API Key in the Dashboard; it is shown once"),
    you("Give it to the rotator", cmd(`stage ${app}`)),
    // Without --emergency: said again after the end, that would call the new key leaked.
    tool("Write it everywhere, and watch the leaked key die", cmd(`rotate ${app} --wait=4h`)),
  ];
  if (alive.length === 0) return take;
  return s.rotation?.emergency?.order === "replace-first"
    ? [you("Do not revoke the leaked key yet: the services still run on it"), ...take]
    : [revoke, ...take];
};

const waitingKey = (app: string, s: AppState): readonly NextStep[] =>
  s.rotation?.emergency != null && isOpen(s)
    ? emergencyKey(app, s)
    : [you("Issue a new API Key in the Dashboard"), you("Give it to the rotator", cmd(`stage ${app}`))];

/** In the vendor's order the leaked key is revoked at once, whatever still runs on it. */
const stopLeak = (s: AppState): readonly NextStep[] => {
  const alive = leakedAlive(s);
  if (s.rotation?.emergency?.order !== "revoke-first" || alive.length === 0) return [];
  return [
    you(
      `The leaked key still works: to stop the leak now, revoke ${nameLeaked(s, alive)}, and accept the outage until the rest is done`,
    ),
  ];
};

const wrongKey = (app: string, s: AppState): readonly NextStep[] => {
  const back = s.current;
  const another = cmd(`stage ${app}`);
  const mayGoBack = back !== null && !s.leaked.has(back) && s.verdicts.get(back)?.verdict === "accepted";
  if (!mayGoBack) {
    return [
      you("The new key was revoked: issue another API Key in the Dashboard"),
      you("Give that one to the rotator", another),
      tool("Write it to every store", cmd(`rotate ${app}`)),
    ];
  }
  return [
    you("The new key was revoked and an old one still works: put the old key back", cmd(`rollback ${app}`)),
    you("Or issue another API Key and stage it", another),
  ];
};

/** No key in use works any more, and one target holds up others: before all are well, an ordinary rotation does not go on. */
export const outageSteps = (app: string, s: AppState): readonly NextStep[] => {
  const r = isOpen(s) ? s.rotation : null;
  if (r === null || r.mode !== "replace" || r.emergency !== null) return [];
  const target = failureOf(r)?.target ?? null;
  const stores = [...r.stores.values()];
  const holds = stores.some((t) => t.state === "written" || t.state === "unchanged");
  const isHeldUp =
    stores.some((t) => t.state === "pending" && t.preflight?.ok === true) ||
    (holds && !storesDone(r) && !rolloutsDone(r));
  if (target === null || !isHeldUp) return [];
  return [
    you(
      `Services are failing, because the old key is dead, and ${target} holds up every other store and workload. In an emergency it does not: do all that can be done now`,
      cmd(`rotate ${app} --emergency`),
    ),
  ];
};

const failed = (app: string, s: AppState): readonly NextStep[] => {
  const r = s.rotation;
  const code = r === null ? undefined : failureOf(r)?.code;
  if (code === "KEY_REJECTED") {
    return [
      you("IMKIT rejects the new key. A fresh key may need some seconds", cmd(`rotate ${app}`)),
      you("Or stage the right one", cmd(`stage ${app} --replace`)),
    ];
  }
  if (code === "WRONG_APP") {
    return [
      you("Stage a key of the right app instead", cmd(`stage ${app} --replace`)),
      you("Or drop it", cmd(`stage ${app} --discard --forget`)),
      you("Or, if it really is meant", cmd(`rotate ${app} --accept-app ${showFp(r?.appFingerprint ?? "")}`)),
    ];
  }
  if (code === "ESCROW_LOST") {
    return [
      you("Give the same new key once more, if you have it", cmd(`stage ${app}`)),
      you("Else issue another API Key, and give that one", cmd(`stage ${app} --replace`)),
    ];
  }
  if (code === "LEDGER_FOREIGN" || code === "LEDGER_BEHIND") {
    return [
      you(
        "See which store was written under another ledger, and whether that one is still in use",
        cmd(`doctor ${app}`),
      ),
      you("If it is lost for good, begin another ledger", cmd(`adopt ${app} --new-ledger`)),
    ];
  }
  if (code === "IMKIT_UNCLEAR") {
    return [
      tool("Ask IMKIT again", cmd(`rotate ${app}`)),
      you("See what is wrong", cmd(`doctor ${app}`)),
      you(
        "If the new key is gone from the Dashboard, issue another one and stage it",
        cmd(`stage ${app} --replace`),
      ),
    ];
  }
  return [
    ...outageSteps(app, s),
    ...stopLeak(s),
    you("See what is wrong", cmd(`doctor ${app}`)),
    tool("Then go on where it stopped", cmd(`rotate ${app}`)),
  ];
};

/** Of old keys that are in no place that can be read: who asks IMKIT about one needs the key itself. */
export const lostSteps = (app: string, lost: readonly Fp[]): readonly NextStep[] => {
  if (lost.length === 0) return [];
  const names = `the old key${lost.length > 1 ? "s" : ""} ${lost.map(showFp).join(", ")}`;
  return [
    you(
      `Nobody here has ${names}, so IMKIT cannot be asked about it. If somebody has that key, give it in`,
      cmd(`confirm-revoked ${app} --key-from-stdin`),
    ),
    you(
      "If it is lost, revoke it in the Dashboard, and vouch for that; it is recorded as attested, not as proved",
      cmd(`confirm-revoked ${app} --waive --reason "revoked in the Dashboard"`),
    ),
  ];
};

const waitingRevoke = (app: string, s: AppState, clock: Clock, lost: readonly Fp[]): readonly NextStep[] => {
  const isAll = unproved(s).every((fp) => lost.includes(fp));
  return [
    you(`In ${DASHBOARD} revoke ${nameOldKey(s, clock)}`),
    // Before a person vouches for what is lost: he would vouch for the rest too.
    ...(isAll ? [] : [you("Then have it proved", cmd(`confirm-revoked ${app}`))]),
    ...lostSteps(app, lost),
  ];
};

/**
 * What happens next and who does it. Commands can be pasted as they are. `clock` shows an instant in the app's time zone. `lost`: old keys
 * that are known to be in no place that can be read.
 */
export const nextSteps = (
  app: string,
  s: AppState,
  phase: Phase,
  clock: Clock = (ts) => ts,
  lost: readonly Fp[] = [],
): readonly NextStep[] => {
  switch (phase) {
    case "new":
    case "idle":
      return [
        you("Issue a new API Key in the IMKIT Dashboard (API Settings) when it is due"),
        you("Give it to the rotator", cmd(`stage ${app}`)),
      ];
    case "staged":
      return [tool("Write the staged key to every store", cmd(`rotate ${app}`))];
    case "rotating":
      return [tool("Go on with the rotation", cmd(`rotate ${app}`)), ...stopLeak(s)];
    case "waiting-key":
      return waitingKey(app, s);
    case "blackout":
      return [
        you("Neither key works any more. Issue another API Key in the Dashboard now"),
        you("Give it to the rotator", cmd(`stage ${app}`)),
        tool("Write it to every store", cmd(`rotate ${app}`)),
      ];
    case "waiting-restart": {
      const names = workloadLines(s).filter((w) => w.state === "manual");
      return [
        you(`Restart every service that reads the key (${names.map((w) => w.name).join(", ")})`),
        you("Then say so", cmd(`rotate ${app} --restarted`)),
        ...stopLeak(s),
      ];
    }
    case "waiting-revoke":
      return waitingRevoke(app, s, clock, lost);
    case "wrong-key-revoked":
      return wrongKey(app, s);
    case "failed":
      return failed(app, s);
  }
};
