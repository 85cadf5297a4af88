import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import * as z from "zod/mini";
import { loadStoreProvider, storeContract } from "../../src/testkit.ts";
import { toolsIn } from "../kit/provider-tools.ts";

/** The store that providers/README.md tells a reader to copy. */
const readme = readFileSync(join(import.meta.dirname, "../../providers/README.md"), "utf8");
const [, code = ""] = /^```ts key-file\.store\.ts\n(.*?)^```$/ms.exec(readme) ?? [];
const home = await mkdtemp(join(tmpdir(), "imkit-rotator-readme-"));
await writeFile(join(home, "key-file.store.ts"), code);
afterAll(async () => await rm(home, { recursive: true, force: true }));

storeContract({
  it,
  expect,
  name: "the README's store",
  open: async () => {
    const dir = await mkdtemp(join(tmpdir(), "imkit-rotator-key-file-"));
    const provider = await loadStoreProvider("./key-file.store.ts", home);
    return {
      store: provider.open(z.parse(provider.schema, { path: "key" }), toolsIn(dir).tools),
      put: async (secret) => await writeFile(join(dir, "key"), secret.reveal()),
      breakIt: async () => await rm(dir, { recursive: true }),
      close: async () => await rm(dir, { recursive: true, force: true }),
    };
  },
});
