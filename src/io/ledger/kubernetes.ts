import { setTimeout as pause } from "node:timers/promises";
import { check } from "../../../providers/kit.ts";
import { kubectl, type KubePlace, kubePlace, mayI } from "../../../providers/kubernetes-rights.ts";
import { isAbsent, type Kube, kubeProblem, openKube } from "../../../providers/kubernetes.ts";
import { brokenLedger } from "../../core/contradiction.ts";
import { ProviderError, RETRYABLE, RotatorError } from "../../core/errors.ts";
import type { Check, Ledger } from "../../ports.ts";
import { systemClock } from "../clock.ts";
import type { Env } from "../config-find.ts";
import { type Found, foundIn, isTaken, keepsBytes, made } from "./kubernetes-entry.ts";

export type KubernetesLedgerOptions = KubePlace & {
  readonly namespace: string;
  readonly app: string;
  /** Folder of the config file, where relative paths start, and the environment. */
  readonly tools: { readonly configDir: string; readonly env: Env };
  /** Resolves after so many milliseconds; for tests. */
  readonly pause?: (ms: number) => Promise<unknown>;
};

/** One app's ledger as it is spoken to. */
export type Room = Omit<KubernetesLedgerOptions, "tools" | "pause"> & {
  readonly kube: Kube;
  readonly where: string;
  readonly pause: (ms: number) => Promise<unknown>;
};

const CALL_LIMIT_MS = 8_000;
/** Between a rotator that appends and one that calls it dead lie 90 s; an append must be over long before. */
const TOTAL_MS = 20_000;
const WAITS_MS = [100, 400, 1_600, 3_000, 3_000, 3_000] as const;
const WINDOW = 16;
const STATE = "What the entries before it began is looked at again by the next run.";

export const openRoom = ({ tools, ...options }: KubernetesLedgerOptions): Room => ({
  ...options,
  kube: openKube(options, tools),
  where: `kubernetes:${kubePlace(options, `${options.namespace}/imkit-ledger-${options.app}`)}`,
  pause: options.pause ?? ((ms) => pause(ms)),
});

/**
 * What the names of a ledger's ConfigMaps begin with. A ledger that follows another one is the next generation; an app's name has no dot.
 * The ConfigMap of just this name, from the second generation on, says that it was begun (`kubernetes-successor.ts`).
 */
export const baseName = (app: string, generation: number): string =>
  `imkit-ledger-${app}${generation === 1 ? "" : `.${generation}`}`;
export const entryName = (app: string, generation: number, seq: number): string =>
  `${baseName(app, generation)}-${String(seq).padStart(8, "0")}`;

/** One request, repeated while the API server has a bad moment and a repeat takes no second effect. @throws ProviderError */
const patiently = async <T>(room: Room, work: (signal: AbortSignal) => Promise<T>): Promise<T> => {
  const end = systemClock.monotonic() + TOTAL_MS;
  for (let tries = 0; ; tries++) {
    try {
      return await work(AbortSignal.timeout(CALL_LIMIT_MS));
    } catch (error) {
      const wait = WAITS_MS[tries];
      const passes =
        error instanceof ProviderError && (RETRYABLE.has(error.code) || error.code === "CONFLICT");
      const ms = passes ? Math.max(wait ?? 0, error.retryAfterMs ?? 0) : 0;
      if (!passes || wait === undefined || systemClock.monotonic() + ms > end) throw error;
      await room.pause(ms);
    }
  }
};

/** @throws ProviderError */
export const fetchEntry = (room: Room, name: string): Promise<Found> =>
  patiently(room, async (signal) => {
    const path = `/api/v1/namespaces/${room.namespace}/configmaps/${name}`;
    const answer = await room.kube.call({ method: "GET", path }, signal);
    if (isAbsent(answer, "configmaps", name)) return { state: "absent" };
    if (answer.status !== 200) throw kubeProblem(answer, false);
    return foundIn(answer.body);
  });

