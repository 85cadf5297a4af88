import { expect, it } from "vitest";
import { memoryStore } from "../kit/memory-store.ts";
import { storeContract } from "./store.ts";

storeContract({
  it,
  expect,
  name: "memory",
  open: async () => {
    const store = memoryStore();
    return {
      store,
      put: async (secret) => store.put(secret),
      breakIt: async () => {
        store.fault = () => ({ code: "UNAVAILABLE", outcome: "not_applied" });
      },
      writes: async () => store.writes(),
    };
  },
});
