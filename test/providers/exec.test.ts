import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import * as z from "zod/mini";
import { runProgram } from "../../providers/program.ts";
import execRollout from "../../providers/rollouts/exec.ts";
import exec from "../../providers/stores/exec.ts";
import { Secret } from "../../src/core/secret.ts";
import { findKey, madeKey } from "../kit/leak.ts";
import { tempDir, toolsIn, refusal } from "../kit/provider-tools.ts";

const [old, next] = [madeKey(), madeKey()];
const op = { id: "0".repeat(32), witness: null };
const rollOp = { app: "chat-prod", rotation: "r1", opId: "o1", fingerprint: "0123456789abcdef" };
const soon = () => AbortSignal.timeout(10_000);
const PRINTS = ["sh", "-c", `printf '%s\\n' '${old}'`];

let dir: string;
let remove: () => Promise<void>;
beforeEach(async () => {
  ({ dir, remove } = await tempDir());
});
afterEach(async () => await remove());

const opened = (read: string[], write?: string[], timeout = "5s") =>
  exec.open({ read, timeout, ...(write === undefined ? {} : { write }) }, toolsIn(dir).tools);

describe("read", () => {
  test.each([
    ["no newline", "printf abc", "abc"],
    ["one newline trimmed", "printf 'abc\\n'", "abc"],
    ["one CRLF trimmed", "printf 'abc\\r\\n'", "abc"],
    ["only one", "printf 'abc\\n\\n'", "abc\n"],
    ["blanks kept", "printf ' abc '", " abc "],
  ])("%s", async (_, script, value) => {
    const found = await opened(["sh", "-c", script]).read(soon());
    expect(found?.secret.equals(new Secret(value))).toBe(true);
  });

  test("exit 3 means absent", async () => {
    expect(await opened(["sh", "-c", "exit 3"]).read(soon())).toBeNull();
  });

  test.each([
    ["any other exit is doubt", "printf abc; exit 1", { code: "UNAVAILABLE", outcome: "not_applied" }],
    ["nothing printed is doubt", "exit 0", { code: "CONFIG", outcome: "not_applied" }],
    ["a signal is doubt", "kill -9 $$", { code: "UNAVAILABLE", outcome: "not_applied" }],
    ["more than 64 KiB", "head -c 70000 /dev/zero", { code: "TOO_LARGE", outcome: "not_applied" }],
    ["endless output is cut", "exec cat /dev/zero", { code: "TOO_LARGE", outcome: "not_applied" }],
  ])("%s", async (_, script, expected) => {
    expect(await refusal(opened(["sh", "-c", script]).read(soon()))).toMatchObject(expected);
  });

  test.each([["no-such-program-here"], ["./no-such.sh"], ["."], [""], ["./plain.txt"]])(
    "no program %s: CONFIG",
    async (name) => {
      await writeFile(join(dir, "plain.txt"), "not executable");
      expect(await refusal(opened([name]).read(soon()))).toMatchObject({
        code: "CONFIG",
        outcome: "not_applied",
      });
      expect(await opened([name]).preflight(soon())).toContainEqual(
        expect.objectContaining({ status: "fail", code: "CONFIG" }),
      );
    },
  );
});

describe("write", () => {
  const shows = ["sh", "-c", 'cat > got; env > env; printf \'%s \' "$0" "$@" > argv', "zero", "one"];

  test("gives the key on standard input alone: no newline, not in argv, not in the environment", async () => {
    const { tools } = toolsIn(dir);
    const env = { ...tools.env, IMKIT_API_KEY: old, IMKIT_API_KEY_OLD: old, AWS_PROFILE: "chat" };
    const store = exec.open({ read: ["sh", "-c", "exit 3"], write: shows, timeout: "5s" }, { ...tools, env });
    await store.write(new Secret(next), null, op, soon());
    expect(await readFile(join(dir, "got"), "utf8")).toBe(next);
    const seen = (await readFile(join(dir, "env"), "utf8")) + (await readFile(join(dir, "argv"), "utf8"));
    expect(findKey(seen, next)).toEqual([]);
    expect(findKey(seen, old)).toEqual([]);
    expect(seen).toContain("AWS_PROFILE=chat");
    expect(seen).not.toContain("IMKIT_API_KEY");
  });

  test.each([
    ["exit 4 is refused for sure", "exit 4", { code: "AUTHZ", outcome: "not_applied" }],
    ["any other exit is unknown", "cat; exit 1", { code: "UNAVAILABLE", outcome: "unknown" }],
    ["a signal is unknown", "kill -9 $$", { code: "UNAVAILABLE", outcome: "unknown" }],
    ["a time-out is unknown", "exec sleep 30", { code: "TIMEOUT", outcome: "unknown" }],
  ])("%s, and what it said is dropped", async (_, script, expected) => {
    const write = ["sh", "-c", `echo '${old}' >&2; echo '${old}'; ${script}`];
    const store = opened(["sh", "-c", "exit 3"], write, "200ms");
    const error = await refusal(store.write(new Secret(next), null, op, soon()));
    expect(error).toMatchObject(expected);
    expect(findKey(`${error.hint} ${error.stack}`, old)).toEqual([]);
    expect(findKey(`${error.hint} ${error.stack}`, next)).toEqual([]);
  });

  test("a program that does not read its input decides by its exit status", async () => {
    const large = new Secret("x".repeat(500_000));
    await opened(["sh", "-c", "exit 3"], ["true"]).write(large, null, op, soon());
    const error = await refusal(opened(["sh", "-c", "exit 3"], ["false"]).write(large, null, op, soon()));
    expect(error.outcome).toBe("unknown");
  });

  test("without a write command: UNSUPPORTED, and the preflight says so", async () => {
    const store = opened(PRINTS);
    expect(await refusal(store.write(new Secret(next), null, op, soon()))).toMatchObject({
      code: "UNSUPPORTED",
    });
    expect(await store.preflight(soon())).toContainEqual(
      expect.objectContaining({ id: "write-program", status: "fail" }),
    );
  });

  test("a read that fails stops it: nothing is written", async () => {
    const store = opened(["sh", "-c", "exit 1"], ["sh", "-c", "cat > got"]);
    expect(await refusal(store.write(new Secret(next), null, op, soon()))).toMatchObject({
      outcome: "not_applied",
    });
    await expect(readFile(join(dir, "got"))).rejects.toThrow("ENOENT");
  });
});

