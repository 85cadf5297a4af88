import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openEntry } from "../../core/chain.ts";
import { blackoutOf, exposureOf } from "../../core/exposure.ts";
import { type AppState, EMPTY, evolve } from "../../core/state.ts";
import { parseObject } from "../sandbox/answers.ts";
import { expectCode, ledgerFiles, ran, shows, showsAny, states, until } from "./checks.ts";
import { findKeyIn, KEY_FORM, readServiceLog } from "./log.ts";
import { person as personAt } from "./person.ts";
import { APP, type Place, PROBES, RATE } from "./place.ts";
import type { Answer } from "./program.ts";
import type { Service } from "../sandbox/supervisor.ts";
import { must, type Screen, seconds, wrong } from "./screen.ts";

export type Order = "revoke-first" | "replace-first";

/** What the rotator knows as bounds, and what really was: seen by the sandbox, or by the service's own log. */
type Measured = { readonly atLeastMs: number; readonly atMostMs: number; readonly reallyMs: number };
export type Act = {
  readonly order: Order;
  readonly mode: string;
  readonly leakedFingerprint: string;
  readonly newFingerprint: string;
  readonly foundAtLine: number;
  readonly probes: number;
  readonly exposure: Measured;
  readonly blackout: Measured;
  readonly served: number;
  readonly failed: number;
};

/** What a restart command may take to say that it is done, after the last request of the old process. */
const REPORT_MS = 1_000;
const figureOf = ({ atLeastMs, atMostMs, reallyMs }: Measured): string =>
  `${seconds(atLeastMs)} to ${seconds(atMostMs)}; really ${seconds(reallyMs)}`;

/**
 * One leak, from the line in the log to the proof, in one of both orders. Each step says no more than it has just checked.
 * @throws RotatorError INTERNAL when something is not as it should be; INTERRUPTED
 */
