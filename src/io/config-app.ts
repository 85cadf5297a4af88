import { RotatorError } from "../core/errors.ts";
import { nearest } from "../core/suggest.ts";
import type { AppConfig, Config } from "./config.ts";

/** The one app that is meant: by name, or the only one. @throws RotatorError APP_UNKNOWN */
export const pickApp = (config: Config, name: string | undefined): AppConfig => {
  const names = [...config.apps.keys()];
  const [only] = names;
  const wanted = name ?? (names.length === 1 ? only : undefined);
  if (wanted === undefined) {
    throw new RotatorError("USAGE", {
      what: names.length === 0 ? "The config has no apps." : "Which app?",
      why:
        names.length === 0 ? `Add one under apps in ${config.path}.` : `The config has ${names.join(", ")}.`,
    });
  }
  const app = config.apps.get(wanted);
  if (app !== undefined) return app;
  const near = nearest(wanted, names);
  throw new RotatorError("APP_UNKNOWN", {
    what: "The config has no app of that name.",
    why: near === null ? `It has ${names.join(", ")}.` : `Did you mean "${near}"?`,
  });
};
