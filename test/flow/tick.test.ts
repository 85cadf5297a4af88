import { expect, test } from "vitest";
import type { Hands } from "../../src/flow/hands.ts";
import type { Inbox } from "../../src/flow/inbox.ts";
import type { TickOptions, Ticked } from "../../src/flow/tick.ts";
import type { Message, Notifier, Revision } from "../../src/ports.ts";
import { firstKey, type Story, stores, tell, workload } from "./story.ts";
import { PLAIN_ROTATE } from "../kit/rotate-options.ts";

const DAY = 86_400_000;
const MINUTE = 60_000;

/** A receiver that keeps what it was told. */
const receiver = (name = "hook") => {
  const got: Message[] = [];
  const kept = {
    got,
    types: () => got.map((m) => m.type),
    /** What it answers; null = never. */
    answers: (_message: Message): boolean | null => true,
  };
  const notifier: Notifier = {
    name,
    wants: () => true,
    problem: async () => null,
    notify: (message) => {
      got.push(message);
      const ok = kept.answers(message);
      return ok === null ? new Promise(() => {}) : Promise.resolve({ ok, why: ok ? "" : "HTTP 500" });
    },
  };
  return Object.assign(kept, { notifier });
};

/** A place for one value. */
const inboxIn = ({ product }: Story, name = "inbox") => {
  let version = 0;
  const held = {
    value: null as string | null,
    put: (text: string) => {
      held.value = text;
      version += 1;
    },
    removals: 0,
    /** The code with which a removal fails. */
    denies: null as "AUTHZ" | "UNAVAILABLE" | null,
    /** Happens right before a removal. */
    before: () => {},
  };
  const inbox: Inbox = {
    name,
    store: {
      where: name,
      caps: { staging: false, compareAndSwap: true, witness: false, retire: false },
      preflight: async () => [],
      read: async () =>
        held.value === null
          ? null
          : {
              secret: new product.Secret(held.value),
              revision: `v${version}` as Revision,
              createdAt: null,
              witness: null,
            },
      write: () => Promise.reject(new product.ProviderError("UNSUPPORTED", "not_applied")),
      remove: async (expect) => {
        held.before();
        held.removals += 1;
        if (held.denies !== null) throw new product.ProviderError(held.denies, "not_applied");
        if (expect !== `v${version}`) throw new product.ProviderError("CONFLICT", "not_applied");
        held.value = null;
      },
    },
  };
  return Object.assign(held, { inbox });
};

type Change = {
  readonly inboxes?: readonly Inbox[];
  readonly notifiers?: readonly Notifier[];
  readonly mayOpen?: boolean;
  readonly rotateEveryMs?: number;
  readonly escalateAfterMs?: number;
  readonly told?: string[];
};

const run = (story: Story, change: Change = {}) => {
  const options: TickOptions = {
    rotate: {
      ...PLAIN_ROTATE,
      waitMs: 0,
    },
    inboxes: change.inboxes ?? [],
    mayOpen: change.mayOpen ?? true,
    people: {
      notifiers: change.notifiers ?? [],
      owners: ["may"],
      remindBeforeMs: [14 * DAY, 3 * DAY, 0],
      escalateAfterMs: change.escalateAfterMs ?? 4 * 60 * MINUTE,
      steps: (_, phase) => [{ who: "you", text: `next of ${phase}`, command: null }],
    },
  };
  return story.command("tick", (hands: Hands) =>
    story.product.tick(
      {
        ...hands,
        app: { ...hands.app, rotateEveryMs: change.rotateEveryMs ?? null },
        tell: (told) => {
          if (told.kind === "note") change.told?.push(told.text);
          hands.tell(told);
        },
      },
      options,
    ),
  );
};

const tick = async (story: Story, change: Change = {}): Promise<Ticked> => {
  const ended = await run(story, change);
  if (ended.kind !== "returned") throw new Error(`the tick ${ended.kind}`);
  return ended.value;
};
const entries = (story: Story): number => story.ledger.lines.length;
const opened = (story: Story): number => story.events("opened").length;

test("done twice, a tick does nothing more", () =>
  tell({}, async (story) => {
    const first = await tick(story);
    expect(first.rotated.phase).toBe("idle");
    const before = entries(story);
    for (let i = 0; i < 3; i++) expect((await tick(story)).rotated.phase).toBe("idle");
    expect(entries(story)).toBe(before);
  }));

