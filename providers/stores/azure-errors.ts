import { type Applied, type ProviderCode, ProviderError } from "../../src/core/errors.ts";
import { refused } from "../kit.ts";

/** The parts of an answer that are looked at. `text` is the vendor's and goes nowhere. */
export type Answer = {
  readonly method: string;
  readonly status: number;
  readonly retryAfter: string | undefined;
  readonly text: string;
};

/** What the service calls its reasons, and what we call them. `fix` is a line that can be pasted; `{vault}` and `{secret}` are filled in. */
type Reason = { readonly code: ProviderCode; readonly hint: string; readonly fix?: string };

const RECOVER = "az keyvault secret recover --vault-name {vault} --name {secret}   # or set recover: true";
export const GRANT =
  'az role assignment create --role "IMKIT Key Rotator" --assignee "$AZURE_CLIENT_ID" --scope ' +
  '"$(az keyvault show --name {vault} --query id --output tsv)/secrets/{secret}"   # the role: deploy/policies/azure-key-vault.json';

const REASONS: Readonly<Record<string, Reason>> = {
  SecretDisabled: {
    code: "DISABLED",
    hint: "the current version is disabled",
    fix: "az keyvault secret set-attributes --vault-name {vault} --name {secret} --enabled true",
  },
  SecretManagedByKeyVault: {
    code: "NOT_OWNED",
    hint: "this secret belongs to a certificate; Key Vault itself manages it",
    fix: "Name another secret.",
  },
  ForbiddenByRbac: {
    code: "AUTHZ",
    hint: "no role lets this identity do that (a new role assignment takes minutes)",
    fix: GRANT,
  },
  ForbiddenByPolicy: {
    code: "AUTHZ",
    hint: "no access policy of the vault lets this identity do that",
    fix: 'az keyvault set-policy --name {vault} --spn "$AZURE_CLIENT_ID" --secret-permissions get list set recover',
  },
  ForbiddenByFirewall: {
    code: "AUTHZ",
    hint: "the firewall of the vault does not let this address in",
    fix: 'az keyvault network-rule add --name {vault} --ip-address "$MY_ADDRESS"   # as the vault sees this host',
  },
  ObjectIsDeletedButRecoverable: { code: "SOFT_DELETED", hint: "the secret is deleted", fix: RECOVER },
  ObjectIsBeingDeleted: { code: "SOFT_DELETED", hint: "the secret is being deleted right now", fix: RECOVER },
  ObjectIsBeingRecovered: {
    code: "UNAVAILABLE",
    hint: "the secret is being recovered right now; that takes up to 2 minutes",
  },
};

/** What it does not name. */
const OURS = {
  login: { code: "AUTHN", hint: "the vault does not take this login", fix: "az login" },
  noLogin: { code: "AUTHN", hint: "there is no Azure login", fix: "az login" },
  forbidden: { code: "AUTHZ", hint: "the vault forbids that to this identity", fix: GRANT },
  absent: {
    code: "NOT_FOUND",
    hint: "the vault has no such secret; create: true makes it",
    fix: "az keyvault secret list --vault-name {vault} --query '[].name'   # mend `secret`, or set create: true",
  },
  changing: {
    code: "SOFT_DELETED",
    hint: "the secret is being deleted or recovered right now; that takes up to 3 minutes",
    fix: RECOVER,
  },
  untrusted: {
    code: "CONFIG",
    hint: "the certificate of the vault is not trusted",
    fix: "Set caFile to the certificate authority of this endpoint.",
  },
  unreached: {
    code: "UNAVAILABLE",
    hint: "the vault cannot be reached",
    fix: "curl -sSI {url}   # vaultUrl, network and proxy, as seen from here",
  },
  foreignChallenge: {
    code: "CONFIG",
    hint: "the vault asks for a login to another domain; nothing was sent",
    fix: "Mend vaultUrl; for an emulator set verifyChallengeResource: false.",
  },
} as const satisfies Record<string, Reason>;

const saying = ({ code, hint }: Reason, outcome: Applied = "not_applied"): ProviderError =>
  new ProviderError(code, outcome, hint);

type Place = { readonly vaultUrl: string; readonly secret: string };
/** A line with the names of the place in it. */
export const filled = (fix: string, { vaultUrl, secret }: Place): string =>
  fix
    .replaceAll("{vault}", new URL(vaultUrl).hostname.split(".")[0] ?? "")
    .replaceAll("{url}", vaultUrl)
    .replaceAll("{secret}", secret);

