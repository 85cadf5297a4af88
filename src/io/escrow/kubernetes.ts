import { createHash } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { check } from "../../../providers/kit.ts";
import { kubectl, type KubePlace, kubePlace, mayI } from "../../../providers/kubernetes-rights.ts";
import { field, isAbsent, kubeProblem, openKube } from "../../../providers/kubernetes.ts";
import { ProviderError, RETRYABLE, RotatorError } from "../../core/errors.ts";
import { type Fp, Secret } from "../../core/secret.ts";
import type { Check, Escrow } from "../../ports.ts";
import type { Env } from "../config-find.ts";
import { failed } from "./folder.ts";
import { type IdentitySource, openWith, parseIdentities, sealWith } from "./identity.ts";

export type KubernetesEscrowOptions = KubePlace & {
  readonly namespace: string;
  readonly app: string;
  /** null = kept as any Secret of the cluster is kept. There is none by default: one that is made in a pod is gone with it. */
  readonly identity: IdentitySource | null;
  readonly tools: { readonly configDir: string; readonly env: Env };
  /** Resolves after so many milliseconds; for tests. */
  readonly pause?: (ms: number) => Promise<unknown>;
};

type Held = {
  readonly revision: string;
  readonly entries: ReadonlyMap<string, Buffer>;
  readonly immutable: boolean;
};

const CALL_LIMIT_MS = 10_000;
const WAITS_MS = [100, 400, 1_600, 3_000] as const;
const FP = /^[0-9a-f]{16}$/;
/** What the age format begins with. */
const AGE = "age-encryption.org/";
/** Of an entry that is not sealed. What follows is a check sum and the key: a damaged entry gives no key, and never another one. */
const PLAIN = "imkit-rotator-escrow/v1";

/**
 * Keys of open rotations as entries of one Secret, named by fingerprint, changed under its `resourceVersion`. The Secret is there before
 * (deploy/policies/kubernetes-escrow.yaml): it needs the rights to get and patch that one name. Sealed with the age identity where one is given
 * (docs/adr/0013-kubernetes-ledger-and-escrow.md); what was kept before that can still be opened.
 */
export const kubernetesEscrow = (options: KubernetesEscrowOptions): Escrow => {
  const { app, namespace, identity } = options;
  const kube = openKube(options, options.tools);
  const wait = options.pause ?? ((ms: number) => pause(ms));
  const name = `imkit-rotator-escrow-${app}`;
  const where = `kubernetes:${kubePlace(options, `${namespace}/${name}`)}`;
  const path = `/api/v1/namespaces/${namespace}/secrets/${name}`;
  const at = kubectl(options);

  /** Again while the API server has a bad moment; every failure in our words. `work` may be repeated. @throws RotatorError */
  const patiently = async <T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> => {
    for (let tries = 0; ; tries++) {
      try {
        return await work(AbortSignal.timeout(CALL_LIMIT_MS));
      } catch (error) {
        if (error instanceof RotatorError) throw error;
        const problem = error instanceof ProviderError ? error : new ProviderError("UNAVAILABLE", "unknown");
        const ms = WAITS_MS[tries];
        if (ms === undefined || !(RETRYABLE.has(problem.code) || problem.code === "CONFLICT"))
          throw failed(`${where}: ${problem.code}${problem.hint === "" ? "" : `, ${problem.hint}`}.`, {
            do: [FIXES[problem.code] ?? "Run the same command again.", `imkit-rotator doctor ${app}`],
          });
        await wait(ms);
      }
    }
  };

  const missing = (): RotatorError =>
    failed(`The Secret ${namespace}/${name} is not there, and is not made by the rotator.`, {
      do: [`${at} create secret generic ${name}`, `imkit-rotator doctor ${app}`],
    });

  /** null = proven absent. */
  const fetched = async (signal: AbortSignal): Promise<Held | null> => {
    const answer = await kube.call({ method: "GET", path }, signal);
    if (isAbsent(answer, "secrets", name)) return null;
    if (answer.status !== 200) throw kubeProblem(answer, false);
    return heldIn(answer.body);
  };
  const there = async (signal: AbortSignal): Promise<Held> => {
    const held = await fetched(signal);
    if (held === null) throw missing();
    return held;
  };

  /** null takes the entry away. */
  const change = async (held: Held, fp: Fp, bytes: Uint8Array | null, signal: AbortSignal): Promise<void> => {
    const data = { [fp]: bytes === null ? null : Buffer.from(bytes).toString("base64") };
    const body = { metadata: { resourceVersion: held.revision }, data };
    const call = { method: "PATCH", path: `${path}?fieldManager=imkit-rotator`, body } as const;
    const answer = await kube.call(call, signal);
    if (answer.status !== 200) throw kubeProblem(answer, true);
  };

  /** @throws RotatorError ESCROW_FAILED when there is an entry that gives no key */
  const opened = async (held: Held, fp: Fp): Promise<Secret | null> => {
    const bytes = held.entries.get(fp);
    if (bytes === undefined) return null;
    const place = `${where}#${fp}`;
    if (bytes.subarray(0, AGE.length).toString("latin1") !== AGE) return unpacked(bytes, place);
    if (identity === null)
      throw failed(`${place} is sealed, and escrow.identity is not set.`, {
        do: ["Set escrow.identity to the age identity that was in use.", `imkit-rotator doctor ${app}`],
      });
    const key = await openWith(parseIdentities(await identity(false)), bytes, place);
    if (key.length === 0) throw failed(`${place} is empty inside.`);
    const secret = new Secret(key);
    key.fill(0);
    return secret;
  };

  const packed = async (key: Secret): Promise<Uint8Array> => {
    const bytes = Buffer.from(key.reveal());
    const packet =
      identity === null
        ? Buffer.concat([Buffer.from(`${PLAIN}\n${sumOf(bytes)}\n`), bytes])
        : await sealWith(parseIdentities(await identity(true)), bytes);
    bytes.fill(0);
    return packet;
  };

  return {
    where,
    list: async () => [...(await patiently(there)).entries.keys()].filter((one) => FP.test(one)).toSorted(),
    get: async (fp) => {
      checkFp(fp);
      return await opened(await patiently(there), fp);
    },
    put: async (fp, key) => {
      checkFp(fp);
      const packet = await packed(key);
      await patiently(async (signal) => {
        const held = await there(signal);
        const before = await opened(held, fp).catch(() => null);
        if (before?.equals(key)) return;
        if (before !== null) throw failed(`${where}#${fp} holds another key.`);
        if (held.immutable)
          throw failed(`The Secret ${namespace}/${name} is immutable, so no key can be kept in it.`, {
            do: [`${at} delete secret ${name}`, `${at} create secret generic ${name}`],
          });
        await change(held, fp, packet, signal);
      });
      const kept = await opened(await patiently(there), fp);
      if (!kept?.equals(key)) throw failed(`${where}#${fp} does not hold what was written to it.`);
    },
    remove: async (fp) => {
      checkFp(fp);
      await patiently(async (signal) => {
        const held = await fetched(signal);
        if (held?.entries.has(fp)) await change(held, fp, null, signal);
      });
      if ((await patiently(fetched))?.entries.has(fp)) throw failed(`${where}#${fp} cannot be removed.`);
    },
    preflight: async (signal) => {
      const both = AbortSignal.any([signal, AbortSignal.timeout(CALL_LIMIT_MS)]);
      const target = { group: "", resource: "secrets", namespace, name };
      try {
        const rights = await Promise.all(
          ["get", "patch"].map((verb) => mayI({ ...options, kube }, { ...target, verb }, both)),
        );
        if (rights.some(({ status }) => status === "fail")) return rights;
        const held = await fetched(both);
        if (held !== null) return [...rights, secretCheck(held, `${namespace}/${name}`), sealCheck(identity)];
        const { why, do: ways } = missing();
        return [...rights, check.fail("secret", why, ways[0], "NOT_FOUND"), sealCheck(identity)];
      } catch (error) {
        if (!(error instanceof ProviderError))
          return [check.unproved("api-server", "the API server cannot be asked")];
        const { code, hint } = error;
        return [check.fail("api-server", `${where}: ${hint}`, FIXES[code] ?? "Mend what is named.", code)];
      }
    },
  };
};

