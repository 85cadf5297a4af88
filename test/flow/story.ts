import type { PlannedRollout } from "../../src/core/events.ts";
import type { Phase } from "../../src/core/outcome.ts";
import type { AppState } from "../../src/core/state.ts";
import type { Alarm } from "../../src/flow/emergency.ts";
import type { App, Hands } from "../../src/flow/hands.ts";
import type { Platform } from "../../src/ports.ts";
import { loadAsIs } from "../simulation/copy.ts";
import type { TrueStore, TrueWorkload } from "../simulation/world/places.ts";
import { type Fate, NO_FATE } from "../simulation/world/process.ts";
import { makeStore, makeWorkload, quiet, type Scenario } from "../simulation/world/scenario.ts";
import { makeWorld, type World } from "../simulation/world/world.ts";

const product = await loadAsIs();

/** `compare-and-swap`, `required` and `write` as the store's name says: `cas…`, `…?` is not required, `…~` is filled by another, `…+` has a slot. */
export const stores = (...names: readonly string[]): readonly TrueStore[] =>
  names.map((text) => {
    const name = text.replace(/[?~+]/g, "");
    const write = !text.includes("~");
    const plan = { name, type: "world", where: `world:${name}`, required: !text.includes("?"), write };
    return makeStore(plan, {
      cas: text.startsWith("cas"),
      staging: text.endsWith("+"),
      witness: true,
      follows: write ? null : (names[0] ?? null),
    });
  });

/** `manual`, `none`, `exec` or `watched`, all reading the first store. */
export const workload = (
  how: "manual" | "none" | "exec" | "watched",
  change: Partial<PlannedRollout> & { readonly reads?: string; readonly takesMs?: number } = {},
): TrueWorkload => {
  const { reads = "a", takesMs = 1_000, ...plan } = change;
  const isAuto = how === "exec" || how === "watched";
  return makeWorkload(
    { name: how, type: how, where: `world:${how}`, required: true, canary: false, after: [], ...plan },
    { how: isAuto ? "auto" : how, watched: how === "watched", reads, takesMs },
  );
};

/** What one command came to: a phase or an error code, and what is true now. */
export type Step = { readonly says: string; readonly state: AppState };

export type Story = World & {
  readonly stage: (text: string, replace?: boolean, fate?: Partial<Fate>) => Promise<Step>;
  readonly rotate: (change?: RotateChange, fate?: Partial<Fate>) => Promise<Step>;
  readonly confirm: (
    change?: { readonly waive?: string; readonly waitMs?: number; readonly key?: string },
    fate?: Partial<Fate>,
  ) => Promise<Step>;
  readonly rollback: (acceptLeaked?: boolean, fate?: Partial<Fate>) => Promise<Step>;
  readonly discard: (forget?: boolean) => Promise<Step>;
  readonly adopt: (text: string | null) => Promise<Step>;
  readonly key: () => string;
  readonly values: () => Readonly<Record<string, string | null>>;
  readonly uses: () => Readonly<Record<string, string | null>>;
  /** The trace so far. */
  readonly log: readonly string[];
  readonly events: (type: string) => readonly Record<string, unknown>[];
};
export type RotateChange = {
  readonly restarted?: boolean;
  readonly drop?: readonly string[];
  readonly acceptApp?: string;
  readonly waitMs?: number;
  /** An emergency; `leaked` is the text of a key. */
  readonly alarm?: { readonly leaked?: string; readonly since?: string; readonly order?: Alarm["order"] };
  readonly app?: (app: App) => App;
  /** What IMKIT seems to say, to this command alone. */
  readonly platform?: (platform: Platform) => Platform;
};