/** Creates one immutable ConfigMap. After an answer that was lost, what is there by then is compared before anything is said. @throws ProviderError */
export const createEntry = async (
  room: Room,
  name: string,
  bytes: Uint8Array,
): Promise<"created" | "exists"> => {
  let isLost = false;
  const outcome = await patiently(room, async (signal) => {
    try {
      const path = `/api/v1/namespaces/${room.namespace}/configmaps?fieldManager=imkit-rotator`;
      const answer = await room.kube.call(
        { method: "POST", path, body: made(room.app, name, bytes) },
        signal,
      );
      if (isTaken(answer)) return "exists" as const;
      if (answer.status !== 201) throw kubeProblem(answer, true);
      if (keepsBytes(foundIn(answer.body), bytes)) return "created" as const;
      throw new ProviderError(
        "VERIFY_MISMATCH",
        "unknown",
        "the cluster keeps something else than it was given",
      );
    } catch (error) {
      isLost ||= !(error instanceof ProviderError) || error.outcome !== "not_applied";
      throw error;
    }
  });
  if (outcome === "created" || !isLost) return outcome;
  return keepsBytes(await fetchEntry(room, name), bytes) ? "created" : "exists";
};

/** The newest generation that was begun. @throws ProviderError */
export const newestGeneration = async (room: Room, from = 1): Promise<number> => {
  for (let generation = from; ; generation++)
    if ((await fetchEntry(room, baseName(room.app, generation + 1))).state === "absent") return generation;
};

/** Entries in order up to the first gap. @throws ProviderError, RotatorError LEDGER_BROKEN */
const readFrom = async (room: Room, generation: number, fromSeq: number): Promise<readonly Uint8Array[]> => {
  const lines: Uint8Array[] = [];
  // Whoever looks for news finds none, mostly; whoever reads it all finds many.
  let width = fromSeq === 0 ? WINDOW / 2 : 1;
  for (let seq = fromSeq; ; width = Math.min(WINDOW, width * 2)) {
    const names = Array.from({ length: width }, (_, index) => entryName(room.app, generation, seq + index));
    const found = await Promise.all(names.map((name) => fetchEntry(room, name)));
    const end = found.findIndex(({ state }) => state === "absent");
    for (const [index, one] of (end === -1 ? found : found.slice(0, end)).entries()) {
      if (one.state === "read") lines.push(one.bytes);
      if (one.state === "broken")
        throw brokenLedger(room.app, `The ledger entry ${room.namespace}/${names[index]} ${one.why}.`);
    }
    seq += end === -1 ? width : end;
    if (end === -1) continue;
    if (found.slice(end).every(({ state }) => state === "absent")) return lines;
    // Another rotator may have written both while we asked for one after the other.
    const missing = names[end] ?? "";
    if ((await fetchEntry(room, missing)).state === "absent")
      throw brokenLedger(room.app, `The ledger entry ${room.namespace}/${missing} is missing.`);
  }
};

/**
 * The ledger of one app as immutable ConfigMaps, one per entry (docs/adr/0013-kubernetes-ledger-and-escrow.md). It needs the rights to create and to get, no others:
 * entries are found by counting up to the first that is not there. Touches nothing before the first `create`.
 */
export const kubernetesLedger = (options: KubernetesLedgerOptions): Ledger =>
  ledgerIn(openRoom(options), true);

/** `guarded`: where a ledger was set aside and nothing has its place, no other one begins by itself. */
export const ledgerIn = (room: Room, guarded: boolean): Ledger => {
  const { app, namespace } = room;
  let known: number | null = null;
  const generation = async (): Promise<number> => (known ??= await newestGeneration(room));

  /** No entry is written behind a gap, nor into a ledger that was set aside while we ran. Asked beside the write: that costs no time. */
  const requireAround = async (g: number, seq: number): Promise<void> => {
    const before = seq === 0 ? null : entryName(app, g, seq - 1);
    const [one, next] = await Promise.all([
      before === null ? null : fetchEntry(room, before),
      fetchEntry(room, baseName(app, g + 1)),
    ]);
    if (one?.state === "absent")
      throw unwritable(room, `Entry ${namespace}/${before}, the one before, is gone.`);
    if (next.state !== "absent") throw unwritable(room, "Another ledger was begun in its place just now.");
  };

  return {
    where: room.where,
    create: async (seq, bytes) => {
      const copy = Uint8Array.from(bytes);
      return await told(room, "written", async () => {
        const g = await generation();
        const ends = await Promise.allSettled([
          createEntry(room, entryName(app, g, seq), copy),
          requireAround(g, seq),
        ]);
        const [entry, around] = ends;
        if (entry.status === "rejected") throw entry.reason;
        if (around.status === "rejected") throw around.reason;
        return entry.value;
      });
    },
    read: (fromSeq) =>
      told(room, "read", async () => {
        if (fromSeq === 0) known = await newestGeneration(room, known ?? 1);
        const g = await generation();
        const lines = await readFrom(room, g, fromSeq);
        if (!guarded || g === 1 || fromSeq > 0 || lines.length > 0) return lines;
        throw new RotatorError("LEDGER_BROKEN", {
          what: "The ledger of this app is not there. Nothing was written.",
          why: `One was set aside (${namespace}/${baseName(app, g - 1)}), and the one that follows it was not begun, or was removed.`,
          do: [`imkit-rotator adopt ${app} --new-ledger`],
        });
      }),
    preflight: (signal) => checkLedger(room, signal),
  };
};

