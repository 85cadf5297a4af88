import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { escrowed, holds, ledgerDir, ledgerFiles, ran, showsAny, states, until } from "./checks.ts";
import { person as personAt } from "./person.ts";
import { APP, type Place, PROBES, RATE } from "./place.ts";
import type { Service } from "../sandbox/supervisor.ts";
import { must, type Screen, wrong } from "./screen.ts";

/** The figures of a demo that went well. */
export type Facts = {
  readonly app: string;
  readonly mode: string;
  readonly oldFingerprint: string;
  readonly newFingerprint: string;
  readonly requests: number;
  readonly failed: number;
  readonly probes: number;
  readonly entries: number;
  readonly head: string;
  readonly changed: { readonly seq: number; readonly code: string };
};

/**
 * Seven steps from a running service to a found forgery; each one says no more than it has just checked.
 * @throws RotatorError INTERNAL when something is not as it should be; INTERRUPTED
 */
export const tellStory = async (place: Place, { step }: Screen, signal: AbortSignal): Promise<Facts> => {
  const { sandbox, program } = place;
  const person = personAt(sandbox.url);
  const oldKey = sandbox.firstKey();
  const fps = { old: "", new: "" };
  let newKey = "";
  let service = null as Service | null;
  const served = (): { ok: number; failed: number } => service?.totals() ?? { ok: 0, failed: 0 };
  const count = (): string => `${served().ok} requests, ${served().failed} failed`;
  const calm = (): void => {
    must(served().failed === 0, `The chat service counts ${served().failed} failed requests.`);
    const printed = program.printed();
    must(!showsAny(printed, [oldKey, newKey]), "A key stands in what was printed.");
  };
  const reads = (fp: string): void =>
    must(
      service?.fingerprint()?.startsWith(fp) === true,
      "The chat service runs on another key than it should.",
    );

  await step("A chat service runs on the key in its .env", async () => {
    await ran(place, ["adopt", APP]);
    const salt = (await program.run(["audit", "list", APP])).lines[0]?.["salt"];
    service = await place.startService(String(salt));
    await until(() => sandbox.stats(oldKey).ok >= RATE, signal);
    fps.old = (service.fingerprint() ?? "").slice(0, 8);
    must(await holds(place, fps.old), "The rotator knows the key by another fingerprint than the service.");
    calm();
    return { figure: fps.old, command: `imkit-rotator adopt ${APP}` };
  });

  await step("A person issues a new key in the Dashboard and stages it", async () => {
    newKey = await person.issue();
    const staged = await ran(place, ["stage", APP, "--from-stdin"], { stdin: newKey });
    fps.new = String(staged.last["fingerprint"]);
    must(staged.last["verdict"] === "accepted", "IMKIT did not accept the new key.");
    must(staged.last["durable"] === true, "The new key was not made durable.");
    must(fps.new !== fps.old, "The new key is the old one.");
    return { figure: fps.new, command: `imkit-rotator stage ${APP} --from-stdin` };
  });

  await step("Both keys work: .env written, service restarted", async () => {
    const { code, last } = await program.run(["rotate", APP]);
    must(
      code === 3 && last["status"] === "waiting",
      `rotate ended with exit ${code}, where it should wait (3).`,
    );
    must(last["mode"] === "overlap", "Both keys should work, and they do not.");
    must(states(last["stores"]) === "written", "The store is not written.");
    must(states(last["workloads"]) === "done", "The service is not restarted.");
    must(readFileSync(place.envFile, "utf8") === place.envText(newKey), "More than the key changed in .env.");
    await until(() => sandbox.stats(newKey).ok >= RATE, signal);
    reads(fps.new);
    calm();
    return { figure: count(), command: `imkit-rotator rotate ${APP}` };
  });

  let probes = 0;
  await step("The person revokes the old key; it is proved dead", async () => {
    must((await person.ask(oldKey)) === "200", "The old key was dead too early.");
    must(sandbox.stats(oldKey).rejected === 0, "The old key was rejected before it was revoked.");
    must(await person.revokeOldest(), "The Dashboard did not revoke the old key.");
    const confirmed = await ran(place, ["confirm-revoked", APP]);
    must(confirmed.last["verdict"] === "rejected", "The old key is not proved dead.");
    probes = sandbox.stats(oldKey).rejected;
    must(probes >= PROBES, `IMKIT saw ${probes} probes of the old key, not ${PROBES}.`);
    const said = await person.ask(oldKey);
    must(said === "INVALID_API_KEY", "The old key is not dead.");
    must((await person.ask(newKey)) === "200", "The new key does not work.");
    return {
      figure: `${probes} of ${probes} probes rejected`,
      command: `imkit-rotator confirm-revoked ${APP}`,
    };
  });

  let requests = 0;
  await step("The service never noticed", async () => {
    const totals = await service?.stop();
    if (totals === undefined) throw wrong("The chat service is not there.");
    requests = totals.ok;
    calm();
    must(totals.crashed === 0 && totals.generations === 2, "The chat service did not restart just once.");
    const seen = [sandbox.stats(oldKey), sandbox.stats(newKey)];
    must(
      seen.every(({ limited }) => limited === 0),
      "IMKIT counts requests over its limit.",
    );
    must(seen[1]?.rejected === 0, "IMKIT rejected the new key.");
    must(
      seen.reduce((sum, { ok }) => sum + ok, 0) >= requests,
      "IMKIT counts fewer requests than the service.",
    );
    return { figure: count() };
  });

  let ledger = { entries: 0, head: "" };
  await step("All of it is in the ledger: chain unbroken, no key in it", async () => {
    must(await holds(place, fps.new), "The status is not as it should be.");
    const verified = await ran(place, ["audit", "verify", APP]);
    must(verified.last["ok"] === true && verified.last["open"] === 0, "The ledger is not sound.");
    const head = verified.last["head"] as { readonly seq: number; readonly hash: string };
    ledger = { entries: Number(verified.last["entries"]), head: `${head.seq}:${head.hash.slice(0, 16)}` };
    const written = ledgerFiles(place).map((file) => readFileSync(file, "utf8"));
    must(written.length === ledger.entries, "The ledger has another number of files than of entries.");
    const text = written.join("");
    must(!showsAny(text, [oldKey, newKey]), "A key stands in the ledger.");
    calm();
    must(escrowed(place) === 0, "A key is left in escrow.");
    return { figure: `${ledger.entries} entries`, command: `imkit-rotator audit verify ${APP}` };
  });

  const changed = { seq: Math.floor(ledger.entries / 2), code: "BAD_HASH" };
  await step("We change one byte in a copy of it: found", async () => {
    changeCopy(place, changed.seq);
    const { code, last } = await program.run(["audit", "verify", "./changed-copy"]);
    const [problem] = (last["problems"] ?? []) as readonly { readonly seq: number; readonly code: string }[];
    must(code === 5 && last["ok"] === false, "The changed byte was not found.");
    must(
      problem?.seq === changed.seq && problem.code === changed.code,
      "The changed byte was found elsewhere.",
    );
    await ran(place, ["audit", "verify", APP]);
    return {
      figure: `${changed.code} at entry ${changed.seq}`,
      command: "imkit-rotator audit verify ./changed-copy",
    };
  });

  return {
    app: APP,
    mode: "overlap",
    oldFingerprint: fps.old,
    newFingerprint: fps.new,
    requests,
    failed: served().failed,
    probes,
    ...ledger,
    changed,
  };
};

const changeCopy = (place: Place, seq: number): void => {
  const copy = join(place.folder, "changed-copy");
  cpSync(ledgerDir(place), copy, { recursive: true });
  const file = join(copy, `${String(seq).padStart(8, "0")}.json`);
  const text = readFileSync(file, "utf8");
  // The year of its time: a forger's change that leaves the line well formed.
  const forged = text.replace(
    /"ts":"(\d{3})(\d)/,
    (_, three, last) => `"ts":"${three}${(Number(last) + 1) % 10}`,
  );
  must(forged !== text && forged.length === text.length, "The copy could not be changed.");
  rmSync(file);
  writeFileSync(file, forged);
};
