import { spawn } from "node:child_process";
import { once } from "node:events";
import { performance } from "node:perf_hooks";
import { pid, platform } from "node:process";
import { describe, expect, test, vi } from "vitest";
import { systemClock } from "../../src/io/clock.ts";
import { type HostSystem, thisHost, UNKNOWN } from "../../src/io/host.ts";

const failure = (code: string): Error => Object.assign(new Error(code), { code });
const statLine = (name: string, startTime: string, state = "S", threads = 7): string =>
  `77 (${name}) ${state} 1 77 77 0 -1 4194560 ${Array(6).fill("9").join(" ")} 1 2 20 0 ${threads} 0 ${startTime} 1 2 3\n`;

/** A Linux on which pid 77 is this process and pid 99 is as told. */
const linux = (
  other: { stat?: string | Error; poke?: string | null },
  more: Partial<HostSystem> = {},
): HostSystem => ({
  platform: "linux",
  pid: 77,
  hostname: () => "box",
  read: async (path) => {
    if (path === "/proc/sys/kernel/random/boot_id") return "boot-1\n";
    if (path === "/proc/77/stat") return statLine("node", "1000");
    const answer = other.stat ?? failure("ENOENT");
    if (answer instanceof Error) throw answer;
    return answer;
  },
  link: async () => "pid:[4026531836]",
  poke: () => {
    if (other.poke !== null) throw failure(other.poke ?? "ESRCH");
  },
  bootSession: () => Promise.reject(failure("ENOENT")),
  ...more,
});

const other = {
  inst: "00",
  host: "box",
  bootId: "boot-1",
  pidNamespace: "pid:[4026531836]",
  pid: 99,
  startTime: "500",
};

describe("a claim", () => {
  test("holds who this process is, with the same inst at each call", async () => {
    const { claim } = await thisHost(linux({}));
    expect(claim).toEqual({
      inst: expect.stringMatching(/^[0-9a-f]{16}$/),
      host: "box",
      bootId: "boot-1",
      pidNamespace: "pid:[4026531836]",
      pid: 77,
      startTime: "1000",
    });
    expect((await thisHost()).claim.inst).toBe(claim.inst);
  });

  test.each(["node", "a) S 1 2 3 (b", "x\ny", ")))"])(
    "reads the start time behind a program named %j",
    async (name) => {
      const system = linux({});
      const { claim } = await thisHost({ ...system, read: async () => statLine(name, "4711") });
      expect(claim.startTime).toBe("4711");
    },
  );
});