/** The way out of an error that this room made; else null. */
export const fixOf = (error: ProviderError, place: Place): string | null => {
  const all: readonly Reason[] = [...Object.values(REASONS), ...Object.values(OURS)];
  const fix = all.find(({ hint }) => hint === error.hint)?.fix;
  return fix === undefined ? null : filled(fix, place);
};

export const absent = (): ProviderError => saying(OURS.absent);
export const softDeleted = (changing: boolean): ProviderError =>
  changing
    ? saying(OURS.changing)
    : refused("SOFT_DELETED", REASONS["ObjectIsDeletedButRecoverable"]?.hint ?? "");

/** An answer that is no success, as our error. */
export const fromAnswer = ({ method, status, retryAfter, text }: Answer): ProviderError => {
  const { code, inner, message } = reasonIn(text);
  const known = Object.hasOwn(REASONS, inner) ? REASONS[inner] : undefined;
  if (known !== undefined && status >= 400 && status < 500) return saying(known);
  const lost: Applied = method === "GET" ? "not_applied" : "unknown";
  switch (status) {
    case 401:
      return saying(OURS.login);
    case 403:
      return saying(OURS.forbidden);
    case 404:
      // A page of a proxy proves nothing; the vault's own answer names its reason.
      if (code !== "SecretNotFound") return refused("UNAVAILABLE", "something that is no vault answered 404");
      return saying(message.startsWith("Deleted Secret not found") ? OURS.changing : OURS.absent);
    case 408:
      return new ProviderError("TIMEOUT", lost, "the vault gave up waiting");
    case 409:
      return refused("CONFLICT", "the vault is at work on this secret, for somebody else");
    case 413:
      return refused("TOO_LARGE", "the vault takes no value of that size");
    case 429:
      return refused("THROTTLED", "too many calls", waitOf(retryAfter));
    default:
      if (status >= 500) return new ProviderError("UNAVAILABLE", lost, `HTTP ${status}`);
      return refused(status === 400 ? "CONFIG" : "UNAVAILABLE", `the vault answered HTTP ${status}`);
  }
};

/** What the SDK, the login or the network threw, as our error. Only names and codes are looked at; nothing of it is kept. */
export const fromThrown = (thrown: unknown, method: string): ProviderError => {
  if (thrown instanceof ProviderError) return thrown;
  const lost: Applied = method === "GET" ? "not_applied" : "unknown";
  const { name, code, message } = (thrown ?? {}) as Readonly<Record<string, unknown>>;
  const word = typeof code === "string" ? code : "";
  if (typeof name === "string" && LOGIN_ERRORS.test(name)) return saying(OURS.noLogin);
  if (/CERT|SELF_SIGNED|UNABLE_TO|ERR_TLS|ERR_SSL/.test(word)) return saying(OURS.untrusted);
  if (/^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|ENETUNREACH|EHOSTUNREACH)$/.test(word))
    return saying(OURS.unreached);
  if (name === "Error" && typeof message === "string" && message.startsWith("The challenge "))
    return saying(OURS.foreignChallenge);
  return new ProviderError("UNAVAILABLE", lost, "the vault gave no answer that makes sense");
};
const LOGIN_ERRORS =
  /^(CredentialUnavailableError|AuthenticationError|AggregateAuthenticationError|AuthenticationRequiredError)$/;

const reasonIn = (
  text: string,
): { readonly code: unknown; readonly inner: string; readonly message: string } => {
  try {
    const { error } = JSON.parse(text.slice(0, 65_536));
    const inner: unknown = error?.innererror?.code;
    const message: unknown = error?.message;
    return {
      code: error?.code,
      inner: typeof inner === "string" ? inner : "",
      message: typeof message === "string" ? message : "",
    };
  } catch {
    return { code: null, inner: "", message: "" };
  }
};

/** Of a Retry-After header: seconds or a date, between 1 s and an hour. */
const waitOf = (text: string | undefined): number | null => {
  if (text === undefined) return null;
  const ms = /^\d{1,9}$/.test(text) ? Number(text) * 1_000 : Date.parse(text) - Date.now();
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 1_000), 3_600_000) : null;
};
