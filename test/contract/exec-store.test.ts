import { chmod, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import exec from "../../providers/stores/exec.ts";
import { tempDir, toolsIn } from "../kit/provider-tools.ts";
import { storeContract } from "./store.ts";

const READ = `#!/bin/sh
[ -e broken ] && { cat value >&2; exit 9; }
[ -e value ] || exit 3
cat value; echo
`;
const REMOVE = `#!/bin/sh
[ -e broken ] && exit 9
rm -f value
`;
const WRITE = `#!/bin/sh
[ -e broken ] && { cat >&2; exit 9; }
cat > next && mv next value && echo x >> writes
`;

storeContract({
  it,
  expect,
  name: "exec",
  open: async () => {
    const { dir, remove } = await tempDir();
    for (const [name, text] of [
      ["read.sh", READ],
      ["write.sh", WRITE],
      ["remove.sh", REMOVE],
    ] as const) {
      await writeFile(join(dir, name), text);
      await chmod(join(dir, name), 0o755);
    }
    const config = { read: ["./read.sh"], write: ["./write.sh"], remove: ["./remove.sh"], timeout: "10s" };
    return {
      store: exec.open(config, toolsIn(dir).tools),
      put: async (secret) => await writeFile(join(dir, "value"), secret.reveal()),
      breakIt: async () => {
        await rm(join(dir, "next"), { force: true });
        await writeFile(join(dir, "broken"), "");
      },
      writes: async () => (await readFile(join(dir, "writes"), "utf8").catch(() => "")).length,
      close: remove,
    };
  },
});
