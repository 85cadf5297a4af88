/**
 * Ledgers with their verdicts, for this program and for anyone who writes a verifier of his own.
 * `node test/vectors/ledger/make.ts` writes them; a test holds them byte-stable.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { bodyOf, chainOf, done, genesis, intent, lineOf, observed, opened, reline, result, STORY } from "../../kit/ledger-story.ts";
import { seal } from "../../../src/core/chain.ts";

export type Vector = {
  readonly bytes: Buffer;
  readonly expected: {
    readonly ok: boolean;
    readonly entries: number;
    readonly open: number;
    readonly partial: boolean;
    readonly problems: readonly string[];
    /** What hash, chain and order alone say (the shell recipe of docs/ledger-format.md). */
    readonly chain: boolean;
  };
};

const CLAIM = {
  type: "claimed",
  inst: "inst-1",
  host: "ops-1",
  bootId: "b-1",
  pidNamespace: "n-1",
  pid: 4711,
  startTime: "1200",
};
const claim = (value: Partial<typeof CLAIM> = {}) => ({ ...CLAIM, ...value });
const REASON = { type: "waived", rotation: "r1", target: "env", reason: "主機已停用 100%" };
const good = chainOf([...STORY, [claim(), REASON], [{ type: "released", inst: "inst-1" }]]);
const at = (seq: number, lines = good): Uint8Array => lines[seq] ?? new Uint8Array();
const hash = (seq: number, lines = good): string => Buffer.from(at(seq, lines)).toString("latin1").slice(6, 70);
const short = (...stories: unknown[][]) => chainOf([[genesis], [opened], ...stories]);
const text = (lines: readonly Uint8Array[]): string => Buffer.concat(lines).toString("latin1");
/** Changes one body and links everything after it anew: a forger's work, or a newer version's. */
const rechained = (seq: number, change: (r: string) => string): Uint8Array[] => {
  const lines = [...good];
  for (let i = seq; i < lines.length; i++) {
    const prev = i > seq ? hash(i - 1, lines) : null;
    lines[i] = reline(at(i), (r) => (prev === null ? change(r) : r.replace(/"prev":"\w+"/, `"prev":"${prev}"`)));
  }
  return lines;
};

const vector = (
  lines: readonly Uint8Array[],
  problems: readonly string[] = [],
  more: Partial<Vector["expected"]> = {},
): Vector => {
  const bytes = Buffer.concat(lines);
  const structural = problems.some((each) => !/^(NO_INTENT|OPEN_AFTER_END)/.test(each));
  const base = { ok: problems.length === 0, entries: lines.length, open: 0, partial: false, problems };
  return { bytes, expected: { ...base, chain: !structural, ...more } };
};
const bytewise = (content: string, entries: number, problems: readonly string[], open = 0): Vector =>
  vector([Buffer.from(content, "latin1")], problems, { entries, open });

