import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, renameSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { afterCrash, argsOf, type Command, goOn, prepare, rewind, stdinOf } from "./point.ts";
import { closeWorlds, makeWorld, type World } from "./world.ts";

afterAll(closeWorlds);

const PAGE = 4096;
const system = (...argv: readonly [string, ...string[]]): boolean => {
  const [program, ...args] = argv;
  return spawnSync(program, args).status === 0;
};

/** The state folder on a file system of its own on which `pages` pages are free. @returns false where this user may not mount */
const squeeze = (world: World, pages: number): boolean => {
  const [state, aside] = [join(world.dir, "state"), join(world.dir, "aside")];
  mkdirSync(state, { recursive: true });
  renameSync(state, aside);
  mkdirSync(state);
  const mounted = system("mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", state);
  cpSync(aside, state, { recursive: true });
  rmSync(aside, { recursive: true });
  if (!mounted) return false;
  const { bavail, bsize } = statfsSync(state);
  writeFileSync(join(state, "filler"), Buffer.alloc(bavail * bsize - pages * PAGE));
  return true;
};

/** No room at all, then one page more, until the command has enough: each time it must stop clean, and go on once there is room. */
test.each(["stage", "rotate", "confirm-revoked"] as const)(
  "%s on a disk that is really full",
  async (command: Command) => {
    const world = await makeWorld();
    await prepare(world, "overlap");
    const state = join(world.dir, "state");
    const codes = new Set<string>();
    const wrong: string[] = [];
    for (let pages = 0, over = false; !over; pages++) {
      rewind(world, command, "overlap");
      if (!squeeze(world, pages)) {
        // Not root, or a container that may not: the matrix injects the same error by strace.
        return;
      }
      try {
        const ran = await world.run(argsOf(command), stdinOf(world, command));
        over = ran.code === (command === "rotate" ? 3 : 0);
        const code = /"code":"([A-Z_]+)"/.exec(
          ran.stdout.split("\n").findLast((l) => l.includes('"type":"error"')) ?? "",
        )?.[1];
        if (code !== undefined) codes.add(code);
        if (!over && (ran.code !== 1 || /\n\s+at |ENOSPC:/.test(ran.stderr)))
          wrong.push(`${pages} pages: exit ${ran.code} ${code}`);
        for (const one of afterCrash(world, "overlap", command)) wrong.push(`${pages} pages: ${one}`);
        rmSync(join(state, "filler"));
        for (const one of await goOn(world, "overlap", command, ran, false))
          wrong.push(`${pages} pages, then room: ${one}`);
      } finally {
        system("umount", state);
      }
    }
    expect(wrong).toEqual([]);
    expect(codes).toContain("LEDGER_UNWRITABLE");
  },
);