test("a staged key waits for the schedule; what is open goes on at every tick", () =>
  tell({}, async (story) => {
    const key = story.key();
    await story.stage(key);
    const held = await tick(story, { mayOpen: false });
    expect([held.held, held.rotated.phase, opened(story)]).toEqual(["schedule", "staged", 0]);
    const now = await tick(story);
    expect([now.held, now.rotated.phase, opened(story)]).toEqual([null, "waiting-revoke", 1]);
    story.imkit.revoke(firstKey(story));
    const done = await tick(story, { mayOpen: false });
    expect(done.rotated.state.rotation?.ended).toBe("done");
    expect(story.values()).toEqual({ a: key });
  }));

test("where the key in use is dead, a staged one waits for no schedule", () =>
  tell({}, async (story) => {
    const key = story.key();
    await story.stage(key);
    story.imkit.revoke(firstKey(story));
    const ticked = await tick(story, { mayOpen: false });
    expect([ticked.held, ticked.rotated.state.rotation?.ended]).toEqual([null, "done"]);
    expect(story.values()).toEqual({ a: key });
  }));

test("a key in an inbox goes the way of stage, is gone from there, and is written in the same tick", () =>
  tell({}, async (story) => {
    const key = story.key();
    const inbox = inboxIn(story);
    inbox.put(`${key}\n`);
    const ticked = await tick(story, { inboxes: [inbox.inbox] });
    expect(ticked.inbox).toMatchObject([{ state: "taken", removed: true }]);
    expect(inbox.value).toBeNull();
    expect(story.events("staged")).toMatchObject([{ source: "inbox", fp: story.fpOf(key) }]);
    expect(ticked.rotated.phase).toBe("waiting-revoke");
    expect(story.values()).toEqual({ a: key });
    expect((await tick(story, { inboxes: [inbox.inbox] })).inbox).toEqual([]);
    expect(story.events("staged").length).toBe(1);
  }));

test("each bad value of an inbox is reported once, and stays where it is", () =>
  tell({}, async (story) => {
    const inbox = inboxIn(story);
    const hook = receiver();
    const dead = story.key();
    await story.stage(dead);
    await tick(story);
    story.imkit.revoke(firstKey(story));
    await tick(story);
    const bad: readonly (readonly [string, RegExp])[] = [
      ["changeme", /placeholder/],
      ["eyJhbGciOiJIUzI1NiJ9.eyJhcGlLZXkiOiJ4In0.c2lnbmF0dXJl", /JWT/],
      [dead, /current key/],
      [firstKey(story), /saw that key die/],
    ];
    for (const [value, why] of bad) {
      inbox.put(value);
      const told: string[] = [];
      const notifiers = [hook.notifier];
      const first = await tick(story, { inboxes: [inbox.inbox], notifiers, told });
      expect(first.inbox).toMatchObject([
        { state: "rejected", isNews: true, why: expect.stringMatching(why) },
      ]);
      expect(told.filter((text) => text.includes("inbox")).length).toBe(1);
      const again: string[] = [];
      const second = await tick(story, { inboxes: [inbox.inbox], notifiers, told: again });
      expect(second.inbox).toMatchObject([{ state: "rejected", isNews: false }]);
      expect(again).toEqual([]);
      expect(inbox.value).toBe(value);
      for (const text of told) expect(text).not.toContain(value);
    }
    expect(hook.types().filter((type) => type === "inbox-rejected").length).toBe(bad.length);
    expect(JSON.stringify(hook.got)).not.toMatch(new RegExp(bad.map(([value]) => value).join("|")));
    expect(inbox.removals).toBe(0);
  }));

test("a key that IMKIT rejects is kept and reported once; the next one in the inbox takes its place", () =>
  tell({}, async (story) => {
    const inbox = inboxIn(story);
    const hook = receiver();
    const wrong = story.key();
    story.imkit.revoke(wrong);
    inbox.put(wrong);
    const first = await tick(story, { inboxes: [inbox.inbox], notifiers: [hook.notifier] });
    expect(first.inbox).toMatchObject([{ state: "rejected", why: expect.stringMatching(/rejects/) }]);
    expect(inbox.value).toBeNull();
    expect(first.rotated.phase).toBe("failed");
    await story.sleep(5 * MINUTE);
    await tick(story, { inboxes: [inbox.inbox], notifiers: [hook.notifier] });
    expect(hook.types().filter((type) => type === "inbox-rejected").length).toBe(1);
    const right = story.key();
    inbox.put(right);
    const last = await tick(story, { inboxes: [inbox.inbox], notifiers: [hook.notifier] });
    expect(last.inbox).toMatchObject([{ state: "taken" }]);
    expect(story.values()).toEqual({ a: right });
  }));

