import { isUtf8 } from "node:buffer";
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { RotatorError } from "../core/errors.ts";

const MAX_BYTES = 256 * 1024;
const MAX_LINES = 20;
const BOM = Buffer.from([0xef, 0xbb, 0xbf]);

/**
 * CONFIG_INVALID with one line a problem, each `<path>:<line>:<column>: message`, in the order of the file.
 * None of them may hold a value from the file: a person may have pasted a key into it.
 */
export const configInvalid = (lines: readonly string[]): RotatorError => {
  const sorted = [...new Set(lines)].sort(byPosition);
  const more = sorted.length - MAX_LINES;
  const shown = more > 0 ? [...sorted.slice(0, MAX_LINES), `and ${more} more`] : sorted;
  return new RotatorError("CONFIG_INVALID", { why: shown.join("\n") });
};

const byPosition = (a: string, b: string): number => {
  const [lineA, columnA] = placeOf(a);
  const [lineB, columnB] = placeOf(b);
  return lineA - lineB || columnA - columnB;
};

const placeOf = (text: string): readonly [number, number] => {
  const [, line = "0", column = "0"] = /:(\d+):(\d+): /.exec(text) ?? [];
  return [Number(line), Number(column)];
};

/**
 * The text of a config file without its byte order mark.
 * @throws RotatorError CONFIG_INVALID for what is not a regular file of UTF-8 text, readable, and at most 256 KiB
 */
export const readConfigText = (path: string): string => {
  const bytes = readBytes(path);
  if (bytes.includes(0)) throw configInvalid([`${path}:1:1: is not a text file (it holds NUL bytes)`]);
  // Not a TextDecoder: the first one of a process costs more than the reading.
  if (!isUtf8(bytes)) throw configInvalid([`${path}:1:1: is not UTF-8 text`]);
  return bytes.toString("utf8", bytes.subarray(0, BOM.length).equals(BOM) ? BOM.length : 0);
};

/** Synchronous: for one small file before anything else runs, that is the fastest. */
const readBytes = (path: string): Buffer => {
  try {
    const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stat = fstatSync(file);
      if (stat.isDirectory()) throw configInvalid([`${path}:1:1: is a directory, not a config file`]);
      if (!stat.isFile()) throw configInvalid([`${path}:1:1: is not a regular file`]);
      const buffer = Buffer.alloc(MAX_BYTES + 1);
      let length = 0;
      for (let got = -1; got !== 0 && length < buffer.length; length += got)
        got = readSync(file, buffer, length, buffer.length - length, null);
      if (length > MAX_BYTES) throw configInvalid([`${path}:1:1: is larger than 256 KiB`]);
      return buffer.subarray(0, length);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    if (error instanceof RotatorError) throw error;
    throw configInvalid([`${path}:1:1: ${reasonOf(error)}`]);
  }
};

const reasonOf = (error: unknown): string => {
  switch (error instanceof Error && "code" in error ? error.code : "") {
    case "ENOENT":
    case "ENOTDIR":
      return "is not there";
    case "EACCES":
    case "EPERM":
      return "may not be read by this user";
    case "ELOOP":
      return "is a symbolic link that leads in a circle";
    default:
      return "cannot be read";
  }
};
