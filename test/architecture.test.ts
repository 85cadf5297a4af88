import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { expect, test } from "vitest";

/** Who may import whom. First matching room wins; everything not listed is forbidden. */
const ROOMS: readonly { readonly room: RegExp; readonly may: readonly RegExp[] }[] = [
  { room: /^src\/core\//, may: [/^src\/core\//, /^node:crypto$/] },
  { room: /^src\/ports\.ts$/, may: [/^src\/core\//] },
  { room: /^src\/flow\//, may: [/^src\/(core|flow)\//, /^src\/ports\.ts$/] },
  {
    // docs/adr/0013: the client of the API server is one, and it stands with the providers.
    room: /^src\/io\/(ledger|escrow)\/kubernetes[\w-]*\.ts$/,
    may: [/^src\/(core|io)\//, /^src\/ports\.ts$/, /^node:/, /^providers\/(kit|kubernetes(-rights)?)\.ts$/],
  },
  {
    room: /^src\/io\//,
    may: [
      /^src\/(core|io)\//,
      /^src\/ports\.ts$/,
      /^node:/,
      /^(zod\/mini|yaml|got|age-encryption|node-cron)$/,
    ],
  },
  {
    room: /^src\/load(\.ts$|\/)/,
    may: [
      /^src\/core\/(errors|secret)\.ts$/,
      /^src\/io\/(clock|config[\w-]*)\.ts$/,
      /^src\/ports\.ts$/,
      /^src\/load\//,
      /^providers\/(index|kit)\.ts$/,
    ],
  },
  { room: /^src\/testkit\.ts$/, may: [/^test\/(contract|kit)\//, /^src\/(core|ports)/, /^providers\//] },
  {
    room: /^providers\/(kit|config-keys|options|program|third-party)\.ts$/,
    may: [
      /^src\/core\//,
      /^src\/ports\.ts$/,
      /^providers\/(kit|options|program)\.ts$/,
      /^node:/,
      /^zod(\/mini)?$/,
    ],
  },
  {
    room: /^providers\/kubernetes(-login|-rights)?\.ts$/,
    may: [
      /^src\/core\/errors\.ts$/,
      /^src\/ports\.ts$/,
      /^providers\/(kit|config-keys|program|kubernetes|kubernetes-login)\.ts$/,
      /^node:/,
      /^(zod\/mini|yaml)$/,
      /^@kubernetes\//,
    ],
  },
  {
    room: /^providers\/(stores|rollouts)\//,
    may: [
      /^src\/core\/(errors|secret)\.ts$/,
      /^src\/ports\.ts$/,
      /^providers\/(kit|config-keys|program|kubernetes|kubernetes-rights)\.ts$/,
      /^node:/,
      /^(zod\/mini|dotenv|got|@noble\/curves\/secp256k1\.js)$/,
      /^(@aws-sdk|@azure|@kubernetes)\//,
    ],
  },
  {
    room: /^providers\/index\.ts$/,
    may: [/^providers\//, /^src\/(ports|core\/errors|core\/suggest)\.ts$/, /^zod\/mini$/],
  },
  {
    room: /^src\/shell\//,
    may: [
      /^src\//,
      /^providers\/(index|kit)\.ts$/,
      /^deploy\/policies\//,
      /^node:/,
      /^(commander|node-cron|pino|prom-client|@clack\/prompts|yaml)$/,
    ],
  },
];

/** A store or rollout may be several files: its other halves are found beside it, and nobody else's. */
const SIBLING = /^providers\/(?:stores\/(?:aws|azure|dotenv|kubernetes)|rollouts\/kubernetes)/;
const REVEAL_ALLOWED = [
  // The shape of what lies in an inbox is looked at there.
  /^src\/core\/(secret|intake)\.ts$/,
  /^src\/io\/(imkit|escrow\/(file|kubernetes))\.ts$/,
  // The loading half: what it hands out is the key.
  /^src\/load\.ts$/,
  /^src\/shell\/commands\/run\.ts$/,
  /^providers\/stores\//,
];

const root = join(import.meta.dirname, "..");
const files = ["src", "providers"].flatMap((top) =>
  readdirSync(join(root, top), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => `${top}/${file}`),
);
const IMPORT =
  /(?:^|\n)\s*(?:import|export)\b[^;]*?\bfrom\s*["']([^"']+)["']|(?:\bimport\s*\(|\n\s*import)\s*["']([^"']+)["']/g;

const importsOf = (file: string, source: string): readonly string[] =>
  [...source.matchAll(IMPORT)].map(([, from, bare]) => {
    const to = from ?? bare ?? "";
    return to.startsWith(".") ? relative(root, join(root, dirname(file), to)) : to;
  });

const forbidden = (file: string, source: string): readonly string[] => {
  const room = ROOMS.find((r) => r.room.test(file));
  if (room === undefined) return [`${file} lives in no room; add it to ROOMS`];
  const kin = SIBLING.exec(file)?.[0];
  return importsOf(file, source).filter(
    (to) => !room.may.some((m) => m.test(to)) && !(kin !== undefined && to.startsWith(kin)),
  );
};

test.each(files)("%s stays in its room", (file) => {
  const source = readFileSync(join(root, file), "utf8");
  expect(forbidden(file, source)).toEqual([]);
  const reveals = source.includes(".reveal()") && !REVEAL_ALLOWED.some((r) => r.test(file));
  expect(reveals, "reveal() outside the allowed files").toBe(false);
  expect(source.split("\n").length, "split this file").toBeLessThanOrEqual(301);
});

test("a planted import in the wrong direction is named", () => {
  expect(forbidden("src/core/x.ts", 'import { a } from "../io/config.ts";\n')).toEqual(["src/io/config.ts"]);
  expect(forbidden("src/flow/x.ts", 'const a = await import("../../providers/index.ts");\n')).toEqual([
    "providers/index.ts",
  ]);
  expect(forbidden("providers/stores/x.ts", 'import { b } from "./exec.ts";\n')).toEqual([
    "providers/stores/exec.ts",
  ]);
});

test("only the shell touches the process and the console", () => {
  const touching = files.filter((file) => {
    const source = readFileSync(join(root, file), "utf8").replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
    return (
      /\bconsole\.|\bprocess\.(?:exit|stdout|stderr|argv|on)\b/.test(source) && !file.startsWith("src/shell/")
    );
  });
  expect(touching).toEqual([]);
});

test("no registry or download address is in the lock file, and nothing runs at install but our own build", () => {
  const lock = readFileSync(join(root, "package-lock.json"), "utf8");
  expect(/"resolved":\s*"https?:/.test(lock)).toBe(false);
  const runtimeScripts = Object.entries(
    JSON.parse(lock).packages as Record<string, { hasInstallScript?: boolean; dev?: boolean }>,
  )
    .filter(([name, p]) => name !== "" && p.hasInstallScript === true && p.dev !== true)
    .map(([name]) => name);
  expect(runtimeScripts).toEqual([]);
});
