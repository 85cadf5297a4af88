import { pathToFileURL } from "node:url";
import type * as chain from "../../../src/core/chain.ts";
import type * as errors from "../../../src/core/errors.ts";
import type * as next from "../../../src/core/next.ts";
import type * as outcome from "../../../src/core/outcome.ts";
import type * as secret from "../../../src/core/secret.ts";
import type * as state from "../../../src/core/state.ts";
import type * as verify from "../../../src/core/verify.ts";
import type * as adopt from "../../../src/flow/adopt.ts";
import type * as confirm from "../../../src/flow/confirm.ts";
import type * as interrupt from "../../../src/flow/interrupt.ts";
import type * as journal from "../../../src/flow/journal.ts";
import type * as keys from "../../../src/flow/keys.ts";
import type * as rollback from "../../../src/flow/rollback.ts";
import type * as rotate from "../../../src/flow/rotate.ts";
import type * as stage from "../../../src/flow/stage.ts";
import type * as tick from "../../../src/flow/tick.ts";

/** The modules of the product that a world runs: the real ones, or a copy of them with a bug planted. */
export type Product = Pick<typeof chain, "follow"> &
  Pick<typeof errors, "ProviderError" | "RotatorError"> &
  Pick<typeof next, "isUrgent"> &
  Pick<typeof outcome, "phaseOf" | "failureOf"> &
  Pick<typeof secret, "Secret"> &
  Pick<typeof state, "evolve" | "EMPTY" | "isOpen" | "unproved"> &
  Pick<typeof verify, "verifyLedger"> &
  Pick<typeof adopt, "adopt"> &
  Pick<typeof confirm, "confirmRevoked"> &
  Pick<typeof interrupt, "stoppable"> &
  Pick<typeof journal, "openJournal"> &
  Pick<typeof keys, "openKeys"> &
  Pick<typeof rollback, "rollback"> &
  Pick<typeof rotate, "rotate"> &
  Pick<typeof stage, "stage" | "discard"> &
  Pick<typeof tick, "tick" | "tellOfRun"> & {
    /** What its own signals are made of. */
    readonly AbortController: typeof AbortController;
  };

const FILES = [
  "core/chain",
  "core/errors",
  "core/next",
  "core/outcome",
  "core/secret",
  "core/state",
  "core/verify",
  "flow/adopt",
  "flow/confirm",
  "flow/interrupt",
  "flow/journal",
  "flow/keys",
  "flow/rollback",
  "flow/rotate",
  "flow/stage",
  "flow/tick",
];

/** @param src folder that holds core/ and flow/ */
export const loadProduct = async (src: string): Promise<Omit<Product, "AbortController">> => {
  const modules = await Promise.all(FILES.map((file) => import(pathToFileURL(`${src}/${file}.ts`).href)));
  return Object.assign({}, ...modules) as Omit<Product, "AbortController">;
};
