import { describe, expect, test } from "vitest";
import { controlRejects, judge } from "../../src/core/verdict.ts";
import type { Platform, Probe } from "../../src/ports.ts";
import { answer, HOSTILE } from "../kit/hostile.ts";
import { firstKey, type RotateChange, type Story, stores, tell, workload } from "./story.ts";

/** The vendor's vague codes too: alone they prove nothing either. */
const ROWS = [
  ...HOSTILE,
  ...["UNAUTHORIZED", "INVALID_AUTH", "MISSING_API_KEY"].map(
    (code) => [`401 ${code}`, answer(401, { error: code })] as const,
  ),
  ...["INSUFFICIENT_PERMISSIONS", "PERMISSION_DENIED"].map(
    (code) => [`403 ${code}`, answer(403, { error: code })] as const,
  ),
];
type Role = "old" | "new" | "made-up" | "all";
const ROLES: readonly Role[] = ["old", "new", "made-up", "all"];

/** IMKIT as it is, but for one kind of key: for that a server on the way answers. */
const answering = (
  w: Story,
  role: Role,
  given: Parameters<typeof judge>[0],
  keys: { readonly old: string; readonly fresh: string },
): NonNullable<RotateChange["platform"]> => {
  const said = judge(given);
  const probe: Probe = { ...said, status: given.status, date: null };
  const roleOf = (fp: string): Role =>
    fp === w.fpOf(keys.old) ? "old" : fp === w.fpOf(keys.fresh) ? "new" : "made-up";
  return (platform: Platform) => ({
    ...platform,
    probe: async (key, options, signal) => {
      const asked = key.fingerprint(w.state().salt ?? "");
      return role === "all" || roleOf(asked) === role ? probe : platform.probe(key, options, signal);
    },
  });
};

const isVagueNo = (given: Parameters<typeof judge>[0]): boolean =>
  controlRejects({ ...judge(given), status: given.status });

const dead = (w: Story): readonly Record<string, unknown>[] => [
  ...w.events("proof"),
  ...w.events("wrong-key-revoked"),
  ...w.events("closing"),
  ...w.events("observed").filter((e) => e["verdict"] === "rejected"),
];

describe(`${ROWS.length} hostile answers`, () => {
  test.each(ROLES)(
    "to the %s key: no key is called dead or working by one, and nothing is written on its word",
    async (role) => {
      for (const [name, given] of ROWS) {
        await tell({ stores: stores("a", "b"), workloads: [workload("exec")] }, async (w) => {
          const keys = { old: firstKey(w), fresh: w.key() };
          await w.stage(keys.fresh);
          const platform = answering(w, role, given, keys);
          const { state } = await w.rotate({ platform });
          const about = `${name}: ${role}`;
          expect(dead(w), about).toEqual([]);
          expect(state.rotation?.mode, about).not.toBe("replace");
          // Only what concerns the new key, or whether anybody is let in, stops the writes; to a made-up key a vague no is one.
          const isNo = role === "made-up" && isVagueNo(given);
          const isStopped = role !== "old" && !isNo;
          expect(w.values(), about).toEqual(
            isStopped ? { a: keys.old, b: keys.old } : { a: keys.fresh, b: keys.fresh },
          );
        });
      }
    },
  );

  test.each(ROLES)(
    "to the %s key when everything is written: nothing is proved, and the rotation stays open",
    async (role) => {
      for (const [name, given] of ROWS) {
        await tell({ stores: stores("a"), workloads: [workload("exec")] }, async (w) => {
          const keys = { old: firstKey(w), fresh: w.key() };
          await w.stage(keys.fresh);
          expect((await w.rotate()).says).toBe("waiting-revoke");
          const platform = answering(w, role, given, keys);
          const { state } = await w.rotate({ platform });
          expect(dead(w), `${name}: ${role}`).toEqual([]);
          expect(state.rotation?.ended, `${name}: ${role}`).toBeNull();
        });
      }
    },
  );

  test.each(["old", "new", "made-up"] as const)(
    "to the %s key in an emergency whose leaked key is dead: no proof without a whole triad",
    async (role) => {
      for (const [name, given] of ROWS) {
        await tell({ stores: stores("a"), workloads: [workload("exec")] }, async (w) => {
          const keys = { old: firstKey(w), fresh: w.key() };
          await w.rotate({ alarm: {} });
          w.imkit.revoke(keys.old);
          await w.stage(keys.fresh);
          const { state } = await w.rotate({ platform: answering(w, role, given, keys) });
          // Beside an accepted key and a made-up one that gets the same no, a vague no counts.
          if (isVagueNo(given) && role !== "new") return;
          expect(w.events("proof"), `${name}: ${role}`).toEqual([]);
          expect(state.rotation?.ended, `${name}: ${role}`).toBeNull();
        });
      }
    },
  );
});
