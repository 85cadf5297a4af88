import type { Platform, Probe } from "../../../src/ports.ts";
import type { Prng } from "./prng.ts";
import { cutOff, type Proc, type Trace } from "./process.ts";
import type { Product } from "./product.ts";
import type { Timeline } from "./timeline.ts";

export type IssuedKey = {
  readonly text: string;
  readonly app: string;
  readonly issuedAt: number;
  /** IMKIT rejects a fresh key for a while. */
  readonly worksAt: number;
  /** A person revoked it, or another key took its place. */
  revokedAt: number | null;
  /** Some of IMKIT's servers accept a revoked key for a while. */
  deadAt: number;
};

export type ImkitStyle = {
  /** A new key kills the one before it. */
  readonly replaces: boolean;
  readonly worksAfterMs: number;
  readonly diesAfterMs: number;
  /** How it says no: alone, UNAUTHORIZED proves nothing. */
  readonly says: "INVALID_API_KEY" | "UNAUTHORIZED";
  readonly showsApp: boolean;
};

/** The vendor's side: keys, and the mood of its servers. */
export type Imkit = {
  readonly keys: ReadonlyMap<string, IssuedKey>;
  /** A person makes a key in the Dashboard. */
  readonly issue: (app?: string) => IssuedKey;
  readonly revoke: (text: string) => void;
  readonly works: (text: string) => boolean;
  /** From `from` to `to` the servers do not answer well: no answer, throttled, or now and then a failure. */
  readonly trouble: (from: number, to: number, kind: "down" | "throttled" | "flapping") => void;
  readonly port: (proc: Proc) => Platform;
  readonly probes: () => number;
};

const LATEST = 300;

export const imkit = (
  product: Product,
  time: Timeline,
  chance: Prng,
  style: ImkitStyle,
  isCalm: () => boolean,
  trace: Trace,
): Imkit => {
  const keys = new Map<string, IssuedKey>();
  const troubles: { from: number; to: number; kind: "down" | "throttled" | "flapping" }[] = [];
  let probes = 0;

  const works = (text: string): boolean => {
    const key = keys.get(text);
    return key !== undefined && time.now() >= key.worksAt && time.now() < key.deadAt;
  };

  const answer = (
    verdict: Probe["verdict"],
    status: number | null,
    code: string | null,
    why = "",
  ): Probe => ({
    verdict,
    status,
    code,
    date: null,
    retryAfterMs: null,
    why,
  });

  const ask = (text: string): Probe => {
    probes++;
    const trouble = isCalm() ? undefined : troubles.find((t) => time.now() >= t.from && time.now() < t.to);
    if (trouble?.kind === "down") return answer("unclear", null, null, "no answer");
    if (trouble?.kind === "throttled") {
      return {
        ...answer("unclear", 429, "RATE_LIMIT_EXCEEDED", "HTTP 429"),
        retryAfterMs: chance.int(1, 20) * 1_000,
      };
    }
    if (trouble?.kind === "flapping" && chance.chance(0.4)) return answer("unclear", 502, null, "HTTP 502");
    if (works(text)) return answer("accepted", 200, null);
    if (style.says === "INVALID_API_KEY") return answer("rejected", 401, "INVALID_API_KEY");
    return answer("unclear", 401, "UNAUTHORIZED", "HTTP 401 UNAUTHORIZED, which alone proves nothing");
  };

  return {
    keys,
    issue: (app = "app-1") => {
      if (style.replaces) for (const key of keys.values()) if (key.app === app) kill(key);
      const text = Buffer.from(Buffer.from(chance.bytes(32)).toString("base64")).toString("base64");
      const now = time.now();
      const key: IssuedKey = {
        text,
        app,
        issuedAt: now,
        worksAt: now + chance.int(0, style.worksAfterMs),
        revokedAt: null,
        deadAt: Number.POSITIVE_INFINITY,
      };
      keys.set(text, key);
      return key;
    },
    revoke: (text) => {
      const key = keys.get(text);
      if (key !== undefined) kill(key);
    },
    works,
    trouble: (from, to, kind) => void troubles.push({ from, to, kind }),
    port: (proc) => ({
      probe: (secret, _options, signal) => {
        const call = proc.call("probe", LATEST, () => {
          const probe = ask(secret.reveal());
          trace(
            () => `${proc.name} probes ${secret.reveal().slice(0, 6)}: ${probe.verdict} ${probe.code ?? ""}`,
          );
          return probe;
        });
        return cutOff(signal, call, () => answer("unclear", null, null, "interrupted"));
      },
      appIdentity: (secret, signal) => {
        const call = proc.call("identity", LATEST, () => {
          const text = secret.reveal();
          const isKnown = style.showsApp && ask(text).verdict === "accepted";
          return isKnown ? new product.Secret(`client-key-of-${keys.get(text)?.app ?? ""}`) : null;
        });
        return cutOff(signal, call, () => null);
      },
      usage: (secret, signal) => {
        const call = proc.call("usage", LATEST, () => {
          if (ask(secret.reveal()).verdict !== "accepted") return null;
          return { users: 2, rooms: 1, totalRooms: 3, messages: 40, peakConnections: 5 };
        });
        return cutOff(signal, call, () => null);
      },
    }),
    probes: () => probes,
  };

  function kill(key: IssuedKey): void {
    if (key.revokedAt !== null) return;
    key.revokedAt = time.now();
    key.deadAt = time.now() + chance.int(0, style.diesAfterMs);
  }
};
