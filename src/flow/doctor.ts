import { RotatorError } from "../core/errors.ts";
import { wanted } from "../core/state.ts";
import { controlRejects } from "../core/verdict.ts";
import { Secret } from "../core/secret.ts";
import type { Check } from "../ports.ts";
import type { Hands } from "./hands.ts";
import { openJournal } from "./journal.ts";
import { openKeys } from "./keys.ts";
import { asProviderError } from "./pass.ts";
import { probeKey } from "./probing.ts";

export type Finding = {
  readonly id: string;
  readonly app: string;
  readonly target: string | null;
  readonly status: Check["status"];
  readonly message: string;
  readonly fix: string | null;
};

/** Every preflight, the ledger, escrow and IMKIT. Read-only. */
export const doctor = async (hands: Hands): Promise<readonly Finding[]> => {
  const groups = await Promise.all([
    ledgerAndKeys(hands),
    ...hands.app.stores.map((t) => target(hands, "store", t.plan.name, () => storeChecks(hands, t.store))),
    ...hands.app.rollouts.map((t) =>
      target(hands, "rollout", t.plan.name, async () => {
        const checks = await t.rollout.preflight(hands.signal);
        return checks.length > 0
          ? checks
          : [{ id: "ready", status: "ok", message: `${t.rollout.where} is ready.` }];
      }),
    ),
  ]);
  return groups.flat();
};

const target = async (
  hands: Hands,
  half: string,
  name: string,
  ask: () => Promise<readonly Check[]>,
): Promise<readonly Finding[]> => {
  const checks = await ask().catch((thrown: unknown): readonly Check[] => {
    const e = asProviderError(thrown);
    return [
      { id: "reachable", status: "fail", message: `${e.code}${e.hint ? `: ${e.hint}` : ""}`, code: e.code },
    ];
  });
  return checks.map((c) => ({
    ...finding(hands, `${half}.${c.id}`, c.status, c.message, c.fix),
    target: name,
  }));
};

const storeChecks = async (
  hands: Hands,
  store: Hands["app"]["stores"][number]["store"],
): Promise<readonly Check[]> => {
  const checks = await store.preflight(hands.signal);
  if (checks.some((c) => c.status === "fail")) return checks;
  const stored = await store.read(hands.signal);
  return [
    ...checks,
    stored === null
      ? {
          id: "value",
          status: "warn",
          message: `${store.where} holds no key yet; the first rotation will fill it.`,
        }
      : { id: "value", status: "ok", message: `${store.where} holds a key.` },
  ];
};

const finding = (
  hands: Hands,
  id: string,
  status: Check["status"],
  message: string,
  fix?: string,
): Finding => ({
  id,
  app: hands.app.name,
  target: null,
  status,
  message,
  fix: fix ?? null,
});

const ledgerAndKeys = async (hands: Hands): Promise<readonly Finding[]> => {
  try {
    const journal = await openJournal(hands);
    const s = journal.state();
    const ledger =
      s.salt === null
        ? finding(hands, "ledger", "ok", `No ledger yet in ${hands.ledger.where}; stage or rotate begins it.`)
        : finding(
            hands,
            "ledger",
            "ok",
            `${journal.entries()} entries, chain sound, in ${hands.ledger.where}.`,
          );
    return [ledger, ...(await escrow(hands)), ...(await imkit(hands, journal))];
  } catch (error) {
    if (!(error instanceof RotatorError)) throw error;
    return [finding(hands, "ledger", "fail", `${error.what} ${error.why}`.trim(), error.do[0])];
  }
};

const escrow = async (hands: Hands): Promise<readonly Finding[]> => {
  try {
    const fps = await hands.escrow.list();
    for (const fp of fps) await hands.escrow.get(fp);
    return [
      finding(hands, "escrow", "ok", `${fps.length} key(s) in ${hands.escrow.where}, each can be opened.`),
    ];
  } catch (error) {
    const why = error instanceof RotatorError ? `${error.what} ${error.why}`.trim() : "It cannot be opened.";
    return [
      finding(
        hands,
        "escrow",
        "fail",
        why,
        `Restore the identity or the folder ${hands.escrow.where} from a backup`,
      ),
    ];
  }
};

const imkit = async (
  hands: Hands,
  journal: Awaited<ReturnType<typeof openJournal>>,
): Promise<readonly Finding[]> => {
  const s = journal.state();
  const fp = wanted(s);
  const key = fp === null ? null : await openKeys(hands, journal).get(fp);
  const shape = Buffer.from(Buffer.from(hands.entropy(32)).toString("base64")).toString("base64");
  const control = await probeKey(hands, (key ?? new Secret(shape)).lookalike(hands.entropy), hands.signal);
  const checksKeys = controlRejects(control);
  const findings = [
    checksKeys
      ? finding(hands, "imkit.control", "ok", "IMKIT answers and rejects a made-up key.")
      : finding(
          hands,
          "imkit.control",
          "fail",
          control.verdict === "accepted"
            ? "The base URL accepts a made-up key, so it proves nothing about any key."
            : `IMKIT gave no clear answer: ${control.why}.`,
          "Check baseUrl in the config, and the network from this host",
        ),
  ];
  if (key === null) return findings;
  const probe = await probeKey(hands, key, hands.signal);
  const state = probe.verdict === "accepted" ? "ok" : probe.verdict === "rejected" ? "fail" : "unproved";
  return [
    ...findings,
    finding(
      hands,
      "imkit.key",
      state,
      `The current key is ${probe.verdict}${probe.why ? `: ${probe.why}` : ""}.`,
    ),
  ];
};
