import { type Finding, doctor } from "../../flow/doctor.ts";
import type { Config } from "../../io/config.ts";
import type { Io } from "../io.ts";
import { paint } from "../print.ts";
import type { Wired } from "../wire.ts";

/** Read-only. @returns 5 when a check failed. */
export const doctorCommand = async (io: Io, apps: readonly Wired[], config: Config): Promise<number> => {
  const found = (await Promise.all(apps.map(async (wired) => doctor(await wired.hands())))).flat();
  const checks: readonly Finding[] = [
    {
      id: "config",
      app: apps[0]?.name ?? "",
      target: null,
      status: "ok",
      message: `${config.path} is sound.`,
      fix: null,
    },
    ...unused(apps, config),
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

/** Parts of the config that this version checks and does not act on: nobody should rely on them unawares. */
const unused = (apps: readonly Wired[], config: Config): readonly Finding[] => {
  const warn = (id: string, app: string, message: string): Finding => ({
    id,
    app,
    target: null,
    status: "warn",
    message,
    fix: null,
  });
  return [
    ...(config.notify.length > 0
      ? [warn("config.notify", "", "notify is not available in this version: nobody is notified.")]
      : []),
    ...apps
      .filter((wired) => wired.config.intake.length > 0)
      .map(({ name }) =>
        warn("config.intake", name, "intake is not available in this version: keys come in by stage alone."),
      ),
  ];
};