test("a program that is cut off is ended with all that it started, even when it does not listen", async () => {
  const script =
    'trap "" TERM; (trap "" TERM; echo $BASHPID > child; exec sleep 60) & echo $$ > parent; wait; sleep 60';
  const stop = new AbortController();
  const ended = runProgram(["bash", "-c", script], toolsIn(dir).tools, {
    limitMs: 20_000,
    signal: stop.signal,
  });
  const pid = async (name: string) => Number(await readFile(join(dir, name), "utf8").catch(() => "")) || null;
  await expect.poll(async () => (await pid("child")) !== null && (await pid("parent")) !== null).toBe(true);
  const began = performance.now();
  stop.abort();
  expect(await ended).toEqual({ how: "late" });
  expect(performance.now() - began).toBeLessThan(1_000);
  for (const name of ["parent", "child"]) {
    const gone = async () =>
      (await readFile(`/proc/${await pid(name)}/stat`, "utf8").catch(() => " Z ")).includes(" Z ");
    await expect.poll(gone).toBe(true);
  }
});

test("what a program started in the background lives on when it ends well", async () => {
  const command = ["sh", "-c", "sleep 20 & echo $! > child"];
  const rollout = execRollout.open({ command, timeout: "5s" }, toolsIn(dir).tools);
  expect(await rollout.trigger(rollOp, soon())).toEqual({ state: "done", proof: 0, reason: "" });
  const child = Number(await readFile(join(dir, "child"), "utf8"));
  expect(process.kill(child, "SIGTERM")).toBe(true);
});

describe("rollout", () => {
  const rollout = (script: string, timeout = "5s") =>
    execRollout.open({ command: ["sh", "-c", script], timeout }, toolsIn(dir).tools);

  test("tells the exit status, and nothing that the program said", async () => {
    const state = await rollout(`echo '${old}'; echo '${old}' >&2; exit 7`).trigger(rollOp, soon());
    expect(state).toEqual({ state: "failed", proof: 0, reason: "exit status 7" });
  });

  test("a time-out is unknown, a signal failed, a missing program CONFIG", async () => {
    expect(await refusal(rollout("exec sleep 30", "150ms").trigger(rollOp, soon()))).toMatchObject({
      code: "TIMEOUT",
      outcome: "unknown",
    });
    expect(await rollout("kill -9 $$").trigger(rollOp, soon())).toMatchObject({ state: "failed" });
    const missing = execRollout.open({ command: ["./gone.sh"], timeout: "5s" }, toolsIn(dir).tools);
    expect(await refusal(missing.trigger(rollOp, soon()))).toMatchObject({
      code: "CONFIG",
      outcome: "not_applied",
    });
    expect(await missing.preflight(soon())).toMatchObject([{ status: "fail", code: "CONFIG" }]);
  });

  test("runs in the folder of the config, without a shell", async () => {
    await writeFile(join(dir, "restart.sh"), '#!/bin/sh\npwd > "$1"\n');
    await chmod(join(dir, "restart.sh"), 0o755);
    const command = ["./restart.sh", "$(touch pwned); *"];
    await execRollout.open({ command, timeout: "5s" }, toolsIn(dir).tools).trigger(rollOp, soon());
    expect((await readFile(join(dir, "$(touch pwned); *"), "utf8")).trim()).toBe(dir);
  });
});

test.each([
  [exec.schema, { read: ["a"], write: ["b"], timeout: "59s" }, true],
  [exec.schema, { read: ["a"] }, true],
  [exec.schema, { read: ["a"], timeout: "60s" }, false],
  [exec.schema, { read: ["a"], timeout: "0s" }, false],
  [exec.schema, { read: [] }, false],
  [exec.schema, { read: "a b" }, false],
  [exec.schema, { read: ["a"], shell: true }, false],
  [execRollout.schema, { command: ["systemctl", "restart", "x"], timeout: "1m" }, true],
  [execRollout.schema, { command: ["x"], timeout: "61s" }, false],
  [execRollout.schema, { command: ["x"], timeout: "soon" }, false],
])("its config: case %#", (schema, config, valid) => {
  expect(z.safeParse(schema, config).success).toBe(valid);
});
