import { type Phase, phaseOf } from "../../core/outcome.ts";
import { ageDays, dueAt } from "../../core/policy.ts";
import { nextSteps, shownCurrent, workloadLines } from "../../core/report.ts";
import { showFp } from "../../core/secret.ts";
import { isOpen, wanted } from "../../core/state.ts";
import { type StatusView, status } from "../../flow/status.ts";
import type { Io } from "../io.ts";
import { paint } from "../print.ts";
import type { Wired } from "../wire.ts";

export type StatusFlags = { readonly probe?: boolean; readonly exitCode?: boolean };

/** @returns 0, or with --exit-code 5 when a store drifts or cannot be read. */
export const statusCommand = async (io: Io, apps: readonly Wired[], flags: StatusFlags): Promise<number> => {
  const views = await Promise.all(
    apps.map(async (wired) => ({
      wired,
      view: await status(await wired.hands(), { probe: flags.probe === true }),
    })),
  );
  const shown = views.map(({ wired, view }) => present(wired, view));
  if (io.json) io.out(JSON.stringify({ schemaVersion: 1, apps: shown }));
  else for (const app of shown) print(io, app);
  const drift = shown.some((app) => app.stores.some((s) => s.state === "drift" || s.state === "error"));
  return flags.exitCode && drift ? 5 : 0;
};

const present = (wired: Wired, view: StatusView) => {
  const s = view.state;
  const phase = s.adopted || s.staged !== null || isOpen(s) ? phaseOf(s) : ("new" as Phase);
  const fp = wanted(s);
  const asked = view.probe === null ? null : { verdict: view.probe.verdict, at: new Date(wired.now()).toISOString() };
  const recorded = fp === null ? undefined : s.verdicts.get(fp);
  const due = s.adopted && wired.app.rotateEveryMs !== null ? dueAt(s.freshTs, wired.app.rotateEveryMs) : null;
  return {
    app: wired.name,
    state: phase,
    fingerprint: shownCurrent(s),
    ageDays: ageDays(s.freshTs, wired.now()),
    dueAt: due,
    overdue: due !== null && Date.parse(due) < wired.now(),
    lastVerdict: asked ?? (recorded === undefined ? null : { verdict: recorded.verdict, at: recorded.ts }),
    oldKeys: [...s.old].map(([old, k]) => ({
      fingerprint: showFp(old),
      state: k.proved ? "proved" : k.waived ? "attested" : "open",
      discarded: k.discarded,
    })),
    discarded: [...s.forgotten].map((d) => ({
      fingerprint: showFp(d),
      verdict: s.verdicts.get(d)?.verdict ?? "unclear",
    })),
    stores: view.stores.map((t) => ({
      name: t.name,
      type: t.type,
      where: t.where,
      state: t.state,
      fingerprint: t.fp === null ? null : showFp(t.fp),
      code: t.code,
    })),
    workloads: isOpen(s)
      ? workloadLines(s)
      : wired.app.rollouts.map(({ plan }) => ({ name: plan.name, state: "done" as const, proof: null, reason: null })),
    head: view.head === null ? null : `${view.head.seq}:${view.head.h.slice(0, 16)}`,
    next: nextSteps(wired.name, s, phase, wired.clock),
  };
};

type Shown = ReturnType<typeof present>;

const print = (io: Io, app: Shown): void => {
  const due = app.dueAt === null ? "-" : `${app.dueAt.slice(0, 10)}${app.overdue ? " OVERDUE" : ""}`;
  const age = app.ageDays === null ? "-" : `${Math.floor(app.ageDays)}d`;
  const verdict = app.lastVerdict === null ? "" : `  ${app.lastVerdict.verdict} ${app.lastVerdict.at.slice(0, 16)}Z`;
  io.out(`${paint(io, "bold", app.app)}  ${app.state}  key ${app.fingerprint ?? "-"}  age ${age}  due ${due}${verdict}`);
  for (const s of app.stores) {
    const mark = s.state === "in-sync" ? paint(io, "green", "✔") : paint(io, "red", "!");
    io.out(`  ${mark} ${s.name}  ${s.state}${s.code ? ` ${s.code}` : ""}  ${s.fingerprint ?? ""}  ${s.where}`);
  }
  for (const w of app.workloads) if (w.state !== "done") io.out(`  … ${w.name}  ${w.state}${w.reason ? `  ${w.reason}` : ""}`);
  for (const k of app.oldKeys) io.out(`  old key ${k.fingerprint}  ${k.state === "open" ? "not proved dead yet" : k.state}${k.discarded ? "  (discarded)" : ""}`);
  for (const d of app.discarded) io.out(`  discarded ${d.fingerprint}, ${d.verdict === "rejected" ? "dead" : "still accepted"}`);
  const [first] = app.next;
  if (first !== undefined && app.state !== "idle") {
    io.out("Next:");
    for (const n of app.next) io.out(`  ${n.text}${n.command ? `:  ${n.command}` : ""}`);
  }
};

