import * as z from "zod";
import { parseDuration } from "../core/policy.ts";
import { checkBaseUrl } from "./imkit-address.ts";

/** States that a notification can be about; `*` is all of them. */
export const NOTIFY_STATES = [
  "*",
  "due",
  "overdue",
  "waiting",
  "waiting-key",
  "waiting-restart",
  "waiting-revoke",
  "done",
  "failed",
  "refused",
  "blackout",
  "wrong-key-revoked",
  "emergency",
  "drift",
  "inbox",
  "usage",
  "ledger-broken",
] as const;

export const NAME = /^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/;
export const NAME_WORDS = "must be 1 to 32 of a-z, 0-9 and -, with a letter or digit at both ends";
export const SECRET_INLINE =
  "must be { valueFrom: { env | file | credential } }; a secret written here is exposed and must be replaced";

const name = z.string().regex(NAME, NAME_WORDS).describe("Its name in commands, ledger and reports.");

const durationWords = "must be a duration: an integer and ms, s, m, h or d, such as 90d";
const duration = z
  .string({ error: durationWords })
  .regex(/^\d+(ms|s|m|h|d)$/, durationWords)
  .refine((text) => !/^\d+(ms|s|m|h|d)$/.test(text) || parseDuration(text) !== null, {
    message: "must be a duration of at most 36500d",
  });

const isTimezone = (zone: string): boolean => {
  try {
    Intl.DateTimeFormat("en", { timeZone: zone });
    return true;
  } catch {
    return false;
  }
};
const timezone = z
  .string()
  .refine(isTimezone, { message: "must be an IANA time zone, such as Asia/Taipei or UTC" })
  .describe("Time zone in which `schedule` is read.");

/** Only its form; whether it can ever come is asked of node-cron. */
const schedule = z
  .string()
  .regex(/^\s*\S+(\s+\S+){4}\s*$/, 'must be a cron line of five fields, such as "0 10 * * 1-5"')
  .describe("Cron line (five fields): when a tick may open a rotation or remind. Unset = at every tick.");

const rotateEvery = duration.describe(
  "How old a key may become: days of 24 h from the last finished rotation.",
);
const remindBefore = z
  .array(duration)
  .max(20)
  .describe("How long before the due instant to remind, each once.");

const text = z.string().min(1, "must not be empty");

/** A secret is never in the config, only where to find it. */
export const valueFrom = z
  .strictObject({
    valueFrom: z
      .strictObject({
        env: text.optional().describe("Name of an environment variable."),
        file: text.optional().describe("Path of a file; relative to the config file."),
        credential: z
          .string()
          .regex(/^[\w.@-]+$/, "must be a plain file name")
          .optional()
          .describe("Name of a systemd credential: a file in $CREDENTIALS_DIRECTORY."),
      })
      .refine((from) => Object.keys(from).length === 1, {
        message: "must have exactly one of env, file, credential",
      }),
  })
  .describe("Where to find a secret. Secrets never stand in the config.");

const target = {
  name,
  type: text.describe("What kind of place it is; a path or package name for one of your own."),
  required: z.boolean().default(true).describe("false: the rotation ends well without it."),
};

/** Our own keys of a store; all others are its provider's. An array in `write` is the provider's too (the exec store's command). */
export const storeShape = z.looseObject({
  ...target,
  write: z
    .union([z.boolean(), z.array(z.unknown())], { error: "must be true or false" })
    .default(true)
    .describe("false: a mirror that another controller fills; it is only read."),
});

export const rolloutShape = z.looseObject({
  ...target,
  canary: z.boolean().default(false).describe("true: goes first, and must be done before the rest."),
  after: z.array(name).default([]).describe("Names of rollouts that must be done before this one."),
});

export const intakeShape = z.looseObject({ type: text.describe("Any kind of store.") });

const revoke = z
  .strictObject({
    probes: z
      .int()
      .min(1)
      .max(100)
      .default(3)
      .describe("How many proofs in a row show that an old key is dead."),
    every: duration.default("5s").describe("Time between two of them."),
    control: z.boolean().default(true).describe("Ask with a made-up key too. false is said in the proof."),
    escalateAfter: duration
      .default("4h")
      .describe("How long to wait for the person before telling all owners again."),
  })
  .prefault({})
  .describe("How old keys are proved dead.");

