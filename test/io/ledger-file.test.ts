import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import * as fsp from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { openEntry } from "../../src/core/chain.ts";
import { RotatorError } from "../../src/core/errors.ts";
import { verifyLedger } from "../../src/core/verify.ts";
import { fileLedger } from "../../src/io/ledger/file.ts";
import { ledgerContract } from "../contract/ledger.ts";
import { chainOf, STORY } from "../kit/ledger-story.ts";
import { memoryLedger } from "../kit/memory-ledger.ts";

vi.mock("node:fs", async (original) => {
  const real = await original<typeof import("node:fs")>();
  return {
    ...real,
    fsync: vi.fn(real.fsync),
    linkSync: vi.fn(real.linkSync),
    unlinkSync: vi.fn(real.unlinkSync),
  };
});

const run = promisify(execFile);
const kit = join(import.meta.dirname, "..", "kit");
const lines = chainOf(STORY);
const line = (seq: number): Uint8Array => lines[seq] ?? new Uint8Array();
const fault = (code: string): Error => Object.assign(new Error(`${code}: secret vendor words`), { code });
const failure = async (work: Promise<unknown>): Promise<RotatorError> => {
  const error = await work.then(
    () => new Error("it went well"),
    (e: unknown) => e,
  );
  if (!(error instanceof RotatorError)) throw error;
  expect(JSON.stringify(error)).not.toContain("vendor");
  return error;
};

let root: string;
let dir: string;
beforeEach(async () => {
  root = await fsp.mkdtemp(join(tmpdir(), "ledger-"));
  dir = join(root, "state", "chat-prod", "ledger");
});
afterEach(() => fsp.rm(root, { recursive: true, force: true }));
const fill = async (count = lines.length): Promise<void> => {
  for (const [seq, bytes] of lines.slice(0, count).entries()) await fileLedger(dir).create(seq, bytes);
};

ledgerContract("files", async () => {
  const place = await fsp.mkdtemp(join(tmpdir(), "ledger-"));
  return {
    open: () => fileLedger(join(place, "deep", "ledger")),
    gone: () => fsp.rm(place, { recursive: true, force: true }),
  };
});
ledgerContract("memory", async () => {
  const entries: Uint8Array[] = [];
  return { open: () => memoryLedger(entries) };
});

describe("the directory", () => {
  test("is made by the first entry alone, for its owner alone", async () => {
    await fileLedger(dir).read(0);
    await expect(fsp.stat(dir)).rejects.toThrow("ENOENT");
    await fill(1);
    for (const made of [dir, join(root, "state")]) expect((await fsp.stat(made)).mode & 0o777).toBe(0o700);
    expect((await fsp.stat(join(dir, "00000000.json"))).mode & 0o777).toBe(0o600);
    expect(await fsp.readdir(dir)).toEqual(["00000000.json"]);
  });

  test("that is a file is a matter of the config", async () => {
    await fsp.writeFile(join(root, "state"), "");
    expect((await failure(fileLedger(dir).create(0, line(0)))).code).toBe("STATE_UNUSABLE");
    expect((await failure(fileLedger(dir).read(0))).code).toBe("STATE_UNUSABLE");
    await fsp.rm(join(root, "state"));
    await fsp.mkdir(join(root, "state", "chat-prod"), { recursive: true });
    await fsp.writeFile(dir, "");
    expect((await failure(fileLedger(dir).create(0, line(0)))).code).toBe("STATE_UNUSABLE");
  });

  test("that was emptied while we ran gets no later entry", async () => {
    await fill(2);
    const ledger = fileLedger(dir);
    await fsp.rm(join(dir, "00000001.json"));
    expect((await failure(ledger.create(2, line(2)))).code).toBe("LEDGER_UNWRITABLE");
    await fsp.rm(dir, { recursive: true });
    expect((await failure(ledger.create(2, line(2)))).code).toBe("LEDGER_UNWRITABLE");
    await expect(fsp.stat(dir)).rejects.toThrow("ENOENT");
  });

  test("loses temporary files of the dead after a day, and no reader sees them before", async () => {
    await fill(1);
    const old = join(dir, ".tmp-old");
    await fsp.writeFile(old, "half an ent");
    await fsp.utimes(old, new Date(0), new Date(0));
    await fsp.writeFile(join(dir, ".tmp-new"), "half an ent");
    expect(await fileLedger(dir).read(0)).toHaveLength(1);
    await fileLedger(dir).create(1, line(1));
    expect((await fsp.readdir(dir)).filter((name) => name.startsWith("."))).toEqual([".tmp-new"]);
  });
});

