import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { MATRIX, unexpected } from "./crash/doc.ts";

test("every row of docs/crash-matrix.md has the outcome that it must have", () => {
  const text = readFileSync(MATRIX, "utf8");
  expect(unexpected(text)).toEqual([]);
  const spoilt = text.replace("| same end |", "| BROKEN: n=3: escrow still holds a key |");
  expect(unexpected(spoilt)).toHaveLength(1);
  expect(unexpected("")).not.toEqual([]);
});
