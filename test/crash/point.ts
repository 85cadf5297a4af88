import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { findKey } from "../kit/leak.ts";
import type { Ran } from "../kit/program.ts";
import { entriesIn, type Mode, namesIn, type Traced, temporaries, type World } from "./world.ts";

/**
 * `alarm` = `rotate --emergency` before anything is staged, `emergency` = the same with a staged key, `escalation` = the same when everything
 * is written and the person is asked to revoke.
 */
export type Command =
  | "stage"
  | "rotate"
  | "confirm-revoked"
  | "alarm"
  | "emergency"
  | "escalation"
  | "rollback";

const STAGE = ["stage", "demo", "--from-stdin", "--json"];
const ROTATE = ["rotate", "demo", "--json"];
const CONFIRM = ["confirm-revoked", "demo", "--json"];
const ALARM = ["rotate", "demo", "--emergency", "--json"];
const ROLLBACK = ["rollback", "demo", "--json"];
const ARGS: Readonly<Record<Command, readonly string[]>> = {
  stage: STAGE,
  rotate: ROTATE,
  "confirm-revoked": CONFIRM,
  alarm: ALARM,
  emergency: [...ALARM, "--order", "replace-first"],
  escalation: ALARM,
  rollback: ROLLBACK,
};
/** The moment of the undisturbed way at which each begins. */
const MOMENT: Readonly<Record<Command, "stage" | "rotate" | "confirm-revoked">> = {
  stage: "stage",
  rotate: "rotate",
  "confirm-revoked": "confirm-revoked",
  alarm: "stage",
  emergency: "rotate",
  escalation: "confirm-revoked",
  rollback: "confirm-revoked",
};
export const argsOf = (command: Command): readonly string[] => ARGS[command];
export const stdinOf = (world: World, command: Command): string => (command === "stage" ? world.newKey : "");

/** Saves the moments right before each command; throws when the undisturbed way is not what it should be. */
export const prepare = async (world: World, mode: Mode): Promise<void> => {
  world.imkit.accept(world.oldKey, world.newKey);
  world.save("before stage");
  need(await world.run(STAGE, world.newKey), 0);
  if (mode === "replace") world.imkit.accept(world.newKey);
  world.save("before rotate");
  need(await world.run(ROTATE), mode === "overlap" ? 3 : 0);
  world.save("before confirm-revoked");
  if (mode !== "overlap") return;
  world.imkit.accept(world.newKey);
  need(await world.run(CONFIRM), 0);
};

const need = (ran: Ran, code: number): void => {
  if (ran.code !== code) throw new Error(`exit ${ran.code}, not ${code}\n${ran.stdout}\n${ran.stderr}`);
};

/** Puts the world back to right before a command. */
export const rewind = (world: World, command: Command, mode: Mode): void => {
  world.restore(`before ${MOMENT[command]}`);
  const revoked = (mode === "replace" && command !== "stage") || command === "confirm-revoked";
  world.imkit.accept(...(revoked ? [] : [world.oldKey]), world.newKey);
};

/** What is wrong right after the process has gone, before anything else ran. Empty = nothing. */
export const afterCrash = (world: World, mode: Mode, command: Command): string[] => {
  const wrong: string[] = [];
  const [before, after] = [world.env(mode === "first" ? null : world.oldKey), envAfter(world, mode)];
  const now = world.envNow();
  const isBack = command === "rollback";
  const may: Readonly<Record<Command, readonly string[]>> = {
    stage: [before],
    rotate: [before, after],
    "confirm-revoked": [after],
    alarm: [before],
    emergency: [before, after],
    escalation: [after],
    rollback: [before, after],
  };
  if (!may[command].includes(now)) wrong.push("the env file is neither the old nor the new one");
  const left = temporaries(world);
  // Ledger, escrow, its identity and a store may each be at work at that moment.
  if (new Set(left.map((path) => dirname(path))).size < left.length)
    wrong.push(`more than one temporary file in a folder: ${left.map(safeName).join(" ")}`);
  entriesIn(world.ledgerDir).forEach((name, at) => {
    if (name !== `${String(at).padStart(8, "0")}.json`) wrong.push("a hole in the ledger");
    if (!readFileSync(join(world.ledgerDir, name), "utf8").endsWith("}\n")) wrong.push(`${name} is torn`);
  });
  const isWritten = isBack ? now === before : now === after;
  if (isWritten && before !== after && intents(world, "write") < (isBack ? 2 : 1))
    wrong.push("a store was written without an intent");
  if (world.triggers() > intents(world, "roll")) wrong.push("a rollout was triggered without an intent");
  return wrong;
};

