import { fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Decrypter, generateX25519Identity } from "age-encryption";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { defaultIdentity, fileEscrow } from "../../src/io/escrow/file.ts";
import { parseIdentities } from "../../src/io/escrow/identity.ts";
import { escrowContract } from "../contract/escrow.ts";
import { memoryEscrow } from "../kit/memory-escrow.ts";

const root = mkdtempSync(join(tmpdir(), "escrow-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const FP = "00112233445566aa";
const OTHER = "ffeeddccbbaa9988";
const keyText = (): string => Buffer.from(randomBytes(32).toString("base64")).toString("base64");
const identity = await generateX25519Identity();
const fresh = (): string => mkdtempSync(join(root, "w-"));

let dir = "";
beforeEach(() => {
  dir = join(fresh(), "app", "escrow");
});
const escrowAt = (at: string, text = identity) => fileEscrow({ dir: at, identity: async () => text });
/** The one thing an error may not hold: any window of the key, the identity, or the library's words. */
const wordsOf = async (work: Promise<unknown>): Promise<string> => {
  const error: unknown = await work.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toMatchObject({ code: "ESCROW_FAILED" });
  expect(error instanceof Error && error.cause).toBeUndefined();
  return `${String(error)} ${JSON.stringify(error)}`;
};

escrowContract("memory", async () => {
  const escrow = memoryEscrow();
  return { escrow, again: () => escrow, damage: async (fp) => void escrow.broken.add(fp) };
});

escrowContract("file", async () => ({
  escrow: escrowAt(dir),
  again: () => escrowAt(dir),
  damage: async (fp) => {
    const path = join(dir, `${fp}.age`);
    const bytes = readFileSync(path);
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    writeFileSync(path, bytes);
  },
}));

describe("file escrow", () => {
  test("blobs are private age files that the library opens without us", async () => {
    const text = keyText();
    await escrowAt(dir).put(FP, new Secret(text));
    const blob = readFileSync(join(dir, `${FP}.age`));
    expect(blob.toString("latin1")).toMatch(/^age-encryption\.org\/v1\n-> X25519 /);
    expect(blob.includes(text.slice(0, 8))).toBe(false);
    const decrypter = new Decrypter();
    decrypter.addIdentity(identity);
    expect(await decrypter.decrypt(blob, "text")).toBe(text);
    expect(statSync(join(dir, `${FP}.age`)).mode & 0o777).toBe(0o600);
    expect(statSync(dir).mode & 0o777).toBe(0o700);
    expect(readdirSync(dir)).toEqual([`${FP}.age`]);
  });

  test("asking an escrow that is not there makes nothing and needs no identity", async () => {
    const escrow = fileEscrow({ dir, identity: () => Promise.reject(new Error("not asked for")) });
    expect(await escrow.list()).toEqual([]);
    expect(await escrow.get(FP)).toBeNull();
    await escrow.remove(FP);
    expect(existsSync(dir)).toBe(false);
  });

  test("temporary files, backups and foreign names are not listed; a killed write's leftovers go with the key", async () => {
    const escrow = escrowAt(dir);
    await escrow.put(FP, new Secret(keyText()));
    for (const name of [
      `.tmp-${FP}.age-0011`,
      `.tmp-${OTHER}.age-22`,
      "notes.txt",
      `${OTHER}.bak.age`,
      "x.age",
    ])
      writeFileSync(join(dir, name), "x");
    expect(await escrow.list()).toEqual([FP]);
    await escrow.remove(FP);
    expect(readdirSync(dir).sort()).toEqual(
      [`.tmp-${OTHER}.age-22`, "notes.txt", `${OTHER}.bak.age`, "x.age"].sort(),
    );
  });

  test.each([0o770, 0o707, 0o720, 0o702])("a folder of mode %o is refused with the way out", async (mode) => {
    mkdirSync(dir, { recursive: true });
    chmodSync(dir, mode);
    const words = await wordsOf(escrowAt(dir).put(FP, new Secret(keyText())));
    expect(words).toContain(`chmod 700 ${dir}`);
    await wordsOf(escrowAt(dir).get(FP));
    await wordsOf(escrowAt(dir).list());
    expect(readdirSync(dir)).toEqual([]);
  });

  test("a symbolic link is not followed: neither the folder, nor a blob", async () => {
    const real = fresh();
    mkdirSync(join(dir, ".."), { recursive: true });
    symlinkSync(real, dir);
    await wordsOf(escrowAt(dir).put(FP, new Secret(keyText())));
    expect(readdirSync(real)).toEqual([]);

    const escrow = escrowAt(real);
    await escrow.put(FP, new Secret(keyText()));
    renameSync(join(real, `${FP}.age`), join(real, "elsewhere"));
    symlinkSync(join(real, "elsewhere"), join(real, `${FP}.age`));
    expect(await wordsOf(escrow.get(FP))).toContain("symbolic link");
  });

  test.each([
    ["empty", ""],
    ["cut", null],
    ["of another format", "hello\n"],
    ["too large", "x".repeat(70_000)],
  ])("a blob that is %s is an error without the library's words", async (_, text) => {
    const escrow = escrowAt(dir);
    await escrow.put(FP, new Secret(keyText()));
    const path = join(dir, `${FP}.age`);
    writeFileSync(path, text ?? readFileSync(path).subarray(0, 150));
    const words = await wordsOf(escrow.get(FP));
    expect(words).toContain(path);
    expect(words).not.toMatch(/invalid|stanza|header|MAC|base64/i);
  });

  test("another identity opens nothing, says so, and shows neither identity", async () => {
    await escrowAt(dir).put(FP, new Secret(keyText()));
    const stranger = await generateX25519Identity();
    const words = await wordsOf(escrowAt(dir, stranger).get(FP));
    expect(words).toContain("another escrow identity");
    expect(words).not.toContain(stranger.slice(16, 24));
  });

  test("a file of several identities: the first encrypts, each opens", async () => {
    const second = await generateX25519Identity();
    await escrowAt(dir, `# old\n${identity}\r\n`).put(FP, new Secret(keyText()));
    expect(await escrowAt(dir, `# new\n\n${second}\n# old\n${identity}\n`).get(FP)).not.toBeNull();
    await escrowAt(dir, `${second}\n${identity}`).put(OTHER, new Secret(keyText()));
    expect(await escrowAt(dir, second).get(OTHER)).not.toBeNull();
  });

  test.each([
    "",
    "# only a comment\n",
    "hello",
    "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqq",
    `${identity} ${identity}`,
    `${identity}\nx`,
  ])("an identity file must hold identities (case %#)", async (text) => {
    const words = await wordsOf(escrowAt(dir, text).put(FP, new Secret(keyText())));
    expect(words).not.toContain(identity.slice(20, 28));
    expect(existsSync(dir)).toBe(false);
  });

  test("a well-formed but impossible identity is refused without its text", async () => {
    const broken = `${identity.slice(0, -6)}QQQQQQ`;
    expect(await wordsOf(escrowAt(dir, broken).put(FP, new Secret(keyText())))).not.toContain(
      broken.slice(20, 30),
    );
  });

  test("an unwritable place is an error, and nothing is left there", async () => {
    mkdirSync(join(dir, ".."), { recursive: true });
    writeFileSync(dir, "a file, not a folder");
    const text = keyText();
    expect(await wordsOf(escrowAt(dir).put(FP, new Secret(text)))).not.toContain(text.slice(0, 8));
    const taken = join(fresh(), "escrow");
    mkdirSync(join(taken, `${FP}.age`), { recursive: true, mode: 0o700 });
    expect(await wordsOf(escrowAt(taken).put(FP, new Secret(text)))).toContain("cannot be written");
    expect(readdirSync(taken)).toEqual([`${FP}.age`]);
  });

  test("a backup is encrypted, replaces the one before, and its name stays in the folder", async () => {
    const escrow = escrowAt(dir);
    const open = async (name: string): Promise<string> => {
      const decrypter = new Decrypter();
      decrypter.addIdentity(identity);
      return decrypter.decrypt(readFileSync(join(dir, name)), "text");
    };
    await escrow.encryptBackup("env", Buffer.from("A=1\n"));
    await escrow.encryptBackup("env", Buffer.from("A=2\n"));
    expect(readdirSync(dir)).toEqual(["env.bak.age"]);
    expect(await open("env.bak.age")).toBe("A=2\n");
    await escrow.encryptBackup("/srv/chat/.env", Buffer.from("B=1\n"));
    await escrow.encryptBackup("/srv/chat_.env", Buffer.from("B=2\n"));
    const names = readdirSync(dir);
    expect(names).toHaveLength(3);
    expect(names.every((name) => /^[\w.-]+\.bak\.age$/.test(name))).toBe(true);
    expect(await escrow.list()).toEqual([]);
  });
});

describe("default identity", () => {
  test("is made once, private, outside the state directory, and used again", async () => {
    const home = fresh();
    const source = defaultIdentity({ configHome: join(home, ".config"), stateDir: join(home, "state") });
    const first = await source(true);
    expect(parseIdentities(first)).toHaveLength(1);
    expect(await source(true)).toBe(first);
    expect(await source(false)).toBe(first);
    const path = join(home, ".config", "imkit-rotator", "escrow-identity.txt");
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(join(path, "..")).mode & 0o777).toBe(0o700);
    expect(readdirSync(join(path, ".."))).toEqual(["escrow-identity.txt"]);
  });

  test("is not made when a key is only to be read, so that a lost one shows", async () => {
    const home = fresh();
    const source = defaultIdentity({ configHome: home, stateDir: join(home, "state") });
    expect(await wordsOf(source(false))).toContain("missing");
    expect(readdirSync(home)).toEqual([]);
  });

  test("inside the state directory is refused", async () => {
    const home = fresh();
    const source = defaultIdentity({ configHome: join(home, ".config"), stateDir: home });
    expect(await wordsOf(source(true))).toContain("escrow.identity");
    expect(readdirSync(home)).toEqual([]);
  });

  test("one that others may read is refused", async () => {
    const home = fresh();
    const source = defaultIdentity({ configHome: home, stateDir: join(home, "state") });
    await source(true);
    const path = join(home, "imkit-rotator", "escrow-identity.txt");
    chmodSync(path, 0o640);
    expect(await wordsOf(source(true))).toContain(`chmod 600 ${path}`);
  });

  test("what a killed process left of it is gone after the next one that needs it to seal", async () => {
    const home = fresh();
    const source = defaultIdentity({ configHome: home, stateDir: join(home, "state") });
    const folder = join(home, "imkit-rotator");
    const leave = (): void =>
      writeFileSync(join(folder, ".tmp-escrow-identity.txt-0011223344556677"), "half");
    mkdirSync(folder, { mode: 0o700 });
    writeFileSync(join(folder, ".tmp-other-0011223344556677"), "another's");
    const all = [".tmp-other-0011223344556677", "escrow-identity.txt"];
    leave();
    const first = await source(true);
    expect(readdirSync(folder).sort()).toEqual(all);
    leave();
    expect(await source(false)).toBe(first);
    expect(readdirSync(folder)).toHaveLength(3);
    expect(await source(true)).toBe(first);
    expect(readdirSync(folder).sort()).toEqual(all);
  });

  test("processes that make it at the same time all get one", async () => {
    const home = fresh();
    const script = join(home, "make.mjs");
    const from = JSON.stringify(join(import.meta.dirname, "../../src/io/escrow/identity.ts"));
    writeFileSync(
      script,
      `import { defaultIdentity } from ${from};
       process.once("message", async () => {
         const text = await defaultIdentity({ configHome: ${JSON.stringify(home)}, stateDir: "/nowhere" })(true);
         process.send(text, () => process.disconnect());
       });
       process.send("ready");`,
    );
    const children = Array.from({ length: 4 }, () => fork(script));
    const next = (child: (typeof children)[number]): Promise<unknown> =>
      new Promise((resolve, reject) => {
        child.once("message", resolve);
        child.once("exit", () => reject(new Error("ended early")));
      });
    await Promise.all(children.map(next));
    const answers = children.map(next);
    for (const child of children) child.send("go");
    expect(new Set(await Promise.all(answers)).size).toBe(1);
    expect(readdirSync(join(home, "imkit-rotator"))).toEqual(["escrow-identity.txt"]);
  });
});
