import * as z from "zod/mini";
import { cronOfEvery } from "../core/every.ts";
import { parseDuration } from "../core/policy.ts";

z.config({ jitless: true });

export type ServeConfig = {
  readonly listen: string;
  readonly host: string;
  readonly port: number;
  readonly everyMs: number;
  /** `everyMs` as a cron line of six fields, in UTC. */
  readonly cron: string;
};

const listen = z.string().check(
  z.regex(/^(\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5}$/, "must be host:port, such as 127.0.0.1:7333"),
  z.refine((address) => !(Number(address.split(":").at(-1)) > 65_535), "must have a port up to 65535"),
  z.describe(
    "Where the daemon answers /healthz, /readyz and /metrics. Port 0 is a free one; the log says which.",
  ),
);

const everyWords = "must be a duration that divides a minute, an hour or a day, such as 10s, 10m or 1h";
const every = z.string({ error: everyWords }).check(
  z.refine((text) => cronOfEvery(parseDuration(text) ?? 0) !== null, everyWords),
  z.describe("How often the daemon makes a tick over all apps."),
);

export const serveShape = z
  .prefault(
    z.strictObject({ listen: z._default(listen, "127.0.0.1:7333"), every: z._default(every, "10m") }),
    {},
  )
  .check(
    z.describe("The daemon (`imkit-rotator serve`). It reads the config once: restart it after a change."),
  );

export const toServe = (input: z.output<typeof serveShape>): ServeConfig => {
  const colon = input.listen.lastIndexOf(":");
  const everyMs = parseDuration(input.every) ?? 0;
  return {
    listen: input.listen,
    host: input.listen.slice(0, colon).replace(/^\[|\]$/g, ""),
    port: Number(input.listen.slice(colon + 1)),
    everyMs,
    cron: cronOfEvery(everyMs) ?? "",
  };
};
