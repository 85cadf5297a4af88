import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Tools } from "../../providers/kit.ts";
import type { Predecessor } from "../flow/succeed.ts";
import { type Cluster, type Config, configHome, valueOf } from "../io/config.ts";
import { defaultIdentity, fileEscrow } from "../io/escrow/file.ts";
import type { LedgerLines } from "../io/ledger/export.ts";
import { filePredecessor, guardedLedger } from "../io/ledger/successor.ts";
import type { Escrow, Ledger } from "../ports.ts";
import type { Io } from "./io.ts";

/** Where one app's ledger and the keys of its open rotation are kept. Nothing is read or written before they are used. */
export type Rooms = {
  readonly ledger: () => Ledger;
  readonly predecessor: () => Predecessor;
  readonly escrow: Escrow;
  /** Encrypted, in the state directory, wherever the escrow is. */
  readonly backup: Tools["backup"];
};

export const appDir = (config: Config, app: string): string => join(config.stateDir, app);
const ledgerDir = (config: Config, app: string): string => join(appDir(config, app), "ledger");

/** As the config says. What speaks to a cluster is loaded only where the config names one. */
export const openRooms = async (io: Io, config: Config, app: string): Promise<Rooms> => {
  const files = fileEscrow({ dir: join(appDir(config, app), "escrow"), identity: identityOf(io, config) });
  return {
    ...(config.ledger === null ? filesOf(config, app) : await clusterLedger(io, config, config.ledger, app)),
    escrow: config.escrow === null ? files : await clusterEscrow(io, config, config.escrow, app),
    backup: (name, bytes) => files.encryptBackup(name, bytes),
  };
};

/**
 * All that is there of an app's ledger, for `audit`; null = none was begun.
 * @throws RotatorError INPUT_MISSING, LEDGER_UNWRITABLE
 */
export const ledgerLines = async (io: Io, config: Config, app: string): Promise<LedgerLines | null> => {
  const dir = ledgerDir(config, app);
  if (config.ledger === null) {
    if (!existsSync(dir)) return null;
    const { readLedgerPath } = await import("../io/ledger/export.ts");
    return await readLedgerPath(dir);
  }
  const { predecessor } = await clusterLedger(io, config, config.ledger, app);
  const { place, lines, seqs } = await predecessor().look();
  return place === "here" ? { folder: true, lines, seqs } : null;
};

const filesOf = (config: Config, app: string): Pick<Rooms, "ledger" | "predecessor"> => ({
  ledger: () => guardedLedger(ledgerDir(config, app), app),
  predecessor: () => filePredecessor(ledgerDir(config, app)),
});

const placeOf = (io: Io, config: Config, cluster: Cluster, app: string) => ({
  ...cluster,
  app,
  tools: { configDir: config.dir, env: io.env },
});

const clusterLedger = async (
  io: Io,
  config: Config,
  cluster: Cluster,
  app: string,
): Promise<Pick<Rooms, "ledger" | "predecessor">> => {
  const { kubernetesLedger } = await import("../io/ledger/kubernetes.ts");
  const { kubernetesPredecessor } = await import("../io/ledger/kubernetes-successor.ts");
  const place = placeOf(io, config, cluster, app);
  return { ledger: () => kubernetesLedger(place), predecessor: () => kubernetesPredecessor(place) };
};

const clusterEscrow = async (io: Io, config: Config, cluster: Cluster, app: string): Promise<Escrow> => {
  const { kubernetesEscrow } = await import("../io/escrow/kubernetes.ts");
  const identity = config.escrowIdentity === null ? null : identityOf(io, config);
  return kubernetesEscrow({ ...placeOf(io, config, cluster, app), identity });
};

const identityOf = (io: Io, config: Config) => {
  const { escrowIdentity } = config;
  if (escrowIdentity !== null) return () => valueOf(escrowIdentity, { dir: config.dir, env: io.env });
  return defaultIdentity({ configHome: configHome(io.env), stateDir: config.stateDir });
};
