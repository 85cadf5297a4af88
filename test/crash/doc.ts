import { writeFileSync } from "node:fs";
import { join } from "node:path";

/** One row of the table. */
export type Line = {
  readonly row: {
    readonly command: string;
    readonly mode: string;
    readonly fault: string;
    readonly at: string;
  };
  /** Which occurrences were struck. */
  readonly n: string;
  /** What they were about. */
  readonly places: readonly string[];
  readonly hits: number;
  readonly wrong: readonly string[];
};

/** The outcome that a row must have; anything else fails the suite. */
export const EXPECTED = {
  SIGKILL: "same end",
  "kill -9": "same end",
  SIGTERM: "exit 143, same end",
  SIGINT: "exit 130, same end",
  EIO: "nothing after it, same end",
  ENOSPC: "nothing after it, same end",
} as const satisfies Record<string, string>;

export const MATRIX = join(import.meta.dirname, "..", "..", "docs", "crash-matrix.md");

const outcomeOf = ({ row, wrong }: Line): string =>
  wrong.length === 0 ? (EXPECTED[row.fault as keyof typeof EXPECTED] ?? "?") : `BROKEN: ${wrong[0]}`;

/** Holds no time, no random id and no count that differs between two runs. */
export const matrixText = (lines: readonly Line[]): string =>
  HEAD +
  lines
    .map((line) => {
      const { command, mode, fault, at } = line.row;
      return `| ${[`\`${command}\``, mode, fault, at, line.n, line.places.join(", "), outcomeOf(line)].join(" | ")} |\n`;
    })
    .join("") +
  TAIL;

export const writeMatrix = (lines: readonly Line[]): void => writeFileSync(MATRIX, matrixText(lines));

/** Outcomes of a written table that are not what they must be. */
export const unexpected = (text: string): readonly string[] => {
  const rows = text.split("\n").filter((line) => line.startsWith("| `"));
  if (rows.length === 0) return ["there is no table"];
  return rows.filter((line) => {
    const cells = line.split("|").map((cell) => cell.trim());
    return cells[7] !== EXPECTED[cells[3] as keyof typeof EXPECTED];
  });
};

const HEAD = `# What happens when it is killed
This table is written by \`npm test -- crash\`, from what it saw: real processes of the built program are struck at one system call after the
other, then run again. Do not edit it; a row whose last column says anything else than the expected outcome fails that suite.

- **SIGKILL**: \`strace -f -e inject=CALL:signal=KILL:when=N\`, for N = 1, 2, 3 … until a run ends unhurt. The process dies before the N-th call is
  carried out, so each row together with its neighbours covers "before" and "after" of every change. For these runs the program has one file thread
  (\`UV_THREADPOOL_SIZE=1\`), so that N means the same call each time. **kill -9**: from outside, without strace, as soon as the N-th new entry can be read.
- **SIGTERM, SIGINT**: at each append. The program ends what is under way, exits 143 or 130, and starts nothing new. (A signal at the very
  last append finds nothing left to interrupt: the command may then end as usual.)
- **EIO, ENOSPC**: that call, and only that one, fails. At the ledger it ends in exit 1, \`LEDGER_UNWRITABLE\`, and nothing is done after it: no file is
  written or renamed, no program started, nothing taken out of escrow. Elsewhere the step fails by its own rules.

*Same end* means: what a person or a timer runs next goes on and reaches \`done\`. After the blow the env file is byte for byte the old or the new one,
at most one temporary file is there, the ledger has no hole and no torn entry, and no store was written and no rollout triggered without an
intent. A key that was called \`durable\` is given no second time. Neither output nor ledger holds a key in any form. At the end the env file differs in the value alone, \`audit verify\` and the shell recipe of
\`ledger-format.md\` are content, every intent is closed, \`status\` says \`in-sync\`, escrow is empty, no temporary file lies beside the env file or in escrow, and each
rollout was triggered at least once and never more often than there are intents for it.

| command | mode | fault | at | N | what it hit | outcome |
|---|---|---|---|---|---|---|
`;

const TAIL = `
*mode*: \`overlap\` = the old key still works while \`rotate\` runs, \`replace\` = it is dead already, \`first\` = there was none. \`nothing staged\`, \`staged\`, \`all written\` = where a rotation stood when the leak was called out.

## Left behind on purpose
A killed process may leave one \`.tmp-…\` file in the ledger folder or in the folder of reports (removed when it is a day old; readers ignore it; it holds one
entry or one report, no key) and, when the very first \`stage\` was killed while it made the escrow identity, one \`.tmp-escrow-identity.txt-…\` (0600) beside the identity.

## The known window
A rotator that is *paused* (SIGSTOP, a frozen virtual machine, a long swap storm) for more than 90 s counts as dead, and another one takes over. Where a
store compares and swaps (AWS Secrets Manager, Kubernetes), what the paused one does when it wakes is refused by the store. Where it does not
(**Azure Key Vault, dotenv, exec**), a write that had already been handed to the system or sent on its way can still land afterwards and put an older key back.

It is kept small: right before each write the rotator checks that the newest entry is its own and less than 30 s old, and a call that was not handed over
within 59 s is not made any more, by the clock and not by a timer; both together stay under the 90 s. Only a pause between that last check and the system call or
request itself is left. An env file that is replaced by a rename is out of reach even then: whoever takes over writes the store again and takes the temporary file of the
paused one away. What remains is an env file that must be written in place (a mount point, several names), a program of an exec store, and a request to Azure.

It is found, not prevented:
1. The one that wakes sees that it was superseded, reads the store again, appends \`late-effect\` with the fingerprint that it found, and exits 6.
2. Every store is read again before a person is asked to revoke, and again before \`done\`: a rotation that is still open notices the older key and does not end.
3. After \`done\`, \`status\` shows \`drift\` (\`--exit-code\`: 5), and the drift check of each tick reports it.

\`test/crash/paused.test.ts\` plays all of it with real processes: a rotator stopped before its write, one stopped in the very rename, one in the very write, and
one in a rollout. A rollout that cannot be asked about its state (exec, webhook) is triggered again by the one that takes over, under an intent of its own.
\`test/peers/four-stores-paused.test.ts\` does so with AWS (moto), a real API server, the Key Vault stand-in and a file: AWS and Kubernetes refuse what comes late; in Key
Vault and in the file it lands, \`status\` shows drift, and the next \`rotate\` puts the current key back.

\`test/crash/emergency.test.ts\` calls a leak out beside a rotator at work, after each of its entries, and kills one of the two: the other one brings it to the end.
`;
