import { type Finding, doctor } from "../../flow/doctor.ts";
import { inboxFindings } from "../../flow/doctor-inbox.ts";
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
    ...(await around(apps, config)),
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

/** Inboxes, and whether every receiver's address and secret can be had. Nothing is sent. */
const around = async (apps: readonly Wired[], config: Config): Promise<readonly Finding[]> => {
  const inboxes = await Promise.all(
    apps.map(async (wired) => inboxFindings(await wired.hands(), await wired.inboxes())),
  );
  const notifiers = (await apps[0]?.people())?.notifiers ?? [];
  const receivers = await Promise.all(
    config.notify.map(async (_, nth): Promise<Finding> => {
      const name = notifiers[nth]?.name ?? "";
      const why = (await notifiers[nth]?.problem()) ?? null;
      return {
        id: "notify",
        app: "",
        target: name,
        status: why === null ? "ok" : "fail",
        message: why === null ? `${name} can be told.` : `${name} cannot be told: ${why}`,
        fix:
          why === null ? null : "Mend that receiver under notify in the config, or what its valueFrom names",
      };
    }),
  );
  return [...receivers, ...inboxes.flat()];
};
