import { RotatorError } from "../core/errors.ts";
import { type Fp, showFp } from "../core/secret.ts";
import type { AppState } from "../core/state.ts";
import type { Found, StoreRead } from "./adopt.ts";

const NOTHING = "Nothing was adopted and nothing was written.";

/** `7c2e91aa (accepted) in aws, k8s`. */
const list = (found: readonly Found[]): string =>
  found.map((f) => `${showFp(f.fp)} (${f.verdict}) in ${f.stores.join(", ")}`).join("; ");

const line = (app: string, fp: Fp): string => `imkit-rotator adopt ${app} --current ${showFp(fp)}`;

/** A key that IMKIT rejects is only offered where there is no other one. */
const lines = (app: string, found: readonly Found[]): readonly string[] => {
  const alive = found.filter((f) => f.verdict !== "rejected");
  return (alive.length > 0 ? alive : found).map((f) => line(app, f.fp));
};

export const unclear = (app: string, found: readonly Found[]): RotatorError =>
  new RotatorError("ADOPTION_UNCLEAR", {
    why: `IMKIT gave no clear answer for a key that a store holds: ${list(found)}.`,
    state: NOTHING,
    do: [`imkit-rotator doctor ${app}`, `imkit-rotator adopt ${app}`],
  });

export const ambiguous = (app: string, found: readonly Found[]): RotatorError =>
  new RotatorError("ADOPTION_REFUSED", {
    why: `The stores hold ${list(found)}. The one that you name is the current key; every other one that works is an old key, to be revoked.`,
    state: NOTHING,
    do: lines(app, found),
  });

/** Nobody here put that value there: a person says what is true. */
export const conflict = (
  app: string,
  s: AppState,
  reads: readonly StoreRead[],
  found: readonly Found[],
): RotatorError => {
  const current = s.current === null ? "no key" : showFp(s.current);
  const hold = reads.filter(({ stored }) => stored?.secret.fingerprint(s.salt ?? "") === s.current);
  const still = hold.length === 0 ? "no store" : hold.map((r) => r.name).join(", ");
  return new RotatorError("STORE_CONFLICT", {
    what: "A store was changed by someone else. Nothing was overwritten.",
    why: `The ledger says that ${current} is the current key; ${still} still holds it. The stores hold ${list(found)}.`,
    state: NOTHING,
    do: lines(app, found),
    undo: s.current === null ? [] : [`Put the key ${current} back into the store that was changed`],
  });
};

export const notHeld = (app: string, found: readonly Found[]): RotatorError =>
  new RotatorError("USAGE", {
    what: "No store holds a key with that fingerprint.",
    why: found.length === 0 ? "The stores hold no key." : `The stores hold ${list(found)}.`,
    do: found.map((f) => line(app, f.fp)),
  });

/** While a rotation is open it says itself which key the stores should hold. */
export const rotationOpen = (app: string, s: AppState): RotatorError => {
  const wrote = (s.rotation?.wroteAt ?? 0) > 0;
  return new RotatorError("TOO_LATE", {
    what: "A rotation is open, so nothing is adopted now.",
    why: "It decides which key the stores should hold; end it first, forwards or backwards.",
    state: "The rotation stays open.",
    do: [`imkit-rotator rotate ${app}`],
    undo: [wrote ? `imkit-rotator rollback ${app}` : `imkit-rotator stage ${app} --discard`],
  });
};