const checkFp = (fp: Fp): void => {
  if (!FP.test(fp)) throw failed("A fingerprint is not 16 hex digits.");
};

/** @throws ProviderError UNAVAILABLE: no Secret as an API server writes it */
const heldIn = (body: unknown): Held => {
  const unclear = new ProviderError(
    "UNAVAILABLE",
    "not_applied",
    "the answer is no Secret as an API server writes it",
  );
  const revision = field(field(body, "metadata"), "resourceVersion");
  if (field(body, "kind") !== "Secret" || typeof revision !== "string" || revision === "") throw unclear;
  const entries = new Map<string, Buffer>();
  for (const [entry, stored] of Object.entries(field(body, "data") ?? {})) {
    if (typeof stored !== "string") throw unclear;
    entries.set(entry, Buffer.from(stored, "base64"));
  }
  return { revision, entries, immutable: field(body, "immutable") === true };
};

const sumOf = (key: Uint8Array): string =>
  createHash("sha256").update(`${PLAIN}\0`).update(key).digest("hex").slice(0, 32);

const unpacked = (bytes: Buffer, place: string): Secret => {
  const head = `${PLAIN}\n`.length + 33;
  const [version, sum] = bytes.subarray(0, head).toString("latin1").split("\n");
  const key = bytes.subarray(head);
  if (version !== PLAIN || key.length === 0 || sum !== sumOf(key)) throw failed(`${place} is damaged.`);
  return new Secret(key);
};

const secretCheck = ({ immutable }: Held, place: string): Check =>
  immutable
    ? check.fail("secret", `${place} is immutable`, "Make it anew, without immutable.", "IMMUTABLE")
    : check.ok("secret", `${place} is there and may be changed`);

const sealCheck = (identity: IdentitySource | null): Check =>
  identity === null
    ? check.warn(
        "sealed",
        "keys of an open rotation rest as any Secret of the cluster does: whoever may read Secrets there reads them",
        "Set escrow.identity to an age identity, and turn on encryption at rest in the cluster.",
      )
    : check.ok("sealed", "keys are sealed with escrow.identity");

const FIXES: Readonly<Record<string, string>> = {
  AUTHN: "Log in again, or renew the token that the kubeconfig names.",
  AUTHZ:
    "Give this identity the role of deploy/policies/kubernetes-escrow.yaml (get and patch of that Secret).",
  CONFIG: "Mend kubeconfig and context until kubectl works with them.",
  KMS: "Mend the cluster's encryption at rest.",
};