const emergency = z
  .strictObject({
    order: z
      .enum(["revoke-first", "replace-first"])
      .default("revoke-first")
      .describe("What the person is asked first. revoke-first is the vendor's procedure, with an outage."),
  })
  .prefault({})
  .describe("What happens after a leak.");

export const appShape = z
  .strictObject({
    baseUrl: z
      .string()
      .superRefine((url, ctx) => {
        const why = checkBaseUrl(url);
        if (why !== null) ctx.addIssue({ code: "custom", message: `is not a base URL: ${why}` });
      })
      .describe("The app's IMKIT address, such as https://your-app.imkit.io."),
    owners: z.array(text).default([]).describe("Who is asked and told; shown in messages and reports."),
    intake: z
      .array(intakeShape)
      .default([])
      .describe("Inboxes: entries of stores where a new key may be laid down, besides `stage`."),
    stores: z
      .array(storeShape)
      .min(1, "must name at least one store")
      .describe("Every place that holds the key."),
    rollouts: z
      .array(rolloutShape)
      .default([])
      .describe("What makes services take the new key up. Empty: a person restarts them and says so."),
    soak: duration
      .default("0s")
      .describe("How long to watch after the rollouts before asking to revoke the old key."),
    revoke,
    emergency,
    rotateEvery: rotateEvery.optional(),
    schedule: schedule.optional(),
    timezone: timezone.optional(),
    remindBefore: remindBefore.optional(),
  })
  .describe("One IMKIT application.");

const on = z
  .array(z.enum(NOTIFY_STATES))
  .min(1, "must name at least one state")
  .default(["*"])
  .describe("Which states to tell.");

const notify = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("webhook"),
    url: z
      .union([z.string().regex(/^https?:\/\/[^\s@]+$/), valueFrom], {
        error: "must be an https URL without a user name, or { valueFrom }",
      })
      .describe("Where to POST a CloudEvents envelope."),
    secret: valueFrom.optional().describe("Signs the message (HMAC-SHA-256)."),
    on,
  }),
  z.strictObject({
    type: z.literal("slack"),
    url: valueFrom.describe("The incoming-webhook URL. It is a secret."),
    on,
  }),
]);

export const configShape = z
  .strictObject({
    $schema: z.string().optional().describe("For editors; not used."),
    schemaVersion: z.literal(1, { error: "must be 1" }).describe("Version of this file format."),
    state: z
      .strictObject({ dir: text.optional().describe("Local directory for ledger, escrow and reports.") })
      .prefault({})
      .describe("Default: $STATE_DIRECTORY, else $XDG_STATE_HOME/imkit-rotator."),
    ledger: z
      .strictObject({ type: z.enum(["file", "kubernetes"]).default("file") })
      .prefault({})
      .describe("Where the append-only record is kept."),
    escrow: z
      .strictObject({
        type: z
          .enum(["file", "kubernetes"])
          .default("file")
          .describe("file: age-encrypted, in the state directory."),
        identity: valueFrom
          .optional()
          .describe("age identity. Default: made once in the user's config folder."),
      })
      .prefault({})
      .describe("Where keys rest, encrypted, while a rotation is open."),
    defaults: z
      .strictObject({
        timezone: timezone.default("UTC"),
        rotateEvery: rotateEvery.default("90d"),
        schedule: schedule.optional(),
        remindBefore: remindBefore.default(["14d", "3d", "0d"]),
      })
      .prefault({})
      .describe("For every app that does not say otherwise."),
    apps: z.record(z.string().regex(NAME, NAME_WORDS), appShape).describe("The IMKIT applications, by name."),
    notify: z.array(notify).default([]).describe("Who is told, besides the terminal."),
    serve: z
      .strictObject({
        listen: z
          .string()
          .regex(/^(\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5}$/, "must be host:port, such as 127.0.0.1:7333")
          .refine((listen) => Number(listen.split(":").at(-1)) <= 65_535, {
            message: "must have a port up to 65535",
          })
          .default("127.0.0.1:7333")
          .describe("Where the daemon answers /healthz, /readyz and /metrics."),
      })
      .prefault({})
      .describe("The daemon (`imkit-rotator serve`)."),
  })
  .describe("Config of imkit-rotator.");

export type ConfigInput = z.output<typeof configShape>;
export type AppInput = z.output<typeof appShape>;
export type NotifyConfig = ConfigInput["notify"][number];
