import { afterAll, beforeAll, expect, test } from "vitest";
import { writeMatrix, type Line } from "./doc.ts";
import {
  afterCrash,
  argsOf,
  type Command,
  goOn,
  killedAt,
  placeOf,
  prepare,
  rewind,
  shapeOf,
  stdinOf,
} from "./point.ts";
import { closeWorlds, entriesIn, makeWorld, type Mode, type Traced, type World } from "./world.ts";

type Fault =
  | {
      readonly kind: "SIGKILL" | "SIGTERM" | "SIGINT";
      readonly syscall: string;
      readonly paths?: (world: World) => string[];
    }
  | { readonly kind: "EIO" | "ENOSPC"; readonly syscall: string }
  | { readonly kind: "kill -9"; readonly syscall: "entry" };
type Row = {
  readonly command: Command;
  readonly mode: Mode;
  readonly fault: Fault;
  /** Every `stride`-th point; default each one. */
  readonly stride?: number;
  /**
   * Hundreds of calls, most of them between threads, and not as many at each run. All are struck; what comes then is played once for each state
   * that was found on the disk.
   */
  readonly loose?: boolean;
};

const kill = (command: Command, syscall: string, more: Partial<Row> = {}): Row => ({
  command,
  mode: "overlap",
  fault: { kind: "SIGKILL", syscall },
  ...more,
});
const OUTPUT = (world: World): string[] => [world.outputs.out, world.outputs.err];

const ROWS: readonly Row[] = [
  ...["mkdir", "pwrite64", "fsync,fdatasync", "link", "rename", "unlink"].map((s) => kill("stage", s)),
  kill("stage", "write", { loose: true }),
  kill("stage", "write", { fault: { kind: "SIGKILL", syscall: "write", paths: OUTPUT } }),
  ...["pwrite64", "fsync,fdatasync", "link", "rename", "unlink"].map((s) => kill("rotate", s)),
  kill("rotate", "write", { loose: true }),
  kill("rotate", "write", { fault: { kind: "SIGKILL", syscall: "write", paths: OUTPUT } }),
  ...["pwrite64", "fsync,fdatasync", "link", "unlink"].map((s) => kill("confirm-revoked", s)),
  ...(["replace", "first"] as const).flatMap((mode) => [
    kill("rotate", "link", { mode }),
    kill("rotate", "rename", { mode }),
    kill("rotate", "fsync,fdatasync", { mode, stride: 4 }),
    kill("rotate", "unlink", { mode, stride: 4 }),
  ]),
  ...["pwrite64", "link", "rename", "unlink"].map((s) => kill("alarm", s)),
  kill("alarm", "fsync,fdatasync", { stride: 2 }),
  kill("alarm", "link", { mode: "replace" }),
  ...["pwrite64", "link", "rename", "unlink"].map((s) => kill("emergency", s)),
  kill("emergency", "fsync,fdatasync", { stride: 2 }),
  ...["link", "rename"].map((s) => kill("emergency", s, { mode: "replace" })),
  kill("emergency", "fsync,fdatasync", { mode: "replace", stride: 4 }),
  ...["link", "fsync,fdatasync"].map((s) => kill("escalation", s)),
  ...["pwrite64", "link", "rename", "unlink"].map((s) => kill("rollback", s)),
  kill("rollback", "fsync,fdatasync", { stride: 2 }),
  ...(["stage", "rotate", "confirm-revoked", "alarm", "emergency", "rollback"] as const).map(
    (command): Row => ({ command, mode: "overlap", fault: { kind: "kill -9", syscall: "entry" } }),
  ),
  ...(["emergency", "rollback"] as const).map(
    (command): Row => ({ command, mode: "overlap", fault: { kind: "SIGTERM", syscall: "link" } }),
  ),
  ...(["stage", "rotate", "confirm-revoked"] as const).flatMap((command) =>
    (["SIGTERM", "SIGINT"] as const).map(
      (kind): Row => ({ command, mode: "overlap", fault: { kind, syscall: "link" } }),
    ),
  ),
  ...(["stage", "rotate", "confirm-revoked"] as const).flatMap((command) =>
    (["EIO", "ENOSPC"] as const).flatMap((kind) =>
      ["pwrite64", "fsync", "link"].map(
        (syscall): Row => ({ command, mode: "overlap", fault: { kind, syscall } }),
      ),
    ),
  ),
];

