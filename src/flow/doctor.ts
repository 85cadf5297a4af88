import { brokenLedger } from "../core/contradiction.ts";
import { RotatorError } from "../core/errors.ts";
import { isOpen } from "../core/state.ts";
import { showFp } from "../core/secret.ts";
import type { Check, Stored } from "../ports.ts";
import { escrowChecks } from "./doctor-escrow.ts";
import { imkitChecks } from "./doctor-imkit.ts";
import type { Hands } from "./hands.ts";
import { isInterrupt } from "./interrupt.ts";
import { type Journal, openJournal } from "./journal.ts";
import { lostLedger } from "./open.ts";
import { asProviderError } from "./pass.ts";
import { isOurs, witnessProblem } from "./push.ts";

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
    ...hands.app.stores.map((t) => target(hands, "store", t.plan.name, () => storeChecks(hands, t))),
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
  { plan, store }: Hands["app"]["stores"][number],
): Promise<readonly Check[]> => {
  const checks = await store.preflight(hands.signal);
  if (checks.some((c) => c.status === "fail")) return checks;
  return [...checks, valueCheck(hands, plan.name, await store.read(hands.signal), await knownOf(hands))];
};

/** The ledger as far as it can be read; whether it can is a check of its own. */
const knownOf = async (hands: Hands): Promise<Journal | null> => {
  try {
    const journal = await openJournal(hands);
    return journal.state().adopted ? journal : null;
  } catch (error) {
    if (error instanceof RotatorError) return null;
    throw error;
  }
};

/** What a rotation would stop at: a value that nobody here knows, or one that was written with another ledger. */
const valueCheck = (hands: Hands, name: string, stored: Stored | null, journal: Journal | null): Check => {
  const id = "value";
  if (stored === null)
    return { id, status: "warn", message: "It holds no key yet; the first rotation will fill it." };
  if (journal === null) return { id, status: "ok", message: "It holds a key." };
  const s = journal.state();
  const fp = stored.secret.fingerprint(s.salt ?? "");
  const witness = witnessProblem({ journal }, stored);
  if (witness !== null)
    return {
      id,
      status: "fail",
      message: `${witness}: its value was written with a ledger that this is not.`,
      fix: `imkit-rotator adopt ${hands.app.name} --new-ledger`,
    };
  if (isOurs(s, name, fp)) return { id, status: "ok", message: `It holds the key ${showFp(fp)}.` };
  return {
    id,
    status: "fail",
    message: `It holds ${showFp(fp)}, a value that nobody here knows; a rotation would stop at it.`,
    fix: isOpen(s)
      ? "Find out who changed it, and put the key that `status` names back there"
      : `Put the current key back there, or take this one for it: imkit-rotator adopt ${hands.app.name} --current ${showFp(fp)}`,
  };
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
    if (s.salt === null && (await hands.escrow.list()).length > 0)
      throw brokenLedger(hands.app.name, lostLedger(hands));
    const ledger =
      s.salt === null
        ? finding(hands, "ledger", "ok", `No ledger yet in ${hands.ledger.where}; stage or rotate begins it.`)
        : finding(
            hands,
            "ledger",
            "ok",
            `${journal.entries()} entries, chain sound, in ${hands.ledger.where}.`,
          );
    const escrow = (await escrowChecks(hands, journal)).map((c) =>
      finding(hands, c.id, c.status, c.message, c.fix),
    );
    const imkit = (await imkitChecks(hands, journal)).map((c) =>
      finding(hands, c.id, c.status, c.message, c.fix),
    );
    return [ledger, ...(await roomChecks(hands)), ...escrow, ...imkit];
  } catch (error) {
    if (!(error instanceof RotatorError) || isInterrupt(error)) throw error;
    const fix = error.do.find((line) => line.endsWith("--new-ledger")) ?? error.do[0];
    const ledger = finding(hands, "ledger", "fail", `${error.what} ${error.why}`.trim(), fix);
    return [ledger, ...(await roomChecks(hands))];
  }
};

/** Rights to the places of ledger and escrow, where those are no files. */
const roomChecks = async (hands: Hands): Promise<readonly Finding[]> => {
  const rooms = ["ledger", "escrow"] as const;
  const found = rooms.map(async (room) => {
    const checks = (await hands[room].preflight?.(hands.signal)) ?? [];
    return checks.map((c) => finding(hands, `${room}.${c.id}`, c.status, c.message, c.fix));
  });
  return (await Promise.all(found)).flat();
};
