import type { Path, Source } from "./config-parse.ts";
import { problem, valueAt } from "./config-problems.ts";
import type { AppInput } from "./config-schema.ts";
import { didYouMean } from "../core/suggest.ts";

/** What no single field can say: problems of one app whose shape is right. */
export const checkApp = async (source: Source, path: Path, app: AppInput): Promise<readonly string[]> => [
  ...checkNames(source, path, app),
  ...checkAfter(source, path, app),
  ...checkOrder(source, path, app),
  ...(await checkSchedule(source, [...path, "schedule"])),
];

/** Problems of the file around the apps; each is looked for in what is there, whatever the rest is like. */
export const checkWhole = async (source: Source): Promise<readonly string[]> => {
  const apps = valueAt(source.value, ["apps"]);
  const isEmpty = typeof apps === "object" && apps !== null && Object.keys(apps).length === 0;
  return [
    ...(isEmpty ? [problem(source, ["apps"], "must name at least one app")] : []),
    ...(["ledger", "escrow"] as const).flatMap((room) => checkRoom(source, room)),
    ...(await checkSchedule(source, ["defaults", "schedule"])),
  ];
};

/** In a cluster it has a namespace; in files none of what says which cluster. */
const checkRoom = (source: Source, room: "ledger" | "escrow"): readonly string[] => {
  const given = (key: string): boolean => valueAt(source.value, [room, key]) !== undefined;
  if (valueAt(source.value, [room, "type"]) === "kubernetes")
    return given("namespace") ? [] : [problem(source, [room, "namespace"], "is missing")];
  return ["namespace", "context", "kubeconfig"]
    .filter(given)
    .map((key) => problem(source, [room, key], "goes with type: kubernetes alone", "key"));
};

/** The rollout that an app without rollouts has: a person restarts what reads its stores. */
export const IMPLICIT = "manual";

const checkNames = (source: Source, path: Path, app: AppInput): readonly string[] => {
  const seen = new Set<string>();
  const lines: string[] = [];
  const taken = app.rollouts.length > 0 ? -1 : app.stores.findIndex(({ name }) => name === IMPLICIT);
  if (taken >= 0)
    lines.push(
      problem(
        source,
        [...path, "stores", taken, "name"],
        "is the name of the restart by hand that an app without rollouts has",
      ),
    );
  for (const group of ["stores", "rollouts"] as const) {
    for (const [index, { name }] of app[group].entries()) {
      if (seen.has(name))
        lines.push(
          problem(
            source,
            [...path, group, index, "name"],
            "is the name of another store or rollout of this app too",
          ),
        );
      seen.add(name);
    }
  }
  return lines;
};

const checkAfter = (source: Source, path: Path, { stores, rollouts }: AppInput): readonly string[] => {
  const names = rollouts.map(({ name }) => name);
  return rollouts.flatMap(({ name: self, after }, index) =>
    after.flatMap((name, place) => {
      const at = [...path, "rollouts", index, "after", place];
      if (name === self) return [problem(source, at, "names the rollout itself")];
      const others = names.filter((other) => other !== self);
      if (others.includes(name)) return [];
      if (stores.some((store) => store.name === name))
        return [problem(source, at, "names a store; rollouts start after all stores anyway")];
      return [problem(source, at, `is not the name of a rollout of this app${didYouMean(name, others)}`)];
    }),
  );
};

/** A circle in what waits for what: by `after`, and every rollout that is no canary for all that are. */
const checkOrder = (source: Source, path: Path, { rollouts }: AppInput): readonly string[] => {
  const canaries = rollouts.filter(({ canary }) => canary).map(({ name }) => name);
  const waitsFor = new Map(
    rollouts.map(({ name, canary, after }) => [
      name,
      after.filter((other) => other !== name).concat(canary ? [] : canaries),
    ]),
  );
  const reaches = (from: string, to: string): boolean => {
    const seen = new Set<string>();
    const open = [...(waitsFor.get(from) ?? [])];
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      if (next === to) return true;
      if (!seen.has(next)) open.push(...(waitsFor.get(next) ?? []));
      seen.add(next);
    }
    return false;
  };
  return rollouts.flatMap(({ name, canary, after }, index) => {
    if (after.length === 0 || !reaches(name, name)) return [];
    const why = canary ? " (a canary goes before all that are none)" : "";
    return [problem(source, [...path, "rollouts", index, "after"], `makes rollouts wait in a circle${why}`)];
  });
};

const checkSchedule = async (source: Source, path: Path): Promise<readonly string[]> => {
  const line = valueAt(source.value, path);
  if (typeof line !== "string" || line.trim().split(/\s+/).length !== 5) return [];
  const { validate } = await import("node-cron");
  return isCron(validate, line)
    ? []
    : [problem(source, path, "is not a cron line, or names a date that never comes")];
};

const isCron = (validate: (line: string) => boolean, line: string): boolean => {
  try {
    return validate(line.trim());
  } catch {
    return false;
  }
};
