/** Writes one small entry 0, or a long entry 1: `ledger-writer.ts DIR SEQ`. Prints what came of it, as JSON. */
import { RotatorError } from "../../src/core/errors.ts";
import { fileLedger } from "../../src/io/ledger/file.ts";

const [dir = "", seq = "0"] = process.argv.slice(2);
const bytes = Buffer.from(`${"x".repeat(seq === "0" ? 100 : 8000)}\n`);
try {
  console.log(JSON.stringify({ made: await fileLedger(dir).create(Number(seq), bytes) }));
} catch (error) {
  console.log(
    JSON.stringify(error instanceof RotatorError ? { code: error.code, why: error.why } : { code: "?" }),
  );
}
