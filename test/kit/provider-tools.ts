import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Tools } from "../../providers/kit.ts";
import { ProviderError } from "../../src/core/errors.ts";

/** A new empty folder under the system's temporary one, and its end. */
export const tempDir = async (): Promise<{ readonly dir: string; readonly remove: () => Promise<void> }> => {
  const dir = await mkdtemp(join(tmpdir(), "imkit-rotator-"));
  return { dir, remove: async () => await rm(dir, { recursive: true, force: true }) };
};

/** What a provider gets, with copies kept in `backups`. */
export const toolsIn = (configDir: string) => {
  const backups: { readonly name: string; readonly bytes: Buffer }[] = [];
  const tools: Tools = {
    app: "chat-prod",
    configDir,
    env: { PATH: process.env["PATH"], HOME: configDir },
    valueOf: async () => "shared-secret",
    backup: async (name, bytes) => void backups.push({ name, bytes: Buffer.from(bytes) }),
  };
  return { tools, backups };
};

/** The error that a call of a provider has to end in. */
export const refusal = async (call: Promise<unknown>): Promise<ProviderError> => {
  const error = await call.then(
    () => null,
    (caught: unknown) => caught,
  );
  if (error instanceof ProviderError) return error;
  throw new Error("this call had to be refused, and was not");
};
