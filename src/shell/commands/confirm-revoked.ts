import { RotatorError } from "../../core/errors.ts";
import { failureOf, phaseOf } from "../../core/outcome.ts";
import { exitOf, whereKeysAre } from "../../core/report.ts";
import { showFp } from "../../core/secret.ts";
import { lostSteps } from "../../core/steps.ts";
import { type Confirmed, confirmRevoked } from "../../flow/confirm.ts";
import { isInterrupt } from "../../flow/interrupt.ts";
import { type Io, signalsHeard } from "../io.ts";
import { headText, nextJson, paint, printLines, printNext, printWords } from "../print.ts";
import { hintsOf, linesOf, pauseSteps, stepsOf } from "../steps.ts";
import type { Wired } from "../wire.ts";
import { waitOf } from "./rotate.ts";
import { notifyPeople } from "./tell.ts";
import { leakLines, reportLeak } from "./leak-words.ts";
import { oldKeysWords } from "./rotate-result.ts";
import { readKey } from "../key.ts";

export type ConfirmFlags = {
  readonly wait?: string;
  readonly waive?: boolean;
  readonly reason?: string;
  readonly keyFromStdin?: boolean;
};

/** @returns 0 dead or nothing to confirm, 3 still accepted or a restart missing, 1 unclear. */
export const confirmCommand = async (io: Io, wired: Wired, flags: ConfirmFlags): Promise<number> => {
  if (flags.waive && !flags.reason?.trim()) {
    throw new RotatorError("USAGE", {
      what: "--waive wants --reason TEXT: it is recorded as attested, not proved.",
      do: [`imkit-rotator confirm-revoked ${wired.name} --waive --reason "why it cannot be proved"`],
    });
  }
  const waitMs = waitOf(flags.wait);
  const key = flags.keyFromStdin ? (await readKey(io, { fromStdin: true }, wired.name)).key : null;
  try {
    const waive = flags.waive ? (flags.reason ?? "") : null;
    const confirmed = await confirmRevoked(await wired.hands(), { waitMs, waive, key });
    await Promise.all([notifyPeople(wired), signalsHeard()]);
    if (io.signal.aborted && exitOfConfirmed(confirmed) !== 0) {
      throw new RotatorError("INTERRUPTED", { state: whereKeysAre(confirmed.state) });
    }
    if (confirmed.rotated !== null) await reportLeak(io, wired, confirmed.rotated);
    return tell(io, wired, confirmed);
  } catch (error) {
    if (isInterrupt(error))
      throw new RotatorError("INTERRUPTED", { state: whereKeysAre((await wired.lastState()).state) });
    if (!(error instanceof RotatorError) || error.code !== "STILL_ACCEPTED") throw error;
    return refuseWaiver(io, wired, error);
  }
};

/** A waiver of a key that still works is refused: the person has something left to do, as before. */
const refuseWaiver = async (io: Io, wired: Wired, error: RotatorError): Promise<number> => {
  const { state, head } = await wired.lastState();
  const proofs = [...state.old].map(([fp, { proved, waived }]) => ({
    fp,
    attested: waived,
    proved,
    verdict: proved ? ("rejected" as const) : (state.verdicts.get(fp)?.verdict ?? "unclear"),
  }));
  printWords(io, error);
  const c = { verdict: "accepted" as const, why: "", proofs, rotated: null, state, head };
  if (io.json) io.out(answer(io, wired, c, 3));
  return 3;
};

const nextOf = (wired: Wired, c: Confirmed, exit: number) =>
  exit === 0 ? [] : stepsOf(wired, c.state, phaseOf(c.state));

const answer = (io: Io, wired: Wired, c: Confirmed, exit: number): string =>
  JSON.stringify({
    schemaVersion: 1,
    app: wired.name,
    verdict: c.verdict,
    proofs: c.proofs.map((p) => ({
      fingerprint: showFp(p.fp),
      verdict: p.verdict,
      kind: p.attested ? "attested" : p.proved ? "proved" : "none",
    })),
    head: headText(c.head),
    next: nextJson(io, nextOf(wired, c, exit)),
    exitCode: exit,
  });

const tell = (io: Io, wired: Wired, c: Confirmed): number => {
  const exit = exitOfConfirmed(c);
  if (io.json) {
    io.out(answer(io, wired, c, exit));
  } else {
    for (const p of c.proofs) io.out(`Old key ${showFp(p.fp)}: ${wordOf(p)}`);
    if (c.verdict === null) io.out(`Nothing to confirm for ${wired.name}.`);
    if (exit === 0 && c.rotated)
      io.out(`Done: rotation ${c.state.rotation?.id ?? ""} is closed; ${oldKeysWords(c.state)}.`);
    if (c.rotated !== null) printLines(io, leakLines(c.state, wired), io.out);
    if (exit === 3) printNext(io, nextOf(wired, c, exit), io.out);
    if (c.head) io.say(paint(io, "dim", `  Ledger head ${headText(c.head) ?? ""}`));
  }
  if (exit === 0 || exit === 3) return exit;
  throw failure(wired, c);
};

const wordOf = (p: Confirmed["proofs"][number]): string => {
  if (p.attested) return "attested by a person, not proved";
  if (p.proved) return "dead, proved";
  if (p.verdict === "rejected") return "rejected by IMKIT; the proof needs a key that works beside it";
  return p.verdict === "accepted" ? "STILL ACCEPTED by IMKIT" : "no clear answer";
};

const exitOfConfirmed = (c: Confirmed): number => {
  if (c.verdict === null) return 0;
  const phase = phaseOf(c.state);
  if (phase === "waiting-key") return 3;
  if (c.verdict === "accepted") return phase === "wrong-key-revoked" ? exitOf(c.state, phase) : 3;
  const attested = c.proofs.every((p) => p.attested || p.verdict === "rejected");
  if (c.verdict === "unclear" && !attested)
    return phase === "failed" || phase === "wrong-key-revoked" ? exitOf(c.state, phase) : 1;
  if (c.rotated === null) return 0;
  const ended = c.state.rotation?.ended === "done" && c.state.rotation.id === c.rotated.worked;
  return ended ? 0 : exitOf(c.state, phase);
};

const failure = (wired: Wired, c: Confirmed): RotatorError => {
  const phase = phaseOf(c.state);
  const found = c.state.rotation === null ? null : failureOf(c.state.rotation);
  const state = whereKeysAre(c.state);
  const steps = stepsOf(wired, c.state, phase);
  const ways = { do: linesOf(steps), hints: hintsOf(steps) };
  if (phase === "wrong-key-revoked") return new RotatorError("WRONG_KEY_REVOKED", { state, ...ways });
  if (phase === "failed" && found !== null) {
    const why = [found.target, found.detail].filter(Boolean).join(": ");
    return new RotatorError(found.code, { why, state, ...ways });
  }
  const lost =
    c.why === "" ? c.proofs.filter((p) => !p.proved && !p.attested && p.verdict === "unclear") : [];
  const names = lost.map((p) => showFp(p.fp)).join(", ");
  const without = lostSteps(
    wired.name,
    lost.map((p) => p.fp),
  );
  return new RotatorError("IMKIT_UNCLEAR", {
    why:
      c.why !== ""
        ? `No clear answer about ${c.why}.`
        : `Nobody here has the old key ${names}, so IMKIT could not be asked about it.`,
    state,
    do: [
      ...linesOf(pauseSteps(wired)),
      ...linesOf(without),
      `imkit-rotator confirm-revoked ${wired.name}`,
      `imkit-rotator doctor ${wired.name}`,
    ],
    hints: hintsOf(without),
  });
};
