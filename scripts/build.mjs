// Bundles the program (src/shell/cli.ts) and the importable doors (load, testkit) with their types into dist/. Plain JavaScript so that any Node can run it.
// Why it is cut like this: docs/adr/0009-start-up.md.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
// Where to, for those who want a build of their own beside it.
const outdir = resolve(process.argv[2] ?? join(root, "dist"));
rmSync(outdir, { recursive: true, force: true });
const typed = declarations();

/** Large libraries that most commands do without: each is a file of its own, for a start costs what its one file weighs. */
const LATE = {
  got: "got",
  "age-encryption": "age",
  "@clack/prompts": "prompts",
  "@noble/curves/secp256k1.js": "secp256k1",
  "node-cron": "cron",
  pino: "log",
  "prom-client": "metrics",
  "@aws-sdk/client-secrets-manager": "aws",
  "@azure/keyvault-secrets": "azure-secrets",
  "@azure/identity": "azure-identity",
  "@kubernetes/client-node/dist/config.js": "kubernetes",
};

const late = {
  name: "late libraries",
  setup({ onResolve, onLoad }) {
    const isLate = (path) => path in LATE || path.startsWith("node:");
    onResolve({ filter: /.*/ }, ({ path, kind }) =>
      kind === "dynamic-import" && isLate(path) ? { path, namespace: "late" } : undefined,
    );
    onResolve({ filter: /.*/, namespace: "late" }, ({ path }) => ({ path, external: true }));
    onLoad({ filter: /.*/, namespace: "late" }, ({ path }) => {
      if (path.startsWith("node:")) return { contents: `module.exports = require("${path}")` };
      const file = `./${LATE[path]}.cjs`;
      return { contents: `export * from "${file}"; export { default } from "${file}"` };
    });
  },
};

/** Asked for in a `try` by what some libraries log with, to know about colours; ours log nothing. */
const noColours = {
  name: "no colours",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^supports-color$/ }, ({ path }) => ({ path, namespace: "none" }));
    onLoad({ filter: /.*/, namespace: "none" }, () => ({ contents: "module.exports = {}" }));
  },
};

/** Who names one of these at run time has Node load its whole fetch(), which nobody here uses: some 20 ms. */
const WITHOUT_FETCH = [
  [
    /[\\/]age-encryption[\\/]dist[\\/]io\.js$/,
    "new Uint8Array(await new Response(stream).arrayBuffer())",
    "new Uint8Array(Buffer.concat(await Array.fromAsync(stream)))",
  ],
  [
    /[\\/]ts-http-runtime[\\/]dist[\\/]esm[\\/](formData|client[\\/]sendRequest)\.js$/,
    'typeof FormData !== "undefined" && body instanceof FormData',
    "false",
  ],
];
const withoutFetch = {
  name: "without fetch",
  setup({ onLoad }) {
    for (const [filter, from, to] of WITHOUT_FETCH)
      onLoad({ filter }, ({ path }) => {
        const text = readFileSync(path, "utf8");
        if (!text.includes(from)) throw new Error(`${path} has changed: does it still load fetch()?`);
        return { contents: text.replace(from, to) };
      });
  },
};

/** Of the Kubernetes client we use the reading of kubeconfigs: without its hundreds of models, and without what it would send them by. */
const leanKubernetes = {
  name: "lean kubernetes",
  setup({ onResolve }) {
    onResolve({ filter: /^(undici|\.\/gen\/index\.js)$/ }, ({ path, importer }) =>
      /@kubernetes[\\/]client-node/.test(importer) ? { path, namespace: "none" } : undefined,
    );
  },
};

/**
 * commander can start subcommands that are programs of their own, for which it loads the half of Node that we do without; and its
 * default imports of Node's modules would each be copied property by property.
 */