export const tellLeak = async (
  place: Place,
  order: Order,
  { step }: Screen,
  signal: AbortSignal,
): Promise<Act> => {
  const { sandbox, program } = place;
  const person = personAt(sandbox.url);
  const leakedKey = sandbox.firstKey();
  const fps = { leaked: "", new: "" };
  const found = { line: 0, ts: "" };
  let newKey = "";
  let service = null as Service | null;
  const log = () => readServiceLog(place.logFile);
  const quiet = (): void => {
    const printed = program.printed();
    must(!showsAny(printed, [leakedKey, newKey]), "A key stands in what was printed.");
  };

  await step("A chat service runs on the key in its .env", async () => {
    await ran(place, ["adopt", APP]);
    const salt = (await program.run(["audit", "list", APP])).lines[0]?.["salt"];
    service = await place.startService(String(salt));
    await until(() => sandbox.stats(leakedKey).ok >= RATE, signal);
    fps.leaked = (service.fingerprint() ?? "").slice(0, 8);
    return { figure: fps.leaked };
  });

  await step("A debug line put a key into its log: by its fingerprint, this one", async () => {
    const there = findKeyIn(place.logFile);
    if (there === null) throw wrong("There is no key in the log.");
    const asked = await ran(place, ["fingerprint", APP], { stdin: there.word });
    must(asked.last["fingerprint"] === fps.leaked, "What was found is another key.");
    Object.assign(found, { line: there.line, ts: there.ts });
    // Else the next key stands there too.
    writeFileSync(place.envFile, readFileSync(place.envFile, "utf8").replace("DEBUG=1", "DEBUG=0"));
    quiet();
    return {
      figure: `line ${there.line}`,
      command: `grep -oEm1 '${KEY_FORM}' chat.log | imkit-rotator fingerprint ${APP}`,
    };
  });

  const alarm = ["rotate", APP, "--emergency", "--order", order, "--leaked-since", found.ts];
  const alarmText = (more: string): string =>
    `imkit-rotator rotate ${APP} --emergency --order ${order}${more} \\\n         --leaked-since ${found.ts}`;

  const stage = (text: string, mode: string): Promise<void> =>
    step(text, async () => {
      newKey = await person.issue();
      const staged = await ran(place, ["stage", APP, "--from-stdin"], { stdin: newKey });
      must(staged.last["verdict"] === "accepted", "IMKIT did not accept the new key.");
      must(staged.last["mode"] === mode, `The mode is ${String(staged.last["mode"])}, not ${mode}.`);
      fps.new = String(staged.last["fingerprint"]);
      return { figure: fps.new, command: `imkit-rotator stage ${APP} --from-stdin` };
    });

  const isWritten = ({ last }: Answer): void => {
    must(states(last["stores"]) === "written", "The store is not written.");
    must(states(last["workloads"]) === "done", "The service is not restarted.");
    must(service?.fingerprint()?.startsWith(fps.new) === true, "The service does not run on the new key.");
  };

  const isDead = async (): Promise<number> => {
    must((await person.ask(leakedKey)) === "INVALID_API_KEY", "The leaked key is not dead.");
    must((await person.ask(newKey)) === "200", "The new key does not work.");
    const made = sandbox.log().filter(({ id, answer }) => id === null && answer === "invalid").length;
    must(made >= PROBES, `IMKIT saw ${made} made-up keys beside the leaked one, not ${PROBES}.`);
    const proved = stateOf(place).dead.size === 1 ? PROBES : 0;
    must(proved === PROBES, "The ledger holds no proof.");
    return proved;
  };

  const cutOffFirst = async (): Promise<number> => {
    let watching: Promise<Answer> | null = null;
    await step("The alarm: the rotator asks to revoke it, and goes on watching", async () => {
      watching = program.run([...alarm, "--wait=4h"]);
      // Looked at below; here it must not be the end of the whole program.
      watching.catch(() => undefined);
      const isAsked = (): boolean => stateOf(place).rotation?.waitingFor === "key";
      await until(isAsked, signal, "The rotator does not ask for a key.");
      must(log().failed === 0, "Requests failed before anybody revoked the key.");
      return { figure: "exposed", command: alarmText(" --wait=4h") };
    });
    await step("The person revokes it: no stranger gets in, no service either", async () => {
      must(await person.revokeOldest(), "The Dashboard did not revoke the leaked key.");
      await until(() => log().failed >= RATE, signal, "The service does not fail.");
      return { figure: `${log().failed} failed` };
    });
    await stage("A new key is issued in the Dashboard, and given in", "replace");
    let probes = 0;
    await step("Seen: written, restarted, the leaked key proved dead", async () => {
      if (watching === null) throw wrong("Nobody watches.");
      const ended = await watching;
      expectCode(ended, "rotate", 0);
      must(ended.last["status"] === "done" && ended.last["mode"] === "replace", "The rotation is not done.");
      isWritten(ended);
      probes = await isDead();
      return { figure: `${probes} of ${PROBES} probes` };
    });
    return probes;
  };

  const replaceFirst = async (): Promise<number> => {
    await step("The alarm: the rotator asks for a new key first", async () => {
      const asked = await ran(place, alarm, { wanted: 3 });
      must(asked.last["status"] === "waiting", "The rotator does not wait for a key.");
      return { figure: "exposed", command: alarmText("") };
    });
    await stage("A new key is issued in the Dashboard, and given in", "overlap");
    await step("Both work: .env written, service restarted; it asks to revoke", async () => {
      const written = await ran(place, ["rotate", APP], { wanted: 3 });
      isWritten(written);
      must(log().failed === 0, `${log().failed} requests failed, where none should.`);
      return { figure: `${log().failed} failed`, command: `imkit-rotator rotate ${APP}` };
    });
    let probes = 0;
    await step("The person revokes the leaked key; it is proved dead", async () => {
      must(await person.revokeOldest(), "The Dashboard did not revoke the leaked key.");
      await ran(place, ["confirm-revoked", APP]);
      probes = await isDead();
      return { figure: `${probes} of ${PROBES} probes`, command: `imkit-rotator confirm-revoked ${APP}` };
    });
    return probes;
  };

  const probes = order === "revoke-first" ? await cutOffFirst() : await replaceFirst();

  let exposure: Measured | null = null;
  await step("Exposed, from that line in the log on", async () => {
    exposure = exposedFor(place, found.ts);
    return { figure: figureOf(exposure) };
  });

  let blackout: Measured | null = null;
  await step(
    order === "revoke-first" ? "Blackout of the service" : "No blackout of the service",
    async () => {
      const totals = await service?.stop();
      must(totals?.crashed === 0 && totals.generations === 2, "The service did not restart just once.");
      must(totals?.failed === log().failed, "The service's log and its own count differ.");
      blackout = downFor(place, order);
      quiet();
      must(!shows(readFileSync(place.logFile, "utf8"), newKey), "The new key stands in the log, too.");
      return { figure: figureOf(blackout) };
    },
  );

  await step("The incident report says the same, and holds no key", async () => {
    if (exposure === null || blackout === null) throw wrong("A figure is missing.");
    isReported(place, exposure, blackout);
    return { figure: "Markdown, JSON" };
  });

  if (exposure === null || blackout === null) throw wrong("A figure is missing.");
  return {
    order,
    mode: order === "revoke-first" ? "replace" : "overlap",
    leakedFingerprint: fps.leaked,
    newFingerprint: fps.new,
    foundAtLine: found.line,
    probes,
    exposure,
    blackout,
    served: log().served,
    failed: log().failed,
  };
};

