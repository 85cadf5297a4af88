import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { entryOf, withEntry } from "../../providers/stores/aws-secrets-manager-entry.ts";
import { madeKey } from "../kit/leak.ts";

const NAME = "IMKIT_API_KEY";
const refusal = (work: () => unknown): unknown => {
  try {
    work();
  } catch (error) {
    return (error as { readonly code?: unknown }).code;
  }
  return null;
};

describe("one member of a JSON secret", () => {
  test.each([
    ["the only member", '{"IMKIT_API_KEY":"old"}', '{"IMKIT_API_KEY":"NEW"}'],
    [
      "spaces, escapes, numbers and duplicates of neighbours stay",
      ' {"a" : 1.0e+2,\t"b":"\\u0041\\/" , "IMKIT_API_KEY" :\n"old" ,"b":[ "}" , {"c":null} ] }\n',
      ' {"a" : 1.0e+2,\t"b":"\\u0041\\/" , "IMKIT_API_KEY" :\n"NEW" ,"b":[ "}" , {"c":null} ] }\n',
    ],
    ["a name that is written otherwise", '{"IMKIT\\u005fAPI_KEY":"old"}', '{"IMKIT\\u005fAPI_KEY":"NEW"}'],
    [
      "an empty value",
      '{"IMKIT_API_KEY":"","x":"IMKIT_API_KEY"}',
      '{"IMKIT_API_KEY":"NEW","x":"IMKIT_API_KEY"}',
    ],
    [
      "a member of that name further in is another one",
      '{"x":{"IMKIT_API_KEY":"in"}}',
      '{"x":{"IMKIT_API_KEY":"in"},"IMKIT_API_KEY":"NEW"}',
    ],
    [
      "no member yet, in the style of the others",
      '{\n  "a": "1"\n}',
      '{\n  "a": "1",\n  "IMKIT_API_KEY": "NEW"\n}',
    ],
    ["an empty object", "{ }", '{"IMKIT_API_KEY":"NEW" }'],
    ["nothing yet", "", '{"IMKIT_API_KEY":"NEW"}'],
    [
      "a name that JavaScript knows",
      '{"__proto__":{"a":1},"constructor":2}',
      '{"__proto__":{"a":1},"constructor":2,"IMKIT_API_KEY":"NEW"}',
    ],
  ])("%s", (_, before, after) => {
    expect(withEntry(before, NAME, "NEW")).toBe(after);
    expect(entryOf(after, NAME)).toBe("NEW");
  });

  test.each([
    ["twice", '{"IMKIT_API_KEY":"a","IMKIT_API_KEY":"b"}', "CONFLICT"],
    ["twice, once escaped", '{"IMKIT_API_KEY":"a","\\u0049MKIT_API_KEY":"b"}', "CONFLICT"],
    ["an object", '{"IMKIT_API_KEY":{"value":"a"}}', "CONFIG"],
    ["a list", '{"IMKIT_API_KEY":["a"]}', "CONFIG"],
    ["a number", '{"IMKIT_API_KEY":1}', "CONFIG"],
    ["null", '{"IMKIT_API_KEY":null}', "CONFIG"],
    ["no object", '["IMKIT_API_KEY"]', "CONFIG"],
    ["no JSON", "postgres://u:p@h/d", "CONFIG"],
    ["JSON with a comment", '{"IMKIT_API_KEY":"a"} // x', "CONFIG"],
    ["a BOM", '\ufeff{"IMKIT_API_KEY":"a"}', "CONFIG"],
  ])("is refused when it is %s", (_, text, code) => {
    expect(refusal(() => entryOf(text, NAME))).toBe(code);
    expect(refusal(() => withEntry(text, NAME, "NEW"))).toBe(code);
  });

  test("keeps every byte of whatever else is there", () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 5 }),
        fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 5 }),
        fc.constantFrom(undefined, 1, "\t"),
        fc.string({ minLength: 1 }),
        (before, after, indent, value) => {
          const key = madeKey();
          delete before[NAME];
          delete after[NAME];
          const text = JSON.stringify({ ...before, [NAME]: key, ...after }, null, indent);
          const edited = withEntry(text, NAME, value);
          expect(edited.split(JSON.stringify(value)).length).toBeGreaterThan(1);
          expect(withEntry(edited, NAME, key)).toBe(text);
        },
      ),
    );
  });
});

describe("a whole secret", () => {
  test("is the key as it is", () => {
    expect(entryOf("a key \n", null)).toBe("a key \n");
    expect(entryOf("", null)).toBeNull();
    expect(withEntry("old", null, "NEW")).toBe("NEW");
  });

  test("that holds a JSON object is not overwritten", () => {
    expect(refusal(() => withEntry(' {"a":1}', null, "NEW"))).toBe("CONFIG");
  });

  test("is refused when it is larger than AWS takes", () => {
    expect(refusal(() => withEntry("", null, "x".repeat(65_537)))).toBe("TOO_LARGE");
    expect(refusal(() => withEntry(`{"a":"${"é".repeat(32_760)}"}`, NAME, madeKey()))).toBe("TOO_LARGE");
  });
});
