import type { RotatorError } from "../../core/errors.ts";
import { phaseOf } from "../../core/outcome.ts";
import { ageDays, dueAt } from "../../core/policy.ts";
import { attestedFingerprints, shownCurrent, workloadLines } from "../../core/report.ts";
import { nextSteps } from "../../core/steps.ts";
import { showFp } from "../../core/secret.ts";
import { EMPTY, isOpen, wanted } from "../../core/state.ts";
import { isInterrupt } from "../../flow/interrupt.ts";
import { type StatusView, status } from "../../flow/status.ts";
import { asRotatorError } from "../fault.ts";
import type { Io } from "../io.ts";
import { headText, nextJson, paint, printNext } from "../print.ts";
import type { Wired } from "../wire.ts";

export type StatusFlags = { readonly probe?: boolean; readonly exitCode?: boolean };

/** @returns 0, or with --exit-code 5 when a store drifts, lacks its key or cannot be read. */
export const statusCommand = async (io: Io, apps: readonly Wired[], flags: StatusFlags): Promise<number> => {
  const views = await Promise.all(
    apps.map(async (wired) => {
      const seen = await look(wired, flags.probe === true);
      return { shown: present(wired, seen.view, seen.error !== null), error: seen.error };
    }),
  );
  const json = ({ shown }: (typeof views)[number]) => ({ ...shown, next: nextJson(io, shown.next) });
  if (io.json) io.out(JSON.stringify({ schemaVersion: 1, apps: views.map(json) }));
  else for (const { shown } of views) print(io, shown);
  // One app whose ledger cannot be read hides no other one, but it is said last, and loud.
  const broken = views.find((v) => v.error !== null)?.error;
  if (broken) throw broken;
  const found = views.some(({ shown }) =>
    shown.stores.some(({ state }) => (state === "absent" ? shown.fingerprint !== null : state !== "in-sync")),
  );
  return flags.exitCode && found ? 5 : 0;
};

const look = async (
  wired: Wired,
  probe: boolean,
): Promise<{ view: StatusView; error: RotatorError | null }> => {
  try {
    return { view: await status(await wired.hands(), { probe }), error: null };
  } catch (thrown) {
    if (isInterrupt(thrown)) throw thrown;
    return { view: { state: EMPTY, stores: [], probe: null, head: null }, error: asRotatorError(thrown) };
  }
};

const present = (wired: Wired, view: StatusView, isBroken: boolean) => {
  const s = view.state;
  const phase = isBroken ? "failed" : phaseOf(s);
  const fp = wanted(s);
  const asked =
    view.probe === null ? null : { verdict: view.probe.verdict, at: new Date(wired.now()).toISOString() };
  const recorded = fp === null ? undefined : s.verdicts.get(fp);
  const due =
    s.adopted && wired.app.rotateEveryMs !== null ? dueAt(s.freshTs, wired.app.rotateEveryMs) : null;
  const overdue = due !== null && Date.parse(due) <= wired.now();
  const words = phase === "idle" && overdue ? "waiting-key" : phase;
  return {
    app: wired.name,
    state: phase,
    fingerprint: shownCurrent(s),
    ageDays: ageDays(s.freshTs, wired.now()),
    dueAt: due,
    overdue,
    lastVerdict: asked ?? (recorded === undefined ? null : { verdict: recorded.verdict, at: recorded.ts }),
    oldKeys: [
      ...[...s.old].map(([old, k]) => ({
        fingerprint: showFp(old),
        state: k.proved ? "proved" : k.waived ? "attested" : "open",
        discarded: k.discarded,
      })),
      ...attestedFingerprints(s)
        .filter((old) => !s.old.has(old))
        .map((old) => ({ fingerprint: showFp(old), state: "attested", discarded: false })),
    ],
    discarded: [...s.forgotten].map((d) => ({
      fingerprint: showFp(d),
      verdict: s.verdicts.get(d)?.verdict ?? "unclear",
    })),
    stores: view.stores.map(({ name, type, where, state, fp, code }) => {
      const fingerprint = fp === null ? null : showFp(fp);
      return { name, type, where, state, fingerprint, code };
    }),
    workloads: isOpen(s)
      ? workloadLines(s)
      : wired.app.rollouts.map(({ plan: { name } }) => ({ name, state: "done", proof: null, reason: null })),
    head: headText(view.head),
    next: isBroken ? [] : nextSteps(wired.name, s, words, wired.clock),
  };
};

type Shown = ReturnType<typeof present>;

const print = (io: Io, app: Shown): void => {
  const due = app.dueAt === null ? "-" : `${app.dueAt.slice(0, 10)}${app.overdue ? " OVERDUE" : ""}`;
  const age = app.ageDays === null ? "-" : `${app.ageDays}d`;
  const verdict =
    app.lastVerdict === null ? "" : `  ${app.lastVerdict.verdict} ${app.lastVerdict.at.slice(0, 16)}Z`;
  io.out(
    `${paint(io, "bold", app.app)}  ${app.state}  key ${app.fingerprint ?? "-"}  age ${age}  due ${due}${verdict}`,
  );
  for (const s of app.stores) {
    const mark = s.state === "in-sync" ? paint(io, "green", "✔") : paint(io, "red", "!");
    const facts = [s.name, s.state, s.code, s.fingerprint, s.where].filter((fact) => fact !== null);
    io.out(`  ${mark} ${facts.join("  ")}`);
  }
  for (const w of app.workloads) {
    if (w.state !== "done") io.out(`  … ${w.name}  ${w.state}${w.reason ? `  ${w.reason}` : ""}`);
  }
  for (const k of app.oldKeys) {
    const state =
      k.state === "open"
        ? "not proved dead yet"
        : k.state === "attested"
          ? "attested by a person, not proved"
          : k.state;
    io.out(`  old key ${k.fingerprint}  ${state}${k.discarded ? "  (discarded)" : ""}`);
  }
  for (const d of app.discarded) {
    const state = d.verdict === "rejected" ? "dead" : "still accepted";
    io.out(`  discarded ${d.fingerprint}, ${state}`);
  }
  if (app.state === "idle" && !app.overdue) return;
  printNext(io, app.next, io.out);
};
