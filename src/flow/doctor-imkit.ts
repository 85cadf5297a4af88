import { type Fp, Secret, showFp } from "../core/secret.ts";
import { type AppState, unproved, wanted } from "../core/state.ts";
import { controlRejects } from "../core/verdict.ts";
import type { Check, Probe } from "../ports.ts";
import type { Hands } from "./hands.ts";
import type { Journal } from "./journal.ts";
import { openKeys } from "./keys.ts";
import { clarify, probeKey } from "./probing.ts";

type Found = Check & { readonly fix?: string };

/** Asks IMKIT about a made-up key, the current one, and each old key that is at hand. Read-only. */
export const imkitChecks = async (hands: Hands, journal: Journal): Promise<readonly Found[]> => {
  const s = journal.state();
  const keys = openKeys(hands, journal);
  const fp = wanted(s);
  const key = fp === null ? null : await keys.find(fp);
  const control = await controlCheck(hands, key);
  const olds = unproved(s).filter((old) => old !== fp);
  const held = await Promise.all(olds.map(async (old) => ({ fp: old, key: await keys.find(old) })));
  const asked = [{ fp: fp ?? "", key }, ...held].flatMap((one) =>
    one.key === null ? [] : [{ fp: one.fp, key: one.key }],
  );
  const probed = await Promise.all(
    asked.map(async (one) => ({ ...one, probe: await probeKey(hands, one.key, hands.signal) })),
  );
  const answers = await clarify(hands, probed, hands.signal);
  return [
    control,
    ...answers.flatMap(({ fp: of, probe }) =>
      of === fp ? currentCheck(probe) : oldCheck(hands, s, of, probe),
    ),
  ];
};

const controlCheck = async (hands: Hands, key: Secret | null): Promise<Found> => {
  const id = "imkit.control";
  const shape = Buffer.from(Buffer.from(hands.entropy(32)).toString("base64")).toString("base64");
  const control = await probeKey(hands, (key ?? new Secret(shape)).lookalike(hands.entropy), hands.signal);
  if (controlRejects(control))
    return { id, status: "ok", message: "IMKIT answers and rejects a made-up key." };
  return {
    id,
    status: "fail",
    message:
      control.verdict === "accepted"
        ? "The base URL accepts a made-up key, so it proves nothing about any key."
        : `IMKIT gave no clear answer: ${control.why}.`,
    fix: "Check baseUrl in the config, and the network from this host",
  };
};

const currentCheck = ({ verdict, why }: Probe): Found => ({
  id: "imkit.key",
  status: verdict === "accepted" ? "ok" : verdict === "rejected" ? "fail" : "unproved",
  message: `The current key is ${verdict}${why ? `: ${why}` : ""}.`,
});

/** What a rotation waits for is no finding; that nobody can tell whether a key works is one. */
const oldCheck = (hands: Hands, s: AppState, fp: Fp, { verdict, why }: Probe): readonly Found[] => {
  if (verdict !== "unclear" && s.verdicts.get(fp)?.verdict !== "unclear") return [];
  const confirm = `imkit-rotator confirm-revoked ${hands.app.name}`;
  const key = `the old key ${showFp(fp)}${s.old.get(fp)?.discarded ? " (discarded)" : ""}`;
  const before = "When it was last recorded, there was no clear answer.";
  const words = {
    unclear: `IMKIT gives no clear answer on ${key}${why ? `: ${why}` : ""}. It may still work.`,
    accepted: `IMKIT accepts ${key}. ${before}`,
    rejected: `IMKIT rejects ${key}, but that is not proved yet. ${before}`,
  };
  const fix = verdict === "rejected" ? confirm : `Revoke it in the Dashboard, then: ${confirm}`;
  return [{ id: "imkit.old-key", status: "warn", message: words[verdict], fix }];
};