test("a removal that is denied is said once and remembered: the key is not taken again, whatever it becomes", () =>
  tell({}, async (story) => {
    const key = story.key();
    const inbox = inboxIn(story);
    inbox.denies = "AUTHZ";
    inbox.put(key);
    const told: string[] = [];
    const first = await tick(story, { inboxes: [inbox.inbox], told });
    expect(first.inbox).toMatchObject([{ state: "taken", removed: false }]);
    expect(told.filter((text) => text.includes("still lies in the inbox")).length).toBe(1);
    story.imkit.revoke(firstKey(story));
    const again: string[] = [];
    for (let i = 0; i < 3; i++)
      expect((await tick(story, { inboxes: [inbox.inbox], told: again })).inbox).toEqual([]);
    expect(story.state().rotation?.ended).toBe("done");
    expect(again.filter((text) => text.includes("inbox"))).toEqual([]);
    expect([inbox.removals, story.events("staged").length]).toEqual([1, 1]);
  }));

test("another key that comes into the inbox while the first is taken is not lost", () =>
  tell({}, async (story) => {
    const inbox = inboxIn(story);
    const [one, two] = [story.key(), story.key()];
    inbox.put(one);
    inbox.before = () => {
      inbox.before = () => {};
      inbox.put(two);
    };
    const first = await tick(story, { inboxes: [inbox.inbox] });
    expect(first.inbox).toMatchObject([{ state: "taken", removed: false }]);
    expect(inbox.value).toBe(two);
    const second = await tick(story, { inboxes: [inbox.inbox] });
    expect(second.inbox).toMatchObject([{ state: "rejected", why: expect.stringMatching(/Another key/) }]);
    expect(inbox.value).toBe(two);
    story.imkit.revoke(firstKey(story));
    await tick(story, { inboxes: [inbox.inbox] });
    // Its turn has come.
    const third = await tick(story, { inboxes: [inbox.inbox] });
    expect(third.inbox).toMatchObject([{ state: "taken", removed: true }]);
    expect(story.values()).toEqual({ a: two });
  }));

test("killed at any call while it takes a key in, the next tick ends it, and the key is never lost", async () => {
  for (let crashAt = 1; crashAt < 40; crashAt++)
    await tell({}, async (story) => {
      const inbox = inboxIn(story);
      const key = story.key();
      inbox.put(key);
      const ended = await story.command(
        "tick",
        (hands) =>
          story.product.tick(hands, {
            rotate: {
              ...PLAIN_ROTATE,
              waitMs: 0,
            },
            inboxes: [inbox.inbox],
            mayOpen: true,
            people: { notifiers: [], owners: [], remindBeforeMs: [], escalateAfterMs: 0, steps: () => [] },
          }),
        { crashAt, pauseAt: 0, pauseMs: 0, stopAt: 0 },
      );
      await story.sleep(2 * MINUTE);
      await tick(story, { inboxes: [inbox.inbox] });
      expect([ended.kind, story.values()["a"], inbox.value]).toEqual([ended.kind, key, null]);
    });
});

/** How often the store was tried. */
const tries = (story: Story): number => story.events("run-started").length;

test("a failing rotation is left alone for 1 min, then 2, 4, up to an hour, whoever comes; a new key is tried at once", () =>
  tell({ stores: stores("a"), workloads: [workload("none")] }, async (story) => {
    await tick(story);
    await story.stage(story.key());
    story.stores.get("a")?.troubles.push({ from: 0, to: Number.POSITIVE_INFINITY, code: "AUTHZ" });
    const waits: number[] = [];
    let last = story.time.now();
    await tick(story);
    while (waits.length < 9) {
      const before = tries(story);
      const { held, rotated } = await tick(story);
      const isTried = tries(story) > before;
      expect([held, rotated.phase]).toEqual([isTried ? null : "backoff", "failed"]);
      if (isTried) {
        waits.push(Math.round((story.time.now() - last) / MINUTE));
        last = story.time.now();
      } else await story.sleep(MINUTE / 2);
    }
    expect(waits).toEqual([1, 2, 4, 8, 16, 32, 60, 60, 60]);
    expect((await tick(story)).held).toBe("backoff");
    const before = tries(story);
    await story.stage(story.key(), true);
    expect((await tick(story)).held).toBe(null);
    expect(tries(story)).toBe(before + 1);
    expect((await tick(story)).held).toBe("backoff");
    await story.rotate({ alarm: {} });
    expect((await tick(story)).held).toBe("backoff");
    await story.sleep(MINUTE + 1_000);
    expect((await tick(story)).held).toBe(null);
  }));

