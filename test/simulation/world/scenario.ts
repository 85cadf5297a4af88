import type { PlannedRollout, PlannedStore } from "../../../src/core/events.ts";
import type { ImkitStyle } from "./imkit.ts";
import type { TrueStore, TrueWorkload } from "./places.ts";
import type { Prng } from "./prng.ts";

/** What one world is made of and what goes wrong in it; drawn from its seed. */
export type Scenario = {
  readonly stores: readonly TrueStore[];
  readonly workloads: readonly TrueWorkload[];
  readonly imkit: ImkitStyle;
  readonly soakMs: number;
  readonly control: boolean;
  /** What the stores hold when it begins. */
  readonly start: "one key" | "nothing" | "a dead key" | "one live, one dead" | "two live";
  /** Nothing goes wrong at all. */
  readonly calm: boolean;
  /** From this time on nothing goes wrong any more. */
  readonly peaceAt: number;
  readonly crashes: number;
  readonly pauses: number;
  readonly stops: number;
  readonly refuses: number;
  readonly losesAnswer: number;
  readonly lies: number;
  readonly stale: number;
  readonly ledgerFails: number;
  readonly escrowFails: number;
  /** Mean time between unattended passes; 0 = none. */
  readonly cronEvery: number;
  readonly machines: number;
  readonly strangers: number;
  /** How often something happens in the world right when the ledger grew. */
  readonly ambushes: number;
  /** Somebody else stages another key in the middle of it. */
  readonly colleague: number;
  /** How people err. */
  readonly revokesEarly: number;
  readonly revokesWrong: number;
  readonly changesMind: number;
  readonly wrongApp: number;
  readonly never: number;
  /** Somebody hears that a key leaked. */
  readonly leak: boolean;
  /** How often somebody takes a wrong turn, or a way back, right when the ledger grew. */
  readonly turns: number;
  /** How often the person rolls back instead of going on. */
  readonly rollsBack: number;
  /** Clocks of machines differ. */
  readonly skews: number;
};

export const makeStore = (
  plan: PlannedStore,
  change: Pick<TrueStore, "cas" | "staging" | "witness" | "follows">,
): TrueStore => ({
  plan,
  ...change,
  value: null,
  slot: null,
  revision: 0,
  changedAt: 0,
  changedBy: "start",
  quoted: null,
  looks: new Map(),
  lies: new Map(),
  before: null,
  troubles: [],
  ops: new Map(),
});

export const makeWorkload = (
  plan: PlannedRollout,
  change: Pick<TrueWorkload, "how" | "watched" | "reads" | "takesMs">,
): TrueWorkload => ({
  plan,
  ...change,
  uses: null,
  loadedAt: 0,
  tainted: false,
  mark: "",
  doneAt: 0,
  troubles: [],
  ops: new Map(),
});

/** Nothing goes wrong by itself: for a story that a test tells. */
export const quiet = (stores: readonly TrueStore[], workloads: readonly TrueWorkload[]): Scenario => ({
  stores,
  workloads,
  imkit: { replaces: false, worksAfterMs: 0, diesAfterMs: 0, says: "INVALID_API_KEY", showsApp: true },
  soakMs: 0,
  control: true,
  start: "one key",
  calm: false,
  peaceAt: Number.POSITIVE_INFINITY,
  crashes: 0,
  pauses: 0,
  stops: 0,
  refuses: 0,
  losesAnswer: 0,
  lies: 0,
  stale: 0,
  ledgerFails: 0,
  escrowFails: 0,
  cronEvery: 0,
  machines: 1,
  strangers: 0,
  ambushes: 0,
  colleague: 0,
  revokesEarly: 0,
  revokesWrong: 0,
  changesMind: 0,
  wrongApp: 0,
  never: 0,
  leak: false,
  turns: 0,
  rollsBack: 0,
  skews: 0,
});