/** Names of the table. */
const LABEL: Partial<Record<Command, readonly [command: string, state: string]>> = {
  alarm: ["rotate --emergency", ", nothing staged"],
  emergency: ["rotate --emergency", ", staged"],
  escalation: ["rotate --emergency", ", all written"],
};

/** Two at a time, each in a world of its own. */
const WORKERS = 2;
const worlds = new Map<Mode, readonly World[]>();
const lines: Line[] = [];

beforeAll(async () => {
  for (const mode of ["overlap", "replace", "first"] as const) {
    const made = await Promise.all(Array.from({ length: WORKERS }, () => makeWorld(mode)));
    await Promise.all(made.map((world) => prepare(world, mode)));
    worlds.set(mode, made);
  }
});

afterAll(() => {
  closeWorlds();
  if (lines.length === ROWS.length) writeMatrix(lines);
});

/** What one point came to. null = the command ended before the fault was due. */
type Hit = { readonly place: string; readonly wrong: readonly string[] } | null;

const strike = async (world: World, row: Row, n: number, met: Set<string>): Promise<Hit> => {
  const { command, mode, fault } = row;
  rewind(world, command, mode);
  if (fault.kind === "kill -9") return killAtEntry(world, command, mode, n);
  const error = fault.kind === "EIO" || fault.kind === "ENOSPC";
  const how = error ? `error=${fault.kind}` : `signal=${fault.kind}`;
  const effects = error ? ["link", "rename", "execve", "unlink", "pwrite64"] : [];
  const traced = await world.trace(
    argsOf(command),
    {
      inject: [`${fault.syscall}:${how}:when=${n}`],
      watch: [...new Set([...fault.syscall.split(","), ...effects])],
      ...("paths" in fault && fault.paths !== undefined ? { paths: fault.paths(world) } : {}),
    },
    stdinOf(world, command),
  );
  if (error) return afterError(world, command, mode, traced, n);
  if (fault.kind !== "SIGKILL") return afterSignal(world, command, mode, traced, fault.kind, n);
  if (traced.signal !== "SIGKILL") return null;
  const place = placeOf(world, killedAt(traced));
  const wrong = afterCrash(world, mode, command);
  const shape = shapeOf(world, traced);
  if (!row.loose || !met.has(shape)) wrong.push(...(await goOn(world, mode, command, traced, n % 2 === 0)));
  met.add(shape);
  return { place, wrong };
};

/** By another process, without strace and with all threads: as soon as the n-th new entry can be read. */
const killAtEntry = async (world: World, command: Command, mode: Mode, n: number): Promise<Hit> => {
  const wanted = entriesIn(world.ledgerDir).length + n;
  const child = await world.start(argsOf(command), stdinOf(world, command));
  const run = { over: false };
  const ended = child.ended.finally(() => {
    run.over = true;
  });
  while (!run.over && entriesIn(world.ledgerDir).length < wanted)
    await new Promise((resolve) => setImmediate(resolve));
  child.kill("SIGKILL");
  const ran = await ended;
  if (ran.signal !== "SIGKILL" && entriesIn(world.ledgerDir).length < wanted) return null;
  const wrong = [
    ...afterCrash(world, mode, command),
    ...(await goOn(world, mode, command, ran, n % 2 === 0)),
  ];
  return { place: "ledger entry", wrong };
};

const EXIT = { SIGTERM: 143, SIGINT: 130 } as const;