export const VECTORS: Readonly<Record<string, Vector>> = {
  good: vector(good),
  "first-entry-only": vector(good.slice(0, 1)),
  partial: vector(good.slice(3), [], { partial: true }),
  open: vector(short([intent("aws"), intent("env")], [result("2.0", "unknown")]), [], { open: 2 }),
  "unknown-extra-fields": vector(rechained(2, (r) => r.replace('"fp":', '"extra":[1,{"deep":null}],"fp":'))),

  torn: bytewise(text(good).slice(0, -150), 7, ["UNREADABLE@6"]),
  "torn-in-the-middle": bytewise(text(good.with(3, at(3).subarray(0, 120))), 6, ["BAD_HASH@3", "BAD_SEQ@5"], 2),
  "no-line-feed": bytewise(text(good).slice(0, -1), 7, ["UNREADABLE@6"]),
  crlf: bytewise(text(good).replaceAll("\n", "\r\n"), 7, [0, 1, 2, 3, 4, 5, 6].map((n) => `NOT_CANONICAL@${n}`)),
  bom: bytewise(`\xef\xbb\xbf${text(good)}`, 7, ["NOT_CANONICAL@0"]),
  "nul-tail": bytewise(text(good) + "\0".repeat(64), 8, ["UNREADABLE@7"]),
  "empty-line": bytewise(`${text(good)}\n`, 8, ["UNREADABLE@7"]),
  "trailing-blanks": bytewise(text(good).replace("}}\n", "}} \n"), 7, ["NOT_CANONICAL@0"]),
  "two-in-a-line": bytewise(text(good.with(2, at(2).subarray(0, -1))), 6, ["BAD_HASH@2", "BAD_SEQ@4"]),
  "upper-case-hash": bytewise(text(good).replace(/"h":"[0-9a-f]+"/, (h) => `"h"${h.slice(3).toUpperCase()}`), 7, [
    "NOT_CANONICAL@0",
  ]),
  "17-kib": vector([...good, lineOf(`{"x":"${"x".repeat(17_000)}"}`)], ["NOT_CANONICAL@7"]),

  "flipped-byte": vector(good.with(2, Buffer.from(text([at(2)]).replace('"target":"aws"', '"target":"aWs"'))), ["BAD_HASH@2"]),
  "flipped-hash": vector(
    good.with(2, Buffer.from(text([at(2)]).replace(/"h":"(.)/, (_, c: string) => `"h":"${c === "0" ? "1" : "0"}`))),
    ["BAD_HASH@2", "BAD_PREV@3"],
  ),
  forged: vector(good.with(3, seal(bodyOf(3, hash(2), [result("2.0"), result("2.1")])).line), ["BAD_PREV@4"]),
  spliced: vector(good.with(4, at(4, chainOf(STORY, { ledger: "ledger-b" }))), ["BAD_PREV@4", "BAD_PREV@5"], { open: 1 }),
  swapped: vector(good.with(5, at(6)).with(6, at(5)), ["BAD_SEQ@5", "BAD_SEQ@6"]),
  gap: vector(good.toSpliced(5, 1), ["BAD_SEQ@6"]),
  twice: vector(good.toSpliced(3, 0, at(3)), ["BAD_SEQ@3"]),
  "first-with-prev": vector([seal(bodyOf(0, "0".repeat(64), [genesis])).line], ["BAD_PREV@0"]),

  "duplicate-key": vector(rechained(3, (r) => r.replace('"inst":', '"inst":"x","inst":')), ["NOT_CANONICAL@3"], { open: 1, chain: true }),
  "keys-out-of-order": vector(rechained(3, (r) => r.replace(/^\{(.*),"inst":"inst-1"/, '{"inst":"inst-1",$1')), ["NOT_CANONICAL@3"], {
    open: 1, chain: true,
  }),
  "two-to-the-53": vector(rechained(2, (r) => r.replace('"run":1', '"run":9007199254740992')), ["NOT_CANONICAL@2"], { chain: true }),
  fraction: vector(rechained(2, (r) => r.replace('"run":1', '"run":1.5')), ["NOT_CANONICAL@2"], { chain: true }),
  "bare-percent": vector(rechained(2, (r) => r.replace('"may"', '"100%"')), ["NOT_CANONICAL@2"], { chain: true }),
  "missing-field": vector(rechained(2, (r) => r.replace(/"opId":"\w+",/, "")), ["NOT_CANONICAL@2"], { chain: true }),
  "ill-typed-field": vector(rechained(3, (r) => r.replace('"outcome":"ok"', '"outcome":"good"')), ["NOT_CANONICAL@3"], { open: 1, chain: true }),
  "second-genesis": vector(rechained(6, (r) => r.replace("[{", `[{"salt":"${"00".repeat(32)}","type":"genesis"},{`)), ["NOT_CANONICAL@6"], {
    chain: true,
  }),
  "newer-type": vector(rechained(5, (r) => r.replace('"waived"', '"attested"')), ["UNKNOWN_TYPE@5"], { chain: true }),
  "newer-version": vector(rechained(6, (r) => r.replace('"v":1', '"v":2')), ["UNKNOWN_TYPE@6"]),

  "no-intent": vector(short([result("1.0")]), ["NO_INTENT@2"]),
  "result-beside-its-intent": vector(short([intent("aws"), result("2.0")]), ["NO_INTENT@2"], { open: 1 }),
  "second-result": vector(short([intent("aws")], [result("2.0")], [result("2.0", "failed")]), ["NO_INTENT@4"]),
  "open-after-end": vector(short([intent("aws")], [done]), ["OPEN_AFTER_END@2"]),
  "unknown-after-end": vector(short([intent("aws")], [result("2.0", "unknown")], [done]), ["OPEN_AFTER_END@2"]),
  "unknown-observed": vector(short([intent("aws")], [result("2.0", "unknown")], [observed("2.0")], [done])),
};

export const EXPECTED = `${JSON.stringify(
  Object.fromEntries(Object.entries(VECTORS).map(([name, { expected }]) => [`${name}.jsonl`, expected])),
  null,
  2,
)}\n`;

if (process.argv[1] === import.meta.filename) {
  for (const [name, { bytes }] of Object.entries(VECTORS)) writeFileSync(join(import.meta.dirname, `${name}.jsonl`), bytes);
  writeFileSync(join(import.meta.dirname, "expected.json"), EXPECTED);
}
