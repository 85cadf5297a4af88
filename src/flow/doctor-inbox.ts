import { toldKey } from "../core/news.ts";
import { keptKey } from "../core/notice.ts";
import { showFp } from "../core/secret.ts";
import type { Finding } from "./doctor.ts";
import type { Hands } from "./hands.ts";
import type { Inbox } from "./inbox.ts";
import { openJournal } from "./journal.ts";
import { asProviderError } from "./pass.ts";

/** Whether each inbox can be read, and holds a key that should be gone. Read-only. */
export const inboxFindings = async (hands: Hands, inboxes: readonly Inbox[]): Promise<readonly Finding[]> => {
  const s = await openJournal(hands).then(
    (journal) => journal.state(),
    () => null,
  );
  return Promise.all(
    inboxes.map(async ({ name, store }): Promise<Finding> => {
      const base = { id: "intake", app: hands.app.name, target: name, fix: null };
      try {
        const stored = await store.read(hands.signal);
        if (stored === null) return { ...base, status: "ok", message: `The inbox ${name} is empty.` };
        const fp = s?.salt ? stored.secret.fingerprint(s.salt) : null;
        const isKept = fp !== null && s?.news.told.has(toldKey(keptKey(fp))) === true;
        if (!isKept)
          return { ...base, status: "ok", message: `The inbox ${name} holds a value for the next tick.` };
        const message = `The inbox ${name} still holds the key ${showFp(fp)}, which was taken in.`;
        return { ...base, status: "warn", message, fix: "Remove it there by hand" };
      } catch (thrown) {
        const { code, hint } = asProviderError(thrown);
        if (code === "NOT_FOUND")
          return { ...base, status: "ok", message: `The inbox ${name} is not there yet; that is no fault.` };
        const message = `The inbox ${name} cannot be read: ${code}${hint ? `: ${hint}` : ""}`;
        return { ...base, status: "fail", message };
      }
    }),
  );
};
