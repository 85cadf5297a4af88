/** One of several processes that append to one ledger: `ledger-racer.ts DIR INST LAST`. Prints each number that it got. */
import { follow, seal } from "../../src/core/chain.ts";
import type { Entry } from "../../src/core/events.ts";
import { fileLedger } from "../../src/io/ledger/file.ts";
import { bodyOf, genesis } from "./ledger-story.ts";

const [dir = "", inst = "", last = "0"] = process.argv.slice(2);
const ledger = fileLedger(dir);
let head: Entry | null = null;
for (;;) {
  for (const bytes of await ledger.read(head === null ? 0 : head.seq + 1)) {
    const next = follow(head, bytes);
    if ("problem" in next) throw new Error(next.problem);
    head = next.entry;
  }
  const seq: number = head === null ? 0 : head.seq + 1;
  if (seq > Number(last)) break;
  const events = seq === 0 ? [genesis] : [{ type: "renewed", inst }];
  const made = await ledger.create(seq, seal(bodyOf(seq, head?.h ?? null, events, { inst })).line);
  if (made === "created") process.stdout.write(`${seq}\n`);
}
