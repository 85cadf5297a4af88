import { type Code, REFUSALS, RotatorError } from "../core/errors.ts";
import type { Mode } from "../core/events.ts";
import { type AppState, isOpen, unproved } from "../core/state.ts";
import type { Check } from "../ports.ts";
import { adoptionProblem } from "./adopt.ts";
import type { Hands } from "./hands.ts";
import { orElse } from "./interrupt.ts";
import { type Journal, openJournal } from "./journal.ts";
import { openKeys } from "./keys.ts";
import { amendments, pendingKey } from "./open.ts";
import { asProviderError } from "./pass.ts";
import { examine, modeOf, probeKey } from "./probing.ts";
import { isOurs, witnessProblem } from "./push.ts";
import { unusableRoom } from "./rooms.ts";

export type PlanStep = {
  readonly target: string;
  readonly kind: string;
  readonly action: "write" | "keep" | "watch" | "restart" | "ask" | "none";
  readonly check: string;
};
export type PlanView = {
  readonly state: AppState;
  readonly mode: Mode | null;
  readonly steps: readonly PlanStep[];
  readonly people: readonly string[];
  readonly exit: number;
  /** What the rotation would stop at. */
  readonly problem: RotatorError | null;
};

/**
 * What a rotation would do, with every preflight made for real. Appends nothing, writes nothing.
 * @param drop targets that a person gives up (`--drop`)
 */
export const plan = async (hands: Hands, drop: readonly string[] = []): Promise<PlanView> => {
  const journal = await openJournal(hands);
  const s = journal.state();
  const stores = await Promise.all(hands.app.stores.map((t) => storeStep(hands, journal, t)));
  const rollouts = await Promise.all(
    hands.app.rollouts.map(async ({ plan: p, rollout }) => {
      const checks = await orElse(rollout.preflight(hands.signal), [BROKEN]);
      const bad = checks.find((c) => c.status === "fail");
      const action =
        rollout.how === "auto"
          ? ("restart" as const)
          : rollout.how === "manual"
            ? ("ask" as const)
            : ("none" as const);
      return {
        step: { target: p.name, kind: p.type, action, check: bad?.message ?? "ok" },
        code: bad ? (bad.code ?? "UNAVAILABLE") : null,
        required: p.required,
      };
    }),
  );
  const [verdict, unusable] = await Promise.all([keyVerdict(hands, journal), unusableRoom(hands)]);
  const failed = [...stores, ...rollouts].filter((t) => t.required && t.code !== null);
  const worst = failed.find((t) => REFUSALS.has(t.code ?? "")) ?? failed[0];
  const problem =
    unusable ??
    planProblem(hands, s, drop) ??
    (worst
      ? stop(
          hands,
          codeOf(worst.code ?? "", stores.includes(worst)),
          `${worst.step.target}: ${worst.step.check}`,
        )
      : await adoptable(hands, journal)) ??
    (verdict.code === null ? null : stop(hands, verdict.code, verdict.why));
  const manual = hands.app.rollouts.filter((t) => t.rollout.how === "manual").map((t) => t.plan.name);
  return {
    state: s,
    mode: verdict.mode,
    steps: [...stores, ...rollouts].map((t) => t.step),
    people: [
      ...(pendingKey(journal) === null ? ["issue a new API Key in the Dashboard and stage it"] : []),
      ...(manual.length > 0 ? [`restart what reads the stores (${manual.join(", ")})`] : []),
      ...(verdict.mode === "first" ? [] : ["revoke the old API Key in the Dashboard"]),
    ],
    exit: problem?.exit ?? 0,
    problem,
  };
};

const stop = (hands: Hands, code: Code, why: string): RotatorError =>
  new RotatorError(code, {
    why,
    state: "Nothing was written.",
    do: [`imkit-rotator doctor ${hands.app.name}`],
  });

/** The open rotation needs a target that the config no longer has. */
const planProblem = (hands: Hands, s: AppState, drop: readonly string[]): RotatorError | null => {
  try {
    if (isOpen(s) && s.rotation !== null) amendments(hands, s.rotation, { drop, reason: null, ticket: null });
    return null;
  } catch (error) {
    if (error instanceof RotatorError) return error;
    throw error;
  }
};

/** The stores hold keys that a person must choose from. */
const adoptable = (hands: Hands, journal: Journal): Promise<RotatorError | null> | null =>
  journal.state().adopted
    ? null
    : adoptionProblem(hands, journal, openKeys(hands, journal), pendingKey(journal));

const BROKEN: Check = {
  id: "preflight",
  status: "fail",
  message: "the rollout could not be checked",
  code: "UNAVAILABLE",
};

const codeOf = (code: string, isStore: boolean): Code => {
  if (code === "LEDGER_FOREIGN" || code === "LEDGER_BEHIND") return code;
  if (code === "CONFLICT") return "STORE_CONFLICT";
  if (REFUSALS.has(code)) return "STORE_REFUSED";
  return isStore ? "STORE_FAILED" : "ROLLOUT_FAILED";
};

const storeStep = async (
  hands: Hands,
  journal: Journal,
  { plan: p, store }: Hands["app"]["stores"][number],
): Promise<{ step: PlanStep; code: string | null; required: boolean }> => {
  const s = journal.state();
  const at = (action: PlanStep["action"], check: string, code: string | null) => ({
    step: { target: p.name, kind: p.type, action, check },
    code,
    required: p.required,
  });
  const action = p.write ? ("write" as const) : ("watch" as const);
  try {
    const bad = (await store.preflight(hands.signal)).find((c) => c.status === "fail");
    if (bad) return at(action, bad.message, bad.code ?? "UNAVAILABLE");
    const stored = await store.read(hands.signal);
    const witness = witnessProblem({ journal }, stored);
    if (witness !== null) return at(action, witness, witness);
    const fp = stored?.secret.fingerprint(s.salt ?? "00".repeat(32)) ?? null;
    if (s.adopted && fp !== null && fp === pendingKey(journal))
      return at("keep", "holds the new key already", null);
    if (s.adopted && !isOurs(s, p.name, fp))
      return at(action, "holds a value that nobody here knows", "CONFLICT");
    return at(action, stored === null ? "ok, empty now" : "ok", null);
  } catch (thrown) {
    const e = asProviderError(thrown);
    return at(action, `${e.code}${e.hint ? `: ${e.hint}` : ""}`, e.code);
  }
};

const keyVerdict = async (
  hands: Hands,
  journal: Journal,
): Promise<{ mode: Mode | null; code: Code | null; why: string }> => {
  const s = journal.state();
  const fp = pendingKey(journal);
  if (fp === null) return { mode: null, code: null, why: "" };
  const keys = openKeys(hands, journal);
  const key = await keys.get(fp);
  if (key === null)
    return { mode: null, code: "ESCROW_LOST", why: "the staged key is in no place that can be read" };
  const examined = await examine(hands, key, hands.signal);
  if (examined.verdict !== "accepted") {
    return {
      mode: null,
      code: examined.verdict === "rejected" ? "KEY_REJECTED" : "IMKIT_UNCLEAR",
      why: examined.why,
    };
  }
  if (!s.adopted) return { mode: null, code: null, why: "" };
  const olds = [...new Set([...(s.current === null || isOpen(s) ? [] : [s.current]), ...unproved(s)])];
  const probes = await Promise.all(
    olds.map(async (old) => {
      const held = await keys.find(old);
      return held === null ? [] : [{ fp: old, key: held, probe: await probeKey(hands, held, hands.signal) }];
    }),
  );
  return { mode: modeOf(olds, probes.flat()), code: null, why: "" };
};