test("a person who runs rotate is never held off", () =>
  tell({}, async (story) => {
    await tick(story);
    await story.stage(story.key());
    story.stores.get("a")?.troubles.push({ from: 0, to: Number.POSITIVE_INFINITY, code: "AUTHZ" });
    await tick(story);
    const before = tries(story);
    expect((await story.rotate()).says).toBe("failed");
    expect(tries(story)).toBe(before + 1);
  }));

test("each thing is told once, by however many ticks, one after the other or side by side", () =>
  tell({ workloads: [workload("manual")] }, async (story) => {
    const hook = receiver();
    const other = receiver("slack");
    const notifiers = [hook.notifier, other.notifier];
    const rounds = async (): Promise<void> => {
      await Promise.all([run(story, { notifiers }), run(story, { notifiers }), run(story, { notifiers })]);
      await tick(story, { notifiers });
      await tick(story, { notifiers });
    };
    await tick(story, { notifiers });
    await story.stage(story.key());
    await rounds();
    expect(hook.types()).toEqual(["waiting-restart"]);
    for (const w of story.workloads.values()) story.restart(w);
    await story.rotate({ restarted: true });
    await rounds();
    expect(hook.types()).toEqual(["waiting-restart", "waiting-revoke"]);
    story.imkit.revoke(firstKey(story));
    await rounds();
    expect(hook.types()).toEqual(["waiting-restart", "waiting-revoke", "done"]);
    expect(other.types()).toEqual(hook.types());
    for (const m of hook.got) {
      expect(m).toMatchObject({
        app: "chat",
        owners: ["may"],
        head: expect.stringMatching(/^\d+:[0-9a-f]{16}$/),
      });
      expect(m.next.length).toBe(1);
      expect(JSON.stringify(m)).not.toMatch(new RegExp(firstKey(story)));
    }
    expect(story.events("notified").filter((e) => e["ok"] === true).length).toBe(6);
  }));

test("killed between saying so and sending, it is sent by the next tick that comes after three minutes", () =>
  tell({ workloads: [workload("manual")] }, async (story) => {
    const hook = receiver();
    const notifiers = [hook.notifier];
    await tick(story, { notifiers });
    await story.stage(story.key());
    let kills = 1;
    story.onEntry((proc, entry) => {
      if (kills > 0 && entry.events.some((e) => e.type === "notified" && e.sending === true)) {
        kills -= 1;
        proc.kill();
      }
    });
    expect((await run(story, { notifiers })).kind).toBe("killed");
    hook.got.splice(0);
    await tick(story, { notifiers });
    expect(hook.types()).toEqual([]);
    await story.sleep(3 * MINUTE + 1_000);
    await tick(story, { notifiers });
    await tick(story, { notifiers });
    expect(hook.types()).toEqual(["waiting-restart"]);
  }));

test("a receiver that fails stops nothing, and is tried again, later and later, without the one that was told", () =>
  tell({ workloads: [workload("manual")] }, async (story) => {
    const [bad, good] = [receiver("bad"), receiver("good")];
    bad.answers = () => false;
    const notifiers = [bad.notifier, good.notifier];
    await tick(story, { notifiers });
    await story.stage(story.key());
    expect((await tick(story, { notifiers })).rotated.phase).toBe("waiting-restart");
    await tick(story, { notifiers });
    expect([bad.got.length, good.got.length]).toEqual([1, 1]);
    await story.sleep(MINUTE + 1_000);
    await tick(story, { notifiers });
    await tick(story, { notifiers });
    expect([bad.got.length, good.got.length]).toEqual([2, 1]);
    for (let i = 0; i < 200; i++) {
      await story.sleep(10 * MINUTE);
      await tick(story, { notifiers, escalateAfterMs: 0 });
    }
    expect([bad.got.length, good.got.length]).toEqual([12, 1]);
    expect(new Set(bad.got.map((m) => m.id)).size).toBe(1);
  }));

