import { RotatorError } from "../../core/errors.ts";
import { failureOf } from "../../core/outcome.ts";
import { phaseOf } from "../../core/outcome.ts";
import { exitOf, nextSteps, whereKeysAre } from "../../core/report.ts";
import { showFp } from "../../core/secret.ts";
import { type Confirmed, confirmRevoked } from "../../flow/confirm.ts";
import type { Io } from "../io.ts";
import { paint, printNext } from "../print.ts";
import type { Wired } from "../wire.ts";
import { waitOf } from "./rotate.ts";
import { readKey } from "./stage.ts";

export type ConfirmFlags = {
  readonly wait?: string | boolean;
  readonly waive?: boolean;
  readonly reason?: string;
  readonly keyFromStdin?: boolean;
};

/** @returns 0 dead or nothing to confirm, 3 still accepted or a restart missing, 1 unclear. */
export const confirmCommand = async (io: Io, wired: Wired, flags: ConfirmFlags): Promise<number> => {
  if (flags.waive && !flags.reason?.trim()) {
    throw new RotatorError("USAGE", { what: "--waive wants --reason TEXT: it is recorded as attested, not proved." });
  }
  const key = flags.keyFromStdin ? (await readKey(io, { fromStdin: true }, wired.name)).key : null;
  const hands = await wired.hands();
  const confirmed = await confirmRevoked(hands, {
    waitMs: waitOf(flags.wait),
    waive: flags.waive ? (flags.reason ?? "") : null,
    key,
  });
  if (io.signal.aborted && confirmed.verdict !== "rejected") {
    throw new RotatorError("INTERRUPTED", { state: whereKeysAre(confirmed.state) });
  }
  return tell(io, wired, confirmed);
};

const tell = (io: Io, wired: Wired, c: Confirmed): number => {
  const phase = phaseOf(c.state);
  const exit = exitOfConfirmed(c);
  const next = exit === 0 ? [] : nextSteps(wired.name, c.state, phase, wired.clock);
  if (io.json) {
    io.out(
      JSON.stringify({
        schemaVersion: 1,
        app: wired.name,
        verdict: c.verdict,
        proofs: c.proofs.map((p) => ({
          fingerprint: showFp(p.fp),
          verdict: p.verdict,
          kind: p.attested ? "attested" : p.verdict === "rejected" ? "proved" : "none",
        })),
        head: c.head === null ? null : `${c.head.seq}:${c.head.h.slice(0, 16)}`,
        next,
        exitCode: exit,
      }),
    );
  } else {
    for (const p of c.proofs) io.out(`Old key ${showFp(p.fp)}: ${wordOf(p)}`);
    if (c.proofs.length === 0) io.out(`Nothing to confirm for ${wired.name}.`);
    if (exit === 0 && c.rotated) io.out(`Done: rotation ${c.state.rotation?.id ?? ""} is closed.`);
    if (exit === 3) printNext(io, next, io.out);
    if (c.head) io.say(paint(io, "dim", `  Ledger head ${c.head.seq}:${c.head.h.slice(0, 16)}`));
  }
  if (exit === 0 || exit === 3) return exit;
  throw failure(wired, c, exit);
};

const wordOf = (p: Confirmed["proofs"][number]): string => {
  if (p.attested) return "attested by a person, not proved";
  if (p.verdict === "rejected") return "dead, proved";
  return p.verdict === "accepted" ? "STILL ACCEPTED by IMKIT" : "no clear answer";
};

const exitOfConfirmed = (c: Confirmed): number => {
  if (c.verdict === null) return 0;
  if (c.verdict === "accepted") return 3;
  const phase = phaseOf(c.state);
  if (c.verdict === "unclear") return phase === "failed" || phase === "wrong-key-revoked" ? exitOf(c.state, phase) : 1;
  if (c.rotated === null) return 0;
  const ended = c.state.rotation?.ended === "done" && c.state.rotation.id === c.rotated.worked;
  return ended ? 0 : exitOf(c.state, phase);
};

const failure = (wired: Wired, c: Confirmed, _exit: number): RotatorError => {
  const phase = phaseOf(c.state);
  const found = c.state.rotation === null ? null : failureOf(c.state.rotation);
  const state = whereKeysAre(c.state);
  const steps = nextSteps(wired.name, c.state, phase, wired.clock).flatMap((n) => n.command ?? []);
  if (phase === "wrong-key-revoked") return new RotatorError("WRONG_KEY_REVOKED", { state, do: steps });
  if (phase === "failed" && found !== null) {
    return new RotatorError(found.code, { why: [found.target, found.detail].filter(Boolean).join(": "), state, do: steps });
  }
  return new RotatorError("IMKIT_UNCLEAR", {
    why: c.why || "An old key could not be asked about.",
    state,
    do: [`imkit-rotator confirm-revoked ${wired.name}`, `imkit-rotator doctor ${wired.name}`],
  });
};