/** What the ledger says, folded as the rotator itself folds it. */
const stateOf = (place: Place): AppState => {
  let state = EMPTY;
  for (const file of [...ledgerFiles(place)].toSorted()) {
    const opened = openEntry(readFileSync(file));
    if ("problem" in opened) throw wrong(`The ledger is not sound: ${opened.problem}.`);
    const { seq, ts, events } = opened.entry;
    for (const [index, event] of events.entries()) state = evolve(state, event, { seq, index, ts });
  }
  return state;
};

/** The incident report must be there, hold the same figures, and no key. */
const isReported = (place: Place, exposure: Measured, blackout: Measured): void => {
  const folder = join(place.folder, "state", APP, "reports");
  const rotation = stateOf(place).rotation?.id ?? "";
  const [markdown, json] = ["md", "json"].map((end) => {
    try {
      return readFileSync(join(folder, `${rotation}.${end}`), "utf8");
    } catch {
      throw wrong("There is no incident report.");
    }
  });
  const said = parseObject(json ?? "");
  const same = (name: "exposure" | "blackout", { atLeastMs, atMostMs }: Measured): boolean => {
    const told = said?.[name] as { readonly atLeastMs: number; readonly atMostMs: number } | null | undefined;
    return told?.atLeastMs === atLeastMs && told.atMostMs === atMostMs;
  };
  must(same("exposure", exposure) && same("blackout", blackout), "The incident report has other figures.");
  const keys = [place.sandbox.firstKey(), ...keyIn(place.envFile)];
  must(!showsAny(`${markdown}${json}`, keys), "A key stands in the incident report.");
};

const keyIn = (file: string): readonly string[] =>
  readFileSync(file, "utf8").match(new RegExp(KEY_FORM, "g")) ?? [];

const isBetween = (what: string, { atLeastMs, atMostMs, reallyMs }: Measured): void => {
  const bounds = `${what} is said to be ${seconds(atLeastMs)} to ${seconds(atMostMs)}`;
  must(atLeastMs <= reallyMs && reallyMs <= atMostMs, `${bounds}, and was ${seconds(reallyMs)}.`);
};

const revokedAt = ({ sandbox }: Place): number => sandbox.keys()[0]?.revokedAt ?? Number.NaN;

/** From the line in the log to the moment at which the sandbox revoked the key. */
const exposedFor = (place: Place, since: string): Measured => {
  const said = exposureOf(stateOf(place));
  if (said === null || said.atMostMs === null)
    throw wrong("The rotator cannot say how long the key was exposed.");
  must(said.fromKnown && said.from === since, "The exposure is counted from another time than was said.");
  const { atLeastMs, atMostMs } = said;
  const measured = { atLeastMs, atMostMs, reallyMs: revokedAt(place) - Date.parse(since) };
  isBetween("The exposure", measured);
  return measured;
};

/** From the moment at which the sandbox revoked the key to the service's last failed request. */
const downFor = (place: Place, order: Order): Measured => {
  const said = blackoutOf(stateOf(place));
  if (said === null || said.atMostMs === null)
    throw wrong("The rotator cannot say how long the service was down.");
  const { failed, lastFailed } = readServiceLog(place.logFile);
  const { atLeastMs, atMostMs } = said;
  const reallyMs = lastFailed === null ? 0 : lastFailed - revokedAt(place);
  const measured = { atLeastMs, atMostMs, reallyMs };
  if (order === "replace-first") {
    must(failed === 0, `${failed} requests failed, where none should.`);
    const isNone = said.state === "none" && said.atMostMs === 0;
    must(isNone, "The rotator speaks of a blackout, and there was none.");
    return measured;
  }
  must(failed > 0 && said.state === "over", "The rotator does not know of the blackout.");
  isBetween("The blackout", { ...measured, atLeastMs: Math.max(0, measured.atLeastMs - REPORT_MS) });
  return measured;
};
