import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { programRoot } from "../kit/program.ts";

const repository = join(import.meta.dirname, "..", "..");
let dir: string;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "imkit-rotator-types-"));
  mkdirSync(join(dir, "node_modules", "@types"), { recursive: true });
  symlinkSync(await programRoot(), join(dir, "node_modules", "imkit-rotator"));
  for (const name of ["@types/node", "undici-types"])
    symlinkSync(join(repository, "node_modules", name), join(dir, "node_modules", name));
  writeFileSync(join(dir, "package.json"), '{ "type": "module" }');
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** What a service's own tsc says of a file of its, one line an error. `check`: of our declarations, too. */
const compile = async (text: string, module: string, check: boolean): Promise<readonly string[]> => {
  writeFileSync(join(dir, "service.ts"), text);
  const tsc = join(repository, "node_modules", "typescript", "bin", "tsc");
  const args = ["--noEmit", "--strict", "--target", "es2022", "--lib", "es2024", "--types", "node"];
  const way =
    module === "nodenext" ? ["--module", module] : ["--module", "esnext", "--moduleResolution", module];
  const more = ["--skipLibCheck", String(!check), "service.ts"];
  return await new Promise((resolve) =>
    execFile(process.execPath, [tsc, ...args, ...way, ...more], { cwd: dir }, (_, stdout) =>
      resolve(stdout.split("\n").filter((line) => line !== "")),
    ),
  );
};

const SERVICE = `
import { createKeySource, type KeySource, KeySourceError, type KeySourceOptions } from "imkit-rotator/load";

const options: KeySourceOptions = { store: { type: "dotenv", path: "./.env", key: "IMKIT_API_KEY" }, ttlMs: 60_000 };
const source: KeySource = await createKeySource(options);
const byApp: Promise<string> = (await createKeySource({ app: "chat", store: "env" })).get();
export const headers = async (): Promise<Record<string, string>> => ({ "IM-API-KEY": await source.get() });
export const again = async (): Promise<string> => {
  try {
    return await source.rejected();
  } catch (error) {
    if (error instanceof KeySourceError) return error.code;
    throw error;
  } finally {
    source.close();
  }
};
void byApp;
`;
const TESTKIT = `
import { type Place, type ProviderKit, Secret, type Store, storeContract, madeKey } from "imkit-rotator/testkit";

export const provider = ({ z, defineStore, bounded, ProviderError }: ProviderKit) =>
  defineStore({
    kind: "mine",
    schema: z.strictObject({ path: z.string() }),
    open: ({ path }, tools): Store => {
      const where: string = path + tools.configDir;
      const read = (signal: AbortSignal) => bounded(signal, 1_000, async () => null);
      const write = () => Promise.reject(new ProviderError("UNSUPPORTED", "not_applied"));
      const caps = { staging: false, compareAndSwap: false, witness: false, retire: false };
      return { where, caps, preflight: async () => [], read, write };
    },
  });
export const put = async (place: Place): Promise<void> => await place.put(new Secret(madeKey()));
export const suite: typeof storeContract = storeContract;
`;

test.each(["nodenext", "bundler"])(
  "a TypeScript service imports both doors, module resolution %s",
  async (module) => {
    expect(await compile(SERVICE + TESTKIT, module, true)).toEqual([]);
  },
);

test("what is wrong is an error at the service's own compiler", async () => {
  const wrong = `${SERVICE}
await createKeySource({ path: "./.env" });
export const key: string = source.get();
`;
  const errors = await compile(wrong, "nodenext", false);
  expect(errors.map((line) => /error (TS\d+)/.exec(line)?.[1]).filter(Boolean)).toEqual(["TS2353", "TS2322"]);
});
