import { expect, test } from "vitest";
import { bounded } from "../../providers/kit.ts";

test("what cannot be taken back is not begun after the limit, not even where no timer could fire meanwhile", async () => {
  const call = bounded(new AbortController().signal, 20, async (_, commit) => {
    // As a process that was stopped and has just been woken: time is over, and the event loop has not come round yet.
    const end = performance.now() + 40;
    while (performance.now() < end);
    commit();
    return "written";
  });
  await expect(call).rejects.toMatchObject({ code: "TIMEOUT", outcome: "not_applied" });
});

test("in time it is done, and a limit that strikes later leaves the outcome open", async () => {
  const { signal } = new AbortController();
  expect(await bounded(signal, 5_000, async (_, commit) => (commit(), "written"))).toBe("written");
  const call = bounded(signal, 20, async (_, commit) => {
    commit();
    await new Promise(() => {});
  });
  await expect(call).rejects.toMatchObject({ code: "TIMEOUT", outcome: "unknown" });
});
