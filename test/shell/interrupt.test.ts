import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { Ran } from "../kit/program.ts";
import { jsonLines, lastJson, makeWorld, type World } from "../kit/world.ts";

const worlds: World[] = [];
afterAll(() => Promise.all(worlds.map((w) => w.close())));

type Stopping = World & {
  /** The next read of the store signals the program and never answers. */
  readonly stopAtRead: (signal: "TERM" | "INT") => void;
  readonly runs: (line: string, options?: Parameters<World["run"]>[1]) => Promise<Ran>;
};

const withStore = async (): Promise<Stopping> => {
  const w = await makeWorld();
  worlds.push(w);
  const file = (name: string): string => join(w.dir, name);
  writeFileSync(file("held"), w.sandbox.firstKey());
  writeFileSync(
    file("read.sh"),
    `if [ -f stop ]; then s=$(cat stop); rm stop; kill -s "$s" $PPID; exec sleep 30; fi; cat held`,
  );
  writeFileSync(file("write.sh"), "cat > held.new && mv held.new held");
  const config = readFileSync(w.configFile, "utf8");
  const store = "{ name: env, type: exec, read: [sh, read.sh], write: [sh, write.sh] }";
  writeFileSync(w.configFile, config.replace(/\{ name: env, .*\}/, store));
  return {
    ...w,
    stopAtRead: (signal) => writeFileSync(file("stop"), signal),
    runs: (line, options) => w.run(line.split(" "), options),
  };
};

/** All that an interruption has to tell. */
const isWhole = (ran: Ran, line: string, signal: "SIGTERM" | "SIGINT"): void => {
  const exit = signal === "SIGINT" ? 130 : 143;
  expect({ line, code: ran.code, signal: ran.signal, stdout: ran.stdout }).toMatchObject({
    line,
    code: exit,
    signal: null,
  });
  const last = lastJson(ran.stdout);
  expect(last["exitCode"]).toBe(exit);
  expect(`${ran.stdout}${ran.stderr}`).not.toMatch(/TIMEOUT|did not end in time|_FAILED|_UNCLEAR|"failed"/);
  expect(ran.stderr).toContain("INTERRUPTED");
  expect(ran.stderr).toMatch(new RegExp(`Why +This process was told to stop \\(${signal}\\)`));
  for (const title of ["State", "Do", "Undo"])
    expect(ran.stderr).toMatch(new RegExp(`^ +${title} +\\S`, "m"));
  if (last["type"] !== "error") return;
  expect(last).toMatchObject({ code: "INTERRUPTED", do: [`imkit-rotator ${line}`] });
  expect(last["undo"]).not.toEqual([]);
};

/** A key is staged, and for what comes later it is written. */
const opened = async (w: Stopping, line: string): Promise<void> => {
  await w.runs("stage demo --from-stdin", { stdin: w.sandbox.issue() });
  if (!line.startsWith("rotate")) await w.runs("rotate demo");
};

