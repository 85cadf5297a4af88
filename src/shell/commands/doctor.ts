import { type Finding, doctor } from "../../flow/doctor.ts";
import type { Io } from "../io.ts";
import { paint } from "../print.ts";
import type { Wired } from "../wire.ts";

/** Read-only. @returns 5 when a check failed. */
export const doctorCommand = async (io: Io, apps: readonly Wired[], configPath: string): Promise<number> => {
  const found = (await Promise.all(apps.map(async (wired) => doctor(await wired.hands())))).flat();
  const checks: readonly Finding[] = [
    {
      id: "config",
      app: apps[0]?.name ?? "",
      target: null,
      status: "ok",
      message: `${configPath} is sound.`,
      fix: null,
    },
    ...found,
  ];
  const ok = !checks.some((c) => c.status === "fail");
  if (io.json) {
    io.out(JSON.stringify({ schemaVersion: 1, ok, checks }));
    return ok ? 0 : 5;
  }
  const MARKS = {
    ok: ["green", "✔"],
    warn: ["yellow", "!"],
    fail: ["red", "✖"],
    unproved: ["yellow", "?"],
  } as const;
  for (const c of checks) {
    const [style, mark] = MARKS[c.status];
    io.out(`${paint(io, style, mark)} ${c.app}${c.target ? `/${c.target}` : ""}  ${c.message}`);
    if (c.fix && c.status !== "ok") io.out(`    fix: ${c.fix}`);
  }
  io.out(ok ? "No problem found." : "Problems found.");
  return ok ? 0 : 5;
};
