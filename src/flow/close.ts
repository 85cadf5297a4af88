import type { LedgerEvent } from "../core/events.ts";
import type { Rotation } from "../core/rotation.ts";
import { supersededIn } from "../core/rotation.ts";
import type { Fp } from "../core/secret.ts";
import type { Revision } from "../ports.ts";
import { ensureOurs, FRESH_MS } from "./claim.ts";
import { asProviderError, type Pass, rotationOf } from "./pass.ts";
import { usageAfter } from "./usage.ts";

const MOST_LOOKS = 3;

/** After `closing`: nothing of this rotation stays in escrow, then `done`. Repeatable. */
export const finish = async (pass: Pass): Promise<readonly LedgerEvent[]> => {
  const { hands, journal } = pass;
  const s = journal.state();
  const r = rotationOf(pass);
  const key = r.newFp === null ? null : await pass.keys.get(r.newFp);
  const app = key === null ? null : await hands.platform.appIdentity(key, pass.looking);
  // Somebody may say meanwhile that a key works after all.
  const isOver = (fp: Fp): boolean => {
    const { old, dead } = journal.state();
    const key = old.get(fp);
    return fp === r.newFp || dead.has(fp) || key?.proved === true || key?.waived === true;
  };
  for (const fp of (await hands.escrow.list()).filter(isOver)) {
    if ((await mayDrop(pass, fp)) && isOver(fp)) await pass.keys.drop(fp);
  }
  await retireSuperseded(pass);
  return [
    ...(await usageAfter(pass)),
    ...givenUp(r),
    { type: "done", rotation: r.id, appFingerprint: app?.fingerprint(s.salt ?? "") ?? null },
    { type: "released", inst: hands.host.claim.inst, rotation: r.id },
  ];
};

/** A target that was dropped in the middle of an effect: nobody will ever look how that ended. */
const givenUp = (r: Rotation): readonly LedgerEvent[] =>
  [...r.stores.values(), ...r.rollouts.values()].flatMap(({ name, open }): LedgerEvent[] =>
    open === null
      ? []
      : [
          {
            type: "observed",
            what: "intent",
            rotation: r.id,
            run: r.run,
            intent: open.id,
            target: name,
            outcome: "failed",
            code: "DROPPED",
          },
        ],
  );

/** What the stores still keep of earlier keys is disabled there, where they can. One that cannot be is remarked, and stops nothing. */
const retireSuperseded = async (pass: Pass): Promise<void> => {
  const { hands, journal, signal } = pass;
  const r = rotationOf(pass);
  const work = hands.app.stores.flatMap(({ plan, store }) => {
    if (!store.caps.retire || r.stores.get(plan.name)?.state === "dropped") return [];
    return supersededIn(r, plan.name).map((revision) => ({ name: plan.name, revision, store }));
  });
  if (work.length === 0) return;
  await ensureOurs(journal, hands.host.claim.inst);
  await Promise.all(
    work.map(({ name, revision, store }) =>
      (store.retire?.(revision as Revision, signal) ?? Promise.resolve()).catch((thrown: unknown) => {
        const { code } = asProviderError(thrown);
        hands.tell({ kind: "note", text: `${name}: a superseded version could not be disabled (${code})` });
      }),
    ),
  );
};

/** The new key leaves escrow only while a store shows it. */
const mayDrop = (pass: Pass, fp: Fp): Promise<boolean> => maySpare(pass, fp, fp === rotationOf(pass).newFp);

/**
 * Right before a key leaves escrow: the claim is ours, and where a store has to show the key it does. A process that slept since it looked
 * looks again, a few times: while a look takes that long, the key stays.
 */
export const maySpare = async (
  { hands, journal, keys, looking }: Pick<Pass, "hands" | "journal" | "keys" | "looking">,
  fp: Fp,
  mustShow: boolean,
): Promise<boolean> => {
  for (let looks = 1; looks <= MOST_LOOKS; looks++) {
    const began = hands.clock.monotonic();
    if (mustShow && !(await keys.isStored(fp, looking))) return false;
    await ensureOurs(journal, hands.host.claim.inst);
    if (hands.clock.monotonic() - began < FRESH_MS) return true;
  }
  return false;
};