describe.concurrent("told to stop while a store is read", () => {
  it.each([
    ["adopt demo --json", "TERM"],
    ["adopt demo --json", "INT"],
    ["rotate demo --json", "TERM"],
    ["rotate demo --due --json", "TERM"],
    ["rotate demo --dry-run --json", "TERM"],
    ["rotate --all --due --json", "INT"],
    ["rotate --all --dry-run --json", "TERM"],
    ["status --json", "TERM"],
    ["doctor --json", "TERM"],
  ] as const)("before adoption, %s by %s", async (line, signal) => {
    const w = await withStore();
    w.stopAtRead(signal);
    isWhole(await w.runs(line), line, `SIG${signal}`);
    expect(w.events().filter((e) => e["type"] !== "genesis")).toEqual([]);
    expect((await w.runs("adopt demo")).code).toBe(0);
  });

  it("of several apps: the line of the app says the same as the summary", async () => {
    const w = await withStore();
    w.stopAtRead("TERM");
    const lines = jsonLines((await w.runs("rotate --all --due --json")).stdout);
    expect(lines.find((l) => l["type"] === "result")).toMatchObject({ status: "waiting", exitCode: 143 });
    expect(lines.at(-1)).toMatchObject({
      type: "summary",
      exitCode: 143,
      apps: [{ status: "waiting", exitCode: 143 }],
    });
  });

  it("run: the command is not started", async () => {
    const w = await withStore();
    w.stopAtRead("TERM");
    const { code, stderr } = await w.run(["run", "demo", "--", "touch", "started"]);
    expect(code).toBe(143);
    expect(stderr).toContain("Interrupted before the command was started.");
    expect(existsSync(join(w.dir, "started"))).toBe(false);
  });

  it("stage: the key is kept and waits, and the same command again is done", async () => {
    const w = await withStore();
    const key = w.sandbox.issue();
    w.stopAtRead("TERM");
    const { code, stdout } = await w.runs("stage demo --from-stdin --json", { stdin: key });
    expect(code).toBe(143);
    expect(jsonLines(stdout)).toMatchObject([{ durable: true, verdict: "unclear" }, { code: "INTERRUPTED" }]);
    expect((await w.runs("stage demo --from-stdin", { stdin: key })).code).toBe(0);
    expect(w.escrow()).toHaveLength(1);
  });

  it.each([
    "rotate demo --json",
    "confirm-revoked demo --json",
    "rollback demo --json",
    "audit verify demo --stores --json",
  ])("of an open rotation, %s: nothing is recorded that was not answered", async (line) => {
    const w = await withStore();
    await opened(w, line);
    const before = w.events().length;
    w.stopAtRead("TERM");
    isWhole(await w.runs(line), line, "SIGTERM");
    const facts = w.events().slice(before);
    expect(facts.filter((e) => e["code"] !== undefined)).toEqual([]);
    expect((await w.runs("rotate demo --json")).code).toBe(3);
  });
});

describe.concurrent("told to stop while IMKIT does not answer", () => {
  it.each([
    "rotate demo --json",
    "rotate demo --emergency --json",
    "confirm-revoked demo --json",
    "rollback demo --json",
    "doctor --json",
  ])("%s ends at once, and has learnt nothing", async (line) => {
    const w = await withStore();
    await opened(w, line);
    let kill = (): void => {};
    let stoppedAt = 0;
    const silent = createServer(() => {
      stoppedAt ||= performance.now();
      kill();
      kill = () => {};
    }).listen(0, "127.0.0.1");
    await once(silent, "listening");
    const config = readFileSync(w.configFile, "utf8");
    const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    writeFileSync(w.configFile, config.replace(w.sandbox.url, url));
    const before = w.events().length;
    const ran = await w.runs(line, { onStart: (signal) => (kill = () => signal("SIGTERM")) });
    const tookMs = performance.now() - stoppedAt;
    silent.closeAllConnections();
    silent.close();
    isWhole(ran, line, "SIGTERM");
    expect(
      w
        .events()
        .slice(before)
        .filter((e) => e["verdict"] !== undefined || e["usage"] === null),
    ).toEqual([]);
    // Its own patience with a silent IMKIT is 5 s.
    expect(tookMs).toBeLessThan(4_500);
  });
});

it("an alarm that is interrupted: what takes it back is a command that is let through", async () => {
  const w = await withStore();
  const line = "rotate demo --emergency --wait=1m --json";
  const ran = await w.runs(line, { signalAfter: { text: /Your turn/, signal: "SIGINT" } });
  isWhole(ran, line, "SIGINT");
  const undo = /Undo +.*?(rollback demo[^#\n]*)/.exec(ran.stderr)?.[1]?.trim() ?? "";
  expect(undo).toBe("rollback demo --accept-leaked");
  expect((await w.runs(undo)).code).toBe(0);
});
