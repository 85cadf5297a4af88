import { RotatorError } from "../core/errors.ts";
import { type Fp, showFp } from "../core/secret.ts";
import { unproved } from "../core/state.ts";
import type { Check } from "../ports.ts";
import type { Hands } from "./hands.ts";
import type { Journal } from "./journal.ts";
import { type Keys, openKeys } from "./keys.ts";
import { pendingKey } from "./open.ts";

type Found = Check & { readonly fix?: string };

/** Opens every key in escrow, and looks for each key that is needed and lies nowhere that can be read. Read-only. */
export const escrowChecks = async (hands: Hands, journal: Journal): Promise<readonly Found[]> => {
  const { where } = hands.escrow;
  const closed = new Map<Fp, string>();
  let fps: readonly Fp[];
  try {
    fps = await hands.escrow.list();
    for (const fp of fps) {
      const why = await hands.escrow.get(fp).then(
        () => null,
        (error: unknown) => (error instanceof RotatorError ? error.why : "It cannot be opened."),
      );
      if (why !== null) closed.set(fp, why);
    }
  } catch (error) {
    const why = error instanceof RotatorError ? `${error.what} ${error.why}`.trim() : "It cannot be opened.";
    const known = error instanceof RotatorError ? error.do[0] : undefined;
    const fix = known ?? `Restore the folder ${where} from a backup`;
    return [{ id: "escrow", status: "fail", message: why, fix }];
  }
  const keys = openKeys(hands, journal);
  const blobs = await Promise.all([...closed.keys()].map((fp) => blobCheck(hands, journal, keys, fp)));
  return [
    summary(where, fps.length, [...closed.values()]),
    ...blobs,
    ...(await lostKeys(hands, journal, keys, closed)),
  ];
};

const summary = (where: string, count: number, closed: readonly string[]): Found => {
  const [why] = closed;
  if (why === undefined)
    return { id: "escrow", status: "ok", message: `${count} key(s) in ${where}, each can be opened.` };
  return {
    id: "escrow",
    status: "fail",
    message: `${closed.length} of ${count} key(s) in ${where} cannot be opened. ${why}`,
    fix: `Put the escrow identity that was in use back, or what lies in ${where} from a backup; what can be done without follows`,
  };
};

/** What can be done for one key that is there and stays closed. */
const blobCheck = async (hands: Hands, journal: Journal, keys: Keys, fp: Fp): Promise<Found> => {
  const s = journal.state();
  const { name } = hands.app;
  const key = showFp(fp);
  const isPending = fp === pendingKey(journal);
  const isOld = unproved(s).includes(fp);
  if ((await keys.find(fp)) !== null) {
    const message = `The key ${key} in escrow cannot be opened, but a store holds it: it is read back from there.`;
    const fix = isPending
      ? `imkit-rotator rotate ${name}`
      : `Nothing has to be done while the store holds it`;
    return { id: isPending ? "escrow.new-key" : "escrow.key", status: "warn", message, fix };
  }
  if (isPending) {
    const message = `The new key ${key} cannot be opened, and no store holds it: give it once more, or another one with --replace.`;
    return { id: "escrow.new-key", status: "fail", message, fix: newKeyFix(name) };
  }
  if (isOld) {
    const message = `The old key ${key} cannot be opened, and no store holds it, so nobody can prove it dead.`;
    return { id: "escrow.old-key", status: "fail", message, fix: oldKeyFix(name) };
  }
  const isOver = s.dead.has(fp) || s.forgotten.has(fp);
  const message = `The key ${key} in escrow cannot be opened, and ${isOver ? "is needed no more" : "no ledger entry needs it"}.`;
  const fix = isOver
    ? `Move ${fp}.age out of ${hands.escrow.where}`
    : `If the identity that was in use is lost for good, revoke every API Key that nobody uses, then move ${fp}.age out of ${hands.escrow.where}`;
  return { id: "escrow.key", status: "warn", message, fix };
};

const newKeyFix = (app: string): string => `imkit-rotator stage ${app}`;
const oldKeyFix = (app: string): string => `imkit-rotator confirm-revoked ${app} --key-from-stdin`;

/** Keys that the rotation needs and that neither escrow nor a store holds. */
const lostKeys = async (
  hands: Hands,
  journal: Journal,
  keys: Keys,
  closed: ReadonlyMap<Fp, string>,
): Promise<readonly Found[]> => {
  const { name } = hands.app;
  const pending = pendingKey(journal);
  const found: Found[] = [];
  if (pending !== null && !closed.has(pending) && (await keys.find(pending)) === null) {
    const message = `The new key ${showFp(pending)} is neither in escrow nor in a store: give it once more, or another one with --replace.`;
    found.push({ id: "escrow.new-key", status: "fail", message, fix: newKeyFix(name) });
  }
  for (const fp of unproved(journal.state())) {
    if (closed.has(fp) || (await keys.find(fp)) !== null) continue;
    const message = `The old key ${showFp(fp)} is neither in escrow nor in a store, so nobody can prove it dead.`;
    found.push({ id: "escrow.old-key", status: "fail", message, fix: oldKeyFix(name) });
  }
  return found;
};
