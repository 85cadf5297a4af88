import { RotatorError } from "../../core/errors.ts";
import type { Ledger } from "../../ports.ts";
import {
  baseName,
  createEntry,
  entryName,
  fetchEntry,
  type KubernetesLedgerOptions,
  ledgerIn,
  newestGeneration,
  openRoom,
  type Room,
  told,
} from "./kubernetes.ts";
import type { LedgerRemains } from "./successor.ts";

/** The ledger in a cluster that is to be followed by a new one. */
export type KubernetesPredecessor = {
  /** The same place, without the guard: here the successor begins. */
  readonly ledger: Ledger;
  /** @throws RotatorError LEDGER_UNWRITABLE when the API server does not let us look */
  look(): Promise<LedgerRemains>;
  /**
   * Begins the next generation of names by a ConfigMap of its own, durably; nothing is deleted or renamed, for which there is no right.
   * Repeatable: where nothing was written yet it does nothing.
   * @returns where the old one lies, null when there was none
   * @throws RotatorError LEDGER_UNWRITABLE; LOCKED when another one took its place since the last look
   */
  setAside(id: string | null): Promise<string | null>;
};

/** Entries may be missing here and there: so far behind the last that was found it is looked for more. */
const REACH = 32;

export const kubernetesPredecessor = (options: KubernetesLedgerOptions): KubernetesPredecessor => {
  const room = openRoom(options);
  const { app, namespace } = room;
  let seen: number | null = null;
  const placeOf = (generation: number): string => `${namespace}/${baseName(app, generation)}`;
  return {
    ledger: ledgerIn(room, false),
    look: () =>
      told(room, "read", async () => {
        const generation = await newestGeneration(room);
        seen = generation;
        const here = await remainsOf(room, generation);
        const where = (g: number) => `kubernetes:${placeOf(g)}`;
        if (here.seqs.length > 0) return { place: "here", where: where(generation), ...here };
        if (generation === 1) return { place: "none", where: room.where, lines: [], seqs: [] };
        const before = generation - 1;
        return { place: "aside", where: where(before), ...(await remainsOf(room, before)) };
      }),
    setAside: (id) =>
      told(room, "written", async () => {
        const generation = await newestGeneration(room, seen ?? 1);
        if (generation !== seen) throw begun();
        if ((await remainsOf(room, generation)).seqs.length === 0) return null;
        const follows = id !== null && /^[0-9a-f]{1,64}$/.test(id) ? id : "unreadable";
        const note = Buffer.from(`{"follows":"${follows}"}\n`);
        const made = await createEntry(room, baseName(app, generation + 1), note);
        if (made === "exists") throw begun();
        return placeOf(generation);
      }),
  };
};

const begun = (): RotatorError =>
  new RotatorError("LOCKED", { why: "Another process began a new ledger just now." });

/** All that is there, gaps passed over; what cannot be read is an empty line. */
const remainsOf = async (
  room: Room,
  generation: number,
): Promise<{ readonly lines: readonly Uint8Array[]; readonly seqs: readonly number[] }> => {
  const lines: Uint8Array[] = [];
  const seqs: number[] = [];
  for (let seq = 0, last = -1; seq - last <= REACH; ) {
    const names = Array.from({ length: 16 }, (_, index) => entryName(room.app, generation, seq + index));
    const found = await Promise.all(names.map((name) => fetchEntry(room, name)));
    for (const [index, one] of found.entries()) {
      if (one.state === "absent") continue;
      last = seq + index;
      seqs.push(last);
      lines.push(one.state === "read" ? one.bytes : new Uint8Array());
    }
    seq += names.length;
  }
  return { lines, seqs };
};
