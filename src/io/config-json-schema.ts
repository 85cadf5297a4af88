import * as z from "zod/mini";
import { configShape, intakeShape, rolloutShape, storeShape } from "./config-schema.ts";

type Json = Readonly<Record<string, unknown>>;

/** The built-in kinds' own schemas, by kind. */
export type ProviderSchemas = {
  readonly stores: Readonly<Record<string, z.core.$ZodType>>;
  readonly rollouts: Readonly<Record<string, z.core.$ZodType>>;
};

/** JSON Schema (draft-07, as editors read it) of the config file. A target of a kind that is not built in may have any further keys. */
export const configJsonSchema = (schemas: ProviderSchemas): Json => {
  const whole = toJson(configShape);
  const app = at(whole, "properties", "apps", "additionalProperties");
  const properties = {
    ...at(app, "properties"),
    intake: listOf(at(app, "properties", "intake"), intakeShape, schemas.stores),
    stores: listOf(at(app, "properties", "stores"), storeShape, schemas.stores),
    rollouts: listOf(at(app, "properties", "rollouts"), rolloutShape, schemas.rollouts),
  };
  const apps = {
    ...at(whole, "properties", "apps"),
    minProperties: 1,
    additionalProperties: { ...app, properties },
  };
  return { ...whole, title: "imkit-rotator config", properties: { ...at(whole, "properties"), apps } };
};

const toJson = (schema: z.core.$ZodType): Json =>
  z.toJSONSchema(schema, { target: "draft-7", io: "input", unrepresentable: "any" });

const listOf = (
  list: Json,
  base: z.core.$ZodType,
  kinds: Readonly<Record<string, z.core.$ZodType>>,
): Json => {
  const { $schema: _, ...shape } = toJson(base);
  const builtIn = Object.entries(kinds).flatMap(([kind, schema]) =>
    forms(toJson(schema)).map((own) => join(shape, kind, own)),
  );
  const others = {
    ...shape,
    properties: {
      ...at(shape, "properties"),
      type: { type: "string", pattern: `^(?!(${Object.keys(kinds).join("|")})$).` },
    },
  };
  return { ...list, items: { anyOf: [...builtIn, others] } };
};

/** A provider's schema may be a choice of several objects. */
const forms = (schema: Json): readonly Json[] => {
  const choices = schema["anyOf"] ?? schema["oneOf"];
  return Array.isArray(choices) ? choices.filter(isJson).flatMap(forms) : [schema];
};

const join = (base: Json, kind: string, own: Json): Json => {
  const ours = at(base, "properties");
  const theirs = at(own, "properties");
  const shared = Object.keys(theirs).filter((key) => key in ours);
  return {
    type: "object",
    ...(typeof own["description"] === "string" ? { description: own["description"] } : {}),
    properties: {
      ...ours,
      ...theirs,
      ...Object.fromEntries(shared.map((key) => [key, { anyOf: [ours[key], theirs[key]] }])),
      type: { const: kind },
    },
    required: [...new Set([...namesIn(base["required"]), ...namesIn(own["required"])])],
    additionalProperties: own["additionalProperties"] ?? false,
  };
};

const namesIn = (list: unknown): readonly unknown[] => (Array.isArray(list) ? list : []);

const at = (schema: Json, ...path: readonly string[]): Json =>
  path.reduce<Json>((inner, step) => {
    const next = inner[step];
    return isJson(next) ? next : {};
  }, schema);

const isJson = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);
