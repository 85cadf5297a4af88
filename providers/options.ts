/**
 * The part of zod that config keys need, handed to a module that exports a function. Method by method, as zod's own documentation shows
 * it, without its translations; a module that needs more imports a zod of its own. Ours use `zod/mini`, which every start loads.
 */
export {
  any,
  array,
  boolean,
  discriminatedUnion,
  enum,
  int,
  literal,
  looseObject,
  nullable,
  number,
  object,
  optional,
  record,
  strictObject,
  string,
  tuple,
  union,
  unknown,
  url,
} from "zod";