test("reminders climb a ladder, each step once: before it is due, when it is due, and again while nothing happens", () =>
  tell({}, async (story) => {
    const hook = receiver();
    const notifiers = [hook.notifier];
    const soon = { notifiers, rotateEveryMs: 90 * DAY };
    for (let day = 0; day < 93; day++) {
      await tick(story, soon);
      await story.sleep(DAY);
      await tick(story, { ...soon, mayOpen: false });
    }
    expect(hook.types().filter((type) => type !== "escalated")).toEqual(["due-in", "due-in", "overdue"]);
    expect(hook.got.map((m) => m.text).join(" ")).toMatch(/due on .* overdue since/);
    // Of the steps after 4, 8, 16, 32 and 64 hours, one for each tick that came after one.
    expect(hook.types().filter((type) => type === "escalated").length).toBe(2);
    await story.stage(story.key());
    const before = hook.got.length;
    await tick(story, { ...soon, mayOpen: false });
    expect(hook.got.length).toBe(before);
  }));

test("no reminder outside of the schedule, but one that failed is sent again all the same", () =>
  tell({}, async (story) => {
    const hook = receiver();
    hook.answers = () => false;
    const soon = { notifiers: [hook.notifier], rotateEveryMs: DAY, escalateAfterMs: 0 };
    await tick(story, soon);
    hook.got.splice(0);
    await story.sleep(DAY + MINUTE);
    await tick(story, { ...soon, mayOpen: false });
    expect(hook.types()).toEqual([]);
    await tick(story, soon);
    hook.answers = () => true;
    await story.sleep(2 * MINUTE);
    await tick(story, { ...soon, mayOpen: false });
    await tick(story, soon);
    expect(hook.types()).toEqual(["overdue", "overdue"]);
  }));

test("whoever waits too long for a person is told again, later and later", () =>
  tell({ workloads: [workload("manual")] }, async (story) => {
    const hook = receiver();
    const notifiers = [hook.notifier];
    await story.stage(story.key());
    for (let hour = 0; hour < 20; hour++) {
      await tick(story, { notifiers });
      await story.sleep(60 * MINUTE);
    }
    expect(hook.types()).toEqual(["waiting-restart", "escalated", "escalated", "escalated"]);
    expect(hook.got[1]?.text).toContain("4h");
  }));

test("drift of an idle app is told once, and again when it comes back", () =>
  tell({ stores: stores("a", "b") }, async (story) => {
    const hook = receiver();
    const notifiers = [hook.notifier];
    expect((await tick(story, { notifiers })).drift).toEqual([]);
    const b = story.stores.get("b");
    if (b === undefined) throw new Error("no store b");
    const foreign = story.key();
    story.edit(b, foreign);
    for (let i = 0; i < 3; i++)
      expect((await tick(story, { notifiers })).drift).toMatchObject([{ name: "b", state: "drift" }]);
    expect(hook.types()).toEqual(["drift"]);
    expect(hook.got[0]?.text).toContain(story.fpOf(foreign).slice(0, 8));
    story.edit(b, firstKey(story));
    expect((await tick(story, { notifiers })).drift).toEqual([]);
    story.edit(b, foreign);
    await tick(story, { notifiers });
    await tick(story, { notifiers });
    expect(hook.types()).toEqual(["drift", "drift"]);
    story.edit(b, firstKey(story));
    await tick(story, { notifiers });
  }));

test("what stops a tick before a rotation is told too: refused, once", () =>
  tell({ stores: stores("a", "b"), start: "two live" }, async (story) => {
    const hook = receiver();
    const first = await tick(story, { notifiers: [hook.notifier] });
    expect(first.error?.code).toBe("ADOPTION_REFUSED");
    await tick(story, { notifiers: [hook.notifier] });
    expect(hook.types()).toEqual(["refused"]);
  }));

test("a leak, a wrong revocation and a blackout are told", () =>
  tell({ workloads: [workload("manual")] }, async (story) => {
    const hook = receiver();
    const notifiers = [hook.notifier];
    const key = story.key();
    await story.stage(key);
    await story.rotate({ alarm: {} });
    await tick(story, { notifiers });
    expect(hook.types()).toEqual(["emergency", "waiting-restart"]);
    story.imkit.revoke(key);
    await tick(story, { notifiers });
    expect(hook.types().at(-1)).toBe("wrong-key-revoked");
    story.imkit.revoke(firstKey(story));
    await tick(story, { notifiers });
    await tick(story, { notifiers });
    expect(hook.types()).toEqual(["emergency", "waiting-restart", "wrong-key-revoked", "blackout"]);
  }));
