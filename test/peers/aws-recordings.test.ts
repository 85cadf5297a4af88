import { describe, expect, inject, test } from "vitest";
import { differences, recordings } from "../kit/aws-replay.ts";
import { ACCEPTED } from "./aws-differences.ts";

const PEERS = inject("aws");

describe.each(["moto", "ministack"] as const)(
  "%s differs from the real AWS in what is known, and in nothing else",
  (peer) => {
    const accepted: readonly string[] = Object.values(ACCEPTED[peer]).flat();
    test.each(recordings)("$name", async (recording) => {
      const found = await differences(PEERS[peer], "us-east-1", recording);
      const known = accepted.filter((line) => line.startsWith(`${recording.name} `));
      expect(found.map((line) => `${recording.name} ${line}`).toSorted()).toEqual(known.toSorted());
    });
  },
);
