import { type Applied, type ProviderCode, ProviderError } from "../../src/core/errors.ts";

/** What a failure of the SDK says, as far as we look at it. */
type Facts = {
  readonly name: string;
  /** Of Node, where there was no answer. */
  readonly code: string;
  readonly status: number;
  readonly kms: boolean;
};

type Asked = {
  /** May the call have changed something? Then what is no clear answer is `unknown`, and so is what a repeated call ended in. */
  readonly change: boolean;
  /** The how many-eth time it is that the same was asked. */
  readonly nth: number;
  /** In our words: `read the secret`. */
  readonly doing: string;
  readonly region: string;
};

/** A failure of the SDK as our error. Its message, headers and body are dropped. */
export const fromAws = (thrown: unknown, { change, nth, doing, region }: Asked): ProviderError => {
  if (thrown instanceof ProviderError) return thrown;
  const { code, reached, hint } = meaning(factsOf(thrown));
  const outcome: Applied = change && (reached === "perhaps" || nth > 1) ? "unknown" : "not_applied";
  return new ProviderError(code, outcome, `cannot ${doing} in ${region}: ${hint}`);
};

const factsOf = (thrown: unknown): Facts => {
  const error = (typeof thrown === "object" && thrown !== null ? thrown : {}) as Readonly<
    Record<string, unknown>
  >;
  const metadata = (error["$metadata"] ?? {}) as Readonly<Record<string, unknown>>;
  const text = (value: unknown): string => (typeof value === "string" ? value : "");
  const count = (value: unknown): number => (typeof value === "number" ? value : 0);
  return {
    name: text(error["name"]),
    code: text(error["code"]),
    status: count(metadata["httpStatusCode"]),
    // AWS tells a missing right on the encryption key from one on the secret by its message alone.
    kms: /\bKMS\b|\bkms:/.test(text(error["message"])),
  };
};

type Meaning = {
  readonly code: ProviderCode;
  /** `no`: AWS has refused it, or never got it. */
  readonly reached: "no" | "perhaps";
  readonly hint: string;
};

/** Ends the hint of what a wrong clock does, which is refused as a login is. */
export const CLOCK = "this machine's clock is more than 5 minutes off";
const AUTHN =
  "there is no valid AWS login, or this machine's clock is wrong; `aws sts get-caller-identity` shows who one is";
const AUTHZ = "this AWS identity may not do that; see deploy/policies/aws-secrets-manager.json";
const KMS =
  "the encryption key (KMS) cannot be used; this identity needs kms:Decrypt and kms:GenerateDataKey on it, and it must be enabled";

const no = (code: ProviderCode, hint: string): Meaning => ({ code, reached: "no", hint });
const perhaps = (code: ProviderCode, hint: string): Meaning => ({ code, reached: "perhaps", hint });

const NAMES: Readonly<Record<string, Meaning>> = {
  ResourceNotFoundException: no("NOT_FOUND", "it is not there"),
  ResourceExistsException: no("CONFLICT", "it is there already"),
  InvalidRequestException: no("CONFIG", "AWS refuses that for the secret as it stands"),
  InvalidParameterException: no("CONFIG", "AWS refuses that for the secret as it stands"),
  ValidationException: no("NAME", "AWS does not allow that name"),
  DecryptionFailure: no("KMS", KMS),
  EncryptionFailure: no("KMS", KMS),
  LimitExceededException: no(
    "QUOTA",
    "the secret has as many versions or labels as AWS allows; wait a day, or remove labels",
  ),
  AccessDeniedException: no("AUTHZ", AUTHZ),
  // Of the login service, not of the secret's.
  AccessDenied: no("AUTHN", "the AWS login may not take on its role"),
  InternalServiceError: perhaps("UNAVAILABLE", "AWS has a fault of its own"),
};

const LOGIN =
  /^(UnrecognizedClient|InvalidClientTokenId|InvalidSignature|SignatureDoesNotMatch|Expired?Token|MissingAuthenticationToken|IncompleteSignature|InvalidToken|Unauthorized|CredentialsProvider|TokenProvider|Provider)/;
const THROTTLE = /^(Throttl|TooManyRequests|RequestLimitExceeded|RequestThrottled|SlowDown)/;
const NEVER_ARRIVED =
  /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|ERR_TLS_|ERR_SSL_|CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_)/;

const meaning = ({ name, code, status, kms }: Facts): Meaning => {
  if (name === "AccessDeniedException" && kms) return no("KMS", KMS);
  if (Object.hasOwn(NAMES, name)) return NAMES[name] ?? perhaps("UNAVAILABLE", "no sense in the answer");
  if (/^Request(Expired|TimeTooSkewed)/.test(name)) return no("AUTHN", CLOCK);
  if (name.startsWith("KMS")) return no("KMS", KMS);
  if (LOGIN.test(name)) return no("AUTHN", AUTHN);
  if (THROTTLE.test(name) || status === 429) return no("THROTTLED", "too many calls");
  // The SDK calls these a TimeoutError, too.
  if (/^(ECONNRESET|EPIPE)$/.test(code)) return perhaps("UNAVAILABLE", "the connection broke");
  if (/Timeout|^AbortError$/.test(name) || code === "ETIMEDOUT" || status === 408)
    return perhaps("TIMEOUT", "no answer in time");
  if (NEVER_ARRIVED.test(code)) return no("UNAVAILABLE", "no connection (address, network, certificate)");
  if (status === 401) return no("AUTHN", AUTHN);
  if (status === 403) return no("AUTHZ", AUTHZ);
  if (status === 413) return no("TOO_LARGE", "it is too large");
  if (status >= 400 && status < 500 && status !== 404 && name !== "SyntaxError")
    return no("CONFIG", "AWS refuses the request");
  return perhaps("UNAVAILABLE", status === 0 ? "no answer" : `no sense in the answer (HTTP ${status})`);
};