/**
 * Runs what a person or a timer would run next, to the proven end, and looks at everything. Empty = the same end as undisturbed.
 * @param odd takes another way where there are two.
 */
export const goOn = async (
  world: World,
  mode: Mode,
  command: Command,
  hit: Ran,
  odd: boolean,
): Promise<string[]> => {
  const wrong = leaks(world, hit);
  const expect = async (args: readonly string[], code: number, stdin?: string): Promise<Ran> => {
    const ran = await world.run(args, stdin);
    if (ran.code !== code) wrong.push(`${args[0]} then ends ${ran.code}, not ${code}: ${firstError(ran)}`);
    return ran;
  };
  if (command === "stage") {
    const durable = /"durable":true/.test(hit.stdout);
    const kept = namesIn(world.escrowDir).some((name) => name.endsWith(".age"));
    if (durable && !kept) wrong.push("called durable, but not in escrow");
    // Where it was called durable nobody has the key any more; a blob without a ledger entry is taken in by the next command, too.
    if (!durable && !(kept && odd)) await expect(STAGE, 0, world.newKey);
  }
  if (command === "alarm") {
    const alarm = (code: number): Promise<Ran> => expect(ALARM, code);
    // Both orders: first the alarm and then the key, or the other way round.
    if (!odd) await alarm(3);
    await expect(STAGE, 0, world.newKey);
    await alarm(mode === "overlap" ? 3 : 0);
  } else if (command === "emergency" || command === "escalation" || command === "rollback") {
    await expect(ARGS[command], mode === "overlap" ? 3 : 0);
  } else if (command !== "confirm-revoked") {
    if (mode === "replace") world.imkit.accept(world.newKey);
    await expect(ROTATE, mode === "overlap" ? 3 : 0);
  }
  const isBack = command === "rollback";
  if (mode === "overlap") {
    world.imkit.accept(isBack ? world.oldKey : world.newKey);
    await expect(CONFIRM, 0);
  }
  const isEmergency = command === "alarm" || command === "emergency" || command === "escalation";
  if (isEmergency && reports(world).length === 0) wrong.push("there is no report of the leak");
  const end = isBack ? world.env(world.oldKey) : envAfter(world, mode);
  return [...wrong, ...leaks(world, hit), ...(await atTheEnd(world, end, odd))];
};

const TOLERATED = /^state\/demo\/(?:ledger\/\.tmp-|reports\/\.tmp-r-[\w-]+\.(?:json|md)-)[0-9a-f]+$/;

const atTheEnd = async (world: World, env: string, odd: boolean): Promise<string[]> => {
  const wrong: string[] = [];
  if (world.envNow() !== env) wrong.push("the env file is not the old one with the new value");
  const verified = await world.run(["audit", "verify", "--json"]);
  if (verified.code !== 0) wrong.push(`audit verify ends ${verified.code}`);
  const audit = JSON.parse(verified.stdout.split("\n")[0] ?? "") as {
    open: number;
    head: { seq: number; hash: string };
  };
  if (audit.open !== 0) wrong.push(`${audit.open} open intents`);
  const status = await world.run(["status", "--json"]);
  const app = (JSON.parse(status.stdout) as { apps: { state: string; stores: { state: string }[] }[] })
    .apps[0];
  if (app?.state !== "idle") wrong.push(`state ${app?.state}`);
  if (app?.stores.some((s) => s.state !== "in-sync")) wrong.push("a store is not in sync");
  if (namesIn(world.escrowDir).length > 0)
    wrong.push(`escrow still holds ${namesIn(world.escrowDir).map(safeName).join(" ")}`);
  // Two places keep what a killed process left until it is a day old or for good: it holds no API Key, and there is never a second one.
  const left = temporaries(world).filter((path) => !TOLERATED.test(path));
  if (left.length > 0) wrong.push(`left over: ${left.map(safeName).join(" ")}`);
  if (temporaries(world).length - left.length > 1) wrong.push("temporary files grow");
  const [triggers, rolls] = [world.triggers(), intents(world, "roll")];
  if (triggers < 1 || triggers > rolls) wrong.push(`${triggers} triggers for ${rolls} intents`);
  const ends = world.events().filter((event) => event["type"] === "done");
  if (ends.length !== 1) wrong.push(`${ends.length} done`);
  if (odd) wrong.push(...byHand(world, audit.head));
  return wrong;
};

