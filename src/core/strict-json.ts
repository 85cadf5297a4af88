export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export type JsonObject = { readonly [name: string]: Json };

const BLANK = /[ \t\n\r]*/y;
/** Control characters are left to JSON.parse to refuse. */
const STRING = /"(?:[^"\\]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const WORD = /true|false|null/y;

/**
 * JSON of RFC 8259 and nothing else: no byte order mark, no rest behind the value. Objects have no prototype, so `__proto__` is a name
 * like any other.
 * @returns undefined for text that is not well formed, that names a member twice (at any depth), or that is nested deeper than `maxDepth`.
 */
export const parseStrictJson = (text: string, maxDepth = 32): Json | undefined => {
  let at = 0;

  const take = (pattern: RegExp): string | null => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0] ?? null;
    if (found !== null) at += found.length;
    return found;
  };
  const refuse = (): never => {
    throw new SyntaxError("not strict JSON");
  };
  const skip = (char: string): boolean => {
    take(BLANK);
    if (text[at] !== char) return false;
    at += 1;
    return true;
  };
  const string = (): string => {
    take(BLANK);
    return JSON.parse(take(STRING) ?? refuse()) as string;
  };

  const object = (depth: number): JsonObject => {
    const made: Record<string, Json> = Object.create(null);
    if (skip("}")) return made;
    do {
      const name = string();
      if (name in made || !skip(":")) refuse();
      made[name] = value(depth + 1);
    } while (skip(","));
    return skip("}") ? made : refuse();
  };
  const array = (depth: number): readonly Json[] => {
    const made: Json[] = [];
    if (skip("]")) return made;
    do made.push(value(depth + 1));
    while (skip(","));
    return skip("]") ? made : refuse();
  };
  const value = (depth: number): Json => {
    if (depth > maxDepth) refuse();
    if (skip("{")) return object(depth);
    if (skip("[")) return array(depth);
    if (text[at] === '"') return string();
    return JSON.parse(take(NUMBER) ?? take(WORD) ?? refuse()) as Json;
  };

  try {
    const whole = value(1);
    take(BLANK);
    return at === text.length ? whole : undefined;
  } catch {
    return undefined;
  }
};
