import { toldKey } from "../core/news.ts";
import { keptKey } from "../core/notice.ts";
import { showFp } from "../core/secret.ts";
import type { AppState } from "../core/state.ts";
import type { Finding } from "./doctor.ts";
import type { Hands } from "./hands.ts";
import type { Inbox } from "./inbox.ts";
import { orElse } from "./interrupt.ts";
import { openJournal } from "./journal.ts";
import { asProviderError } from "./pass.ts";

/** What stands against taking an entry out for as long as nobody changes it. */
const STAYS: ReadonlySet<string> = new Set(["AUTHZ", "IMMUTABLE", "NOT_OWNED"]);

/** Whether each inbox can be read and emptied, and holds a key that should be gone. Read-only. */
export const inboxFindings = async (hands: Hands, inboxes: readonly Inbox[]): Promise<readonly Finding[]> => {
  const s = await openJournal(hands).then(
    (journal) => journal.state(),
    () => null,
  );
  const found = inboxes.map(async (inbox) => {
    const reading = await readFinding(hands, s, inbox);
    return reading.isThere ? [reading.finding, ...(await staysFindings(hands, inbox))] : [reading.finding];
  });
  return (await Promise.all(found)).flat();
};

type Reading = { readonly finding: Finding; readonly isThere: boolean };

const readFinding = async (hands: Hands, s: AppState | null, { name, store }: Inbox): Promise<Reading> => {
  const base = { id: "intake", app: hands.app.name, target: name, fix: null };
  const there = (finding: Pick<Finding, "status" | "message"> & Partial<Finding>): Reading => ({
    finding: { ...base, ...finding },
    isThere: true,
  });
  try {
    const stored = await store.read(hands.signal);
    if (stored === null) return there({ status: "ok", message: `The inbox ${name} is empty.` });
    const fp = s?.salt ? stored.secret.fingerprint(s.salt) : null;
    const isKept = fp !== null && s?.news.told.has(toldKey(keptKey(fp))) === true;
    if (!isKept)
      return there({ status: "ok", message: `The inbox ${name} holds a value for the next tick.` });
    const message = `The inbox ${name} still holds the key ${showFp(fp)}, which was taken in.`;
    return there({ status: "warn", message, fix: "Remove it there by hand" });
  } catch (thrown) {
    const { code, hint } = asProviderError(thrown);
    const isAbsent = code === "NOT_FOUND";
    const message = isAbsent
      ? `The inbox ${name} is not there yet; that is no fault.`
      : `The inbox ${name} cannot be read: ${code}${hint ? `: ${hint}` : ""}`;
    return { finding: { ...base, status: isAbsent ? "ok" : "fail", message }, isThere: false };
  }
};

/** A key that stays where a person laid it down is one too many, but no reason to stop. */
const staysFindings = async (hands: Hands, { name, store }: Inbox): Promise<readonly Finding[]> => {
  const checks = await orElse(store.preflight(hands.signal), []);
  return checks
    .filter(({ status, code }) => status === "fail" && STAYS.has(code ?? ""))
    .map(({ id, message, fix }) => ({
      id: `intake.${id}`,
      app: hands.app.name,
      target: name,
      status: "warn",
      message: `${message}: a key that was taken in will stay there`,
      fix: fix ?? null,
    }));
};
