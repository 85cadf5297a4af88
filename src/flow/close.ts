import type { LedgerEvent } from "../core/events.ts";
import type { Fp } from "../core/secret.ts";
import { ensureOurs } from "./claim.ts";
import { type Pass, rotationOf } from "./pass.ts";

/** After `closing`: nothing of this rotation stays in escrow, then `done`. Repeatable. */
export const finish = async (pass: Pass): Promise<readonly LedgerEvent[]> => {
  const { hands, journal } = pass;
  const s = journal.state();
  const r = rotationOf(pass);
  const key = r.newFp === null ? null : await pass.keys.get(r.newFp);
  const app = key === null ? null : await hands.platform.appIdentity(key, pass.signal);
  const finished = [...s.old].filter(([, k]) => k.proved || k.waived).map(([fp]) => fp);
  const left = (await hands.escrow.list()).filter(
    (fp) => fp === r.newFp || finished.includes(fp) || s.dead.has(fp),
  );
  for (const fp of left) {
    // A process may sleep here for hours. The new key leaves escrow only while a store shows it.
    if (fp === r.newFp && !(await isStored(pass, fp))) continue;
    await ensureOurs(journal, hands.host.claim.inst);
    await hands.escrow.remove(fp);
  }
  return [
    { type: "done", rotation: r.id, appFingerprint: app?.fingerprint(s.salt ?? "") ?? null },
    { type: "released", inst: hands.host.claim.inst },
  ];
};

const isStored = async (pass: Pass, fp: Fp): Promise<boolean> => {
  const salt = pass.journal.state().salt ?? "";
  for (const { store } of pass.hands.app.stores) {
    const stored = await store.read(pass.signal).catch(() => null);
    if (stored?.secret.fingerprint(salt) === fp) return true;
  }
  return false;
};
