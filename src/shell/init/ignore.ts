import { appendFileSync, lstatSync, readFileSync, realpathSync } from "node:fs";
import { basename, dirname, join, relative, sep } from "node:path";
import { RotatorError } from "../../core/errors.ts";

const isThere = (path: string): boolean => {
  try {
    lstatSync(path);
    return true;
  } catch {
    return false;
  }
};

/** The git work tree that `folder` lies in; null = none. */
export const workTree = (folder: string): string | null => {
  if (isThere(join(folder, ".git"))) return folder;
  const parent = dirname(folder);
  return parent === folder ? null : workTree(parent);
};

const real = (path: string): string => {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
};

const linesOf = (file: string): string => {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
};

/** Patterns that plainly cover a file of that name, wherever they stand. */
const covering = (name: string): readonly string[] =>
  name.startsWith(".env") ? [name, ".env*", ".env.*", "*.env"] : [name, "*.env"];

const isCovered = (root: string, path: string): boolean => {
  const name = basename(path);
  const folders = [root, ...relative(root, dirname(path)).split(sep).filter(Boolean)];
  return folders
    .map((_, i) => join(...folders.slice(0, i + 1)))
    .some((folder) => {
      const anchored = `/${relative(folder, path).split(sep).join("/")}`;
      const lines = linesOf(join(folder, ".gitignore")).split(/\r?\n/);
      const fits = (line: string): boolean => {
        const bare = line.trim().replace(/\/$/, "");
        if (bare === anchored || bare === anchored.slice(1)) return true;
        return covering(name).some((p) => bare === p && (p !== ".env.*" || name !== ".env"));
      };
      return lines.some(fits);
    });
};

/**
 * Adds to the work tree's `.gitignore` what must not be committed and is not ignored yet. Paths outside of the tree need nothing.
 * @returns the lines that were added
 * @throws RotatorError INPUT_MISSING when the file cannot be written
 */
export const ignore = (
  root: string,
  paths: readonly { readonly path: string; readonly folder: boolean }[],
): readonly string[] => {
  const base = real(root);
  const lines = paths.flatMap(({ path, folder }) => {
    const inside = relative(base, join(real(dirname(path)), basename(path)));
    if (inside === "" || inside.startsWith("..") || isCovered(base, join(base, inside))) return [];
    return [
      `/${inside
        .split(sep)
        .join("/")
        .replace(/([*?[\]\\ ])/g, "\\$1")}${folder ? "/" : ""}`,
    ];
  });
  if (lines.length === 0) return [];
  const file = join(base, ".gitignore");
  const before = linesOf(file);
  const end = before.includes("\r\n") ? "\r\n" : "\n";
  const gap = before === "" || before.endsWith("\n") ? "" : end;
  try {
    appendFileSync(file, gap + ["# imkit-rotator: keys and state", ...lines, ""].join(end));
  } catch {
    throw new RotatorError("INPUT_MISSING", {
      what: `${file} could not be written.`,
      state: "The config is written.",
      do: [`Add these lines to it yourself: ${lines.join("  ")}`],
    });
  }
  return lines;
};