/** The recipe of docs/ledger-format.md must come to the same head. */
const byHand = (world: World, head: { readonly seq: number; readonly hash: string }): readonly string[] => {
  const doc = readFileSync(join(import.meta.dirname, "..", "..", "docs", "ledger-format.md"), "utf8");
  const script = /```bash\n(export LC_ALL=C[\s\S]*?)```/.exec(doc)?.[1] ?? "exit 99";
  const said = spawnSync("bash", ["-c", script, "check-ledger", world.ledgerDir], { encoding: "utf8" });
  return said.status === 0 && said.stdout === `head ${head.seq}:${head.hash.slice(0, 16)}\n`
    ? []
    : ["the shell recipe says otherwise"];
};

/** Neither what it said nor what it wrote down holds a key, in any of the forms of test/kit/leak.ts. */
const leaks = (world: World, hit: Ran): string[] => {
  const ledger = entriesIn(world.ledgerDir).map((name) =>
    readFileSync(join(world.ledgerDir, name), "latin1"),
  );
  const text = [hit.stdout, hit.stderr, ...ledger, ...reports(world)].join("\n");
  return [world.oldKey, world.newKey].flatMap((key) =>
    findKey(text, key).map((form) => `a key came out: ${form}`),
  );
};

/** What the reports of leaks say. */
const reports = (world: World): readonly string[] => {
  const dir = join(world.dir, "state", "demo", "reports");
  return namesIn(dir).map((name) => readFileSync(join(dir, name), "latin1"));
};

const envAfter = (world: World, mode: Mode): string =>
  mode === "first" ? `${world.env(null)}\nIMKIT_API_KEY=${world.newKey}\n` : world.env(world.newKey);

/** What a run finds, without what is random in it: two equal ones go the same way on. */
export const shapeOf = (world: World, hit: Ran): string =>
  JSON.stringify([
    world.events().map(({ type, action, outcome, target, what }) => [type, action, outcome, target, what]),
    entriesIn(world.ledgerDir).length,
    world.envNow() === world.env(world.newKey),
    namesIn(world.escrowDir).map(safeName),
    temporaries(world).map(safeName),
    world.triggers(),
    /"durable":true/.test(hit.stdout),
    namesIn(join(world.dir, "home", ".config", "imkit-rotator")).map(safeName),
  ]);

export const intents = (world: World, action: "write" | "roll"): number =>
  world.events().filter((event) => event["type"] === "intent" && event["action"] === action).length;

const firstError = (ran: Ran): string =>
  /"code":"([A-Z_]+)"/.exec(
    ran.stdout.split("\n").findLast((line) => line.includes('"type":"error"')) ?? "",
  )?.[1] ?? (ran.stderr.split("\n").find((line) => line.startsWith("✖")) ?? "no error").slice(0, 80);

/** Without the random half of a temporary name. */
const safeName = (path: string): string => basename(path).replace(/[0-9a-f]{8,}/g, "*");

/** What the last syscall of a trace was about, in words that are the same at each run. */
export const placeOf = (world: World, line: string): string => {
  const path = /[<"](\/[^>"]*)[>"]/.exec(line)?.[1] ?? "";
  const below = relative(world.dir, path);
  if (/<(?:pipe|socket|anon_inode|TCP)/.test(line)) return "wake-ups and sockets";
  if (below === "") return "env folder";
  if (below === ".env" || below.endsWith(".imkit-rotator.tmp")) return "env file";
  if (path.endsWith("/out") || path.endsWith("/err")) return "stdout and stderr";
  if (below.startsWith("state/demo/ledger/")) return "ledger entry";
  if (below === "state/demo/ledger") return "ledger folder";
  if (below.startsWith("state/demo/escrow/")) return "escrow blob";
  if (below === "state/demo/escrow") return "escrow folder";
  if (below.startsWith("state/demo/reports")) return "report";
  if (below.includes("escrow-identity")) return "escrow identity";
  if (below.startsWith("home/.config")) return "identity folder";
  if (below.startsWith("state")) return "state folder";
  return below.startsWith("home") ? "home folder" : "elsewhere";
};

/** The line of a trace in which the process was killed. */
export const killedAt = (traced: Traced): string =>
  traced.log.findLast((line) => line.endsWith("= ?") && line.includes("(")) ??
  traced.log.findLast((line) => line.includes("<unfinished ...>")) ??
  "";
