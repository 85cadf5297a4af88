import { expect, it } from "vitest";
import { soak } from "./soak.ts";

/** A longer one: SOAK_MINUTES=10 npm test -- slow soak */
const minutes = Number(process.env["SOAK_MINUTES"] ?? "1");

it(
  `20 apps rotate for ${minutes} min while their daemon is killed again and again: all end, ledgers are sound, nothing is lost or doubled`,
  async () => {
    const { kills, rotations, findings } = await soak({ minutes, apps: 20 });
    expect(findings).toEqual([]);
    expect(kills).toBeGreaterThanOrEqual(minutes * 3);
    expect(rotations).toBeGreaterThanOrEqual(20);
    process.stdout.write(`soak: ${minutes} min, ${kills} kills, ${rotations} rotations\n`);
  },
  (minutes + 10) * 60_000,
);
