import * as z from "zod/mini";
import { parseDuration } from "../core/policy.ts";
import { room, text, told } from "./config-room.ts";
import { serveShape } from "./config-serve.ts";
import { checkBaseUrl } from "./imkit-address.ts";
import { isTimezone } from "./timezone.ts";

// Each schema is used once or twice in a process: compiling it first costs more than it saves.
z.config({ jitless: true });

/** States that a notification can be about; `*` is all of them. */
export const NOTIFY_STATES = [
  "*",
  "due",
  "due-in",
  "overdue",
  "escalated",
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
  "inbox-rejected",
  "usage",
  "ledger-broken",
] as const;

export const NAME = /^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/;
export const NAME_WORDS = "must be 1 to 32 of a-z, 0-9 and -, with a letter or digit at both ends";
export const SECRET_INLINE =
  "must be { valueFrom: { env | file | credential } }; a secret written here is exposed and must be replaced";

const name = told(z.string().check(z.regex(NAME, NAME_WORDS)), "Its name in commands, ledger and reports.");

const durationWords = "must be a duration: an integer and ms, s, m, h or d, such as 90d";
const durationForm = /^\d+(ms|s|m|h|d)$/;
const duration = z.string({ error: durationWords }).check(
  z.regex(durationForm, durationWords),
  z.refine(
    (text) => !durationForm.test(text) || parseDuration(text) !== null,
    "must be a duration of at most 36500d",
  ),
);

const timezone = told(
  z.string().check(z.refine(isTimezone, "must be an IANA time zone, such as Asia/Taipei or UTC")),
  "Time zone in which `schedule` is read.",
);

/** Only its form; whether it can ever come is asked of node-cron. */
const schedule = told(
  z
    .string()
    .check(z.regex(/^\s*\S+(\s+\S+){4}\s*$/, 'must be a cron line of five fields, such as "0 10 * * 1-5"')),
  "Cron line (five fields): when a tick may open a rotation or remind. Unset = at every tick.",
);

const rotateEvery = told(duration, "How old a key may become: days of 24 h from the last finished rotation.");
const remindBefore = told(
  z.array(duration).check(z.maxLength(20, "must have at most 20 entries")),
  "How long before the due instant to remind, each once.",
);

/** A secret is never in the config, only where to find it. */
export const valueFrom = told(
  z.strictObject({
    valueFrom: z
      .strictObject({
        env: z.optional(told(text, "Name of an environment variable.")),
        file: z.optional(told(text, "Path of a file; relative to the config file.")),
        credential: z.optional(
          told(
            z.string().check(z.regex(/^[\w.@-]+$/, "must be a plain file name")),
            "Name of a systemd credential: a file in $CREDENTIALS_DIRECTORY.",
          ),
        ),
      })
      .check(
        z.refine((from) => Object.keys(from).length === 1, "must have exactly one of env, file, credential"),
      ),
  }),
  "Where to find a secret. Secrets never stand in the config.",
);

const target = {
  name,
  type: told(text, "What kind of place it is; a path or package name for one of your own."),
  required: told(z._default(z.boolean(), true), "false: the rotation ends well without it."),
};

/** Our own keys of a store; all others are its provider's. An array in `write` is the provider's too (the exec store's command). */
export const storeShape = z.looseObject({
  ...target,
  write: told(
    z._default(z.union([z.boolean(), z.array(z.unknown())], { error: "must be true or false" }), true),
    "false: a mirror that another controller fills; it is only read.",
  ),
});

export const rolloutShape = z.looseObject({
  ...target,
  canary: told(z._default(z.boolean(), false), "true: goes first, and must be done before the rest."),
  after: told(z._default(z.array(name), []), "Names of rollouts that must be done before this one."),
});

export const intakeShape = z.looseObject({ type: told(text, "Any kind of store.") });

const revoke = told(
  z.prefault(
    z.strictObject({
      probes: told(
        z._default(z.int().check(z.minimum(1), z.maximum(100)), 3),
        "How many proofs in a row show that an old key is dead.",
      ),
      every: told(z._default(duration, "5s"), "Time between two of them."),
      control: told(z._default(z.boolean(), true), "Ask with a made-up key too. false is said in the proof."),
      escalateAfter: told(
        z._default(duration, "4h"),
        "How long to wait for the person before telling all owners again.",
      ),
    }),
    {},
  ),
  "How old keys are proved dead.",
);