/** A world in which nothing goes wrong but what the test does; every invariant of the simulation is watched all the same. */
export const tell = async <T>(
  scenario: {
    readonly stores?: readonly TrueStore[];
    readonly workloads?: readonly TrueWorkload[];
    readonly seed?: number;
  } & Partial<Scenario>,
  telling: (story: Story) => Promise<T>,
): Promise<T> => {
  const { seed = 7, ...changes } = scenario;
  const base = quiet(scenario.stores ?? stores("a"), scenario.workloads ?? [workload("none")]);
  const world = makeWorld({
    product,
    sound: product,
    seed,
    traced: true,
    change: () => ({ ...base, ...changes }),
  });

  const run = async (
    name: string,
    work: (hands: Hands) => Promise<{ phase?: Phase; verdict?: string | null } | null>,
    fate?: Fate,
  ) => {
    const ended = await world.command(name, work, fate);
    const state = world.state();
    if (ended.kind === "failed") return { says: ended.code, state };
    if (ended.kind === "killed") return { says: "killed", state };
    return { says: ended.value?.phase ?? ended.value?.verdict ?? "nothing", state };
  };

  const alarmOf = ({ leaked, since, order }: NonNullable<RotateChange["alarm"]>): Alarm => ({
    leaked: leaked === undefined ? null : world.fpOf(leaked),
    since: since ?? null,
    order: order ?? "revoke-first",
  });

  const story: Story = {
    ...world,
    stage: (text, replace = false, fate = {}) =>
      run("stage", (hands) => product.stage(hands, new product.Secret(text), { source: "prompt", replace }), {
        ...NO_FATE,
        ...fate,
      }),
    rotate: (
      {
        restarted = false,
        drop = [],
        acceptApp,
        waitMs = 0,
        alarm,
        app = (same: App): App => same,
        platform = (same: Platform): Platform => same,
      }: RotateChange = {},
      fate = {},
    ) =>
      run(
        "rotate",
        (hands) =>
          product.rotate(
            { ...hands, app: app(hands.app), platform: platform(hands.platform) },
            {
              reason: null,
              ticket: null,
              drop,
              restarted,
              acceptApp: acceptApp ?? null,
              confirm: false,
              waitMs,
              ...(alarm === undefined ? {} : { alarm: alarmOf(alarm) }),
            },
          ),
        { ...NO_FATE, ...fate },
      ),
    confirm: ({ waive = null, waitMs = 0, key = null } = {}, fate = {}) =>
      run(
        "confirm",
        (hands) =>
          product.confirmRevoked(hands, {
            waive,
            waitMs,
            key: key === null ? null : new product.Secret(key),
          }),
        { ...NO_FATE, ...fate },
      ),
    rollback: (acceptLeaked = false, fate = {}) =>
      run(
        "rollback",
        (hands) => {
          if (acceptLeaked) world.checks.acceptsLeaked(hands.host.claim.inst);
          return product.rollback(hands, {
            reason: null,
            ticket: null,
            drop: [],
            restarted: false,
            acceptApp: null,
            waitMs: 0,
            acceptLeaked,
          });
        },
        { ...NO_FATE, ...fate },
      ),
    discard: (forget = false) =>
      run("discard", async (hands) => {
        await product.discard(hands, forget);
        return null;
      }),
    adopt: (text) =>
      run("adopt", async (hands) => {
        const journal = await product.openJournal(hands);
        const choice = text === null ? null : world.fpOf(text);
        const pending = journal.state().staged?.fp ?? null;
        await product.adopt(hands, journal, product.openKeys(hands, journal), { choice, pending });
        return null;
      }),
    key: () => world.imkit.issue().text,
    values: () => Object.fromEntries([...world.stores.values()].map((s) => [s.plan.name, s.value])),
    uses: () => Object.fromEntries([...world.workloads.values()].map((w) => [w.plan.name, w.uses])),
    events: (type) =>
      world.ledger.lines.flatMap((line) => {
        const { r } = JSON.parse(Buffer.from(line).toString("latin1")) as {
          r: { events: Record<string, unknown>[] };
        };
        return r.events.filter((e) => e["type"] === type);
      }),
  };

  let over = false;
  const telling_ = telling(story).finally(() => {
    over = true;
  });
  telling_.catch(() => {});
  await world.time.run(() => over, 200_000);
  const told = await telling_;
  world.checks.atEnd();
  if (world.violations().length > 0) throw new Error([...world.violations(), ...world.log].join("\n"));
  return told;
};

/** The first key of the world, which the stores hold when it begins. */
export const firstKey = (story: Story): string => {
  if (story.first === null) throw new Error("this world begins without a key");
  return story.first.text;
};
