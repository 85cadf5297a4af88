import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import type { Escrow } from "../../src/ports.ts";

export type EscrowWorld = {
  readonly escrow: Escrow;
  /** The same place, seen by another process. */
  readonly again: () => Escrow;
  /** Damages the blob of a fingerprint that is there. */
  readonly damage: (fp: string) => Promise<void>;
};

const someKey = (): Secret => new Secret(Buffer.from(randomBytes(32).toString("base64")).toString("base64"));
const A = "00112233445566aa";
const B = "ffeeddccbbaa9988";

/** What every escrow must do. `open` makes an empty one. */
export const escrowContract = (name: string, open: () => Promise<EscrowWorld>): void => {
  describe(`escrow contract: ${name}`, () => {
    test("is empty at first, and asking changes nothing", async () => {
      const { escrow } = await open();
      expect(await escrow.list()).toEqual([]);
      expect(await escrow.get(A)).toBeNull();
      await escrow.remove(A);
      expect(await escrow.list()).toEqual([]);
      expect(escrow.where).not.toBe("");
    });

    test("gives back what was put, also to another process", async () => {
      const { escrow, again } = await open();
      const [one, two] = [someKey(), someKey()];
      await escrow.put(A, one);
      await escrow.put(B, two);
      expect(await again().list()).toEqual([A, B]);
      expect((await again().get(A))?.equals(one)).toBe(true);
      expect((await again().get(B))?.equals(two)).toBe(true);
      expect(await again().get("0123456789abcdef")).toBeNull();
    });

    test("the same key twice is one", async () => {
      const { escrow } = await open();
      const key = someKey();
      await escrow.put(A, key);
      await escrow.put(A, key);
      expect(await escrow.list()).toEqual([A]);
      expect((await escrow.get(A))?.equals(key)).toBe(true);
    });

    test("never loses a key to another one under the same fingerprint", async () => {
      const { escrow } = await open();
      const key = someKey();
      await escrow.put(A, key);
      await expect(escrow.put(A, someKey())).rejects.toMatchObject({ code: "ESCROW_FAILED" });
      expect((await escrow.get(A))?.equals(key)).toBe(true);
    });

    test("removes one and leaves the others", async () => {
      const { escrow, again } = await open();
      const kept = someKey();
      await escrow.put(A, someKey());
      await escrow.put(B, kept);
      await escrow.remove(A);
      await escrow.remove(A);
      expect(await again().list()).toEqual([B]);
      expect(await again().get(A)).toBeNull();
      expect((await again().get(B))?.equals(kept)).toBe(true);
    });

    test("a blob that cannot be opened is listed, is an error and never null, and can be put again or removed", async () => {
      const { escrow, damage } = await open();
      const key = someKey();
      await escrow.put(A, key);
      await damage(A);
      expect(await escrow.list()).toEqual([A]);
      await expect(escrow.get(A)).rejects.toMatchObject({ code: "ESCROW_FAILED" });
      await escrow.put(A, key);
      expect((await escrow.get(A))?.equals(key)).toBe(true);
      await damage(A);
      await escrow.remove(A);
      expect(await escrow.get(A)).toBeNull();
    });

    test.each(["", "../../etc/passwd", "00112233445566AA", `${A}0`, "x"])(
      "%j is no fingerprint",
      async (fp) => {
        const { escrow } = await open();
        await expect(escrow.put(fp, someKey())).rejects.toMatchObject({ code: "ESCROW_FAILED" });
        await expect(escrow.get(fp)).rejects.toMatchObject({ code: "ESCROW_FAILED" });
        await expect(escrow.remove(fp)).rejects.toMatchObject({ code: "ESCROW_FAILED" });
      },
    );
  });
};