const afterSignal = async (
  world: World,
  command: Command,
  mode: Mode,
  traced: Traced,
  name: "SIGTERM" | "SIGINT",
  n: number,
): Promise<Hit> => {
  const at = traced.log.findIndex((line) => line.includes(`--- ${name} `));
  if (at === -1) return null;
  const wrong: string[] = [];
  // At the last append of all there is nothing left to interrupt.
  const complete = traced.code === 0 && !traced.log.slice(at).some((line) => / link\(/.test(line));
  if (traced.code !== EXIT[name] && !complete) wrong.push(`exit ${traced.code}, not ${EXIT[name]}`);
  wrong.push(...afterCrash(world, mode, command), ...(await goOn(world, mode, command, traced, n % 2 === 0)));
  return { place: "ledger entry", wrong };
};

const afterError = async (
  world: World,
  command: Command,
  mode: Mode,
  traced: Traced,
  n: number,
): Promise<Hit> => {
  const at = traced.log.findIndex((line) => line.includes("(INJECTED)"));
  const line = traced.log[at];
  if (line === undefined) return null;
  const place = placeOf(world, line);
  const wrong: string[] = [];
  if (place.startsWith("ledger")) {
    const error =
      traced.stdout
        .split("\n")
        .filter((each) => each !== "")
        .at(-1) ?? "";
    if (traced.code !== 1 || !error.includes('"code":"LEDGER_UNWRITABLE"')) {
      wrong.push(`exit ${traced.code} ${/"code":"(\w+)"/.exec(error)?.[1] ?? ""}, not 1 LEDGER_UNWRITABLE`);
    }
    if (!/✖ LEDGER_UNWRITABLE/.test(traced.stderr) || /\n\s+at |Error:|EIO:|ENOSPC:/.test(traced.stderr)) {
      wrong.push("the message is not clean");
    }
    const done = traced.log.slice(at + 1).filter((later) => isEffect(world, later));
    if (done.length > 0) wrong.push(`after it: ${done[0]?.replace(/^\d+ +/, "").slice(0, 60)}`);
  } else if (traced.signal !== null || traced.code === null || traced.code > 4)
    wrong.push(`exit ${traced.code}`);
  wrong.push(...afterCrash(world, mode, command), ...(await goOn(world, mode, command, traced, n % 2 === 0)));
  return { place, wrong };
};

/** Anything but taking a temporary file away. */
const isEffect = (world: World, line: string): boolean => {
  if (/^\d+ +(?:---|\+\+\+|<\.\.\.)/.test(line)) return false;
  if (!/ unlink\(/.test(line)) return / (?:link|rename|execve|pwrite64)\(/.test(line);
  return !/\/\.tmp-|\.imkit-rotator\.tmp/.test(line) || !line.includes(world.dir);
};

const runRow = async (row: Row): Promise<Line> => {
  const stride = row.stride ?? 1;
  let next = 1;
  let last = 0;
  let hits = 0;
  let over = false;
  const places = new Set<string>();
  const wrong: string[] = [];
  const met = new Set<string>();
  const work = async (world: World): Promise<void> => {
    while (!over) {
      const n = next;
      next += stride;
      const hit = await strike(world, row, n, met);
      if (hit === null) {
        over = true;
        return;
      }
      hits++;
      last = Math.max(last, n);
      places.add(hit.place);
      for (const one of hit.wrong) wrong.push(`n=${n}: ${one}`);
    }
  };
  await Promise.all((worlds.get(row.mode) ?? []).map(work));
  return {
    row: nameOf(row),
    n: pointsOf(row, last, stride),
    places: row.loose ? ["files, output, sockets, wake-ups between threads"] : [...places].sort(),
    hits,
    wrong,
  };
};

const pointsOf = (row: Row, last: number, stride: number): string => {
  if (row.loose) return "every one";
  return stride === 1 ? `1–${last}` : `1–${last}, every ${stride === 2 ? "2nd" : `${stride}th`}`;
};

const nameOf = ({ command, mode, fault }: Row): Line["row"] => {
  const only = "paths" in fault && fault.paths !== undefined ? " to a terminal or pipe" : "";
  const [name, state] = LABEL[command] ?? [command, ""];
  return {
    command: name,
    mode: `${mode}${state}`,
    fault: fault.kind,
    at: fault.kind === "kill -9" ? "a new entry seen" : `${fault.syscall.split(",")[0]}${only}`,
  };
};

test.each(ROWS.map((row) => ({ row, name: Object.values(nameOf(row)).join(" ") })))(
  "$name",
  async ({ row }) => {
    const line = await runRow(row);
    lines.push(line);
    expect(line.wrong).toEqual([]);
    expect(line.hits, "a fault that never struck proves nothing").toBeGreaterThan(0);
  },
);