/** Every failure in our own words. @throws RotatorError */
export const told = async <T>(room: Room, doing: "read" | "written", work: () => Promise<T>): Promise<T> => {
  try {
    return await work();
  } catch (error) {
    if (error instanceof RotatorError) throw error;
    const [code, hint] =
      error instanceof ProviderError ? [error.code, error.hint] : ["UNAVAILABLE", "unexpected failure"];
    throw new RotatorError("LEDGER_UNWRITABLE", {
      what: `The ledger cannot be ${doing}, so nothing else was done.`,
      why: `${room.where}: ${code}${hint === "" ? "" : `, ${hint}`}.`,
      state: STATE,
      do: [...fixes(room, code), `imkit-rotator doctor ${room.app}`],
    });
  }
};

const fixes = (room: Room, code: string): readonly string[] => {
  const at = kubectl(room);
  switch (code) {
    case "AUTHZ":
      return [
        "Give this identity the role of deploy/policies/kubernetes-ledger.yaml (create and get), then look:",
        `${at} auth can-i create configmaps`,
      ];
    case "QUOTA":
      return [`Raise the quota of ConfigMaps in ${room.namespace}: entries of a ledger stay for good.`];
    case "NOT_FOUND":
      return [`kubectl create namespace ${room.namespace}`];
    case "AUTHN":
      return ["Log in again, or renew the token that the kubeconfig names."];
    case "CONFIG":
      return ["Mend kubeconfig and context until kubectl works with them."];
    default:
      return ["Run the same command again as soon as the API server answers."];
  }
};

const unwritable = (room: Room, why: string): RotatorError =>
  new RotatorError("LEDGER_UNWRITABLE", {
    why,
    state: STATE,
    do: [`imkit-rotator audit verify ${room.app}`],
  });

/** Rights, and a rehearsal of an entry: nothing is written. Never rejects. */
const checkLedger = async (room: Room, signal: AbortSignal): Promise<readonly Check[]> => {
  const both = AbortSignal.any([signal, AbortSignal.timeout(TOTAL_MS)]);
  const target = { group: "", resource: "configmaps", namespace: room.namespace };
  try {
    const rights = await Promise.all(["create", "get"].map((verb) => mayI(room, { ...target, verb }, both)));
    if (rights.some(({ status }) => status === "fail")) return rights;
    const name = `${baseName(room.app, 1)}-rehearsal`;
    const path = `/api/v1/namespaces/${room.namespace}/configmaps?fieldManager=imkit-rotator&dryRun=All`;
    const body = made(room.app, name, Buffer.from("rehearsal\n"));
    const answer = await room.kube.call({ method: "POST", path, body }, both);
    const isGood = answer.status === 201 || isTaken(answer);
    if (!isGood) return [...rights, failed(room, kubeProblem(answer, false))];
    const remove = await mayI(room, { ...target, verb: "delete" }, both);
    return [
      ...rights,
      check.ok("dry-run", "the API server would take an entry"),
      remove.status === "ok"
        ? check.warn(
            "append-only",
            "this identity may also delete entries, so nothing but itself keeps it from doing so",
            "Run the rotator as an identity of its own that has deploy/policies/kubernetes-ledger.yaml and no more.",
          )
        : check.ok("append-only", "this identity may add entries, and take none away"),
    ];
  } catch (error) {
    if (error instanceof ProviderError) return [failed(room, error)];
    return [check.unproved("api-server", "the API server cannot be asked")];
  }
};

const failed = (room: Room, { code, hint }: ProviderError): Check =>
  check.fail(
    "api-server",
    `no entry could be added in ${room.namespace}: ${hint}`,
    fixes(room, code).join(" "),
    code,
  );