describe("an entry that is not whole stops every reader", () => {
  const path = (): string => join(dir, "00000002.json");
  test.each<[string, () => Promise<unknown>, string]>([
    ["empty", () => fsp.writeFile(path(), ""), "is empty"],
    ["torn", () => fsp.writeFile(path(), line(2).subarray(0, 100)), "is torn"],
    ["too long", () => fsp.writeFile(path(), `${"x".repeat(17_000)}\n`), "is over 16 KiB"],
    ["a directory", () => fsp.mkdir(path()), "is not a regular file"],
    ["a symbolic link", () => fsp.symlink(join(dir, "00000001.json"), path()), "is a symbolic link"],
    ["a dangling link", () => fsp.symlink("nowhere", path()), "is a symbolic link"],
    ["a pipe that nobody writes", () => run("mkfifo", [path()]), "is not a regular file"],
    ["missing", async () => {}, "is missing"],
  ])("%s", async (_, damage, words) => {
    await fill(4);
    await fsp.rm(path());
    await damage();
    const error = await failure(fileLedger(dir).read(0));
    expect(error.code).toBe("LEDGER_BROKEN");
    expect(error.why).toBe(`The ledger entry ${path()} ${words}.`);
  });

  test("a socket", async () => {
    await fill(1);
    const server = createServer().listen(join(dir, "00000001.json"));
    await once(server, "listening");
    const error = await failure(fileLedger(dir).read(1));
    server.close();
    expect(error.code).toBe("LEDGER_BROKEN");
  });

  test("a hole far behind is found by a reader from the start; a follower only looks for the next one", async () => {
    await fill(2);
    await fsp.writeFile(join(dir, "00000900.json"), line(4));
    expect((await failure(fileLedger(dir).read(0))).why).toContain("00000002.json is missing");
    expect(await fileLedger(dir).read(2)).toEqual([]);
  });

  test("a link in the place of the next entry is never written through", async () => {
    await fill(1);
    const victim = join(root, "victim");
    await fsp.symlink(victim, join(dir, "00000001.json"));
    expect(await fileLedger(dir).create(1, line(1))).toBe("exists");
    await expect(fsp.stat(victim)).rejects.toThrow("ENOENT");
  });
});

