import { ProviderError } from "../../src/core/errors.ts";
import type { Check } from "../../src/ports.ts";
import { bounded, check } from "../kit.ts";
import type { Kube } from "../kubernetes.ts";
import { kubectl, mayI, rehearsal, type Right } from "../kubernetes-rights.ts";
import type { Held } from "./kubernetes-held.ts";

/** One opened store, as its preflight needs it. */
export type Opened = {
  readonly kube: Kube;
  readonly context?: string | undefined;
  readonly namespace: string;
  readonly secret: string;
  readonly key: string;
  readonly create: boolean;
  /** null = proven absent. */
  readonly fetched: (signal: AbortSignal) => Promise<Held | null>;
  /** What stands against writing into it. */
  readonly barred: (held: Held) => ProviderError | null;
};

const LIMIT_MS = 30_000;
const APPLIED = "kubectl.kubernetes.io/last-applied-configuration";

/** May I write there? Rights are asked of the API server, and the write is rehearsed as its dry run: nothing is changed. Never rejects. */
export const checkSecret = async (store: Opened, signal: AbortSignal): Promise<readonly Check[]> => {
  try {
    return await bounded(signal, LIMIT_MS, async (both) => {
      const { namespace, secret, create, fetched, barred } = store;
      const verbs = ["get", "patch", ...(create ? ["create"] : [])];
      const rights = await Promise.all(verbs.map((verb) => mayI(store, rightTo(verb, store), both)));
      const lacks = (verb: string) =>
        rights.some(({ id, status }) => id === `may-${verb}` && status === "fail");
      if (lacks("get")) return rights;
      const held = await fetched(both);
      if (held === null) {
        const message = `there is no Secret ${namespace}/${secret}${create ? ", and it will be made" : ""}`;
        if (create) return [...rights, check.ok("secret", message)];
        const fix = `${kubectl(store)} create secret generic ${secret}   # or set create: true`;
        return [...rights, check.fail("secret", message, fix, "NOT_FOUND")];
      }
      const bar = barred(held);
      if (bar !== null) return [...rights, failed("secret", bar, store)];
      return [
        ...rights,
        check.ok("secret", `${namespace}/${secret} may be changed`),
        ...oddities(held),
        ...(lacks("patch") ? [] : [await rehearsed(store, held, both)]),
      ];
    });
  } catch (error) {
    if (error instanceof ProviderError) return [failed("api-server", error, store)];
    return [check.unproved("api-server", "the API server cannot be asked")];
  }
};

/** The same value, or a stand-in where there is none: so admission policies have their say before a person issues a key. */
const rehearsed = async (store: Opened, { value }: Held, signal: AbortSignal): Promise<Check> => {
  const { kube, namespace, secret, key } = store;
  const body = {
    metadata: { annotations: { "imkit-rotator/op": `${"0".repeat(32)} ${key}` } },
    data: { [key]: (value ?? Buffer.from("A".repeat(60))).toString("base64") },
  };
  const path = `/api/v1/namespaces/${namespace}/secrets/${secret}?fieldManager=imkit-rotator&dryRun=All`;
  const answer = await kube.call({ method: "PATCH", path, body }, signal);
  return rehearsal(answer, "the API server", "the change", (code) => fixOf(code, store));
};

const oddities = ({ value, annotations }: Held): readonly Check[] => {
  const checks: Check[] = [];
  if (/\s$/.test(value?.toString("latin1") ?? "")) {
    const message = "the value ends in white space, which services may not trim";
    checks.push(check.warn("value", message, "The next rotation writes it without."));
  }
  if (Object.hasOwn(annotations, APPLIED)) {
    const message = "the Secret was made by kubectl apply: its manifest, applied again, puts an old key back";
    checks.push(check.warn("last-applied", message, "Take the entry out of that manifest."));
  }
  return checks;
};

/** A right to create cannot be bound to a name, so that one is asked without. */
const rightTo = (verb: string, { namespace, secret }: Opened): Right => {
  const target = { group: "", resource: "secrets", verb, namespace };
  return verb === "create"
    ? { ...target, called: `Secrets in ${namespace}` }
    : { ...target, name: secret, called: `Secret ${namespace}/${secret}` };
};

const failed = (id: string, { code, hint }: ProviderError, store: Opened): Check =>
  check.fail(id, hint, fixOf(code, store), code);

const fixOf = (code: string, store: Opened): string => {
  const [at, { secret }] = [kubectl(store), store];
  const fixes: Readonly<Record<string, string>> = {
    AUTHN: `${at} auth whoami   # log in until it says who; where the kubeconfig names a token, renew that`,
    AUTHZ: "Have those who run the cluster's admission policies let this identity change this Secret.",
    CONFIG: "kubectl config get-contexts   # mend kubeconfig and context until kubectl works with them",
    IMMUTABLE: `${at} create secret generic ${secret}-2   # then name it in \`secret\`, and point the workloads to it`,
    KMS: `${at} get --raw '/readyz?verbose'   # those who run the cluster mend its encryption at rest`,
    NOT_FOUND: `${at} get secret ${secret}   # wait until it is gone, or name another one in \`secret\``,
    NOT_OWNED: "Change the key at the owner's source and set write: false here, or set adopt: true.",
    QUOTA: `${at} describe resourcequota   # have it raised, or remove what is not needed`,
    THROTTLED: "Run doctor again in a minute.",
    TIMEOUT: `${at} get --raw /readyz   # the address and the network, as seen from here`,
    TOO_LARGE: `${at} describe secret ${secret}   # take out what is large, or name another Secret in \`secret\``,
    UNAVAILABLE: `${at} get --raw /readyz   # the address and the network, as seen from here`,
  };
  return fixes[code] ?? "Mend what is named and run again.";
};
