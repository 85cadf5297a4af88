import * as z from "zod/mini";
import { ProviderError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import type { Revision, Store, Witness, WriteOp } from "../../src/ports.ts";
import { flag } from "../config-keys.ts";
import { bounded, defineStore, movedOn, refused, type Tools, witnessIn, witnessText } from "../kit.ts";
import {
  DNS_LABEL,
  DNS_NAME,
  IMMUTABLE_ADVICE,
  isAbsent,
  type KubeAnswer,
  kubeKeys,
  kubeProblem,
  openKube,
} from "../kubernetes.ts";
import { kubePlace } from "../kubernetes-rights.ts";
import { foreignOwner, type Held, heldIn } from "./kubernetes-held.ts";
import { checkSecret } from "./kubernetes-preflight.ts";

const schema = z.strictObject({
  ...kubeKeys,
  namespace: z.string().check(z.regex(DNS_LABEL), z.describe("Namespace of the Secret.")),
  secret: z
    ._default(z.string().check(z.regex(DNS_NAME)), "imkit-secrets")
    .check(z.describe("Name of the Secret.")),
  key: z
    ._default(z.string().check(z.regex(/^(?!\.\.?$)[-._a-zA-Z0-9]{1,253}$/)), "api-key")
    .check(z.describe("The entry of its data.")),
  create: flag(false, "Make the Secret when it is not there."),
  adopt: flag(false, "Write although another controller owns the Secret, which may undo it within minutes."),
});
type Config = z.infer<typeof schema>;

/** `<ledger> <seq> <h16>` of the intent behind the write. */
const LEDGER = "imkit-rotator/ledger";
/** `<op id> <entry>`: which write it was, and of which entry the witness speaks. */
const OP = "imkit-rotator/op";
const LIMIT_MS = 30_000;

/**
 * One entry of a Kubernetes Secret: read by name, changed by a merge patch that holds only if the Secret still has the `resourceVersion`
 * that was seen. So a neighbour's change in between is a conflict, too; reading again resolves it. Bytes are taken as they are: base64
 * exactly once, and a line break at the end makes another value. An empty entry counts as absent: it is filled.
 *
 * Known limits. Two apps in one Secret share its two annotations: only the one that wrote last has a witness. The API server does not say
 * when a value was written.
 */
export default defineStore({
  kind: "kubernetes-secret",
  schema,
  open: (config, tools) => openSecret(config, tools),
});

const openSecret = (config: Config, tools: Tools): Store => {
  const { namespace, secret: name, key, create, adopt } = config;
  const kube = openKube(config, tools);
  // Without a context two kubeconfigs may mean two clusters.
  const file = config.kubeconfig === undefined ? "" : ` in ${config.kubeconfig}`;
  const where = `kubernetes-secret:${kubePlace(config, `${namespace}/${name}#${key}`)}${file}`;
  const collection = `/api/v1/namespaces/${namespace}/secrets`;

  const within = async <T>(
    signal: AbortSignal,
    work: (signal: AbortSignal, commit: () => void) => Promise<T>,
  ): Promise<T> => {
    try {
      return await bounded(signal, LIMIT_MS, work);
    } catch (error) {
      if (!(error instanceof ProviderError)) throw new ProviderError("UNAVAILABLE", "unknown", where);
      const { code, outcome, hint, retryAfterMs } = error;
      throw new ProviderError(code, outcome, `${where}${hint === "" ? "" : `: ${hint}`}`, retryAfterMs);
    }
  };

  const fetched = async (signal: AbortSignal): Promise<Held | null> => {
    const answer = await kube.call({ method: "GET", path: `${collection}/${name}` }, signal);
    if (isAbsent(answer, "secrets", name)) return null;
    if (answer.status !== 200) throw kubeProblem(answer, false);
    return heldIn(answer.body, key, "not_applied");
  };

  const read: Store["read"] = (signal) =>
    within(signal, async (both) => {
      const held = await fetched(both);
      if (held === null && !create) throw absent();
      if (held === null || held.value === null) return null;
      const { value, revision, annotations } = held;
      return { secret: new Secret(value), revision, createdAt: null, witness: witnessOf(annotations, key) };
    });

  const barred = (held: Held): ProviderError | null => {
    const owner = adopt ? null : foreignOwner(held);
    if (owner !== null)
      return refused(
        "NOT_OWNED",
        `${owner} owns the Secret and would undo it; adopt: true writes all the same`,
      );
    if (held.immutable) return refused("IMMUTABLE", IMMUTABLE_ADVICE);
    return held.leaving ? refused("NOT_FOUND", "the Secret is being deleted") : null;
  };

  const write: Store["write"] = (next, expect, op, signal) =>
    within(signal, async (both, commit) => {
      const bytes = Buffer.from(next.reveal());
      const held = await fetched(both);
      if (held === null && !create) throw absent();
      if (held?.value?.equals(bytes)) return held.revision;
      const stands = held === null || held.value === null ? null : held.revision;
      if (stands !== expect) throw movedOn();
      const bar = held === null ? null : barred(held);
      if (bar !== null) throw bar;
      const data = { [key]: bytes.toString("base64") };
      const query = "?fieldManager=imkit-rotator";
      const call =
        held === null
          ? ({ method: "POST", path: `${collection}${query}`, body: made(name, op, key, data) } as const)
          : ({
              method: "PATCH",
              path: `${collection}/${name}${query}`,
              body: { metadata: { resourceVersion: held.revision, annotations: marks(op, key) }, data },
            } as const);
      const answer = await kube.call(call, both, commit);
      return confirmed(answer, key, bytes);
    });

  const remove = (expect: Revision, signal: AbortSignal): Promise<void> =>
    within(signal, async (both, commit) => {
      const held = await fetched(both);
      if (held === null || held.value === null) return;
      if (held.revision !== expect) throw movedOn();
      const bar = barred(held);
      if (bar !== null) throw bar;
      const body = { metadata: { resourceVersion: held.revision }, data: { [key]: null } };
      const path = `${collection}/${name}?fieldManager=imkit-rotator`;
      const answer = await kube.call({ method: "PATCH", path, body }, both, commit);
      if (answer.status !== 200) throw kubeProblem(answer, true);
      if (heldIn(answer.body, key, "unknown").value === null) return;
      throw new ProviderError("VERIFY_MISMATCH", "unknown", "the cluster keeps the entry");
    });

  return {
    where,
    caps: { staging: false, compareAndSwap: true, witness: true, retire: false },
    preflight: (signal) => checkSecret({ ...config, kube, fetched, barred }, signal),
    read,
    write,
    remove,
  };
};

/** In a merge patch `null` takes an older witness away. */
const marks = ({ id, witness }: WriteOp, key: string) => ({
  [OP]: `${id} ${key}`,
  [LEDGER]: witness === null ? null : witnessText(witness),
});

const made = (name: string, op: WriteOp, key: string, data: Readonly<Record<string, string>>) => ({
  apiVersion: "v1",
  kind: "Secret",
  type: "Opaque",
  metadata: {
    name,
    labels: { "app.kubernetes.io/managed-by": "imkit-rotator" },
    annotations: Object.fromEntries(Object.entries(marks(op, key)).filter(([, value]) => value !== null)),
  },
  data,
});

const witnessOf = (annotations: Held["annotations"], key: string): Witness | null => {
  const [quoted, op] = [annotations[LEDGER], annotations[OP]];
  const entry = typeof op === "string" ? op.split(" ")[1] : key;
  return entry === key && typeof quoted === "string" ? witnessIn(quoted) : null;
};

/** The answer to a write shows what is stored now. */
const confirmed = (answer: KubeAnswer, key: string, bytes: Buffer): Revision => {
  if (answer.status !== 200 && answer.status !== 201) throw kubeProblem(answer, true);
  const held = heldIn(answer.body, key, "unknown");
  if (held.value?.equals(bytes)) return held.revision;
  throw new ProviderError("VERIFY_MISMATCH", "unknown", "the cluster keeps another value than it was given");
};

const absent = () => refused("NOT_FOUND", "the Secret does not exist; create: true makes it");