describe("a disk that fails", () => {
  const names = (): Promise<string[]> => fsp.readdir(dir);

  test("no room: a short write is an error, and leaves nothing", async () => {
    await run(process.execPath, [join(kit, "ledger-writer.ts"), dir, "0"]);
    const limited = `ulimit -f 4; exec "$0" "$@"`;
    const writer = join(kit, "ledger-writer.ts");
    const { stdout } = await run("bash", ["-c", limited, process.execPath, writer, dir, "1"]);
    expect(JSON.parse(stdout)).toEqual({
      code: "LEDGER_UNWRITABLE",
      why: `Entry 1 of ${dir} cannot be written (EFBIG).`,
    });
    expect(await names()).toEqual(["00000000.json"]);
    expect(await fileLedger(dir).create(1, line(1))).toBe("created");
  });

  test("an fsync that failed is not asked again, and its entry is not made", async () => {
    await fill(1);
    const sync = vi.mocked(fs.fsync);
    sync.mockClear();
    sync.mockImplementationOnce((_, done) => done(fault("EIO")));
    const error = await failure(fileLedger(dir).create(1, line(1)));
    expect([error.code, error.exit, sync.mock.calls.length]).toEqual(["LEDGER_UNWRITABLE", 1, 1]);
    expect(await names()).toEqual(["00000000.json"]);
    expect(await fileLedger(dir).create(1, line(1))).toBe("created");
  });

  test("a directory whose fsync failed leaves it open whether the entry is made", async () => {
    await fill(1);
    const sync = vi.mocked(fs.fsync);
    sync.mockClear();
    sync
      .mockImplementationOnce((_, done) => done(null))
      .mockImplementationOnce((_, done) => done(fault("EIO")));
    expect((await failure(fileLedger(dir).create(1, line(1)))).code).toBe("LEDGER_UNWRITABLE");
    expect(sync).toHaveBeenCalledTimes(2);
    const [found] = await fileLedger(dir).read(1);
    expect(openEntry(found ?? new Uint8Array())).toMatchObject({ entry: { seq: 1 } });
  });

  test("bytes are fsynced before they get their name, the name before anyone is told", async () => {
    await fill(1);
    const order: string[] = [];
    for (let n = 0; n < 2; n++) {
      vi.mocked(fs.fsync).mockImplementationOnce((descriptor, done) => {
        order.push(fs.fstatSync(descriptor).isDirectory() ? "sync directory" : "sync file");
        fs.fdatasync(descriptor, done);
      });
    }
    vi.mocked(fs.linkSync).mockImplementationOnce((from, to) => {
      order.push("link");
      fs.copyFileSync(from, to, fs.constants.COPYFILE_EXCL);
    });
    await fileLedger(dir).create(1, line(1));
    expect(order).toEqual(["sync file", "link", "sync directory"]);
  });

  test.each(["EPERM", "ENOTSUP", "ENOSYS"])(
    "no hard links (%s) ends a ledger before it begins, with a way out",
    async (code) => {
      vi.mocked(fs.linkSync).mockImplementationOnce(() => {
        throw fault(code);
      });
      const error = await failure(fileLedger(dir).create(0, line(0)));
      expect([error.code, error.exit]).toEqual(["STATE_UNUSABLE", 2]);
      expect(error.why).toContain("hard links");
      expect(error.do.join()).toContain("kubernetes");
      expect(await names()).toEqual([]);
    },
  );

  test("a link that fails later is a failing disk", async () => {
    await fill(1);
    vi.mocked(fs.linkSync).mockImplementationOnce(() => {
      throw fault("EPERM");
    });
    expect((await failure(fileLedger(dir).create(1, line(1)))).code).toBe("LEDGER_UNWRITABLE");
  });

  test("a link that was made and is reported as there is our own", async () => {
    const { linkSync } = await vi.importActual<typeof fs>("node:fs");
    vi.mocked(fs.linkSync).mockImplementationOnce((from, to) => {
      linkSync(from, to);
      throw fault("EEXIST");
    });
    expect(await fileLedger(dir).create(0, line(0))).toBe("created");
  });

  test("a temporary file that cannot be removed is no failure", async () => {
    const fails = (): never => {
      throw fault("EIO");
    };
    vi.mocked(fs.unlinkSync).mockImplementationOnce(fails).mockImplementationOnce(fails);
    expect(await fileLedger(dir).create(0, line(0))).toBe("created");
    expect(await fileLedger(dir).read(0)).toHaveLength(1);
  });
});

test("four processes race for 200 numbers, one is killed: each number is taken once and the chain is sound", async () => {
  const got = new Map<string, number[]>();
  const racers = ["a", "b", "c", "d"].map((inst) => {
    const child = spawn(process.execPath, [join(kit, "ledger-racer.ts"), dir, inst, "199"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      const numbers = [...(got.get(inst) ?? []), ...text.trim().split("\n").map(Number)];
      got.set(inst, numbers);
      if (inst === "d" && numbers.length >= 5) child.kill("SIGKILL");
    });
    return once(child, "close") as Promise<[number | null, string | null]>;
  });
  const ends = await Promise.all(racers);
  expect(ends.slice(0, 3)).toEqual([0, 0, 0].map((code) => [code, null]));

  const read = await fileLedger(dir).read(0);
  expect(verifyLedger(read, { folder: true })).toMatchObject({ ok: true, entries: 200, head: { seq: 199 } });
  const owners = read.map((bytes) => {
    const opened = openEntry(bytes);
    return "entry" in opened ? opened.entry.inst : "";
  });
  const taken = [...got.values()].flat();
  expect(new Set(taken).size).toBe(taken.length);
  for (const [inst, numbers] of got) for (const seq of numbers) expect(owners[seq]).toBe(inst);
  expect(owners.filter((inst) => inst !== "d")).toHaveLength(
    ["a", "b", "c"].reduce((sum, inst) => sum + (got.get(inst)?.length ?? 0), 0),
  );
});
