import { readFileSync } from "node:fs";

/** What the chat service's own log says. `lastFailed` is epoch ms. */
export type ServiceLog = {
  readonly served: number;
  readonly failed: number;
  readonly lastFailed: number | null;
};

/** A word that has the form of an API Key, and where it stands. */
export type Found = { readonly line: number; readonly ts: string; readonly word: string };

/** The form of a key, as `grep -E` takes it too: 60 characters of Base64. */
export const KEY_FORM = "[A-Za-z0-9+/]{59}=";

const linesOf = (file: string): readonly string[] => readFileSync(file, "utf8").split("\n");
const timeOf = (line: string): number => Date.parse(line.slice(0, line.indexOf(" ")));

/** The first word of that form in a log. */
export const findKeyIn = (file: string): Found | null => {
  for (const [at, line] of linesOf(file).entries()) {
    const word = new RegExp(KEY_FORM).exec(line)?.[0];
    if (word !== undefined) return { line: at + 1, ts: line.slice(0, line.indexOf(" ")), word };
  }
  return null;
};

export const readServiceLog = (file: string): ServiceLog => {
  const lines = linesOf(file);
  const failed = lines.filter((line) => line.endsWith(" INFO request failed")).map(timeOf);
  return {
    served: lines.filter((line) => line.endsWith(" INFO request served")).length,
    failed: failed.length,
    lastFailed: failed.length === 0 ? null : Math.max(...failed),
  };
};
