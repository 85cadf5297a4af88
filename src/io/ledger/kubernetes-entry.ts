import { field, type KubeAnswer } from "../../../providers/kubernetes.ts";
import { MAX_LINE } from "../../core/chain.ts";

export type Found =
  | { readonly state: "read"; readonly bytes: Buffer }
  | { readonly state: "absent" }
  | { readonly state: "broken"; readonly why: string };

/** The one entry of a ConfigMap's `binaryData`: bytes, as they are. */
const DATA = "entry.json";
const LF = 10;

/** The ConfigMap of one entry. Its labels are for people: we never list. */
export const made = (app: string, name: string, bytes: Uint8Array) => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, labels: { "app.kubernetes.io/managed-by": "imkit-rotator", "imkit-rotator/app": app } },
  immutable: true,
  binaryData: { [DATA]: Buffer.from(bytes).toString("base64") },
});

/** A ConfigMap of ours, as the API server gives it. */
export const foundIn = (body: unknown): Found => {
  const stored = field(field(body, "binaryData"), DATA);
  if (field(body, "kind") !== "ConfigMap" || typeof stored !== "string")
    return { state: "broken", why: "is none that this program wrote" };
  // It could be changed, or was made by another hand.
  if (field(body, "immutable") !== true) return { state: "broken", why: "is not immutable" };
  const bytes = Buffer.from(stored, "base64");
  // Node drops what is not base64: what does not come back the same was something else.
  if (bytes.toString("base64") !== stored) return { state: "broken", why: "is not base64" };
  if (bytes.length === 0) return { state: "broken", why: "is empty" };
  if (bytes.length > MAX_LINE) return { state: "broken", why: "is over 16 KiB" };
  if (bytes.at(-1) !== LF) return { state: "broken", why: "is torn" };
  return { state: "read", bytes };
};

export const keepsBytes = (found: Found, bytes: Uint8Array): boolean =>
  found.state === "read" && found.bytes.equals(bytes);

/** Somebody was first. A 409 that says anything else (a quota that was counted by two at once) is no such proof. */
export const isTaken = ({ status, body }: KubeAnswer): boolean =>
  status === 409 && field(body, "kind") === "Status" && field(body, "reason") === "AlreadyExists";
