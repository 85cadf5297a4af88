import { RotatorError } from "../../core/errors.ts";
import { phaseOf } from "../../core/outcome.ts";
import type { NextStep } from "../../core/steps.ts";
import { showFp } from "../../core/secret.ts";
import { isOpen } from "../../core/state.ts";
import { type StoreRead, type Taken, tryAdopt } from "../../flow/adopt.ts";
import { rotationOpen } from "../../flow/adopt-words.ts";
import { type Journal, openJournal } from "../../flow/journal.ts";
import { openKeys } from "../../flow/keys.ts";
import { pendingKey } from "../../flow/open.ts";
import { type Succeeded, succeed } from "../../flow/succeed.ts";
import { type Io, isCommand } from "../io.ts";
import { headText, nextJson, printNext } from "../print.ts";
import { stepsOf } from "../steps.ts";
import type { Wired } from "../wire.ts";
import { waitOf } from "./rotate.ts";

export type AdoptFlags = { readonly current?: string; readonly newLedger?: boolean; readonly wait?: string };

/**
 * Records which key the stores hold now; on an adopted app says whether they still do. Writes no store.
 * @returns 0 adopted, in sync, or another ledger begun. @throws RotatorError, the answer first where there is one
 */
export const adoptCommand = async (io: Io, wired: Wired, flags: AdoptFlags): Promise<number> => {
  if (flags.current !== undefined && !/^[0-9a-f]{8,16}$/.test(flags.current)) {
    throw new RotatorError("USAGE", { what: "--current wants a fingerprint of 8 to 16 hex digits." });
  }
  if (flags.wait !== undefined && !flags.newLedger)
    throw new RotatorError("USAGE", { what: "--wait goes with --new-ledger." });
  const choice = flags.current ?? null;
  if (flags.newLedger) {
    const waitMs = waitOf(flags.wait);
    const done = await succeed(await wired.hands(), wired.predecessor(), { choice, waitMs });
    return tell(io, wired, done.journal, done.taken, done);
  }
  const hands = await wired.hands();
  const journal = await openJournal(hands);
  if (isOpen(journal.state())) throw rotationOpen(wired.name, journal.state());
  const options = { choice, pending: pendingKey(journal) };
  const taken = await tryAdopt(hands, journal, openKeys(hands, journal), options);
  return tell(io, wired, journal, taken, null);
};

const storeLine = (journal: Journal, { name, stored }: StoreRead) => {
  const { salt, current } = journal.state();
  const fp = stored?.secret.fingerprint(salt ?? "") ?? null;
  const isShown = journal.state().adopted && fp !== null;
  const state = fp === null ? "absent" : fp === current ? "in-sync" : "drift";
  return { name, state, fingerprint: isShown ? showFp(fp) : null };
};

const nextOf = (wired: Wired, journal: Journal, taken: Taken): readonly NextStep[] => {
  if (taken.refusal !== null) {
    return taken.refusal.do.map((text) =>
      isCommand(text)
        ? { who: "you", text: "Choose this one", command: text }
        : { who: "you", text, command: null },
    );
  }
  const phase = phaseOf(journal.state());
  return phase === "idle" ? [] : stepsOf(wired, journal.state(), phase);
};

const tell = (io: Io, wired: Wired, journal: Journal, taken: Taken, begun: Succeeded | null): number => {
  const s = journal.state();
  const current = s.current === null ? null : showFp(s.current);
  const old = [...s.old.keys()].map(showFp);
  const stale = [...s.stale].map(showFp);
  const stores = taken.reads.map((read) => storeLine(journal, read));
  const next = nextOf(wired, journal, taken);
  if (io.json) {
    io.out(
      JSON.stringify({
        schemaVersion: 1,
        app: wired.name,
        state: taken.outcome,
        current,
        old,
        stale,
        staged: s.staged === null ? null : showFp(s.staged.fp),
        stores,
        found: taken.found.map(({ fp, verdict, stores }) => ({ fingerprint: showFp(fp), verdict, stores })),
        newLedger:
          begun === null ? null : { why: begun.why, successorOf: begun.successorOf, aside: begun.aside },
        head: headText(journal.head()),
        next: nextJson(io, next),
        exitCode: taken.refusal?.exit ?? 0,
      }),
    );
  } else {
    if (begun !== null) tellBegun(io, begun);
    if (taken.refusal === null) tellTaken(io, wired, { taken, current, old, stale, stores });
    if (taken.refusal === null && next.length > 0) printNext(io, next, io.say);
  }
  if (taken.refusal !== null) throw taken.refusal;
  return 0;
};

const tellBegun = (io: Io, { why, aside, successorOf }: Succeeded): void => {
  if (why === "") {
    io.out("The ledger that was begun before is gone on with.");
    return;
  }
  io.out(`${why} Another one was begun; fingerprints are new from now on.`);
  if (aside !== null) io.out(`The old one lies in ${aside}, unchanged.`);
  if (successorOf?.head) io.say(`  It is quoted as ${successorOf.ledger ?? "?"} ${successorOf.head}.`);
};

type Told = {
  readonly taken: Taken;
  readonly current: string | null;
  readonly old: readonly string[];
  readonly stale: readonly string[];
  readonly stores: readonly ReturnType<typeof storeLine>[];
};

const tellTaken = (io: Io, wired: Wired, { taken, current, old, stale, stores }: Told): void => {
  const known = taken.outcome === "in-sync" ? " The ledger knew all of it." : "";
  io.out(
    current === null
      ? `${wired.name}: no store holds a working key.${known}`
      : `${wired.name}: the current key is ${current}.${known}`,
  );
  const off = stores.filter((store) => store.state !== "in-sync");
  if (taken.outcome === "in-sync" && current !== null) {
    if (off.length === 0) io.out("Every store is in sync.");
    for (const { name, state, fingerprint } of off)
      io.out(`  ${name}: ${state}${fingerprint === null ? "" : ` (${fingerprint})`}`);
  }
  if (old.length > 0) io.out(`Old keys, to be revoked: ${old.join(", ")}`);
  if (stale.length > 0) io.out(`Dead values, to be overwritten by the next rotation: ${stale.join(", ")}`);
};
