import fs from "node:fs";
import { promisify } from "node:util";
import { big, type Calls, isMissing, sync } from "./dotenv-calls.ts";

const [lstat, fstat, read, write] = [
  promisify(fs.lstat),
  promisify(fs.fstat),
  promisify(fs.read),
  promisify(fs.write),
];

/** For any disk: one that does not answer holds one call, and not the whole process. */
export const pooled: Calls = {
  realpath: promisify(fs.realpath.native),
  lstat: async (path) => {
    try {
      return await lstat(path, big);
    } catch (error) {
      if (isMissing(error)) return null;
      throw error;
    }
  },
  access: promisify(fs.access),
  open: promisify(fs.open),
  close: promisify(fs.close),
  fstat: (file) => fstat(file, big),
  read: async (...call) => (await read(...call)).bytesRead,
  write: async (...call) => (await write(...call)).bytesWritten,
  truncate: promisify(fs.ftruncate),
  chown: promisify(fs.fchown),
  chmod: promisify(fs.fchmod),
  rename: promisify(fs.rename),
  unlink: promisify(fs.unlink),
  sync,
};