describe("a process is gone only when it is proven", () => {
  test.each([
    ["neither in /proc nor known to the kernel", { poke: "ESRCH" }, true],
    ["the read is cut off by its end", { stat: failure("ESRCH"), poke: "ESRCH" }, true],
    ["hidden in /proc, another user's", { poke: "EPERM" }, false],
    ["hidden in /proc, but alive", { poke: null }, false],
    ["its pid was given out again", { stat: statLine("sh", "501"), poke: null }, true],
    ["it is there", { stat: statLine("node", "500"), poke: null }, false],
    ["it is a zombie", { stat: statLine("node", "500", "Z", 1), poke: null }, true],
    [
      "its main thread is a zombie, others are not",
      { stat: statLine("node", "500", "Z", 3), poke: null },
      false,
    ],
    ["it is stopped", { stat: statLine("node", "500", "T"), poke: null }, false],
    ["/proc says nothing readable", { stat: "garbage", poke: null }, false],
    ["/proc says nothing", { stat: "", poke: null }, false],
    ["/proc may not be read", { stat: failure("EACCES"), poke: "ESRCH" }, false],
  ])("%s", async (_, answers, gone) => {
    const host = await thisHost(linux(answers));
    expect(await host.isGone(other)).toBe(gone);
  });

  test.each([
    ["host", { host: "other" }],
    ["boot", { bootId: "boot-2" }],
    ["pid namespace", { pidNamespace: "pid:[1]" }],
    ["no pid", { pid: 0 }],
    ["a process group for a pid", { pid: -1 }],
    ["a broken pid", { pid: 1.5 }],
  ])("never on another %s", async (_, part) => {
    const host = await thisHost(linux({ poke: "ESRCH" }));
    expect(await host.isGone({ ...other, ...part })).toBe(false);
  });

  test("never by what is unknown on both sides", async () => {
    const dumb = linux(
      { poke: "ESRCH" },
      { read: () => Promise.reject(failure("ENOENT")), link: () => Promise.reject(failure("EACCES")) },
    );
    const host = await thisHost(dumb);
    expect(host.claim).toMatchObject({ bootId: UNKNOWN, pidNamespace: UNKNOWN, startTime: UNKNOWN });
    expect(await host.isGone({ ...host.claim, pid: 99 })).toBe(false);
    const nameless = await thisHost(linux({ poke: "ESRCH" }, { hostname: () => "" }));
    expect(await nameless.isGone({ ...nameless.claim, pid: 99 })).toBe(false);
  });

  test("an unknown start time is no proof that the pid was given out again", async () => {
    const host = await thisHost(linux({ stat: statLine("node", "500"), poke: null }));
    expect(await host.isGone({ ...other, startTime: UNKNOWN })).toBe(false);
  });

  test("macOS: by boot session and signal 0; elsewhere never", async () => {
    const mac = { platform: "darwin", bootSession: async () => "SESSION-1\n" };
    const there = await thisHost(linux({ poke: null }, mac));
    const gone = await thisHost(linux({ poke: "ESRCH" }, mac));
    expect(gone.claim).toMatchObject({ bootId: "SESSION-1", pidNamespace: "none" });
    expect(await there.isGone({ ...there.claim, pid: 99 })).toBe(false);
    expect(await gone.isGone({ ...gone.claim, pid: 99 })).toBe(true);
    expect(await gone.isGone({ ...gone.claim, pid: 99, bootId: "SESSION-2" })).toBe(false);
    const other = await thisHost(linux({ poke: "ESRCH" }, { platform: "freebsd" }));
    expect(await other.isGone({ ...other.claim, pid: 99 })).toBe(false);
  });

  test.runIf(platform === "linux")("with real processes", async () => {
    const host = await thisHost();
    expect(await host.isGone(host.claim)).toBe(false);
    expect(host.claim.pid).toBe(pid);
    const child = spawn("sleep", ["60"], { stdio: "ignore" });
    await once(child, "spawn");
    const claim = { ...host.claim, pid: child.pid ?? 0, startTime: UNKNOWN };
    expect(await host.isGone(claim)).toBe(false);
    expect(await host.isGone({ ...claim, startTime: "1" })).toBe(true);
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(await host.isGone(claim)).toBe(true);
  });
});

describe("the system's clock", () => {
  test("tells the time in milliseconds and never goes back", () => {
    expect(Math.abs(systemClock.now() - Date.now())).toBeLessThan(1_000);
    const [before, from] = [systemClock.monotonic(), performance.now()];
    while (performance.now() < from + 5);
    const passed = systemClock.monotonic() - before;
    expect(passed).toBeGreaterThanOrEqual(5);
    expect(passed).toBeLessThan(1_000);
  });

  test.each([
    [1_000, 1_000],
    [0, 0],
    [-5, 0],
    [Number.NaN, 0],
    [2 ** 40, 2 ** 31 - 1],
    [Number.POSITIVE_INFINITY, 2 ** 31 - 1],
  ])("a sleep of %d ms sets a timer of %d ms", async (ms, timer) => {
    vi.useFakeTimers();
    try {
      let isAwake = false;
      const asleep = systemClock.sleep(ms, new AbortController().signal).then(() => {
        isAwake = true;
      });
      if (timer > 0) await vi.advanceTimersByTimeAsync(timer - 1);
      expect(isAwake).toBe(false);
      await vi.advanceTimersByTimeAsync(1);
      await asleep;
      expect(isAwake).toBe(true);
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  test("a sleep ends at once, and well, when the signal aborts, before or during it", async () => {
    const control = new AbortController();
    const during = systemClock.sleep(3_600_000, control.signal);
    control.abort(new Error("stop"));
    await expect(during).resolves.toBeUndefined();
    await expect(systemClock.sleep(3_600_000, control.signal)).resolves.toBeUndefined();
  });
});