const emergency = told(
  z.prefault(
    z.strictObject({
      order: told(
        z._default(z.enum(["revoke-first", "replace-first"]), "revoke-first"),
        "What the person is asked first. revoke-first is the vendor's procedure, with an outage.",
      ),
    }),
    {},
  ),
  "What happens after a leak.",
);

const baseUrl = z.string().check(
  z.check<string>((ctx) => {
    const why = checkBaseUrl(ctx.value);
    if (why !== null)
      ctx.issues.push({ code: "custom", input: ctx.value, message: `is not a base URL: ${why}` });
  }),
);

export const appShape = told(
  z.strictObject({
    baseUrl: told(baseUrl, "The app's IMKIT address, such as https://your-app.imkit.io."),
    owners: told(z._default(z.array(text), []), "Who is asked and told; shown in messages and reports."),
    intake: told(
      z._default(z.array(intakeShape), []),
      "Inboxes: entries of stores where a new key may be laid down, besides `stage`.",
    ),
    stores: told(
      z.array(storeShape).check(z.minLength(1, "must name at least one store")),
      "Every place that holds the key.",
    ),
    rollouts: told(
      z._default(z.array(rolloutShape), []),
      "What makes services take the new key up. Empty: a person restarts them and says so.",
    ),
    soak: told(
      z._default(duration, "0s"),
      "How long to watch after the rollouts before asking to revoke the old key.",
    ),
    revoke,
    emergency,
    rotateEvery: z.optional(rotateEvery),
    schedule: z.optional(schedule),
    timezone: z.optional(timezone),
    remindBefore: z.optional(remindBefore),
  }),
  "One IMKIT application.",
);

const SAFE_HOOK = /^(https:|http:\/\/(127\.0\.0\.1|\[::1\]|localhost)([:/]|$))/;

const on = told(
  z._default(z.array(z.enum(NOTIFY_STATES)).check(z.minLength(1, "must name at least one state")), ["*"]),
  "Which states to tell.",
);

const notify = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("webhook"),
    url: told(
      z
        .union([z.string().check(z.regex(/^https?:\/\/[^\s@]+$/)), valueFrom], {
          error: "must be an https URL without a user name, or { valueFrom }",
        })
        .check(
          z.refine((url) => typeof url !== "string" || SAFE_HOOK.test(url), {
            error: "must be https (http is for 127.0.0.1, ::1 and localhost only)",
          }),
        ),
      "Where to POST a CloudEvents envelope.",
    ),
    secret: z.optional(told(valueFrom, "Signs the message (HMAC-SHA-256).")),
    on,
  }),
  z.strictObject({
    type: z.literal("slack"),
    url: told(valueFrom, "The incoming-webhook URL. It is a secret."),
    on,
  }),
]);

export const configShape = told(
  z.strictObject({
    $schema: told(z.optional(z.string()), "For editors; not used."),
    schemaVersion: told(z.literal(1, { error: "must be 1" }), "Version of this file format."),
    state: told(
      z.prefault(
        z.strictObject({ dir: z.optional(told(text, "Local directory for ledger, escrow and reports.")) }),
        {},
      ),
      "Default: $STATE_DIRECTORY, else $XDG_STATE_HOME/imkit-rotator.",
    ),
    ledger: told(z.prefault(z.strictObject(room), {}), "Where the append-only record is kept."),
    escrow: told(
      z.prefault(
        z.strictObject({
          ...room,
          identity: z.optional(
            told(
              valueFrom,
              "age identity. Default: file makes one in the user's config folder, kubernetes none.",
            ),
          ),
        }),
        {},
      ),
      "Where keys rest while a rotation is open. file: age-encrypted, in the state directory.",
    ),
    defaults: told(
      z.prefault(
        z.strictObject({
          timezone: z._default(timezone, "UTC"),
          rotateEvery: z._default(rotateEvery, "90d"),
          schedule: z.optional(schedule),
          remindBefore: z._default(remindBefore, ["14d", "3d", "0d"]),
        }),
        {},
      ),
      "For every app that does not say otherwise.",
    ),
    apps: told(
      z.record(z.string().check(z.regex(NAME, NAME_WORDS)), appShape),
      "The IMKIT applications, by name.",
    ),
    notify: told(z._default(z.array(notify), []), "Who is told, besides the terminal."),
    serve: serveShape,
  }),
  "Config of imkit-rotator.",
);

export type ConfigInput = z.output<typeof configShape>;
export type AppInput = z.output<typeof appShape>;
export type NotifyConfig = ConfigInput["notify"][number];
