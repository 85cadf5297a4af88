import { spawnSync } from "node:child_process";
import {
  chmod,
  chown,
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { fromErrno } from "../../providers/kit.ts";
import { type Hooks, type Loaded, loadFile, temporaryOf } from "../../providers/stores/dotenv-file.ts";
import { openDotenv } from "../../providers/stores/dotenv.ts";
import { pooled } from "../../providers/stores/dotenv-calls-pooled.ts";
import { blocking, type Calls, callsFor } from "../../providers/stores/dotenv-calls.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Store } from "../../src/ports.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { tempDir, toolsIn, refusal } from "../kit/provider-tools.ts";

const [old, next] = [madeKey(), madeKey()];
const op = { id: "0".repeat(32), witness: null };
const soon = () => AbortSignal.timeout(10_000);
const isRoot = process.geteuid?.() === 0;
const NOBODY = 65_534;

let dir: string;
let path: string;
let remove: () => Promise<void>;
beforeEach(async () => {
  ({ dir, remove } = await tempDir());
  path = join(dir, ".env");
  await writeFile(path, `A=1\nIMKIT_API_KEY=${old}\nB=2\n`, { mode: 0o640 });
});
afterEach(async () => await remove());

describe.each([
  { how: "blocking", calls: blocking },
  { how: "through the thread pool", calls: pooled },
])("with calls $how", ({ calls }: { readonly calls: Calls }) => {
  const opened = (hooks: Hooks = {}, create = false) => {
    const { tools, backups } = toolsIn(dir);
    return {
      store: openDotenv({ path: ".env", key: "IMKIT_API_KEY", create }, tools, { calls, ...hooks }),
      backups,
    };
  };
  const put = async (store: Store) =>
    await store.write(new Secret(next), (await store.read(soon()))?.revision ?? null, op, soon());
  const expected = (key: string) => `A=1\nIMKIT_API_KEY=${key}\nB=2\n`;
  const fail = (code: string) => async () => {
    throw Object.assign(new Error(`${code}: ${old}`), { code });
  };

  test("its address names file and variable, from the config's folder and from ~/", () => {
    const { tools } = toolsIn("/srv/chat");
    const where = (path: string) => openDotenv({ path, key: "K", create: false }, tools).where;
    expect(where(".env")).toBe("dotenv:/srv/chat/.env#K");
    expect(where("../a.env")).toBe("dotenv:/srv/a.env#K");
    expect(where("/etc/b.env")).toBe("dotenv:/etc/b.env#K");
    expect(
      openDotenv({ path: "~/c.env", key: "K", create: false }, { ...tools, env: { HOME: "/home/may" } })
        .where,
    ).toBe("dotenv:/home/may/c.env#K");
  });

  describe("the file", () => {
    test("is replaced as a whole: no temporary file, mode kept, no copy of the key elsewhere", async () => {
      const { store, backups } = opened();
      const before = await stat(path);
      await put(store);
      expect(await readFile(path, "utf8")).toBe(expected(next));
      const after = await stat(path);
      expect([after.mode, after.uid, after.gid]).toEqual([before.mode, before.uid, before.gid]);
      expect(after.ino).not.toBe(before.ino);
      expect(await readdir(dir)).toEqual([".env"]);
      expect(backups).toEqual([]);
    });

    test.each([0o600, 0o644, 0o660, 0o400])("keeps mode %o", async (mode) => {
      await chmod(path, mode);
      await put(opened().store);
      expect((await stat(path)).mode & 0o7777).toBe(mode);
    });

    test.runIf(isRoot)("keeps its owner and group", async () => {
      await chown(path, NOBODY, NOBODY);
      await put(opened().store);
      const { uid, gid } = await stat(path);
      expect([uid, gid]).toEqual([NOBODY, NOBODY]);
    });

    test("is found through symlinks, which stay", async () => {
      await mkdir(join(dir, "releases"));
      await rename(path, join(dir, "releases", "real.env"));
      await symlink("releases/real.env", join(dir, "middle"));
      await symlink("middle", path);
      await put(opened().store);
      expect(await readlink(path)).toBe("middle");
      expect(await readFile(join(dir, "releases", "real.env"), "utf8")).toBe(expected(next));
      expect(await readdir(join(dir, "releases"))).toEqual(["real.env"]);
    });

    test("that is absent: NOT_FOUND with the way out, and with create a new file of mode 0600", async () => {
      await rm(path);
      const { store } = opened();
      expect(await refusal(store.read(soon()))).toMatchObject({ code: "NOT_FOUND", outcome: "not_applied" });
      expect((await refusal(put(store))).hint).toContain("create: true");
      expect(await readdir(dir)).toEqual([]);
      await put(opened({}, true).store);
      expect(await readFile(path, "utf8")).toBe(`IMKIT_API_KEY=${next}\n`);
      expect((await stat(path)).mode & 0o7777).toBe(0o600);
      expect(await readdir(dir)).toEqual([".env"]);
    });

    test("whose folder is absent is never taken for an absent entry, also with create", async () => {
      const { tools } = toolsIn(dir);
      for (const gone of ["gone/.env", ".env/.env"]) {
        const store = openDotenv({ path: gone, key: "K", create: true }, tools, { calls });
        expect(await refusal(store.read(soon()))).toMatchObject({ code: "NOT_FOUND" });
        expect(await store.preflight(soon())).toMatchObject([{ status: "fail", code: "NOT_FOUND" }]);
      }
    });

    test("that appears while it is created is not overwritten", async () => {
      await rm(path);
      const { store } = opened({ beforeSwap: async () => await writeFile(path, "A=theirs\n") }, true);
      expect(await refusal(put(store))).toMatchObject({ code: "CONFLICT", outcome: "not_applied" });
      expect(await readFile(path, "utf8")).toBe("A=theirs\n");
      expect(await readdir(dir)).toEqual([".env"]);
    });

    test("behind a symlink to nowhere, a folder, a device: CONFIG, also with create", async () => {
      await rm(path);
      await symlink("nowhere", path);
      expect(await refusal(opened({}, true).store.read(soon()))).toMatchObject({ code: "CONFIG" });
      await rm(path);
      await mkdir(path);
      expect(await refusal(opened({}, true).store.read(soon()))).toMatchObject({ code: "CONFIG" });
      await rm(path, { recursive: true });
      await symlink("/dev/null", path);
      expect(await refusal(opened({}, true).store.read(soon()))).toMatchObject({ code: "CONFIG" });
    });

    test("that is longer than it says, as one that grew since it was asked, is read to its end", async ({
      skip,
    }) => {
      if (process.platform !== "linux") skip();
      const { bytes, stat: said } = (await loadFile(calls, "/proc/self/status", 1024 * 1024)) as Loaded;
      expect([said.size, bytes.includes("Threads:"), bytes.at(-1)]).toEqual([0n, true, 10]);
      expect(bytes.length).toBeGreaterThan(500);
      await expect(loadFile(calls, "/proc/self/status", 100)).rejects.toMatchObject({ code: "TOO_LARGE" });
    });

    test("of more than 1 MiB is refused, one of just 1 MiB is not", async () => {
      const line = `\nIMKIT_API_KEY=${old}\n`;
      await writeFile(path, `#${"x".repeat(1024 * 1024 - line.length - 1)}${line}`);
      await put(opened().store);
      await writeFile(path, `#${"x".repeat(1024 * 1024 - line.length)}${line}`);
      expect(await refusal(put(opened().store))).toMatchObject({ code: "TOO_LARGE", outcome: "not_applied" });
    });
  });

  describe("a change by somebody else", () => {
    test.each<[string, () => Promise<void>]>([
      ["a saved edit", async () => await writeFile(path, `A=2\nIMKIT_API_KEY=${old}\nB=2\n`)],
      ["an edit of the same size", async () => await writeFile(path, expected(old).replace("A=1", "A=9"))],
      [
        "the same bytes in a new file",
        async () => {
          await writeFile(`${path}.new`, expected(old));
          await rename(`${path}.new`, path);
        },
      ],
      ["a removed file", async () => await rm(path)],
      [
        "another file behind the name",
        async () => {
          await rename(path, join(dir, "real.env"));
          await symlink("real.env", path);
        },
      ],
    ])("%s right before the swap is a conflict, and is kept", async (_, change) => {
      let seen = "";
      const { store } = opened({
        beforeSwap: async () => {
          await change();
          seen = await readFile(path, "utf8").catch(() => "gone");
        },
      });
      expect(await refusal(put(store))).toMatchObject({ code: "CONFLICT", outcome: "not_applied" });
      expect(await readFile(path, "utf8").catch(() => "gone")).toBe(seen);
      expect((await readdir(dir)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
    });

    test("to a neighbour between read and write is kept, and no conflict", async () => {
      const { store } = opened();
      const found = await store.read(soon());
      await writeFile(path, expected(old).replace("A=1", "A=one more"));
      await store.write(new Secret(next), found?.revision ?? null, op, soon());
      expect(await readFile(path, "utf8")).toBe(expected(next).replace("A=1", "A=one more"));
    });

    test("to the temporary file is a conflict, and the file is whole", async () => {
      const { store } = opened({
        beforeSwap: async () => {
          await rm(temporaryOf(path));
          await writeFile(temporaryOf(path), "half");
        },
      });
      expect(await refusal(put(store))).toMatchObject({ code: "CONFLICT", outcome: "not_applied" });
      expect(await readFile(path, "utf8")).toBe(expected(old));
    });
  });

  test("an edit that a reader would misread is not written: here Node takes the line behind a blank value for that value", async () => {
    await writeFile(path, "A=1\nB= \n");
    const { store } = opened();
    expect(await store.read(soon())).toBeNull();
    const error = await refusal(put(store));
    expect(error).toMatchObject({ code: "VERIFY_MISMATCH", outcome: "not_applied" });
    expect(error.hint).toContain(`${path}:2: `);
    expect(await store.preflight(soon())).toMatchObject([{ status: "fail", code: "VERIFY_MISMATCH" }]);
    expect(await readFile(path, "utf8")).toBe("A=1\nB= \n");
  });

  test("writes of one process to several variables of one file wait for each other", async () => {
    const { tools } = toolsIn(dir);
    const names = Array.from({ length: 8 }, (_, n) => `KEY_${n}`);
    const keys = names.map(() => madeKey());
    const writes = names.map(
      async (key, n) =>
        await openDotenv({ path: ".env", key, create: false }, tools, { calls }).write(
          new Secret(keys[n] ?? ""),
          null,
          op,
          soon(),
        ),
    );
    await Promise.all(writes);
    expect(await readFile(path, "utf8")).toBe(
      expected(old) + names.map((name, n) => `${name}=${keys[n]}\n`).join(""),
    );
  });

  describe("what a killed run left", () => {
    test("is at most one file of a fixed name, which the next write removes, whatever it is", async () => {
      expect(temporaryOf("/srv/chat/.env")).toBe("/srv/chat/..env.imkit-rotator.tmp");
      await writeFile(temporaryOf(path), `IMKIT_API_KEY=${next.slice(0, 20)}`);
      await put(opened().store);
      expect(await readdir(dir)).toEqual([".env"]);
      await writeFile(join(dir, "victim"), "precious");
      await symlink("victim", temporaryOf(path));
      await writeFile(path, expected(old));
      await put(opened().store);
      expect(await readFile(path, "utf8")).toBe(expected(next));
      expect(await readFile(join(dir, "victim"), "utf8")).toBe("precious");
      expect((await lstat(path)).isFile()).toBe(true);
    });

    test("is also removed by a write that finds its key there already", async () => {
      await writeFile(path, expected(next));
      await writeFile(temporaryOf(path), "left over");
      await put(opened().store);
      expect(await readdir(dir)).toEqual([".env"]);
    });

    test("is told by a preflight while it may be in use, and removed when it is old", async () => {
      await writeFile(temporaryOf(path), "left over");
      expect(await opened().store.preflight(soon())).toContainEqual(
        expect.objectContaining({ id: "leftover", status: "warn" }),
      );
      expect(await readdir(dir)).toHaveLength(2);
      await utimes(temporaryOf(path), 1, 1);
      expect((await opened().store.preflight(soon())).filter(({ status }) => status !== "ok")).toEqual([]);
      expect(await readdir(dir)).toEqual([".env"]);
    });
  });

  describe("where a rename would not do", () => {
    const inode = async () => (await stat(path)).ino;

    test.each(["EBUSY", "EXDEV"])(
      "%s: written in place, after an encrypted copy of the old bytes",
      async (code) => {
        const { store, backups } = opened({ rename: fail(code) });
        const before = await inode();
        await put(store);
        expect(await readFile(path, "utf8")).toBe(expected(next));
        expect(await inode()).toBe(before);
        expect(await readdir(dir)).toEqual([".env"]);
        expect(backups.map(({ bytes }) => bytes.toString())).toEqual([expected(old)]);
        expect(backups[0]?.name).toMatch(/^[a-z0-9-]{1,64}$/);
      },
    );

    test("hard links: written in place, so that the other name holds the new key too, and said before", async () => {
      await link(path, join(dir, "other.env"));
      const { store, backups } = opened();
      expect(await store.preflight(soon())).toContainEqual(
        expect.objectContaining({ id: "in-place", status: "warn" }),
      );
      await put(store);
      expect(await readFile(join(dir, "other.env"), "utf8")).toBe(expected(next));
      expect(backups).toHaveLength(1);
    });

    test.each([
      ["shorter", "short"],
      ["longer", madeKey() + madeKey()],
    ])("a %s value leaves nothing of the old one behind", async (_, value) => {
      const { store } = opened({ rename: fail("EBUSY") });
      await store.write(new Secret(value), (await store.read(soon()))?.revision ?? null, op, soon());
      expect(await readFile(path, "utf8")).toBe(expected(value));
    });

    test("no copy, no write", async () => {
      const tools = { ...toolsIn(dir).tools, backup: fail("ENOSPC") };
      const store = openDotenv({ path: ".env", key: "IMKIT_API_KEY", create: false }, tools, {
        calls,
        rename: fail("EBUSY"),
      });
      expect(await refusal(put(store))).toMatchObject({ outcome: "not_applied" });
      expect(await readFile(path, "utf8")).toBe(expected(old));
    });

    test("an edit before it is a conflict", async () => {
      let swaps = 0;
      const { store } = opened({
        rename: fail("EBUSY"),
        beforeSwap: async () => {
          swaps += 1;
          if (swaps === 2) await writeFile(path, expected(old).replace("A=1", "A=9"));
        },
      });
      expect(await refusal(put(store))).toMatchObject({ code: "CONFLICT", outcome: "not_applied" });
      expect(await readFile(path, "utf8")).toBe(expected(old).replace("A=1", "A=9"));
    });

    test("a file that is a mount point of its own", async ({ skip }) => {
      const source = join(dir, "source");
      await writeFile(source, expected(old));
      if (spawnSync("mount", ["--bind", source, path]).status !== 0) skip("needs the right to mount");
      try {
        const { store, backups } = opened();
        expect(await store.preflight(soon())).toContainEqual(
          expect.objectContaining({ id: "in-place", status: "warn" }),
        );
        await put(store);
        expect(await readFile(source, "utf8")).toBe(expected(next));
        expect(backups).toHaveLength(1);
        expect((await readdir(dir)).toSorted()).toEqual([".env", "source"]);
        spawnSync("mount", ["-o", "remount,bind,ro", path]);
        const found = await store.read(soon());
        const error = await refusal(store.write(new Secret(old), found?.revision ?? null, op, soon()));
        expect(error).toMatchObject({ code: "AUTHZ", outcome: "not_applied" });
      } finally {
        spawnSync("umount", [path]);
      }
    });
  });

  describe("denied", () => {
    test.each(["EACCES", "EPERM", "EROFS"])(
      "%s is AUTHZ, nothing was done, and no word of the system comes out",
      async (code) => {
        const error = await refusal(put(opened({ rename: fail(code) }).store));
        expect(error).toMatchObject({ code: "AUTHZ", outcome: "not_applied" });
        expect(findKey(`${error.message} ${error.stack}`, old)).toEqual([]);
        expect(await readFile(path, "utf8")).toBe(expected(old));
        expect(await readdir(dir)).toEqual([".env"]);
      },
    );

    test("an input-output error at the rename is unknown, a full disk is not", async () => {
      expect(await refusal(put(opened({ rename: fail("EIO") }).store))).toMatchObject({ outcome: "unknown" });
      expect(await refusal(put(opened({ rename: fail("ENOSPC") }).store))).toMatchObject({
        code: "QUOTA",
        outcome: "not_applied",
      });
      expect(fromErrno(new Error("x"), "unknown")).toMatchObject({
        code: "UNAVAILABLE",
        outcome: "unknown",
        hint: "",
      });
    });

    /** Root may do all, so the store is opened by a process without rights. */
    const asNobody = (
      folderMode: number,
      owner: number,
    ): Promise<{ code: string; outcome: string; checks: string[] }> =>
      (async () => {
        await chmod(dir, folderMode);
        await chown(path, owner, owner);
        await chmod(path, 0o644);
        const script = `
        const { default: dotenv } = await import(${JSON.stringify(pathToFileURL(join(import.meta.dirname, "../../providers/stores/dotenv.ts")).href)});
        const { Secret } = await import(${JSON.stringify(pathToFileURL(join(import.meta.dirname, "../../src/core/secret.ts")).href)});
        const store = dotenv.open({ path: ${JSON.stringify(path)}, key: "IMKIT_API_KEY", create: false }, { configDir: "/", env: {}, backup: async () => {} });
        const signal = AbortSignal.timeout(10000);
        const checks = (await store.preflight(signal)).filter(({ status }) => status === "fail").map(({ id, code }) => id + " " + code);
        const found = await store.read(signal);
        const error = await store.write(new Secret("new-value"), found.revision, { id: "", witness: null }, signal).catch((e) => e);
        process.stdout.write(JSON.stringify({ code: error.code, outcome: error.outcome, checks }));`;
        const user = isRoot ? { uid: NOBODY, gid: NOBODY } : {};
        const child = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
          ...user,
          cwd: "/",
          encoding: "utf8",
        });
        await chmod(dir, 0o755);
        return JSON.parse(child.stdout) as { code: string; outcome: string; checks: string[] };
      })();

    test("a folder without write permission: the preflight says it, and the write is AUTHZ", async () => {
      const answer = await asNobody(0o555, isRoot ? NOBODY : (process.geteuid?.() ?? 0));
      expect(answer).toEqual({ code: "AUTHZ", outcome: "not_applied", checks: ["permission AUTHZ"] });
      expect(await readFile(path, "utf8")).toBe(expected(old));
    });

    test.runIf(isRoot)("a file of another owner, whom only root can keep: AUTHZ, too", async () => {
      const answer = await asNobody(0o777, 0);
      expect(answer).toEqual({ code: "AUTHZ", outcome: "not_applied", checks: ["permission AUTHZ"] });
      expect(await readFile(path, "utf8")).toBe(expected(old));
      expect(await readdir(dir)).toEqual([".env"]);
    });
  });

  describe("stopped", () => {
    test("before the swap: nothing was done, and nothing is done later", async () => {
      const stop = new AbortController();
      const held = Promise.withResolvers<void>();
      const { store } = opened({
        beforeSwap: async () => {
          stop.abort();
          await held.promise;
        },
      });
      const found = await store.read(soon());
      const error = await refusal(store.write(new Secret(next), found?.revision ?? null, op, stop.signal));
      expect(error).toMatchObject({ code: "TIMEOUT", outcome: "not_applied" });
      held.resolve();
      // Waits its turn behind the stopped one, so that one is over.
      await opened().store.write(new Secret(old), found?.revision ?? null, op, soon());
      expect(await readFile(path, "utf8")).toBe(expected(old));
      expect(await readdir(dir)).toEqual([".env"]);
    });

    test("during the swap: unknown", async () => {
      const stop = new AbortController();
      const { store } = opened({
        rename: async (from, to) => {
          stop.abort();
          await rename(from, to);
        },
      });
      const found = await store.read(soon());
      const error = await refusal(store.write(new Secret(next), found?.revision ?? null, op, stop.signal));
      expect(error).toMatchObject({ code: "TIMEOUT", outcome: "unknown" });
    });
  });

  test("a mode that is open to others is a warning with the line that mends it", async () => {
    await chmod(path, 0o644);
    expect(await opened().store.preflight(soon())).toContainEqual({
      id: "mode",
      status: "warn",
      message: `${path} is open to others (mode 0644)`,
      fix: `chmod 0640 ${path}`,
    });
  });

  test("a revision says nothing about the key: no digest of it, and another one in the next process", async () => {
    const revision = (await opened().store.read(soon()))?.revision ?? "";
    expect(revision).toMatch(/^[0-9a-f]{32}$/);
    expect(findKey(revision, old)).toEqual([]);
    const script = `
    const { default: dotenv } = await import(${JSON.stringify(pathToFileURL(join(import.meta.dirname, "../../providers/stores/dotenv.ts")).href)});
    const store = dotenv.open({ path: ${JSON.stringify(path)}, key: "IMKIT_API_KEY", create: false }, { configDir: "/", env: {} });
    process.stdout.write((await store.read(AbortSignal.timeout(10000))).revision);`;
    const child = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
    expect(child.stdout).toMatch(/^[0-9a-f]{32}$/);
    expect(child.stdout).not.toBe(revision);
  });
});

test("calls block where the file and its folder are on a disk of this machine, and nowhere else", async ({
  skip,
}) => {
  if (process.platform !== "linux" || (await callsFor(tmpdir())) === pooled) skip();
  expect(await callsFor(path)).toBe(blocking);
  expect(await callsFor(join(dir, "new.env"))).toBe(blocking);
  expect(await callsFor(join(dir, "gone", ".env"))).toBe(pooled);
  expect(await callsFor("/proc/self/environ")).toBe(pooled);
  const away = join(dir, "away.env");
  await symlink("/proc/self/environ", away);
  expect(await callsFor(away)).toBe(pooled);
  const nowhere = join(dir, "nowhere.env");
  await symlink(join(dir, "not-there"), nowhere);
  expect(await callsFor(nowhere)).toBe(pooled);
});
