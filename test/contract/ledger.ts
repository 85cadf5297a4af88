import { describe, expect, test } from "vitest";
import { verifyLedger } from "../../src/core/verify.ts";
import type { Ledger } from "../../src/ports.ts";
import { chainOf, STORY } from "../kit/ledger-story.ts";

/**
 * What every `Ledger` must do. `make` gives one empty ledger as a function that opens it anew each time, as another process would;
 * `gone` takes it away afterwards.
 */
export const ledgerContract = (
  name: string,
  make: () => Promise<{ readonly open: () => Ledger; readonly gone?: () => Promise<void> }>,
): void => {
  const lines = chainOf(STORY);
  const line = (seq: number): Uint8Array => lines[seq] ?? new Uint8Array();
  const other = (seq: number): Uint8Array => chainOf(STORY, { inst: "inst-2" })[seq] ?? new Uint8Array();
  const plain = (read: readonly Uint8Array[]): readonly string[] =>
    read.map((bytes) => Buffer.from(bytes).toString("latin1"));
  const withLedger = async (work: (open: () => Ledger) => Promise<void>): Promise<void> => {
    const made = await make();
    try {
      await work(made.open);
    } finally {
      await made.gone?.();
    }
  };

  describe(`ledger contract: ${name}`, () => {
    test("is empty before its first entry, says where it is, and can be read", () =>
      withLedger(async (open) => {
        expect(open().where).not.toBe("");
        expect(await open().read(0)).toEqual([]);
        expect(await open().read(7)).toEqual([]);
      }));

    test("gives back the very bytes, in order, from any number on", () =>
      withLedger(async (open) => {
        for (const [seq, bytes] of lines.entries()) expect(await open().create(seq, bytes)).toBe("created");
        for (let from = 0; from <= lines.length; from++) {
          expect(plain(await open().read(from))).toEqual(plain(lines.slice(from)));
        }
        expect(verifyLedger(await open().read(0), { folder: true }).ok).toBe(true);
      }));

    test("never changes an entry that is there, not for the same bytes and not for others", () =>
      withLedger(async (open) => {
        expect(await open().create(0, line(0))).toBe("created");
        expect(await open().create(0, line(0))).toBe("exists");
        expect(await open().create(0, other(0))).toBe("exists");
        expect(plain(await open().read(0))).toEqual(plain([line(0)]));
      }));

    test("shows at once what another one wrote", () =>
      withLedger(async (open) => {
        const [mine, theirs] = [open(), open()];
        await mine.create(0, line(0));
        expect(plain(await theirs.read(0))).toEqual(plain([line(0)]));
        expect(await theirs.create(1, other(1))).toBe("created");
        expect(await mine.create(1, line(1))).toBe("exists");
        expect(plain(await mine.read(1))).toEqual(plain([other(1)]));
      }));

    test("gives each number to exactly one of many", () =>
      withLedger(async (open) => {
        for (const seq of [0, 1, 2]) {
          const rivals = Array.from({ length: 16 }, (_, index) =>
            open().create(seq, index % 2 ? line(seq) : other(seq)),
          );
          const answers = await Promise.all(rivals);
          expect(answers.filter((answer) => answer === "created")).toHaveLength(1);
        }
        expect(await open().read(0)).toHaveLength(3);
      }));

    test("keeps an entry of 16 KiB whole", () =>
      withLedger(async (open) => {
        const long = Buffer.from(`${"x".repeat(16_383)}\n`);
        await open().create(0, long);
        expect(plain(await open().read(0))).toEqual(plain([long]));
      }));

    test("lends nobody its bytes", () =>
      withLedger(async (open) => {
        const bytes = Uint8Array.from(line(0));
        await open().create(0, bytes);
        bytes.fill(0);
        (await open().read(0))[0]?.fill(0);
        expect(plain(await open().read(0))).toEqual(plain([line(0)]));
      }));
  });
};
