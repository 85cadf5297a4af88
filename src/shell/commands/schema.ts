import { builtinSchemas } from "../../../providers/index.ts";
import { configJsonSchema } from "../../io/config-json-schema.ts";
import type { Io } from "../io.ts";

export const schemaCommand = async (io: Io): Promise<number> => {
  io.out(JSON.stringify(configJsonSchema(await builtinSchemas()), null, 2));
  return 0;
};
