import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { AbortController as quickAbort } from "./world/abort.ts";
import { loadProduct, type Product } from "./world/product.ts";

const SRC = join(import.meta.dirname, "..", "..", "src");

/** A change to one source file: `find` must stand there exactly once, however its white space is. */
export type Change = { readonly file: string; readonly find: string; readonly put: string };

/**
 * What makes a world run several times as fast: a line is taken apart once instead of once for each reader (ledger lines of a world never
 * change), and so is a step of the fold from one state; a fingerprint is made once for each key; text is not encoded (there is none that
 * needs it); aborting needs no weak references. What is known is dropped with its world, never cleared: V8 keeps what a cleared Map held as
 * long as anything young hangs on it. One world of fifty does without all this, and a test holds that the stories are the same.
 */
const QUICK: readonly Change[] = [
  {
    file: "core/chain.ts",
    find: "export const inspect = (bytes: Uint8Array): Line => {",
    put: `let seen = new Map<Uint8Array, Line>();
export const inspect = (bytes: Uint8Array): Line => {
  const known = seen.get(bytes);
  if (known !== undefined) return known;
  const line = inspectOnce(bytes);
  // A world begins: also in a copy that only reads.
  if (line.problem === null && line.entry.seq === 0) seen = new Map();
  seen.set(bytes, line);
  return line;
};
const inspectOnce = (bytes: Uint8Array): Line => {`,
  },
  {
    file: "core/chain.ts",
    find: "const stored = mapText(body, encodeText);",
    put: "const stored: unknown = body; if (body.seq === 0) seen = new Map();",
  },
  {
    file: "core/chain.ts",
    find: "const read: unknown = JSON.parse(r);",
    put: `if (!r.includes("%")) {
    const entry = { ...(stored as Entry), h };
    seen.set(line, { problem: null, h, entry });
    return { h, line, entry };
  }
  const read: unknown = JSON.parse(r);`,
  },
  // A getter that stands in an object literal gets a hidden class of its own each time, which keeps its world from the garbage collector.
  { file: "flow/loop.ts", find: "get run() { return number; },", put: "run: number," },
  { file: "flow/loop.ts", find: "number = run + 1;", put: "number = pass.run = run + 1;" },
  {
    file: "core/state.ts",
    find: "export const evolve = (s: AppState, e: LedgerEvent, at: At): AppState => {",
    put: `type Step = { readonly s: AppState; readonly seq: number; readonly index: number; readonly ts: string; readonly next: AppState };
let steps = new Map<LedgerEvent, Step>();
export const evolve = (s: AppState, e: LedgerEvent, at: At): AppState => {
  const known = steps.get(e);
  if (known !== undefined && known.s === s && known.seq === at.seq && known.index === at.index && known.ts === at.ts)
    return known.next;
  if (e.type === "genesis") steps = new Map();
  const next = evolveOnce(s, e, at);
  steps.set(e, { s, ...at, next });
  return next;
};
const evolveOnce = (s: AppState, e: LedgerEvent, at: At): AppState => {`,
  },
  {
    file: "core/secret.ts",
    find: "  fingerprint(salt: string): Fp {",
    put: `  fingerprint(salt: string): Fp {
    const key = this.#bytes.toString("latin1");
    const known = made.get(salt)?.get(key);
    if (known !== undefined) return known;
    const fp = this.fingerprintOnce(salt);
    if (!made.has(salt)) made = new Map([[salt, new Map()]]);
    made.get(salt)?.set(key, fp);
    return fp;
  }

  fingerprintOnce(salt: string): Fp {`,
  },
  {
    file: "core/secret.ts",
    find: "const FINGERPRINT_DOMAIN",
    put: "let made = new Map<string, Map<string, string>>();\nconst FINGERPRINT_DOMAIN",
  },
];

const ABORT = `import { AbortController, AbortSignal } from ${JSON.stringify(
  pathToFileURL(join(import.meta.dirname, "world", "abort.ts")).href,
)};\n`;

export type Copies = {
  /** The sources with these changes, as modules of their own. */
  readonly load: (changes: readonly Change[]) => Promise<Product>;
  readonly remove: () => void;
};

/** Changed copies of the pure rooms of the product, in a temporary folder. Nothing of this is ever in the product itself. */
export const makeCopies = (): Copies => {
  const folder = mkdtempSync(join(tmpdir(), "imkit-rotator-simulation-"));
  let count = 0;
  return {
    load: async (changes) => {
      const src = join(folder, `src-${count++}`);
      mkdirSync(src);
      writeFileSync(join(src, "package.json"), '{ "type": "module" }');
      for (const room of ["core", "flow"]) cpSync(join(SRC, room), join(src, room), { recursive: true });
      cpSync(join(SRC, "ports.ts"), join(src, "ports.ts"));
      for (const { file, find, put } of [...QUICK, ...changes]) {
        const path = join(src, file);
        const text = readFileSync(path, "utf8");
        const pattern = new RegExp(
          find
            .trim()
            .replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&")
            .replaceAll(/\s+/g, "\\s+"),
          "g",
        );
        const times = text.match(pattern)?.length ?? 0;
        if (times !== 1) throw new Error(`${file} holds this ${times} times, not once: ${find}`);
        writeFileSync(
          path,
          text.replace(pattern, () => put),
        );
      }
      for (const name of readdirSync(join(src, "flow"))) {
        const path = join(src, "flow", name);
        const text = readFileSync(path, "utf8");
        if (/\bnew AbortController|\bAbortSignal\./.test(text)) writeFileSync(path, `${ABORT}${text}`);
      }
      return {
        ...(await loadProduct(src)),
        AbortController: quickAbort as unknown as typeof AbortController,
      };
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
};

/** The product as it is. */
export const loadAsIs = async (): Promise<Product> => ({ ...(await loadProduct(SRC)), AbortController });
