// A store for the AWS SSM Parameter Store, on its SDK: `npm i @aws-sdk/client-ssm` beside your config, and `type: ./ssm-parameter.store.ts`.
import { GetParameterCommand, PutParameterCommand, SSMClient } from "@aws-sdk/client-ssm";
// Types only: they are gone at run time.
import type { ProviderKit, Revision, Store, Stored } from "imkit-rotator/testkit";

/** One SecureString parameter of AWS Systems Manager. The login is the SDK's own chain. */
export default ({ z, Secret, ProviderError, defineStore, bounded }: ProviderKit) => {
  const schema = z.strictObject({
    region: z.string().min(1).describe("AWS region."),
    parameter: z.string().min(1).describe("Name of the parameter."),
    keyId: z.string().optional().describe("KMS key, where it is not the account's default one."),
    create: z.boolean().default(false).describe("Make the parameter when it is not there."),
    endpoint: z.string().optional().describe("Another address than the region's, for emulators."),
  });

  return defineStore({
    kind: "ssm-parameter",
    schema,
    open: ({ region, parameter: name, keyId, create, endpoint }): Store => {
      // No retries inside.
      const client = new SSMClient({
        region,
        maxAttempts: 1,
        ...(endpoint === undefined ? {} : { endpoint }),
      });
      const where = `ssm:${region}:${name}`;

      // What AWS says becomes our code; its text is dropped.
      const failure = (error: unknown, wrote: boolean) => {
        if (error instanceof ProviderError) return error;
        const { name: said = "", $metadata } = error as {
          name?: string;
          $metadata?: { httpStatusCode?: number };
        };
        const status = $metadata?.httpStatusCode ?? 0;
        // An answer of 4xx is a no; without an answer, or with 5xx, a write may have happened.
        const outcome = wrote && !(status >= 400 && status < 500) ? "unknown" : "not_applied";
        return new ProviderError(
          CODES[said] ?? "UNAVAILABLE",
          outcome,
          `${where} cannot be ${wrote ? "written" : "read"}`,
        );
      };

      const look = async (signal: AbortSignal): Promise<{ stored: Stored; version: number } | null> => {
        const found = await client
          .send(new GetParameterCommand({ Name: name, WithDecryption: true }), { abortSignal: signal })
          .catch((error: unknown) => {
            if ((error as { name?: string }).name === "ParameterNotFound") return null;
            throw failure(error, false);
          });
        if (found === null && create) return null;
        if (found === null)
          throw new ProviderError("NOT_FOUND", "not_applied", `${where} is not there; create: true makes it`);
        const { Value, Version, Type, LastModifiedDate } = found.Parameter ?? {};
        if (Type !== "SecureString")
          throw new ProviderError("CONFIG", "not_applied", `${where} is no SecureString`);
        if (!Value || Version === undefined)
          throw new ProviderError("UNAVAILABLE", "not_applied", `${where}: no sense in the answer`);
        // A parameter that is deleted and made again begins at version 1 again: the time belongs to the revision.
        const at = LastModifiedDate?.getTime() ?? 0;
        const revision = `${Version}@${at}` as Revision;
        return {
          version: Version,
          stored: { secret: new Secret(Value), revision, createdAt: at || null, witness: null },
        };
      };

      const read: Store["read"] = (signal) =>
        bounded(signal, 30_000, async (signal) => (await look(signal))?.stored ?? null);

      const write: Store["write"] = (next, expect, _op, signal) =>
        bounded(signal, 30_000, async (signal, commit) => {
          const before = await look(signal);
          // The same op again, or a value that is there already: one write, not two.
          if (before?.stored.secret.equals(next)) return before.stored.revision;
          if ((before?.stored.revision ?? null) !== expect)
            throw new ProviderError("CONFLICT", "not_applied", `${where} holds another value by now`);
          commit();
          const { Version } = await client
            .send(
              new PutParameterCommand({
                Name: name,
                Value: next.reveal(),
                Type: "SecureString",
                // Without it, SSM would go over to the account's default key.
                ...(keyId === undefined ? {} : { KeyId: keyId }),
                // Without a parameter this is a compare-and-swap; over one, SSM has none.
                Overwrite: before !== null,
              }),
              { abortSignal: signal },
            )
            .catch((error: unknown) => {
              throw failure(error, true);
            });
          // Somebody came between: our value is there now, and theirs is lost.
          if (before !== null && Version !== before.version + 1)
            throw new ProviderError("CONFLICT", "applied", `${where} was written by somebody else meanwhile`);
          const after = await look(signal).catch(() => null);
          if (after === null)
            throw new ProviderError("UNAVAILABLE", "unknown", `${where} cannot be read back`);
          return after.stored.revision;
        });

      const preflight: Store["preflight"] = async (signal) => {
        try {
          await read(signal);
          return [
            { id: "parameter", status: "ok", message: `${where} can be read` },
            {
              id: "permission-write",
              status: "unproved",
              message: "whether it may be written cannot be asked without writing",
            },
          ];
        } catch (error) {
          const code = error instanceof ProviderError ? error.code : "UNAVAILABLE";
          const fix = `aws ssm get-parameter --name ${name} --region ${region}`;
          return [{ id: "parameter", status: "fail", message: `${where} cannot be read`, fix, code }];
        }
      };

      const caps = { staging: false, compareAndSwap: false, witness: false, retire: false };
      return { where, caps, preflight, read, write };
    },
  });
};

type Code = "AUTHN" | "AUTHZ" | "KMS" | "CONFLICT" | "QUOTA" | "THROTTLED" | "NAME" | "TIMEOUT";
const CODES: Readonly<Record<string, Code>> = {
  CredentialsProviderError: "AUTHN",
  ExpiredTokenException: "AUTHN",
  UnrecognizedClientException: "AUTHN",
  AccessDeniedException: "AUTHZ",
  InvalidKeyId: "KMS",
  ParameterAlreadyExists: "CONFLICT",
  ParameterMaxVersionLimitExceeded: "QUOTA",
  TooManyUpdates: "THROTTLED",
  ThrottlingException: "THROTTLED",
  ValidationException: "NAME",
  ParameterPatternMismatchException: "NAME",
  AbortError: "TIMEOUT",
};