const leanCommander = {
  name: "lean commander",
  setup({ onLoad }) {
    onLoad({ filter: /[\\/]commander[\\/]lib[\\/]\w+\.js$/ }, ({ path }) => ({
      contents: readFileSync(path, "utf8")
        .replace(/^import childProcess from .*$/m, "const childProcess = {};")
        .replace(/^import (\w+) from (['"]node:\w+['"]);$/gm, "const $1 = process.getBuiltinModule($2);")
        .replace(/^const process = .*$/m, ""),
    }));
  },
};

const common = {
  absWorkingDir: root,
  outdir,
  bundle: true,
  loader: { ".yaml": "text" },
  platform: "node",
  target: "node22.22",
  minify: true,
  legalComments: "external",
  logLevel: "warning",
};
const script = {
  ...common,
  format: "cjs",
  outExtension: { ".js": ".cjs" },
  banner: {
    js:
      'var __url="file://"+encodeURI(__filename).replace(/[?#]/g,encodeURIComponent),' +
      '__load=typeof __import=="undefined"?name=>import(name):__import;',
  },
  define: { "import.meta.url": "__url" },
  metafile: true,
};

const program = await build({
  ...script,
  entryPoints: { cli: "src/shell/cli.ts" },
  sourcemap: true,
  sourcesContent: false,
  external: ["@aws-sdk/*", "@azure/*", "@kubernetes/*"],
  plugins: [late, leanCommander],
});
const libraries = await build({
  ...script,
  entryPoints: Object.fromEntries(Object.entries(LATE).map(([name, file]) => [file, name])),
  plugins: [noColours, withoutFetch, leanKubernetes],
});
await build({
  ...common,
  entryPoints: { testkit: "src/testkit.ts", load: "src/load.ts" },
  format: "esm",
  splitting: true,
  external: ["@aws-sdk/*", "@azure/*", "@kubernetes/*"],
  banner: { js: "import{createRequire as __cr}from'node:module';const require=__cr(import.meta.url);" },
});

// What is compiled from memory has no import() without a warning of Node's; the launcher lends its own. As long as the word it stands for.
for (const name of ["cli", ...Object.values(LATE)]) {
  const file = join(outdir, `${name}.cjs`);
  const [banner, ...code] = readFileSync(file, "utf8").split("\n");
  writeFileSync(file, [banner, code.join("\n").replaceAll(/(?<![.\w$"'`])import\(/g, "__load(")].join("\n"));
}
for (const [file, { imports }] of Object.entries({
  ...program.metafile.outputs,
  ...libraries.metafile.outputs,
})) {
  if (!file.endsWith(".cjs")) continue;
  // The launcher reads it byte by byte, and lends it its own `require`. In a regexp, too, an escape means the same.
  const text = readFileSync(join(root, file), "utf8");
  const escape = (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
  if (/[^\0-\x7f]/.test(text)) writeFileSync(join(root, file), text.replaceAll(/[^\0-\x7f]/g, escape));
  if (readFileSync(join(root, file)).some((byte) => byte > 127)) throw new Error(`${file} is not all ASCII`);
  const foreign = imports.find(
    ({ path, kind }) => kind === "require-call" && !isBuiltin(path) && !path.startsWith("./"),
  );
  if (foreign !== undefined) throw new Error(`${file}: bundle ${foreign.path}, or import() it`);
}
await warm();
await typed;

/** What tsc says of the importable doors, and of what they refer to, in `types/`. It checks nothing here: `npm run check` does. */
async function declarations() {
  const made = mkdtempSync(join(tmpdir(), "imkit-rotator-types-"));
  try {
    const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
    const args = ["-p", "scripts/tsconfig.types.json", "--outDir", made];
    const child = spawn(process.execPath, [tsc, ...args], {
      cwd: root,
      stdio: ["ignore", "inherit", "inherit"],
    });
    await once(child, "exit");
    const wanted = ["src/load.d.ts", "src/testkit.d.ts"];
    for (const file of wanted) {
      const text = readFileSync(join(made, file), "utf8");
      for (const [, path] of text.matchAll(/(?:from |import\()"(\.[^"]+)\.ts"/g)) {
        const next = join(dirname(file), `${path}.d.ts`);
        if (!wanted.includes(next)) wanted.push(next);
      }
      cpSync(join(made, file), join(outdir, "types", file));
    }
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
}

/**
 * Lays what V8 makes of the program beside it: for this Node, the pinned one, and the one that npm was started with. For another, or where
 * this fails, a start takes longer, and that is all.
 */
async function warm() {
  const folder = mkdtempSync(join(tmpdir(), "imkit-rotator-build-"));
  const warmer = join(folder, "warm.cjs");
  try {
    await build({
      ...common,
      outdir: undefined,
      outfile: warmer,
      format: "cjs",
      entryPoints: ["scripts/warm.ts"],
    });
    const pinned = join(root, "node_modules", `node-linux-${process.arch}`, "bin", "node");
    const nodes = [process.execPath, pinned, process.env.npm_node_execpath ?? ""].filter(existsSync);
    for (const node of new Set(nodes.map((path) => realpathSync(path)))) {
      const place = mkdtempSync(join(folder, "place-"));
      const { status } = spawnSync(node, [warmer, outdir, place], {
        env: { PATH: process.env.PATH, HOME: place, NO_COLOR: "1" },
        stdio: "ignore",
        timeout: 60_000,
      });
      if (status !== 0) process.stderr.write(`build: starts under ${node} will not be warm\n`);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