export const drawScenario = (chance: Prng): Scenario => {
  const calm = chance.chance(0.1);
  const peaceAt = chance.int(20, chance.pick([100, 200, 600])) * 1_000;
  const some = (probability: number, amount: number): number =>
    !calm && chance.chance(probability) ? amount : 0;
  const trouble = (): { from: number; to: number; code: string }[] => {
    if (calm || !chance.chance(0.12)) return [];
    const from = chance.int(0, 300_000);
    return [
      {
        from,
        to: from + chance.int(5_000, 200_000),
        code: chance.pick(["UNAVAILABLE", "AUTHZ", "THROTTLED"]),
      },
    ];
  };

  const names = ["aws", "azure", "k8s", "env"].slice(0, chance.pick([1, 1, 1, 2, 2, 3, 4]));
  const stores = names.map((name, i) => {
    const plan: PlannedStore = {
      name,
      type: "world",
      where: `world:${name}`,
      required: i === 0 || !chance.chance(0.15),
      write: i === 0 || !chance.chance(0.04),
    };
    const made = makeStore(plan, {
      cas: chance.chance(0.5),
      staging: chance.chance(0.3),
      witness: chance.chance(0.5),
      follows: plan.write ? null : "aws",
    });
    made.troubles.push(...trouble());
    return made;
  });

  const kinds = chance.pick<readonly TrueWorkload["how"][]>([
    ["manual"],
    ["none"],
    ["auto"],
    ["auto", "auto"],
    ["auto", "manual"],
    ["auto", "auto", "none"],
  ]);
  const required = stores.filter((s) => s.plan.required).map((s) => s.plan.name);
  const workloads = kinds.map((how, i): TrueWorkload => {
    const watched = how === "auto" && chance.chance(0.5);
    const plan: PlannedRollout = {
      name: `work-${i}`,
      type: how === "auto" ? "exec" : how,
      where: `world:work-${i}`,
      required: i === 0 || !chance.chance(0.15),
      canary: i === 0 && how === "auto" && kinds.length > 1 && chance.chance(0.5),
      after: i > 0 && how === "auto" && chance.chance(0.3) ? ["work-0"] : [],
    };
    const made = makeWorkload(plan, {
      how,
      watched,
      reads: chance.pick(required),
      takesMs: chance.int(100, chance.chance(0.05) ? 150_000 : 6_000),
    });
    made.troubles.push(...trouble());
    return made;
  });

  return {
    stores,
    workloads,
    imkit: {
      replaces: chance.chance(0.2),
      worksAfterMs: chance.pick([0, 0, 2_000, 25_000]),
      diesAfterMs: chance.pick([0, 0, 3_000, 25_000]),
      says: chance.chance(0.12) ? "UNAUTHORIZED" : "INVALID_API_KEY",
      showsApp: chance.chance(0.7),
    },
    soakMs: chance.pick([0, 0, 0, 30_000]),
    control: !chance.chance(0.15),
    start: chance.pick([
      "one key",
      "one key",
      "one key",
      "one key",
      "nothing",
      "a dead key",
      "one live, one dead",
      "two live",
    ]),
    calm,
    peaceAt: calm ? 0 : peaceAt,
    crashes: some(0.6, chance.pick([0.1, 0.3, 0.6])),
    pauses: some(0.4, chance.pick([0.2, 0.5])),
    stops: some(0.2, 0.2),
    refuses: some(0.35, 0.05),
    losesAnswer: some(0.35, 0.15),
    lies: some(0.12, 0.1),
    stale: some(0.15, 0.1),
    ledgerFails: some(0.15, 0.03),
    escrowFails: some(0.1, 0.02),
    cronEvery: some(0.4, chance.pick([40_000, 100_000])),
    machines: chance.pick([1, 1, 2]),
    strangers: some(0.25, chance.int(1, 3)),
    ambushes: some(0.3, chance.pick([0.01, 0.05])),
    colleague: some(0.12, 1),
    revokesEarly: some(0.15, 0.5),
    revokesWrong: some(0.15, 0.6),
    changesMind: some(0.15, 0.3),
    wrongApp: some(0.07, 0.5),
    never: some(0.05, 1),
    leak: chance.chance(0.4),
    turns: some(0.4, chance.pick([0.03, 0.08, 0.2])),
    rollsBack: some(0.15, 0.25),
    skews: some(0.4, 0.1),
  };
};
